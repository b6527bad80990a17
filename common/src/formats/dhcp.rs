//! DHCP messages: bytes in, values out, and back.
//!
//! For the controller's server and the agent's client. Sockets, leases and policy are theirs. Follows RFC 2131 and 2132,
//! with RFC 3396 (long options), 3442 (classless routes), 3004 (user class), 4578 (PXE) and iPXE's option 175.
//! Every option is kept as bytes in the order it came; the typed accessors answer `None` for one of a wrong length, as a
//! client that sends nonsense in one option should still be heard on the others.

use crate::ids::MacAddress;
use crate::limits::{DHCP_MESSAGE, DHCP_OPTIONS};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// UDP ports of server and client.
pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
/// Vendor class (option 60) that the agent's own client sends.
pub const AGENT_VENDOR_CLASS: &str = "ferric-agent";
/// The flag by which a client says that it cannot receive unicast before it has an address.
pub const FLAG_BROADCAST: u16 = 0x8000;

const HEADER: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// BOOTP's smallest message; relays and old clients drop shorter ones.
const SHORTEST: usize = 300;
const SNAME: core::ops::Range<usize> = 44..108;
const FILE: core::ops::Range<usize> = 108..236;

/// Option codes that one of the programs reads or writes.
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTERS: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const REQUESTED_IP: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBIND_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY_AGENT: u8 = 82;
    pub const CLIENT_ARCH: u8 = 93;
    pub const CLIENT_UUID: u8 = 97;
    pub const CLASSLESS_ROUTES: u8 = 121;
    pub const TFTP_ADDRESSES: u8 = 150;
    pub const IPXE: u8 = 175;
    pub const END: u8 = 255;
}

/// Why bytes are not a DHCP message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DhcpError {
    #[error("a dhcp message has {found} bytes, it needs at least 240")]
    Short { found: usize },
    #[error("a dhcp message has {found} bytes, at most {DHCP_MESSAGE} are read")]
    Long { found: usize },
    #[error("a dhcp message has operation {0}; only 1 (request) and 2 (reply) exist")]
    Operation(u8),
    #[error(
        "a dhcp message is for hardware type {kind} with {length} address bytes; only Ethernet is served"
    )]
    Hardware { kind: u8, length: u8 },
    #[error("a bootp message without the dhcp magic number")]
    Magic,
    #[error("dhcp option {code} says {length} bytes, but only {left} are left")]
    OptionLength { code: u8, length: usize, left: usize },
    #[error("a dhcp message has more than {DHCP_OPTIONS} options")]
    TooManyOptions,
}

/// Direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Request,
    Reply,
}

/// Option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

impl MessageType {
    const ALL: [MessageType; 8] = [
        Self::Discover,
        Self::Offer,
        Self::Request,
        Self::Decline,
        Self::Ack,
        Self::Nak,
        Self::Release,
        Self::Inform,
    ];
    fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
            Self::Inform => 8,
        }
    }
    fn from_number(number: u8) -> Option<MessageType> {
        Self::ALL.into_iter().find(|t| t.number() == number)
    }
}

/// One route of option 121.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClasslessRoute {
    pub destination: Ipv4Addr,
    /// Bits of the mask, 0 to 32.
    pub prefix: u8,
    pub router: Ipv4Addr,
}

/// One option as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOption {
    pub code: u8,
    pub value: Vec<u8>,
}

/// A DHCP message. `sname` and `file` of the BOOTP header have no field: they are options 66 and 67 here, written to and
/// read from both places, since boot ROMs differ in where they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub op: Op,
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: MacAddress,
    /// One entry a code, in the order of first appearance.
    pub options: Vec<RawOption>,
}

impl Message {
    /// An empty request of a client.
    pub fn request(xid: u32, chaddr: MacAddress, kind: MessageType) -> Message {
        let mut message = Message {
            op: Op::Request,
            xid,
            secs: 0,
            flags: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr,
            options: Vec::new(),
        };
        message.set_message_type(kind);
        message
    }

    /// A server's empty answer to this request: same transaction, flags, relay and client.
    pub fn reply(&self, kind: MessageType) -> Message {
        let mut reply = Message::request(self.xid, self.chaddr, kind);
        reply.op = Op::Reply;
        reply.flags = self.flags;
        reply.giaddr = self.giaddr;
        reply
    }

    /// Reads one datagram.
    ///
    /// # Errors
    /// [`DhcpError`] when the header, the magic number or the framing of the options is wrong. A message type that does
    /// not exist is no error here: [`Message::message_type`] answers `None`.
    pub fn parse(bytes: &[u8]) -> Result<Message, DhcpError> {
        if bytes.len() > DHCP_MESSAGE {
            return Err(DhcpError::Long { found: bytes.len() });
        }
        let short = DhcpError::Short { found: bytes.len() };
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(short.clone())?;
        let (magic, area) =
            bytes.get(HEADER..).and_then(|rest| rest.split_first_chunk::<4>()).ok_or(short.clone())?;
        let op = match array::<1>(header, 0) {
            [1] => Op::Request,
            [2] => Op::Reply,
            [other] => return Err(DhcpError::Operation(other)),
        };
        let [kind, length] = array::<2>(header, 1);
        if kind != 1 || length != 6 {
            return Err(DhcpError::Hardware { kind, length });
        }
        if *magic != MAGIC {
            return Err(DhcpError::Magic);
        }
        let mut message = Message {
            op,
            xid: u32::from_be_bytes(array(header, 4)),
            secs: u16::from_be_bytes(array(header, 8)),
            flags: u16::from_be_bytes(array(header, 10)),
            ciaddr: Ipv4Addr::from(array::<4>(header, 12)),
            yiaddr: Ipv4Addr::from(array::<4>(header, 16)),
            siaddr: Ipv4Addr::from(array::<4>(header, 20)),
            giaddr: Ipv4Addr::from(array::<4>(header, 24)),
            chaddr: MacAddress(array(header, 28)),
            options: Vec::new(),
        };
        message.read_options(area)?;
        let sname = header.get(SNAME).unwrap_or_default();
        let file = header.get(FILE).unwrap_or_default();
        // Option 52: the BOOTP fields carry options too, `file` first (RFC 2131, 4.1).
        let overload = message.option(code::OVERLOAD).and_then(|v| v.first().copied()).unwrap_or(0);
        message.options.retain(|o| o.code != code::OVERLOAD);
        for (bit, field, option) in [(1, file, code::BOOT_FILE), (2, sname, code::TFTP_SERVER)] {
            if overload & bit != 0 {
                message.read_options(field)?;
                message.options.retain(|o| o.code != code::OVERLOAD);
            } else if message.option(option).is_none() {
                let text = until_nul(field);
                if !text.is_empty() {
                    message.set(option, text.to_vec());
                }
            }
        }
        Ok(message)
    }

    fn read_options(&mut self, mut area: &[u8]) -> Result<(), DhcpError> {
        while let Some((&code, rest)) = area.split_first() {
            match code {
                code::PAD => area = rest,
                code::END => return Ok(()),
                _ => {
                    let (length, rest) = rest
                        .split_first()
                        .map(|(&l, r)| (usize::from(l), r))
                        .ok_or(DhcpError::OptionLength { code, length: 1, left: 0 })?;
                    let (value, rest) = rest.split_at_checked(length).ok_or(DhcpError::OptionLength {
                        code,
                        length,
                        left: rest.len(),
                    })?;
                    self.append(code, value)?;
                    area = rest;
                }
            }
        }
        Ok(())
    }

    /// A code that comes again continues its value (RFC 3396).
    fn append(&mut self, code: u8, value: &[u8]) -> Result<(), DhcpError> {
        if let Some(option) = self.options.iter_mut().find(|o| o.code == code) {
            option.value.extend_from_slice(value);
        } else if self.options.len() >= DHCP_OPTIONS {
            return Err(DhcpError::TooManyOptions);
        } else {
            self.options.push(RawOption { code, value: value.to_vec() });
        }
        Ok(())
    }

    /// Writes the datagram, at least 300 bytes long. Values past 255 bytes are split (RFC 3396).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(576);
        out.extend_from_slice(&[if self.op == Op::Request { 1 } else { 2 }, 1, 6, 0]);
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&self.chaddr.0);
        out.resize(SNAME.start, 0);
        // A name fits when a NUL fits behind it; a longer one is in its option alone.
        for (option, end) in [(code::TFTP_SERVER, SNAME.end), (code::BOOT_FILE, FILE.end)] {
            if let Some(value) = self.option(option).filter(|v| out.len() + v.len() < end) {
                out.extend_from_slice(value);
            }
            out.resize(end, 0);
        }
        out.extend_from_slice(&MAGIC);
        for option in &self.options {
            if matches!(option.code, code::PAD | code::END | code::OVERLOAD) {
                continue;
            }
            let mut chunks = option.value.chunks(255);
            let mut chunk = chunks.next().unwrap_or_default();
            loop {
                out.push(option.code);
                out.push(u8::try_from(chunk.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(chunk);
                match chunks.next() {
                    Some(next) => chunk = next,
                    None => break,
                }
            }
        }
        out.push(code::END);
        out.resize(out.len().max(SHORTEST), 0);
        out
    }

    /// The bytes of an option.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|o| o.code == code).map(|o| o.value.as_slice())
    }
    /// Sets an option, in place of what it was.
    pub fn set(&mut self, code: u8, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.options.iter_mut().find(|o| o.code == code) {
            Some(option) => option.value = value,
            None => self.options.push(RawOption { code, value }),
        }
    }
    pub fn set_u16(&mut self, code: u8, value: u16) {
        self.set(code, value.to_be_bytes());
    }
    pub fn set_u32(&mut self, code: u8, value: u32) {
        self.set(code, value.to_be_bytes());
    }
    pub fn set_address(&mut self, code: u8, value: Ipv4Addr) {
        self.set(code, value.octets());
    }
    pub fn set_addresses(&mut self, code: u8, values: &[Ipv4Addr]) {
        self.set(code, values.iter().flat_map(|a| a.octets()).collect::<Vec<u8>>());
    }
    pub fn set_message_type(&mut self, kind: MessageType) {
        self.set(code::MESSAGE_TYPE, [kind.number()]);
    }
    pub fn set_classless_routes(&mut self, routes: &[ClasslessRoute]) {
        let mut value = Vec::new();
        for route in routes.iter().filter(|r| r.prefix <= 32) {
            value.push(route.prefix);
            let used = usize::from(route.prefix.div_ceil(8));
            value.extend(route.destination.octets().into_iter().take(used));
            value.extend_from_slice(&route.router.octets());
        }
        self.set(code::CLASSLESS_ROUTES, value);
    }

    pub fn u8_option(&self, code: u8) -> Option<u8> {
        self.option(code).and_then(|v| <[u8; 1]>::try_from(v).ok()).map(|[b]| b)
    }
    pub fn u16_option(&self, code: u8) -> Option<u16> {
        self.option(code).and_then(|v| <[u8; 2]>::try_from(v).ok()).map(u16::from_be_bytes)
    }
    pub fn u32_option(&self, code: u8) -> Option<u32> {
        self.option(code).and_then(|v| <[u8; 4]>::try_from(v).ok()).map(u32::from_be_bytes)
    }
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code).and_then(|v| <[u8; 4]>::try_from(v).ok()).map(Ipv4Addr::from)
    }
    /// All whole addresses of a list option; empty when the option is absent.
    pub fn addresses_option(&self, code: u8) -> Vec<Ipv4Addr> {
        let mut rest = self.option(code).unwrap_or_default();
        let mut out = Vec::new();
        while let Some((address, after)) = rest.split_first_chunk::<4>() {
            out.push(Ipv4Addr::from(*address));
            rest = after;
        }
        out
    }
    /// A text option without trailing NULs; `None` when absent, empty or not UTF-8.
    pub fn text_option(&self, code: u8) -> Option<String> {
        let text = core::str::from_utf8(until_nul(self.option(code)?)).ok()?;
        (!text.is_empty()).then(|| text.into())
    }

    /// Option 53.
    pub fn message_type(&self) -> Option<MessageType> {
        self.u8_option(code::MESSAGE_TYPE).and_then(MessageType::from_number)
    }
    /// Option 50.
    pub fn requested_ip(&self) -> Option<Ipv4Addr> {
        self.address_option(code::REQUESTED_IP)
    }
    /// Option 54.
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.address_option(code::SERVER_ID)
    }
    /// Option 51, in seconds.
    pub fn lease_seconds(&self) -> Option<u32> {
        self.u32_option(code::LEASE_TIME)
    }
    /// Option 58 (T1), in seconds.
    pub fn renewal_seconds(&self) -> Option<u32> {
        self.u32_option(code::RENEWAL_TIME)
    }
    /// Option 59 (T2), in seconds.
    pub fn rebind_seconds(&self) -> Option<u32> {
        self.u32_option(code::REBIND_TIME)
    }
    /// Option 1.
    pub fn subnet_mask(&self) -> Option<Ipv4Addr> {
        self.address_option(code::SUBNET_MASK)
    }
    /// Option 1 as a prefix length; `None` when absent or not a mask.
    pub fn prefix_length(&self) -> Option<u8> {
        let bits = u32::from(self.subnet_mask()?);
        let ones = bits.leading_ones();
        (bits.count_ones() == ones).then(|| u8::try_from(ones).ok()).flatten()
    }
    /// Option 3.
    pub fn routers(&self) -> Vec<Ipv4Addr> {
        self.addresses_option(code::ROUTERS)
    }
    /// Option 6.
    pub fn dns(&self) -> Vec<Ipv4Addr> {
        self.addresses_option(code::DNS)
    }
    /// Option 42.
    pub fn ntp_servers(&self) -> Vec<Ipv4Addr> {
        self.addresses_option(code::NTP)
    }
    /// Option 12.
    pub fn hostname(&self) -> Option<String> {
        self.text_option(code::HOSTNAME)
    }
    /// Option 15.
    pub fn domain(&self) -> Option<String> {
        self.text_option(code::DOMAIN)
    }
    /// Option 26, in bytes; values below 68 are no MTU.
    pub fn mtu(&self) -> Option<u16> {
        self.u16_option(code::MTU).filter(|&mtu| mtu >= 68)
    }
    /// Option 60.
    pub fn vendor_class(&self) -> Option<String> {
        self.text_option(code::VENDOR_CLASS)
    }
    /// Option 77: the classes of RFC 3004, or the whole value as one class when it is not in that form (iPXE and most
    /// servers send the bare text).
    pub fn user_classes(&self) -> Vec<&[u8]> {
        let Some(value) = self.option(code::USER_CLASS).filter(|v| !v.is_empty()) else { return Vec::new() };
        let mut classes = Vec::new();
        let mut rest = value;
        while let Some((&length, after)) = rest.split_first() {
            match after.split_at_checked(usize::from(length)) {
                Some((class, after)) if length > 0 => {
                    classes.push(class);
                    rest = after;
                }
                _ => return Vec::from([value]),
            }
        }
        classes
    }
    /// Option 93: the first architecture named (0 BIOS, 7 and 9 UEFI x86-64, 11 UEFI arm64, 16 UEFI HTTP x86-64).
    pub fn client_arch(&self) -> Option<u16> {
        self.option(code::CLIENT_ARCH)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
    }
    /// Option 61, type byte included.
    pub fn client_id(&self) -> Option<&[u8]> {
        self.option(code::CLIENT_ID).filter(|v| v.len() >= 2)
    }
    /// Option 97: the machine's UUID in SMBIOS byte order (type byte 0 removed).
    pub fn client_uuid(&self) -> Option<[u8; 16]> {
        match self.option(code::CLIENT_UUID)?.split_first() {
            Some((0, uuid)) => uuid.try_into().ok(),
            _ => None,
        }
    }
    /// Option 67, or the header's `file`.
    pub fn boot_file(&self) -> Option<String> {
        self.text_option(code::BOOT_FILE)
    }
    /// Option 66, or the header's `sname`.
    pub fn tftp_server(&self) -> Option<String> {
        self.text_option(code::TFTP_SERVER)
    }
    /// Option 121.
    pub fn classless_routes(&self) -> Vec<ClasslessRoute> {
        let mut rest = self.option(code::CLASSLESS_ROUTES).unwrap_or_default();
        let mut routes = Vec::new();
        while let Some((&prefix, after)) = rest.split_first().filter(|(p, _)| **p <= 32) {
            let used = usize::from(prefix.div_ceil(8));
            let Some((network, after)) = after.split_at_checked(used) else { break };
            let Some((router, after)) = after.split_first_chunk::<4>() else { break };
            let mut octets = [0u8; 4];
            for (slot, byte) in octets.iter_mut().zip(network) {
                *slot = *byte;
            }
            routes.push(ClasslessRoute {
                destination: octets.into(),
                prefix,
                router: Ipv4Addr::from(*router),
            });
            rest = after;
        }
        routes
    }
    /// The bytes of a sub-option of option 175.
    pub fn ipxe_option(&self, sub: u8) -> Option<&[u8]> {
        let mut rest = self.option(code::IPXE)?;
        loop {
            match rest.split_first()? {
                (&code::PAD, after) => rest = after,
                (&code::END, _) => return None,
                (&code, after) => {
                    let (&length, after) = after.split_first()?;
                    let (value, after) = after.split_at_checked(usize::from(length))?;
                    if code == sub {
                        return Some(value);
                    }
                    rest = after;
                }
            }
        }
    }
    /// Whether iPXE asks (option 175, or user class `iPXE` in either form).
    pub fn is_ipxe(&self) -> bool {
        self.option(code::IPXE).is_some() || self.user_classes().contains(&b"iPXE".as_slice())
    }
    /// Whether this iPXE speaks HTTP. One that sends no feature list is taken to: every build since 2010 has it.
    pub fn ipxe_has_http(&self) -> bool {
        const FEATURE_HTTP: u8 = 19;
        match self.option(code::IPXE) {
            Some(_) => self.ipxe_option(FEATURE_HTTP).is_some_and(|v| v.iter().any(|&b| b != 0)),
            None => self.is_ipxe(),
        }
    }
    /// Whether the answer must be broadcast.
    pub fn wants_broadcast(&self) -> bool {
        self.flags & FLAG_BROADCAST != 0
    }
}

fn array<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    header.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);

    fn discover() -> Message {
        Message::request(0xdead_beef, MAC, MessageType::Discover)
    }
    fn with(code: u8, value: &[u8]) -> Message {
        let mut message = discover();
        message.set(code, value);
        Message::parse(&message.encode()).unwrap()
    }

    #[test]
    fn header_fields_travel() {
        let mut message = discover();
        message.secs = 9;
        message.flags = FLAG_BROADCAST;
        message.yiaddr = Ipv4Addr::new(10, 0, 0, 5);
        message.giaddr = Ipv4Addr::new(10, 1, 0, 1);
        let bytes = message.encode();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 9, 0x80, 0]);
        assert_eq!(Message::parse(&bytes).unwrap(), message);
        let reply = message.reply(MessageType::Offer);
        assert_eq!((reply.op, reply.xid, reply.giaddr), (Op::Reply, message.xid, message.giaddr));
        assert!(reply.wants_broadcast());
    }

    #[test]
    fn typed_options_read() {
        assert_eq!(discover().message_type(), Some(MessageType::Discover));
        assert_eq!(with(51, &[0, 0, 14, 16]).lease_seconds(), Some(3600));
        assert_eq!(with(51, &[0, 14, 16]).lease_seconds(), None);
        assert_eq!(with(1, &[255, 255, 240, 0]).prefix_length(), Some(20));
        assert_eq!(with(1, &[255, 0, 255, 0]).prefix_length(), None);
        assert_eq!(with(3, &[10, 0, 0, 1, 10, 0]).routers(), [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(with(12, b"node-1\0").hostname().as_deref(), Some("node-1"));
        assert_eq!(with(26, &[0, 10]).mtu(), None);
        assert_eq!(with(26, &[0x23, 0x28]).mtu(), Some(9000));
        assert_eq!(with(93, &[0, 7, 0, 9]).client_arch(), Some(7));
        assert_eq!(with(97, &[0; 17]).client_uuid(), Some([0; 16]));
        assert_eq!(with(97, &[1; 17]).client_uuid(), None);
        assert_eq!(with(53, &[99]).message_type(), None);
    }

    #[test]
    fn user_class_in_both_forms() {
        assert_eq!(with(77, b"iPXE").user_classes(), [b"iPXE".as_slice()]);
        assert_eq!(with(77, b"\x04iPXE\x03abc").user_classes(), [b"iPXE".as_slice(), b"abc"]);
        assert!(with(77, b"iPXE").is_ipxe() && with(77, b"\x04iPXE").is_ipxe());
        assert!(!with(77, b"gPXE").is_ipxe());
        assert!(with(77, b"").user_classes().is_empty());
    }

    #[test]
    fn ipxe_features() {
        assert!(with(175, &[19, 1, 1]).ipxe_has_http());
        assert!(!with(175, &[24, 1, 1]).ipxe_has_http());
        assert!(with(175, &[24, 1, 1]).is_ipxe());
        assert!(!with(175, &[19, 9, 1]).ipxe_has_http());
        assert!(with(77, b"iPXE").ipxe_has_http());
    }

    #[test]
    fn classless_routes_travel() {
        let routes = vec![
            ClasslessRoute { destination: [0, 0, 0, 0].into(), prefix: 0, router: [10, 0, 0, 1].into() },
            ClasslessRoute { destination: [10, 17, 0, 0].into(), prefix: 16, router: [10, 0, 0, 2].into() },
            ClasslessRoute {
                destination: [192, 168, 1, 128].into(),
                prefix: 25,
                router: [10, 0, 0, 3].into(),
            },
        ];
        let mut message = discover();
        message.set_classless_routes(&routes);
        assert_eq!(message.option(121).unwrap().len(), 5 + 7 + 9);
        assert_eq!(message.classless_routes(), routes);
        assert!(with(121, &[33, 1, 2, 3, 4, 5, 6, 7, 8]).classless_routes().is_empty());
        assert!(with(121, &[24, 10, 0]).classless_routes().is_empty());
    }

    #[test]
    fn boot_file_is_in_header_and_option() {
        let mut message = discover();
        message.set(code::BOOT_FILE, *b"undionly.kpxe");
        let mut bytes = message.encode();
        assert_eq!(&bytes[108..121], b"undionly.kpxe");
        assert_eq!(Message::parse(&bytes).unwrap(), message);
        // The same without the option, as an old BOOTP server answers.
        bytes.truncate(240);
        assert_eq!(Message::parse(&bytes).unwrap().boot_file().as_deref(), Some("undionly.kpxe"));
        message.set(code::BOOT_FILE, vec![b'x'; 128]);
        assert_eq!(
            message.encode()[108],
            0,
            "a name that leaves no place for the NUL is in the option alone"
        );
    }

    #[test]
    fn overloaded_fields_hold_options() {
        let mut bytes = discover().encode();
        bytes.truncate(240);
        bytes.extend_from_slice(&[53, 1, 2, 52, 1, 3, 255]);
        bytes[108..115].copy_from_slice(&[67, 4, b'b', b'o', b'o', b't', 255]);
        bytes[44..51].copy_from_slice(&[12, 4, b'n', b'o', b'd', b'e', 255]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.message_type(), Some(MessageType::Offer));
        assert_eq!(message.boot_file().as_deref(), Some("boot"));
        assert_eq!(message.hostname().as_deref(), Some("node"));
        assert_eq!(message.option(code::OVERLOAD), None);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let good = discover().encode();
        let check = |change: &dyn Fn(&mut Vec<u8>), text: &str| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(alloc::format!("{}", Message::parse(&bytes).unwrap_err()), text);
        };
        check(&|b| b.truncate(239), "a dhcp message has 239 bytes, it needs at least 240");
        check(&|b| b.resize(5000, 0), "a dhcp message has 5000 bytes, at most 4096 are read");
        check(&|b| b[0] = 3, "a dhcp message has operation 3; only 1 (request) and 2 (reply) exist");
        check(
            &|b| b[1] = 32,
            "a dhcp message is for hardware type 32 with 6 address bytes; only Ethernet is served",
        );
        check(&|b| b[236] = 0, "a bootp message without the dhcp magic number");
        check(
            &|b| {
                b.truncate(240);
                b.extend_from_slice(&[12, 9, 1]);
            },
            "dhcp option 12 says 9 bytes, but only 1 are left",
        );
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let options = proptest::collection::btree_map(
            (1u8..=254).prop_filter("52 describes the framing", |c| *c != 52),
            proptest::collection::vec(any::<u8>(), 0..300),
            0..8,
        );
        (any::<bool>(), any::<u32>(), any::<u16>(), any::<[u32; 4]>(), any::<[u8; 6]>(), options).prop_map(
            |(request, xid, flags, [a, b, c, d], mac, options)| Message {
                op: if request { Op::Request } else { Op::Reply },
                xid,
                secs: flags ^ 7,
                flags,
                ciaddr: a.into(),
                yiaddr: b.into(),
                siaddr: c.into(),
                giaddr: d.into(),
                chaddr: MacAddress(mac),
                options: options.into_iter().map(|(code, value)| RawOption { code, value }).collect(),
            },
        )
    }

    fn touch_all(message: &Message) {
        let _ = (message.message_type(), message.prefix_length(), message.user_classes(), message.is_ipxe());
        let _ = (message.ipxe_has_http(), message.classless_routes(), message.client_uuid(), message.dns());
        let _ = (message.hostname(), message.client_arch(), message.boot_file(), message.vendor_class());
    }

    proptest! {
        #[test]
        fn round_trips(message in any_message()) {
            prop_assert_eq!(Message::parse(&message.encode()).unwrap(), message);
        }
        #[test]
        fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            if let Ok(message) = Message::parse(&bytes) { touch_all(&message) }
        }
        #[test]
        fn never_panics_on_damage(message in any_message(), at in 0usize..2000, value in any::<u8>(), cut in 0usize..2000) {
            let mut bytes = message.encode();
            if let Some(byte) = bytes.get_mut(at) { *byte = value }
            if cut > 240 { bytes.truncate(cut) }
            if let Ok(message) = Message::parse(&bytes) {
                touch_all(&message);
                prop_assert_eq!(&Message::parse(&message.encode()).map(|m| m.options.len()).ok(), &Some(message.options.len()));
            }
        }
    }
}
