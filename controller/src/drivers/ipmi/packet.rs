//! Bytes of IPMI over LAN: the RMCP header, the two session headers, and the message inside. Pure.
//!
//! Keys and sequence windows are `session`'s business; this file only cuts and joins, and trusts no length it reads.
//! Specification: IPMI v2.0 rev. 1.1, sections 13.1 (RMCP), 13.6 (session headers), 13.8 (messages).

/// Largest datagram that is read, in bytes. A BMC's answers stay far below; the rest of a longer one is dropped.
pub const DATAGRAM: usize = 1024;
/// The BMC's address on its own bus, and the address that a remote console uses (IPMI 2.0, table 5-4).
const BMC_ADDRESS: u8 = 0x20;
const CONSOLE_ADDRESS: u8 = 0x81;
/// RMCP 1.0, no acknowledgement wanted, class IPMI.
const RMCP: [u8; 4] = [0x06, 0x00, 0xFF, 0x07];
const AUTH_NONE: u8 = 0x00;
const AUTH_RMCP_PLUS: u8 = 0x06;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;

/// Payload types of RMCP+ (table 13-16).
pub const PAYLOAD_IPMI: u8 = 0x00;
pub const PAYLOAD_OPEN_REQUEST: u8 = 0x10;
pub const PAYLOAD_OPEN_RESPONSE: u8 = 0x11;
pub const PAYLOAD_RAKP1: u8 = 0x12;
pub const PAYLOAD_RAKP2: u8 = 0x13;
pub const PAYLOAD_RAKP3: u8 = 0x14;
pub const PAYLOAD_RAKP4: u8 = 0x15;

/// Why a datagram was not taken. It is dropped, and the wait for the right one goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a datagram that ends within {0}")]
    Short(&'static str),
    #[error("a datagram that is not IPMI over RMCP")]
    NotIpmi,
    #[error("a datagram whose length field does not fit its size")]
    Length,
    #[error("an answer with a wrong checksum")]
    Checksum,
    #[error("an answer to another question")]
    NotAsked,
    #[error("an answer for another session")]
    OtherSession,
    #[error("an answer seen before")]
    Duplicate,
    #[error("an answer whose integrity code is wrong")]
    Integrity,
    #[error("an answer without the encryption and integrity code that were agreed")]
    Unprotected,
    #[error("an answer that does not decrypt")]
    Padding,
}

/// A cursor that never reads past the end.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { rest: bytes, what }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Refusal::Short(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Refusal::Short(self.what))?;
        self.rest = tail;
        Ok(*head)
    }

    pub fn byte(&mut self) -> Result<u8, Refusal> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// An RMCP+ datagram, cut but not yet believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub payload_type: u8,
    pub encrypted: bool,
    pub authenticated: bool,
    pub session: u32,
    pub sequence: u32,
    pub payload: &'a [u8],
    /// What follows the payload: padding, pad length, next header, integrity code.
    pub trailer: &'a [u8],
    /// From the authentication type on; the integrity code covers this without its own bytes.
    whole: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Cuts a datagram into its fields.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Refusal> {
        let whole = after_rmcp(datagram)?;
        let mut r = Reader::new(whole, "the session header");
        if r.byte()? != AUTH_RMCP_PLUS {
            return Err(Refusal::NotIpmi);
        }
        let kind = r.byte()?;
        let (session, sequence) = (r.u32()?, r.u32()?);
        let length = usize::from(u16::from_le_bytes(r.array()?));
        let payload = r.take(length).map_err(|_| Refusal::Length)?;
        let authenticated = kind & AUTHENTICATED != 0;
        let trailer = r.rest();
        // Without a code at most the one byte of legacy padding may follow.
        if !authenticated && trailer.len() > 1 {
            return Err(Refusal::Length);
        }
        Ok(Frame {
            payload_type: kind & 0x3F,
            encrypted: kind & ENCRYPTED != 0,
            authenticated,
            session,
            sequence,
            payload,
            trailer,
            whole,
        })
    }

    /// The bytes that the integrity code covers, and the code, when the trailer is as its lengths say.
    pub fn integrity(&self, code_len: usize) -> Result<(&'a [u8], &'a [u8]), Refusal> {
        let pads =
            self.trailer.len().checked_sub(code_len + 2).ok_or(Refusal::Short("the integrity code"))?;
        let at = self.whole.len().checked_sub(code_len).ok_or(Refusal::Length)?;
        let (covered, code) = self.whole.split_at_checked(at).ok_or(Refusal::Length)?;
        let tail = self.trailer.get(pads..pads + 2).ok_or(Refusal::Length)?;
        let pads = u8::try_from(pads).map_err(|_| Refusal::Length)?;
        if tail != [pads, RMCP[3]] {
            return Err(Refusal::Length);
        }
        Ok((covered, code))
    }
}

fn after_rmcp(datagram: &[u8]) -> Result<&[u8], Refusal> {
    // The sequence number 0xFF asks for no acknowledgement; some BMCs answer with another one, which means nothing.
    let mut r = Reader::new(datagram, "the RMCP header");
    let [version, _, _, class] = r.array()?;
    if [version, class] != [RMCP[0], RMCP[3]] {
        return Err(Refusal::NotIpmi);
    }
    Ok(r.rest())
}

/// The part of an RMCP+ datagram before the integrity code: headers, payload and, if `authenticated`, the padding.
fn join(kind: u8, session: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(payload.len() + 48);
    out.extend(RMCP);
    out.extend([AUTH_RMCP_PLUS, kind]);
    out.extend(session.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(payload);
    out
}

/// A datagram of the session set-up: neither encrypted nor authenticated, session and sequence 0.
pub fn plain(payload_type: u8, payload: &[u8]) -> Vec<u8> {
    join(payload_type, 0, 0, payload)
}

/// A datagram within a session. `code` gets what is covered (from the authentication type to the next header).
pub fn protected(
    payload_type: u8,
    session: u32,
    sequence: u32,
    payload: &[u8],
    code: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut out = join(payload_type | ENCRYPTED | AUTHENTICATED, session, sequence, payload);
    // The covered bytes, with pad length and next header, fill whole words of four.
    let pads = (4 - (out.len() - RMCP.len() + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xFF, pads));
    out.extend([pads as u8, RMCP[3]]);
    let tag = code(out.get(RMCP.len()..).unwrap_or_default());
    out.extend(tag);
    out
}

/// A message outside any session, in the older header: only Get Channel Authentication Capabilities uses it.
pub fn sessionless(message: &[u8]) -> Vec<u8> {
    let mut out = RMCP.to_vec();
    out.push(AUTH_NONE);
    out.extend([0; 8]);
    out.push(u8::try_from(message.len()).unwrap_or(u8::MAX));
    out.extend(message);
    out
}

/// The message of a datagram outside any session.
pub fn parse_sessionless(datagram: &[u8]) -> Result<&[u8], Refusal> {
    let mut r = Reader::new(after_rmcp(datagram)?, "the session header");
    let [auth, header @ ..] = r.array::<9>()?;
    if auth != AUTH_NONE || header != [0; 8] {
        return Err(Refusal::NotIpmi);
    }
    let length = usize::from(r.byte()?);
    let message = r.take(length).map_err(|_| Refusal::Length)?;
    // One byte of legacy padding follows messages of some lengths.
    if r.rest().len() > 1 {
        return Err(Refusal::Length);
    }
    Ok(message)
}

/// An IPMI request: network function, command, data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub netfn: u8,
    pub command: u8,
    pub data: Vec<u8>,
}

/// The answer to a request, its completion code apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub code: u8,
    pub data: Vec<u8>,
}

/// Two's complement of the sum: the bytes and their checksum add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

fn message(to: u8, netfn: u8, from: u8, sequence: u8, tail: &[u8]) -> Vec<u8> {
    let head = [to, netfn << 2];
    let mut out = head.to_vec();
    out.push(checksum(&head));
    let mut body = vec![from, sequence << 2];
    body.extend(tail);
    body.push(checksum(&body));
    out.extend(body);
    out
}

/// Cuts a message into receiver, network function, sequence and what follows (the command first).
fn parse_message(bytes: &[u8], to: u8) -> Result<(u8, u8, u8, &[u8]), Refusal> {
    if bytes.len() < 7 {
        return Err(Refusal::Short("the message"));
    }
    let (head, body) = bytes.split_at_checked(3).ok_or(Refusal::Short("the message"))?;
    if checksum(head) != 0 || checksum(body) != 0 {
        return Err(Refusal::Checksum);
    }
    let mut r = Reader::new(head, "the message");
    let (receiver, netfn) = (r.byte()?, r.byte()? >> 2);
    let mut r = Reader::new(body, "the message");
    let (_, sequence, command) = (r.byte()?, r.byte()? >> 2, r.byte()?);
    let data = r.rest();
    if receiver != to {
        return Err(Refusal::NotAsked);
    }
    Ok((netfn, sequence, command, data.get(..data.len().saturating_sub(1)).unwrap_or_default()))
}

impl Request {
    pub fn encode(&self, sequence: u8) -> Vec<u8> {
        let mut tail = vec![self.command];
        tail.extend(&self.data);
        message(BMC_ADDRESS, self.netfn, CONSOLE_ADDRESS, sequence & 0x3F, &tail)
    }

    /// The answer to this request, if these bytes are it.
    pub fn answer(&self, sequence: u8, bytes: &[u8]) -> Result<Response, Refusal> {
        let (netfn, seq, command, data) = parse_message(bytes, CONSOLE_ADDRESS)?;
        if (netfn, seq, command) != (self.netfn | 1, sequence & 0x3F, self.command) {
            return Err(Refusal::NotAsked);
        }
        let (code, data) = data.split_first().ok_or(Refusal::Short("the message"))?;
        Ok(Response { code: *code, data: data.to_vec() })
    }
}

#[cfg(test)]
impl Request {
    /// The BMC's side: a request and its sequence number.
    pub fn parse(bytes: &[u8]) -> Result<(u8, Request), Refusal> {
        let (netfn, sequence, command, data) = parse_message(bytes, BMC_ADDRESS)?;
        Ok((sequence, Request { netfn, command, data: data.to_vec() }))
    }

    /// The BMC's side: the answer as bytes.
    pub fn encode_answer(&self, sequence: u8, code: u8, data: &[u8]) -> Vec<u8> {
        let mut tail = vec![self.command, code];
        tail.extend(data);
        message(CONSOLE_ADDRESS, self.netfn | 1, BMC_ADDRESS, sequence, &tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_capability_question_is_the_one_that_every_console_sends() {
        let ask = Request { netfn: 6, command: 0x38, data: vec![0x8E, 0x04] };
        let expected = [
            6, 0, 0xFF, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x20, 0x18, 0xC8, 0x81, 0x00, 0x38, 0x8E, 0x04, 0xB5,
        ];
        assert_eq!(sessionless(&ask.encode(0)), expected);
    }

    #[test]
    fn an_answer_is_taken_only_for_its_own_question() {
        let ask = Request { netfn: 0, command: 1, data: vec![] };
        let answer = ask.encode_answer(5, 0, &[0x21, 0, 0]);
        assert_eq!(ask.answer(5, &answer), Ok(Response { code: 0, data: vec![0x21, 0, 0] }));
        assert_eq!(ask.answer(6, &answer), Err(Refusal::NotAsked));
        let other = Request { netfn: 0, command: 2, data: vec![1] };
        assert_eq!(other.answer(5, &answer), Err(Refusal::NotAsked));
        assert_eq!(ask.answer(5, &ask.encode(5)), Err(Refusal::NotAsked), "our own request come back");
        for at in 0..answer.len() {
            let mut broken = answer.clone();
            broken[at] ^= 0x10;
            assert!(ask.answer(5, &broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let mut frame = plain(PAYLOAD_RAKP2, &[1, 2, 3, 4]);
        assert_eq!(Frame::parse(&frame).unwrap().payload, [1, 2, 3, 4]);
        frame[14] = 200;
        assert_eq!(Frame::parse(&frame), Err(Refusal::Length));
        frame[14] = 1;
        assert_eq!(Frame::parse(&frame), Err(Refusal::Length));
        let mut old = sessionless(&[0; 9]);
        old[13] = 10;
        assert_eq!(parse_sessionless(&old), Err(Refusal::Length));
    }

    #[test]
    fn a_protected_frame_fills_whole_words_and_names_its_padding() {
        for len in 0..40 {
            let bytes = protected(PAYLOAD_IPMI, 7, 9, &vec![0xAA; len], |covered| {
                assert_eq!(covered.len() % 4, 0);
                vec![0x55; 16]
            });
            let frame = Frame::parse(&bytes).unwrap();
            assert!(frame.authenticated && frame.encrypted);
            assert_eq!((frame.session, frame.sequence, frame.payload.len()), (7, 9, len));
            let (covered, code) = frame.integrity(16).unwrap();
            assert_eq!((covered.len() % 4, code), (0, [0x55; 16].as_slice()));
            assert_eq!(frame.integrity(12), Err(Refusal::Length), "a code of another length");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = RMCP.to_vec();
            framed.push(6);
            framed.extend(&bytes);
            for input in [&bytes, &framed] {
                if let Ok(frame) = Frame::parse(input) {
                    let _ = (frame.integrity(12), frame.integrity(16));
                }
                let _ = parse_sessionless(input);
                let _ = Request { netfn: 0, command: 1, data: vec![] }.answer(0, input);
                let _ = Request::parse(input);
            }
        }

        #[test]
        fn messages_round_trip(netfn in 0u8..63, command: u8, seq in 0u8..64, data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let ask = Request { netfn: netfn & !1, command, data };
            prop_assert_eq!(Request::parse(&ask.encode(seq)), Ok((seq, ask)));
        }
    }
}
