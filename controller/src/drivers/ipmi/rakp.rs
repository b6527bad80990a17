//! Opening an RMCP+ session: what is proposed, the four RAKP messages, and the keys that come out. Pure.
//!
//! Randomness and ids come in as values. Specification: IPMI v2.0 rev. 1.1, sections 13.17 to 13.32.

use super::packet::{Reader, Refusal};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Longest password and user name of IPMI 2.0, in bytes.
pub const PASSWORD: usize = 20;
pub const USER_NAME: usize = 16;
/// "Name-only lookup": the BMC finds the user by name, not by name and privilege.
const NAME_ONLY: u8 = 0x10;

/// A password or a key: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A cipher suite that we speak. Suite 0 (no password at all) and IPMI 1.5 are left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
}

impl Suite {
    pub fn number(self) -> u8 {
        match self {
            Suite::Seventeen => 17,
            Suite::Three => 3,
        }
    }

    /// Algorithm numbers: authentication, integrity, confidentiality.
    pub fn algorithms(self) -> [u8; 3] {
        match self {
            Suite::Seventeen => [3, 4, 1],
            Suite::Three => [1, 1, 1],
        }
    }

    /// Bytes of the key exchange code in RAKP 2 and 3.
    pub fn exchange_len(self) -> usize {
        match self {
            Suite::Seventeen => 32,
            Suite::Three => 20,
        }
    }

    /// Bytes of the integrity code in RAKP 4 and behind each datagram of the session.
    pub fn code_len(self) -> usize {
        match self {
            Suite::Seventeen => 16,
            Suite::Three => 12,
        }
    }

    /// HMAC of the parts in a row, untruncated.
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        match self {
            Suite::Seventeen => whole_mac(Hmac::<Sha256>::new(&block(key).into()), parts),
            Suite::Three => whole_mac(Hmac::<Sha1>::new(&block(key).into()), parts),
        }
    }

    /// Whether `code` is the HMAC cut to `len` bytes; takes the same time for every wrong code.
    pub fn verify(self, key: &[u8], parts: &[&[u8]], code: &[u8], len: usize) -> bool {
        let mac = self.mac(key, parts);
        mac.get(..len).is_some_and(|expected| expected.ct_eq(code).into())
    }
}

/// A key filled up with zeros to the hash's block, as HMAC does. No key here is longer than 32 bytes.
fn block(key: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    out
}

fn whole_mac<M: Mac>(mut mac: M, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// What stands fast after the BMC has opened a session, as both sides see it.
#[derive(Debug, Clone)]
pub struct Opened {
    pub suite: Suite,
    pub console_id: u32,
    pub managed_id: u32,
    pub console_random: [u8; 16],
}

/// Who asks: user, password, privilege, and the BMC's own key where one is set.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: String,
    pub password: Secret,
    /// The BMC key Kg; without one the password's key stands in.
    pub bmc_key: Option<Secret>,
    pub privilege: Privilege,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    Callback = 1,
    User = 2,
    Operator = 3,
    Administrator = 4,
}

impl Privilege {
    pub fn name(self) -> &'static str {
        match self {
            Privilege::Callback => "CALLBACK",
            Privilege::User => "USER",
            Privilege::Operator => "OPERATOR",
            Privilege::Administrator => "ADMINISTRATOR",
        }
    }
}

impl Login {
    /// Role, name length and name: they end RAKP 1 and are covered by every code. The specification puts two
    /// reserved bytes between role and length in the message, and leaves them out of the codes.
    pub fn identity(&self) -> Vec<u8> {
        let mut out = vec![self.role(), u8::try_from(self.user.len()).unwrap_or(u8::MAX)];
        out.extend(self.user.as_bytes());
        out
    }

    fn role(&self) -> u8 {
        NAME_ONLY | self.privilege as u8
    }
}

/// The two keys of a session: integrity and encryption.
pub struct Keys {
    pub integrity: Zeroizing<Vec<u8>>,
    pub encryption: Zeroizing<[u8; 16]>,
}

/// Why the BMC's part of the set-up was not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupError {
    /// Not the answer that is waited for: dropped.
    Ignored(Refusal),
    /// The BMC said no with this status (table 13-15).
    Status(u8),
    /// The BMC knows another password than we do (RAKP 2).
    Password,
    /// The code of RAKP 4 is wrong although the password was right: the BMC has its own key.
    BmcKey,
    /// The BMC chose algorithms that were not proposed.
    Downgrade([u8; 3]),
}

impl From<Refusal> for SetupError {
    fn from(refusal: Refusal) -> Self {
        SetupError::Ignored(refusal)
    }
}

/// Open Session Request. Privilege 0 asks for the highest that the suite allows; RAKP 1 names the wanted one.
pub fn open_request(tag: u8, suite: Suite, console_id: u32) -> Vec<u8> {
    let mut out = vec![tag, 0, 0, 0];
    out.extend(console_id.to_le_bytes());
    for (kind, algorithm) in (0u8..).zip(suite.algorithms()) {
        out.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
    }
    out
}

/// The BMC's session id from its Open Session Response.
pub fn open_response(payload: &[u8], tag: u8, suite: Suite, console_id: u32) -> Result<u32, SetupError> {
    let mut r = accept(payload, tag, console_id)?;
    let managed_id = r.u32()?;
    let mut chosen = [0; 3];
    for slot in &mut chosen {
        let [_, _, _, _, algorithm, _, _, _] = r.array::<8>()?;
        *slot = algorithm & 0x3F;
    }
    match chosen == suite.algorithms() {
        true => Ok(managed_id),
        false => Err(SetupError::Downgrade(chosen)),
    }
}

/// Checks tag, status and session id, which open every answer of the set-up.
fn accept(payload: &[u8], tag: u8, console_id: u32) -> Result<Reader<'_>, SetupError> {
    let mut r = Reader::new(payload, "the session set-up");
    let (its_tag, status) = (r.byte()?, r.byte()?);
    if its_tag != tag {
        return Err(Refusal::NotAsked.into());
    }
    // A refusal may end here (OpenIPMI's simulator), or carry a session id of 0.
    if status != 0 {
        return match r.take(2).and_then(|_| r.u32()) {
            Ok(id) if id != 0 && id != console_id => Err(Refusal::OtherSession.into()),
            _ => Err(SetupError::Status(status)),
        };
    }
    r.take(2)?;
    match r.u32()? == console_id {
        true => Ok(r),
        false => Err(Refusal::OtherSession.into()),
    }
}

pub fn rakp1(tag: u8, opened: &Opened, login: &Login) -> Vec<u8> {
    let mut out = vec![tag, 0, 0, 0];
    out.extend(opened.managed_id.to_le_bytes());
    out.extend(opened.console_random);
    out.extend([login.role(), 0, 0, u8::try_from(login.user.len()).unwrap_or(u8::MAX)]);
    out.extend(login.user.as_bytes());
    out
}

/// What RAKP 2 brings: the BMC's random number and its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2 {
    pub managed_random: [u8; 16],
    pub guid: [u8; 16],
}

impl Rakp2 {
    pub fn parse(payload: &[u8], tag: u8, opened: &Opened, login: &Login) -> Result<Self, SetupError> {
        let mut r = accept(payload, tag, opened.console_id)?;
        let this = Rakp2 { managed_random: r.array()?, guid: r.array()? };
        let code = r.take(opened.suite.exchange_len())?;
        let proof = this.proof(opened, login);
        let parts: Vec<&[u8]> = proof.iter().map(Vec::as_slice).collect();
        let (suite, len) = (opened.suite, opened.suite.exchange_len());
        match suite.verify(login.password.expose(), &parts, code, len) {
            true => Ok(this),
            false => Err(SetupError::Password),
        }
    }

    /// What the code of RAKP 2 covers.
    pub fn proof(&self, opened: &Opened, login: &Login) -> [Vec<u8>; 6] {
        [
            opened.console_id.to_le_bytes().to_vec(),
            opened.managed_id.to_le_bytes().to_vec(),
            opened.console_random.to_vec(),
            self.managed_random.to_vec(),
            self.guid.to_vec(),
            login.identity(),
        ]
    }

    /// RAKP 3, which proves our password.
    pub fn rakp3(&self, tag: u8, opened: &Opened, login: &Login) -> Vec<u8> {
        let mut out = vec![tag, 0, 0, 0];
        out.extend(opened.managed_id.to_le_bytes());
        out.extend(self.rakp3_code(opened, login).iter());
        out
    }

    pub fn rakp3_code(&self, opened: &Opened, login: &Login) -> Zeroizing<Vec<u8>> {
        let id = opened.console_id.to_le_bytes();
        opened.suite.mac(login.password.expose(), &[&self.managed_random, &id, &login.identity()])
    }

    fn session_key(&self, opened: &Opened, login: &Login) -> Zeroizing<Vec<u8>> {
        let key = login.bmc_key.as_ref().unwrap_or(&login.password);
        opened.suite.mac(key.expose(), &[&opened.console_random, &self.managed_random, &login.identity()])
    }

    /// The code of RAKP 4, by which the BMC proves that it has the same session key.
    pub fn rakp4_code(&self, opened: &Opened, login: &Login) -> Zeroizing<Vec<u8>> {
        let id = opened.managed_id.to_le_bytes();
        let key = self.session_key(opened, login);
        let mut code = opened.suite.mac(&key, &[&opened.console_random, &id, &self.guid]);
        code.truncate(opened.suite.code_len());
        code
    }

    pub fn keys(&self, opened: &Opened, login: &Login) -> Keys {
        let session_key = self.session_key(opened, login);
        let integrity = opened.suite.mac(&session_key, &[&[1; 20]]);
        let mut encryption = Zeroizing::new([0; 16]);
        let long = opened.suite.mac(&session_key, &[&[2; 20]]);
        encryption.iter_mut().zip(long.iter()).for_each(|(to, from)| *to = *from);
        Keys { integrity, encryption }
    }

    /// Reads RAKP 4 and derives the keys.
    pub fn rakp4(&self, payload: &[u8], tag: u8, opened: &Opened, login: &Login) -> Result<Keys, SetupError> {
        let mut r = accept(payload, tag, opened.console_id)?;
        let code = r.take(opened.suite.code_len())?;
        match bool::from(self.rakp4_code(opened, login).ct_eq(code)) {
            true => Ok(self.keys(opened, login)),
            false => Err(SetupError::BmcKey),
        }
    }
}

/// RAKP 3 with a bad status: tells a BMC whose RAKP 2 was not good to forget the half-open session.
pub fn rakp3_refuse(tag: u8, managed_id: u32) -> Vec<u8> {
    let mut out = vec![tag, 0x0F, 0, 0];
    out.extend(managed_id.to_le_bytes());
    out
}

/// Words for a status of the session set-up (table 13-15).
pub fn status_text(status: u8) -> &'static str {
    match status {
        0x01 => "insufficient resources to create a session (too many sessions are open)",
        0x02 => "invalid session id",
        0x03 => "invalid payload type",
        0x04 => "invalid authentication algorithm",
        0x05 => "invalid integrity algorithm",
        0x06 => "no matching authentication payload",
        0x07 => "no matching integrity payload",
        0x08 => "inactive session id",
        0x09 => "invalid role",
        0x0A => "unauthorized role or privilege level requested",
        0x0B => "insufficient resources to create a session at the requested role",
        0x0C => "invalid name length",
        0x0D => "unauthorized name",
        0x0E => "unauthorized GUID",
        0x0F => "invalid integrity check value",
        0x10 => "invalid confidentiality algorithm",
        0x11 => "no cipher suite match with proposed security algorithms",
        0x12 => "illegal or unrecognized parameter",
        _ => "unknown status",
    }
}

/// Whether this status of Open Session says "not this suite", so that the next one may be tried.
pub fn suite_unsupported(status: u8) -> bool {
    matches!(status, 0x04..=0x07 | 0x10..=0x12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn login(password: &str) -> Login {
        Login {
            user: "admin".into(),
            password: Secret::new(password.into()),
            bmc_key: None,
            privilege: Privilege::Administrator,
        }
    }

    fn opened(suite: Suite) -> Opened {
        Opened { suite, console_id: 0x0403_0201, managed_id: 0x0807_0605, console_random: [0xA5; 16] }
    }

    /// RAKP 2 as a BMC with this password sends it.
    fn bmc_rakp2(suite: Suite, password: &str) -> (Rakp2, Vec<u8>) {
        let (o, l) = (opened(suite), login(password));
        let message = Rakp2 { managed_random: [0x3C; 16], guid: [0x77; 16] };
        let mut bytes = vec![9, 0, 0, 0];
        bytes.extend(o.console_id.to_le_bytes());
        bytes.extend(message.managed_random);
        bytes.extend(message.guid);
        let proof = message.proof(&o, &l);
        let parts: Vec<&[u8]> = proof.iter().map(Vec::as_slice).collect();
        bytes.extend(suite.mac(l.password.expose(), &parts).iter());
        (message, bytes)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// RFC 2202 case 2 and RFC 4231 case 2: the HMACs are the standard ones.
    #[test]
    fn the_codes_are_the_standards_own() {
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        assert_eq!(hex(&Suite::Three.mac(b"Jefe", &parts)), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(
            hex(&Suite::Seventeen.mac(b"Jefe", &parts)),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn the_right_password_opens_and_the_wrong_one_is_named() {
        for suite in [Suite::Seventeen, Suite::Three] {
            let (message, bytes) = bmc_rakp2(suite, "right");
            assert_eq!(Rakp2::parse(&bytes, 9, &opened(suite), &login("right")), Ok(message.clone()));
            let wrong = Rakp2::parse(&bytes, 9, &opened(suite), &login("wrong"));
            assert_eq!(wrong, Err(SetupError::Password));
            assert_eq!(
                Rakp2::parse(&bytes, 8, &opened(suite), &login("right")),
                Err(SetupError::Ignored(Refusal::NotAsked))
            );
            let mut four = vec![9, 0, 0, 0];
            four.extend(opened(suite).console_id.to_le_bytes());
            four.extend(message.rakp4_code(&opened(suite), &login("right")).iter());
            assert!(message.rakp4(&four, 9, &opened(suite), &login("right")).is_ok());
            let mut with_key = login("right");
            with_key.bmc_key = Some(Secret::new(vec![1; 20]));
            assert_eq!(message.rakp4(&four, 9, &opened(suite), &with_key).err(), Some(SetupError::BmcKey));
        }
    }

    #[test]
    fn weaker_algorithms_than_proposed_are_refused() {
        let mut answer = vec![1, 0, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        for kind in 0..3 {
            answer.extend([kind, 0, 0, 8, 0, 0, 0, 0]);
        }
        assert_eq!(open_response(&answer, 1, Suite::Three, 0x0403_0201), Err(SetupError::Downgrade([0; 3])));
        for status in [0x04, 0x11] {
            let refusal = [1, status, 0, 0, 1, 2, 3, 4];
            for short in [2, 4, 8] {
                let said = open_response(&refusal[..short], 1, Suite::Three, 0x0403_0201);
                assert_eq!(said, Err(SetupError::Status(status)));
            }
            assert!(suite_unsupported(status));
        }
        assert!(!suite_unsupported(0x0D) && !suite_unsupported(0x0F) && !suite_unsupported(0x01));
    }

    #[test]
    fn a_secret_does_not_print() {
        assert!(!format!("{:?}", login("hunter2")).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_set_up(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), good: bool) {
            let o = opened(Suite::Seventeen);
            if good && bytes.len() > 8 {
                bytes[..8].copy_from_slice(&[9, 0, 0, 0, 1, 2, 3, 4]);
            }
            let (message, _) = bmc_rakp2(Suite::Seventeen, "right");
            let _ = open_response(&bytes, 9, o.suite, o.console_id);
            prop_assert!(Rakp2::parse(&bytes, 9, &o, &login("right")).is_err());
            prop_assert!(message.rakp4(&bytes, 9, &o, &login("right")).is_err());
        }
    }
}
