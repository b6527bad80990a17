//! Names of things: parsed once at the rim, impossible to mix up inside.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                uuid::Uuid::parse_str(text).map(Self).map_err(|_| IdError::Uuid(clip(text)))
            }
        }
    };
}
uuid_id!(/// Identifies a node.
    NodeUuid);
uuid_id!(/// Identifies a port (a NIC of a node).
    PortUuid);

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("'{0}' is not a UUID")]
    Uuid(String),
    #[error("'{0}' is not a MAC address of the form aa:bb:cc:dd:ee:ff")]
    Mac(String),
    #[error("a {algorithm} checksum has {expected} hexadecimal digits, this one has {found}")]
    DigestLength { algorithm: DigestAlgorithm, expected: usize, found: usize },
    #[error("a checksum holds a character that is not hexadecimal")]
    DigestCharacter,
    #[error("checksum algorithm '{0}' is not supported; use sha256 or sha512")]
    Algorithm(String),
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A 48-bit Ethernet address. Prints and parses as `aa:bb:cc:dd:ee:ff`; also parses the PXE form `01-aa-bb-cc-dd-ee-ff`
/// and the form with hyphens, since boot loaders write both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Mac(clip(text));
        let trimmed = text.trim();
        let body = match trimmed.len() {
            20 if trimmed.starts_with("01-") || trimmed.starts_with("01:") => {
                trimmed.get(3..).ok_or_else(bad)?
            }
            17 => trimmed,
            _ => return Err(bad()),
        };
        let mut out = [0u8; 6];
        let mut parts = body.split([':', '-']);
        for slot in &mut out {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *slot = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(MacAddress(out)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The secret that agent and controller share for one boot. Never prints; `expose()` is easy to search for.
#[derive(Clone)]
pub struct AgentToken(Zeroizing<String>);

impl AgentToken {
    /// Shortest token that either side accepts, in characters (ironic-python-agent refuses shorter ones).
    pub const MIN_LEN: usize = 32;

    /// Wraps a token as it came; `None` if it is too short to be one (for instance the mask `******`).
    pub fn new(text: impl Into<String>) -> Option<AgentToken> {
        let text = Zeroizing::new(text.into());
        (text.len() >= Self::MIN_LEN).then_some(AgentToken(text))
    }
    /// Makes a token from 32 random bytes: 43 characters of base64url.
    pub fn from_random(bytes: &[u8; 32]) -> AgentToken {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(43);
        for chunk in bytes.chunks(3) {
            let mut word = 0u32;
            for i in 0..3 {
                word = (word << 8) | u32::from(chunk.get(i).copied().unwrap_or(0));
            }
            for i in 0..=chunk.len() {
                let index = (word >> (18 - 6 * i)) & 63;
                text.push(char::from(ALPHABET.get(index as usize).copied().unwrap_or(b'A')));
            }
        }
        AgentToken(Zeroizing::new(text))
    }
    /// The secret itself, for the wire and the store only.
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// Compares SHA-256 digests in constant time, so that neither content nor length leaks by timing.
    pub fn matches(&self, other: &str) -> bool {
        let (a, b) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(other.as_bytes()));
        a.as_slice().ct_eq(b.as_slice()).into()
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentToken([redacted])")
    }
}

/// Checksum algorithms that name an image's content. MD5 is weak and refused unless switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestAlgorithm {
    Md5,
    Sha256,
    Sha512,
}

impl DigestAlgorithm {
    /// Length of the checksum in bytes.
    pub fn byte_length(self) -> usize {
        match self {
            DigestAlgorithm::Md5 => 16,
            DigestAlgorithm::Sha256 => 32,
            DigestAlgorithm::Sha512 => 64,
        }
    }
    /// The algorithm whose hexadecimal form has this many digits.
    pub fn from_hex_len(digits: usize) -> Option<DigestAlgorithm> {
        match digits {
            32 => Some(DigestAlgorithm::Md5),
            64 => Some(DigestAlgorithm::Sha256),
            128 => Some(DigestAlgorithm::Sha512),
            _ => None,
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DigestAlgorithm::Md5 => "md5",
            DigestAlgorithm::Sha256 => "sha256",
            DigestAlgorithm::Sha512 => "sha512",
        })
    }
}

impl FromStr for DigestAlgorithm {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.to_ascii_lowercase().as_str() {
            "md5" => Ok(DigestAlgorithm::Md5),
            "sha256" => Ok(DigestAlgorithm::Sha256),
            "sha512" => Ok(DigestAlgorithm::Sha512),
            other => Err(IdError::Algorithm(clip(other))),
        }
    }
}

/// A checksum: algorithm and bytes. Prints as `sha256:ab12…` (whole), parses hexadecimal in either case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    pub algorithm: DigestAlgorithm,
    pub bytes: Vec<u8>,
}

impl Digest {
    /// # Errors
    /// [`IdError::DigestLength`] and [`IdError::DigestCharacter`].
    pub fn from_hex(algorithm: DigestAlgorithm, hex: &str) -> Result<Digest, IdError> {
        let hex = hex.trim();
        let expected = algorithm.byte_length() * 2;
        if hex.len() != expected {
            return Err(IdError::DigestLength { algorithm, expected, found: hex.len() });
        }
        let mut bytes = Vec::with_capacity(algorithm.byte_length());
        for pair in hex.as_bytes().chunks(2) {
            let pair = core::str::from_utf8(pair).map_err(|_| IdError::DigestCharacter)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(IdError::DigestCharacter);
            }
            bytes.push(u8::from_str_radix(pair, 16).map_err(|_| IdError::DigestCharacter)?);
        }
        Ok(Digest { algorithm, bytes })
    }
    /// Lower-case hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(self.bytes.len() * 2);
        for byte in &self.bytes {
            text.push_str(&alloc::format!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_mac_parses_in_every_form_that_boot_loaders_write() {
        for text in ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "01-52-54-00-ab-cd-01", " 52:54:00:ab:cd:01 "]
        {
            assert_eq!(
                text.parse::<MacAddress>().map(|m| m.to_string()),
                Ok("52:54:00:ab:cd:01".to_string()),
                "{text}"
            );
        }
        for text in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0g",
            "52:54:00:ab:cd:01:02",
            "5254.00ab.cd01",
            "+2:54:00:ab:cd:é",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_never_prints_and_compares_whole() {
        let token = AgentToken::from_random(&[7; 32]);
        assert_eq!(token.expose().len(), 43);
        assert!(!format!("{token:?}").contains(token.expose()));
        assert!(token.matches(token.expose()));
        assert!(!token.matches(&token.expose()[..42]));
        assert!(AgentToken::new("******").is_none());
    }

    #[test]
    fn base64url_of_a_token_is_the_standard_one() {
        assert_eq!(
            AgentToken::from_random(&[0xff; 32]).expose(),
            "__________________________________________8"
        );
    }

    #[test]
    fn a_digest_says_what_is_wrong_with_it() {
        let upper = "AB".repeat(32);
        let digest = Digest::from_hex(DigestAlgorithm::Sha256, &upper).unwrap();
        assert_eq!(digest.to_string(), format!("sha256:{}", "ab".repeat(32)));
        let error = Digest::from_hex(DigestAlgorithm::Sha512, &upper).unwrap_err();
        assert_eq!(error.to_string(), "a sha512 checksum has 128 hexadecimal digits, this one has 64");
    }
}
