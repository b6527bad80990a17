//! One RMCP+ session: sealing what goes out, opening what comes in, and dropping what came before. Pure.
//!
//! The keys come from `rakp`; the initialisation vector of each datagram comes in as a value.
//! Specification: IPMI v2.0 rev. 1.1, sections 6.12.13 (window), 13.28.4 (HMAC), 13.29 (AES-CBC-128).

use super::packet::{self, Frame, PAYLOAD_IPMI, Reader, Refusal, Request, Response};
use super::rakp::{Keys, Suite};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};

const BLOCK: usize = 16;
/// How far behind the newest a datagram may come and still be taken once.
const WINDOW: u32 = 32;

/// The sequence numbers seen so far: each is taken once, and none that is far behind.
#[derive(Debug, Default)]
struct Window {
    newest: u32,
    /// Bit n: `newest - n` was seen.
    seen: u32,
}

impl Window {
    fn take(&mut self, sequence: u32) -> bool {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        // 0 stands for "outside a session".
        if sequence == 0 || behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

/// An open session from one side.
pub struct Session {
    suite: Suite,
    keys: Keys,
    /// The id that datagrams to us carry, and the one that ours carry.
    ours: u32,
    theirs: u32,
    sent: u32,
    heard: Window,
}

impl Session {
    pub fn new(suite: Suite, keys: Keys, ours: u32, theirs: u32) -> Self {
        Session { suite, keys, ours, theirs, sent: 0, heard: Window::default() }
    }

    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The BMC's id for this session; Close Session names it.
    pub fn their_id(&self) -> u32 {
        self.theirs
    }

    /// Encrypts a message and adds number and integrity code. Each call takes a new number, also for a repetition.
    pub fn seal(&mut self, message: &[u8], iv: [u8; BLOCK]) -> Vec<u8> {
        self.sent = self.sent.wrapping_add(1).max(1);
        let payload = encrypt(&self.keys.encryption, iv, message);
        let code = |covered: &[u8]| {
            let mut mac = self.suite.mac(&self.keys.integrity, &[covered]).to_vec();
            mac.truncate(self.suite.code_len());
            mac
        };
        packet::protected(PAYLOAD_IPMI, self.theirs, self.sent, &payload, code)
    }

    /// The message in a datagram, once every check has passed: session, protection, code, number, padding.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, Refusal> {
        let frame = Frame::parse(datagram)?;
        if frame.session != self.ours || frame.payload_type != PAYLOAD_IPMI {
            return Err(Refusal::OtherSession);
        }
        if !frame.authenticated || !frame.encrypted {
            return Err(Refusal::Unprotected);
        }
        let len = self.suite.code_len();
        let (covered, code) = frame.integrity(len)?;
        if !self.suite.verify(&self.keys.integrity, &[covered], code, len) {
            return Err(Refusal::Integrity);
        }
        // The number counts only now: it was not to be believed before the code was checked.
        if !self.heard.take(frame.sequence) {
            return Err(Refusal::Duplicate);
        }
        decrypt(&self.keys.encryption, frame.payload)
    }
}

/// IV, then the message filled up with 1, 2, 3, … and the number of those bytes.
fn encrypt(key: &[u8; BLOCK], iv: [u8; BLOCK], message: &[u8]) -> Vec<u8> {
    let mut text = message.to_vec();
    let pads = (BLOCK - (message.len() + 1) % BLOCK) % BLOCK;
    text.extend((1u8..).take(pads));
    text.push(pads as u8);
    let mut out = iv.to_vec();
    let mut cipher = cbc::Encryptor::<aes::Aes128>::new(&(*key).into(), &iv.into());
    // `text` fills whole blocks: nothing is left over.
    for block in text.as_chunks::<BLOCK>().0 {
        let mut block = (*block).into();
        cipher.encrypt_block(&mut block);
        out.extend(block);
    }
    out
}

fn decrypt(key: &[u8; BLOCK], payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut r = Reader::new(payload, "the encrypted payload");
    let iv: [u8; BLOCK] = r.array()?;
    let (blocks, rest) = r.rest().as_chunks::<BLOCK>();
    if !rest.is_empty() {
        return Err(Refusal::Padding);
    }
    let mut text = Vec::with_capacity(payload.len());
    let mut cipher = cbc::Decryptor::<aes::Aes128>::new(&(*key).into(), &iv.into());
    for block in blocks {
        let mut block = (*block).into();
        cipher.decrypt_block(&mut block);
        text.extend(block);
    }
    let pads = usize::from(text.pop().ok_or(Refusal::Padding)?);
    let keep = text.len().checked_sub(pads).filter(|_| pads < BLOCK).ok_or(Refusal::Padding)?;
    let filling = text.split_off(keep);
    match filling.iter().copied().eq((1u8..).take(pads)) {
        true => Ok(text),
        false => Err(Refusal::Padding),
    }
}

/// A request within a session: the same sequence number of the message for each repetition.
pub struct Ask<'a> {
    pub session: &'a mut Session,
    pub request: &'a Request,
    pub sequence: u8,
}

impl Ask<'_> {
    pub fn datagram(&mut self, iv: [u8; BLOCK]) -> Vec<u8> {
        self.session.seal(&self.request.encode(self.sequence), iv)
    }

    pub fn accept(&mut self, datagram: &[u8]) -> Result<Response, Refusal> {
        let message = self.session.open(datagram)?;
        self.request.answer(self.sequence, &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn pair(suite: Suite) -> (Session, Session) {
        let keys = || Keys {
            integrity: Zeroizing::new(vec![7; suite.exchange_len()]),
            encryption: Zeroizing::new([9; 16]),
        };
        (Session::new(suite, keys(), 1, 2), Session::new(suite, keys(), 2, 1))
    }

    #[test]
    fn each_number_is_taken_once_and_none_far_behind() {
        let mut window = Window::default();
        for (sequence, taken) in [
            (0, false),
            (1, true),
            (1, false),
            (5, true),
            (3, true),
            (3, false),
            (40, true),
            (8, false),
            (9, true),
        ] {
            assert_eq!(window.take(sequence), taken, "number {sequence}");
        }
        assert!(window.take(u32::MAX));
        assert!(!window.take(9));
    }

    #[test]
    fn what_one_side_seals_the_other_opens_once() {
        for suite in [Suite::Seventeen, Suite::Three] {
            let (mut console, mut bmc) = pair(suite);
            for len in 0..70 {
                let message: Vec<u8> = (0..len).collect();
                let datagram = console.seal(&message, [len; 16]);
                assert_eq!(bmc.open(&datagram), Ok(message));
                assert_eq!(bmc.open(&datagram), Err(Refusal::Duplicate));
            }
            let datagram = console.seal(b"seven b", [1; 16]);
            for at in 4..datagram.len() {
                let mut broken = datagram.clone();
                broken[at] ^= 1;
                assert!(bmc.open(&broken).is_err(), "byte {at}");
            }
            assert!(bmc.open(&datagram).is_ok(), "broken copies did not use up the number");
            assert_eq!(console.open(&datagram), Err(Refusal::OtherSession), "our own datagram come back");
        }
    }

    #[test]
    fn an_unprotected_answer_within_a_session_is_refused() {
        let (mut console, _) = pair(Suite::Three);
        let mut plain = packet::plain(PAYLOAD_IPMI, &[0; 8]);
        plain[6] = 1;
        assert_eq!(console.open(&plain), Err(Refusal::Unprotected));
    }

    proptest! {
        #[test]
        fn no_ciphertext_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decrypt(&[3; 16], &bytes);
            let (mut console, _) = pair(Suite::Seventeen);
            prop_assert!(console.open(&bytes).is_err());
        }
    }
}
