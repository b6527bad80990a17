//! TFTP packets and the negotiation of options: bytes in, values out, and back.
//!
//! Sockets, files and timers are the server's. Follows RFC 1350 (packets), 2347 (options), 2348 (`blksize`), 2349 (`timeout`,
//! `tsize`) and 7440 (`windowsize`).

use crate::limits::{TFTP_BLOCK, TFTP_OPTIONS, TFTP_REQUEST, TFTP_WINDOW};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// The well-known UDP port of requests.
pub const PORT: u16 = 69;
/// Block size without `blksize`, in bytes.
pub const DEFAULT_BLOCK: usize = 512;

/// Codes of an error packet.
pub mod error_code {
    pub const UNDEFINED: u16 = 0;
    pub const NOT_FOUND: u16 = 1;
    pub const ACCESS: u16 = 2;
    pub const ILLEGAL: u16 = 4;
    pub const UNKNOWN_TRANSFER: u16 = 5;
    pub const OPTIONS: u16 = 8;
}

/// Why bytes are not a TFTP packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TftpError {
    #[error("a tftp packet of {0} bytes is too short")]
    Short(usize),
    #[error("a tftp request of {0} bytes; at most {TFTP_REQUEST} are read")]
    LongRequest(usize),
    #[error("tftp has no operation {0}")]
    Operation(u16),
    #[error("a tftp request without a file name and a mode")]
    Request,
    #[error("a tftp packet holds text that is not printable ASCII")]
    Text,
    #[error("a tftp request with more than {TFTP_OPTIONS} options")]
    TooManyOptions,
}

/// One option: its name in lower case, its value as it came.
pub type TftpOption = (String, String);

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `mode` in lower case: `octet`, `netascii` or `mail`.
    Read {
        file: String,
        mode: String,
        options: Vec<TftpOption>,
    },
    /// A request to store a file; its rest is not read, as none is ever taken.
    Write,
    Data {
        block: u16,
        bytes: Vec<u8>,
    },
    Ack {
        block: u16,
    },
    Error {
        code: u16,
        text: String,
    },
    OptionAck(Vec<TftpOption>),
}

impl Packet {
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`TftpError`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Packet, TftpError> {
        let short = || TftpError::Short(bytes.len());
        let (operation, rest) = split_u16(bytes).ok_or_else(short)?;
        match operation {
            1 => {
                if bytes.len() > TFTP_REQUEST {
                    return Err(TftpError::LongRequest(bytes.len()));
                }
                let mut texts = texts(rest)?.into_iter();
                let (file, mode) = texts.next().zip(texts.next()).ok_or(TftpError::Request)?;
                if file.is_empty() {
                    return Err(TftpError::Request);
                }
                Ok(Packet::Read { file, mode: mode.to_ascii_lowercase(), options: pairs(texts)? })
            }
            2 => Ok(Packet::Write),
            3 => {
                split_u16(rest).map(|(block, b)| Packet::Data { block, bytes: b.to_vec() }).ok_or_else(short)
            }
            4 => split_u16(rest).map(|(block, _)| Packet::Ack { block }).ok_or_else(short),
            5 => {
                let (code, text) = split_u16(rest).ok_or_else(short)?;
                let text = text.split(|&b| b == 0).next().unwrap_or_default();
                // Somebody's words for our log: keep what is printable.
                let text = text.iter().take(200).map(|&b| printable(b).unwrap_or('?')).collect();
                Ok(Packet::Error { code, text })
            }
            6 if bytes.len() > TFTP_REQUEST => Err(TftpError::LongRequest(bytes.len())),
            6 => Ok(Packet::OptionAck(pairs(texts(rest)?.into_iter())?)),
            other => Err(TftpError::Operation(other)),
        }
    }

    /// Writes the datagram. A [`Packet::Write`] becomes a request without a name, which every server refuses.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Packet::Read { file, mode, options } => {
                let mut out = Vec::from([0, 1]);
                push_text(&mut out, file);
                push_text(&mut out, mode);
                push_options(&mut out, options);
                out
            }
            Packet::Write => Vec::from([0, 2, 0, 0]),
            Packet::Data { block, bytes } => data(*block, bytes),
            Packet::Ack { block } => {
                let mut out = Vec::from([0, 4]);
                out.extend_from_slice(&block.to_be_bytes());
                out
            }
            Packet::Error { code, text } => {
                let mut out = Vec::from([0, 5]);
                out.extend_from_slice(&code.to_be_bytes());
                push_text(&mut out, text);
                out
            }
            Packet::OptionAck(options) => {
                let mut out = Vec::from([0, 6]);
                push_options(&mut out, options);
                out
            }
        }
    }
}

/// A data packet without taking its bytes.
pub fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().saturating_add(4));
    out.extend_from_slice(&[0, 3]);
    out.extend_from_slice(&block.to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// What a transfer was agreed to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Bytes a block.
    pub block: usize,
    /// Blocks sent before an acknowledgement is awaited.
    pub window: u16,
    /// First wait for an acknowledgement.
    pub timeout: Duration,
    /// What the server says it took; without any, no option acknowledgement is sent and data follows at once.
    pub accepted: Vec<TftpOption>,
}

/// Answers the options of a read request for a file of `length` bytes. Options that are unknown or make no sense are left out,
/// which by RFC 2347 means that they do not apply.
pub fn negotiate(options: &[TftpOption], length: u64) -> Terms {
    let mut terms = Terms {
        block: DEFAULT_BLOCK,
        window: 1,
        timeout: Duration::from_secs(1),
        accepted: Vec::with_capacity(options.len()),
    };
    for (name, value) in options {
        let number = value.parse::<u64>().ok();
        let answer = match (name.as_str(), number) {
            ("blksize", Some(asked @ 8..=65464)) => {
                terms.block = usize::try_from(asked).unwrap_or(TFTP_BLOCK).min(TFTP_BLOCK);
                terms.block.to_string()
            }
            ("windowsize", Some(asked @ 1..=65535)) => {
                terms.window = u16::try_from(asked).unwrap_or(TFTP_WINDOW).min(TFTP_WINDOW);
                terms.window.to_string()
            }
            ("timeout", Some(asked @ 1..=255)) => {
                terms.timeout = Duration::from_secs(asked);
                value.clone()
            }
            ("tsize", Some(_)) => length.to_string(),
            _ => continue,
        };
        if !terms.accepted.iter().any(|(known, _)| known == name) {
            terms.accepted.push((name.clone(), answer));
        }
    }
    terms
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    bytes.split_first_chunk::<2>().map(|(n, rest)| (u16::from_be_bytes(*n), rest))
}

fn printable(byte: u8) -> Option<char> {
    (byte == b' ' || byte.is_ascii_graphic()).then_some(char::from(byte))
}

/// All NUL-terminated texts. Bytes after the last NUL are ignored, as some boot ROMs pad their requests.
fn texts(bytes: &[u8]) -> Result<Vec<String>, TftpError> {
    let Some(last) = bytes.iter().rposition(|&b| b == 0) else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for text in bytes.get(..last).unwrap_or_default().split(|&b| b == 0) {
        if out.len() > 2 * TFTP_OPTIONS + 2 {
            return Err(TftpError::TooManyOptions);
        }
        out.push(text.iter().map(|&b| printable(b)).collect::<Option<String>>().ok_or(TftpError::Text)?);
    }
    Ok(out)
}

fn pairs(mut texts: impl Iterator<Item = String>) -> Result<Vec<TftpOption>, TftpError> {
    let mut out = Vec::new();
    // A name without a value, or an empty name, ends the list: padding.
    while let Some((name, value)) = texts.next().zip(texts.next()).filter(|(name, _)| !name.is_empty()) {
        if out.len() >= TFTP_OPTIONS {
            return Err(TftpError::TooManyOptions);
        }
        out.push((name.to_ascii_lowercase(), value));
    }
    Ok(out)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&b| b != 0));
    out.push(0);
}

fn push_options(out: &mut Vec<u8>, options: &[TftpOption]) {
    for (name, value) in options {
        push_text(out, name);
        push_text(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use proptest::prelude::*;

    fn options(list: &[(&str, &str)]) -> Vec<TftpOption> {
        list.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn requests_read() {
        assert_eq!(
            Packet::parse(b"\0\x01undionly.kpxe\0OCTET\0blksize\x001468\0TSIZE\x000\0").unwrap(),
            Packet::Read {
                file: "undionly.kpxe".into(),
                mode: "octet".into(),
                options: options(&[("blksize", "1468"), ("tsize", "0")]),
            }
        );
        assert_eq!(Packet::parse(b"\0\x02x\0octet\0").unwrap(), Packet::Write);
        let padded = Packet::parse(b"\0\x01f\0octet\0\0\0\0").unwrap();
        assert_eq!(padded, Packet::Read { file: "f".into(), mode: "octet".into(), options: vec![] });
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let check =
            |bytes: &[u8], text: &str| assert_eq!(Packet::parse(bytes).unwrap_err().to_string(), text);
        check(b"\0", "a tftp packet of 1 bytes is too short");
        check(b"\0\x04\0", "a tftp packet of 3 bytes is too short");
        check(b"\0\x09", "tftp has no operation 9");
        check(b"\0\x01file", "a tftp request without a file name and a mode");
        check(b"\0\x01\0octet\0", "a tftp request without a file name and a mode");
        check(b"\0\x01f\n\0octet\0", "a tftp packet holds text that is not printable ASCII");
        check(&[&b"\0\x01"[..], &[b'a'; 600]].concat(), "a tftp request of 602 bytes; at most 512 are read");
        let many = format!("\0\x01f\0octet\0{}", "a\x001\0".repeat(40));
        check(many.as_bytes(), "a tftp request with more than 16 options");
    }

    #[test]
    fn options_are_negotiated_within_the_caps() {
        let check =
            |asked: &[(&str, &str)], block: usize, window: u16, secs: u64, answer: &[(&str, &str)]| {
                let terms = negotiate(&options(asked), 1234);
                let expected =
                    Terms { block, window, timeout: Duration::from_secs(secs), accepted: options(answer) };
                assert_eq!(terms, expected);
            };
        check(&[], 512, 1, 1, &[]);
        check(&[("blksize", "1428")], 1428, 1, 1, &[("blksize", "1428")]);
        check(&[("blksize", "8192")], 1468, 1, 1, &[("blksize", "1468")]);
        check(&[("blksize", "7")], 512, 1, 1, &[]);
        check(&[("windowsize", "64")], 512, 8, 1, &[("windowsize", "8")]);
        check(&[("windowsize", "0"), ("timeout", "0")], 512, 1, 1, &[]);
        check(&[("tsize", "0"), ("timeout", "3")], 512, 1, 3, &[("tsize", "1234"), ("timeout", "3")]);
        check(&[("blksize", "x"), ("multicast", "")], 512, 1, 1, &[]);
        check(&[("tsize", "0"), ("tsize", "0")], 512, 1, 1, &[("tsize", "1234")]);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), op in 0u8..8) {
            let _ = Packet::parse(&bytes);
            let mut framed = vec![0, op];
            framed.extend_from_slice(&bytes);
            if let Ok(Packet::Read { options, .. }) = Packet::parse(&framed) {
                let terms = negotiate(&options, 1);
                prop_assert!(terms.block <= TFTP_BLOCK && terms.window <= TFTP_WINDOW && terms.window > 0);
            }
        }
        #[test]
        fn round_trips(file in "[a-z.]{1,20}", n in any::<u16>(), bytes in proptest::collection::vec(any::<u8>(), 0..600),
                       list in proptest::collection::vec(("[a-z]{1,9}", "[0-9]{0,6}"), 0..8)) {
            for packet in [
                Packet::Read { file: file.clone(), mode: "octet".into(), options: list.clone() },
                Packet::Data { block: n, bytes },
                Packet::Ack { block: n },
                Packet::Error { code: n, text: file },
                Packet::OptionAck(list),
            ] {
                prop_assert_eq!(Packet::parse(&packet.encode()).unwrap(), packet);
            }
        }
    }
}
