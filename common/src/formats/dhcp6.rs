//! DHCPv6 messages between client and server (RFC 8415): what a client of one address writes and reads.

use crate::limits;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

/// UDP ports, and where all servers and relays of a link listen.
pub const CLIENT_PORT: u16 = 546;
pub const SERVER_PORT: u16 = 547;
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Longest identifier (RFC 8415, section 11.1: 128 bytes behind the type).
const DUID: usize = 130;

/// Kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    InformationRequest = 11,
}

const KINDS: [Kind; 7] = [
    Kind::Solicit,
    Kind::Advertise,
    Kind::Request,
    Kind::Renew,
    Kind::Rebind,
    Kind::Reply,
    Kind::InformationRequest,
];

/// An address and for how long, in seconds; all ones: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub address: Ipv6Addr,
    pub preferred: u32,
    pub valid: u32,
}

/// The addresses of one interface (IA_NA).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Association {
    pub id: u32,
    /// Seconds until the server that granted is asked again, until any is; 0: the client chooses.
    pub renew: u32,
    pub rebind: u32,
    pub granted: Vec<Granted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    /// 24 bits.
    pub xid: u32,
    pub client: Vec<u8>,
    pub server: Option<Vec<u8>>,
    pub association: Option<Association>,
    /// Hundredths of a second since the first message of this exchange.
    pub elapsed: Option<u16>,
    /// The first status that is no success, of the message or of the addresses: its number and text.
    pub refusal: Option<(u16, String)>,
    pub dns: Vec<Ipv6Addr>,
    pub domains: Vec<String>,
    pub ntp: Vec<Ipv6Addr>,
}

impl Message {
    pub fn new(kind: Kind, xid: u32, client: Vec<u8>) -> Message {
        Message {
            kind,
            xid: xid & 0xff_ffff,
            client,
            server: None,
            association: None,
            elapsed: None,
            refusal: None,
            dns: Vec::new(),
            domains: Vec::new(),
            ntp: Vec::new(),
        }
    }

    /// The bytes of a client's message; asks for name servers, domains and time servers.
    pub fn encode(&self) -> Vec<u8> {
        let [_, a, b, c] = self.xid.to_be_bytes();
        let mut out = Vec::from([self.kind as u8, a, b, c]);
        put(&mut out, 1, &self.client);
        if let Some(server) = &self.server {
            put(&mut out, 2, server);
        }
        put(&mut out, 8, &self.elapsed.unwrap_or(0).to_be_bytes());
        put(&mut out, 6, &[0, 23, 0, 24, 0, 31, 0, 56]);
        if let Some(association) = &self.association {
            let mut body = [association.id, association.renew, association.rebind]
                .iter()
                .flat_map(|number| number.to_be_bytes())
                .collect::<Vec<u8>>();
            for granted in &association.granted {
                let mut address = granted.address.octets().to_vec();
                address.extend_from_slice(&granted.preferred.to_be_bytes());
                address.extend_from_slice(&granted.valid.to_be_bytes());
                put(&mut body, 5, &address);
            }
            put(&mut out, 3, &body);
        }
        out
    }

    /// Reads any message; `None` for kinds that no client hears, and for broken ones.
    pub fn parse(bytes: &[u8]) -> Option<Message> {
        let first = *bytes.first()?;
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == first)?;
        let mut found = Message::new(kind, u32_at(bytes, 0)?, Vec::new());
        for option in options(bytes.get(4..)?) {
            let (code, value) = option?;
            match code {
                1 => found.client = value.get(..value.len().min(DUID))?.to_vec(),
                2 => found.server = Some(value).filter(|v| (1..=DUID).contains(&v.len())).map(<[u8]>::to_vec),
                3 => found.read_association(value)?,
                13 => found.read_status(value),
                23 => found.dns.extend(addresses(value)),
                24 => found.domains.extend(domains(value)),
                31 => found.ntp.extend(addresses(value)),
                56 => found.ntp.extend(
                    options(value).flatten().filter(|(code, _)| *code == 1).flat_map(|(_, v)| addresses(v)),
                ),
                _ => {}
            }
        }
        found.dns.truncate(limits::DNS_ANSWERS);
        found.domains.truncate(limits::DNS_ANSWERS);
        found.ntp.truncate(limits::NTP_SERVERS);
        Some(found)
    }

    fn read_association(&mut self, value: &[u8]) -> Option<()> {
        let mut association = Association {
            id: u32_at(value, 0)?,
            renew: u32_at(value, 4)?,
            rebind: u32_at(value, 8)?,
            granted: Vec::new(),
        };
        for option in options(value.get(12..)?) {
            match option? {
                (5, body) if association.granted.len() < limits::DNS_ANSWERS => {
                    association.granted.push(Granted {
                        address: Ipv6Addr::from(*body.first_chunk::<16>()?),
                        preferred: u32_at(body, 16)?,
                        valid: u32_at(body, 20)?,
                    })
                }
                (13, body) => self.read_status(body),
                _ => {}
            }
        }
        self.association = Some(association);
        Some(())
    }

    fn read_status(&mut self, value: &[u8]) {
        if let Some(number) = u16_at(value, 0).filter(|number| *number != 0) {
            let text = String::from_utf8_lossy(value.get(2..).unwrap_or_default());
            let text = text.chars().filter(|c| !c.is_control()).take(128).collect();
            self.refusal.get_or_insert((number, text));
        }
    }
}

fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// Code and value of each option; a `None` in it says that the rest is cut.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    core::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let option = u16_at(bytes, 0).zip(u16_at(bytes, 2)).and_then(|(code, length)| {
            let end = usize::from(length).checked_add(4)?;
            let value = bytes.get(4..end)?;
            bytes = bytes.get(end..)?;
            Some((code, value))
        });
        if option.is_none() {
            bytes = &[];
        }
        Some(option)
    })
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    value.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets))
}

/// Names as DNS writes them, one after the other (RFC 1035, section 3.1), without compression. Stops at the first that is none:
/// letters, digits and hyphens only, as they end up in a file.
pub fn domains(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut name = String::new();
    while let Some((length, rest)) = bytes.split_first() {
        let length = usize::from(*length);
        if length == 0 {
            if name.is_empty() {
                break; // padding
            }
            found.push(core::mem::take(&mut name));
            bytes = rest;
            continue;
        }
        let Some(label) = rest.get(..length).filter(|_| length < 64) else { break };
        if !label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') || name.len() + length > 253 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label));
        bytes = rest.get(length..).unwrap_or_default();
    }
    found
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_comes_back_as_written() {
        let mut message = Message::new(Kind::Request, 0xff12_3456, Vec::from([0, 3, 0, 1, 2, 0, 0, 0, 0, 1]));
        message.server = Some(Vec::from([0, 1, 9]));
        message.association = Some(Association {
            id: 1,
            renew: 2,
            rebind: 3,
            granted: Vec::from([Granted { address: Ipv6Addr::LOCALHOST, preferred: 4, valid: 5 }]),
        });
        let bytes = message.encode();
        assert_eq!(bytes.get(..4), Some(&[3, 0x12, 0x34, 0x56][..]));
        assert_eq!(Message::parse(&bytes).unwrap(), message);
    }

    #[test]
    fn what_a_server_adds_is_read() {
        let mut bytes = Vec::from([7, 0, 0, 9]);
        let server = Ipv6Addr::LOCALHOST.octets();
        put(&mut bytes, 23, &[server, server].concat());
        put(&mut bytes, 24, b"\x03lab\x07example\0\x01x\0\x02a\n\0");
        put(&mut bytes, 31, &server);
        let mut ntp = Vec::new();
        put(&mut ntp, 3, b"\x01x\0");
        put(&mut ntp, 1, &server);
        put(&mut bytes, 56, &ntp);
        put(&mut bytes, 13, b"\0\x02no \x1b[2Jaddress");
        put(&mut bytes, 999, b"?");
        let found = Message::parse(&bytes).unwrap();
        assert_eq!((found.dns.len(), found.ntp.len()), (2, 2));
        assert_eq!(found.domains, ["lab.example", "x"]);
        assert_eq!(found.refusal, Some((2, "no [2Jaddress".into())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&bytes);
            let _ = domains(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = 7;
            }
            let _ = Message::parse(&bytes);
        }
    }
}
