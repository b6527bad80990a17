//! Network interfaces, addresses and routes over rtnetlink(7), by hand: so few kinds of message do not need a library.
//!
//! Numbers are those of linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h. Everything from the kernel is still read
//! within bounds: a message cut short ends the list.

mod create;

pub use create::Bond;
use ferric_common::ids::MacAddress;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

const HEADER: usize = 16;
/// Most links and messages read in one answer: a hypervisor host may have thousands of virtual ones.
const LINKS: usize = 4096;
/// Multicast group of link changes (RTMGRP_LINK).
pub const GROUP_LINK: u32 = 1;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `ARPHRD_ETHER` is 1, loopback 772.
    pub hardware: u16,
    pub mac: Option<MacAddress>,
    /// Burnt in; `None` for virtual ones.
    pub permanent: Option<MacAddress>,
    pub up: bool,
    pub carrier: bool,
    pub mtu: u32,
    /// The bond or bridge that it is a part of, by index.
    pub master: Option<u32>,
}

/// A route to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpAddr,
    pub prefix: u8,
    /// `None`: the destination is on the link itself. Of the destination's family.
    pub gateway: Option<IpAddr>,
    /// The source address to prefer.
    pub source: Option<IpAddr>,
    /// Of two routes to one place the lower wins.
    pub metric: u32,
}

pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// # Errors
    /// As socket(2) and bind(2).
    pub fn open(groups: u32) -> io::Result<Netlink> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// As the kernel answers; `TimedOut` if it does not within 5 s.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let sequence = self.send(GET_LINK, DUMP, &link_header(0, 0, 0))?;
        let mut links = Vec::new();
        loop {
            let bytes = self.receive()?;
            for message in messages(&bytes).filter(|m| m.sequence == sequence) {
                match message.kind {
                    DONE => return Ok(links),
                    ERROR => message.outcome()?,
                    NEW_LINK if links.len() < LINKS => links.extend(parse_link(message.body)),
                    _ => {}
                }
            }
        }
    }

    /// Waits up to `time` for news on the groups joined, and drops it: the caller then asks anew.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(&self, time: Duration) -> io::Result<()> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut buffer = [0u8; 16 << 10];
        if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)? > 0 {
            // ENOBUFS says that news was lost, which is news as well.
            let _ = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        }
        Ok(())
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// As the kernel answers: a driver may refuse, for instance for lack of firmware.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.request(NEW_LINK, 0, &link_header(index, 1, 1))
    }

    /// Switches an interface off; its addresses and routes stop working.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        self.request(NEW_LINK, 0, &link_header(index, 0, 1))
    }

    /// # Errors
    /// As the kernel answers: the driver's limits.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut body = link_header(index, 0, 0);
        attribute(&mut body, 4, &mtu.to_ne_bytes());
        self.request(NEW_LINK, 0, &body)
    }

    /// Adds an address, or replaces the same one.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn add_address(&mut self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        self.request(NEW_ADDRESS, CREATE | REPLACE, &address_body(index, address.into(), prefix))
    }

    /// Adds an IPv6 address that the kernel removes by itself after `valid` seconds; all ones: never.
    ///
    /// # Errors
    /// As the kernel answers; `EINVAL` where `valid` is less than `preferred` or zero.
    pub fn add_leased(
        &mut self,
        index: u32,
        address: Ipv6Addr,
        preferred: u32,
        valid: u32,
    ) -> io::Result<()> {
        let mut body = address_body(index, address.into(), 128);
        // struct ifa_cacheinfo: preferred, valid, and two stamps that are the kernel's.
        let cache = [preferred.to_ne_bytes(), valid.to_ne_bytes(), [0; 4], [0; 4]].concat();
        attribute(&mut body, 6, &cache);
        self.request(NEW_ADDRESS, CREATE | REPLACE, &body)
    }

    /// # Errors
    /// As the kernel answers; `EADDRNOTAVAIL` if it is not there.
    pub fn remove_address(&mut self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        self.request(DELETE_ADDRESS, 0, &address_body(index, address.into(), prefix))
    }

    /// Adds a route, or replaces the one of same destination and metric.
    ///
    /// # Errors
    /// As the kernel answers; `ENETUNREACH` for a gateway that is not on the link.
    pub fn add_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        self.request(NEW_ROUTE, CREATE | REPLACE, &route_body(index, route))
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let sequence = self.send(kind, flags | ACK, body)?;
        loop {
            let bytes = self.receive()?;
            if let Some(answer) = messages(&bytes).find(|m| m.kind == ERROR && m.sequence == sequence) {
                return answer.outcome();
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(kind, flags | REQUEST, self.sequence, body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
    out
}

/// `struct ifinfomsg`; `flags` and `change` are IFF_ bits.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut out = vec![0u8; 4];
    out.extend_from_slice(&index.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&change.to_ne_bytes());
    out
}

/// `struct ifaddrmsg` with IFA_LOCAL, IFA_ADDRESS and, for IPv4, IFA_BROADCAST.
fn address_body(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let mut out = vec![family(address), prefix.min(bits(address)), 0, 0];
    out.extend_from_slice(&index.to_ne_bytes());
    attribute(&mut out, 2, &octets(address));
    attribute(&mut out, 1, &octets(address));
    if let IpAddr::V4(address) = address
        && prefix < 31
    {
        let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        attribute(&mut out, 4, &Ipv4Addr::from(u32::from(address) | hosts).octets());
    }
    out
}

/// `struct rtmsg`: main table, protocol "dhcp", unicast.
fn route_body(index: u32, route: &Route) -> Vec<u8> {
    let scope = if route.gateway.is_some() || route.destination.is_ipv6() { 0 } else { 253 };
    let prefix = route.prefix.min(bits(route.destination));
    let mut out = vec![family(route.destination), prefix, 0, 0, 254, 16, scope, 1];
    out.extend_from_slice(&[0; 4]);
    if prefix > 0 {
        attribute(&mut out, 1, &octets(route.destination));
    }
    attribute(&mut out, 4, &index.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        attribute(&mut out, 5, &octets(gateway));
    }
    attribute(&mut out, 6, &route.metric.to_ne_bytes());
    if let Some(source) = route.source {
        attribute(&mut out, 7, &octets(source));
    }
    out
}

/// AF_INET, AF_INET6.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// What a message of kind ERROR says; number 0 is "done".
    fn outcome(&self) -> io::Result<()> {
        match self.body.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes)) {
            Some(0) => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok().filter(|length| *length >= HEADER)?;
        let answer =
            Answer { kind: u16_at(bytes, 4)?, sequence: u32_at(bytes, 8)?, body: bytes.get(HEADER..length)? };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        hardware: u16_at(body, 2)?,
        mac: None,
        permanent: None,
        up: flags & 1 != 0,
        carrier: flags & 0x1_0000 != 0,
        mtu: 0,
        master: None,
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            1 => link.mac = mac(value),
            3 => link.name = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned(),
            4 => link.mtu = u32_at(value, 0).unwrap_or(0),
            10 => link.master = u32_at(value, 0),
            54 => link.permanent = mac(value),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Six bytes that are not all zero: virtual interfaces have an empty address.
fn mac(value: &[u8]) -> Option<MacAddress> {
    <[u8; 6]>::try_from(value).ok().filter(|bytes| *bytes != [0; 6]).map(MacAddress)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_loopback_of_this_machine_is_listed() {
        let links = Netlink::open(0).unwrap().links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.index, lo.hardware, lo.mac), (1, 772, None));
    }

    #[test]
    fn a_refusal_of_the_kernel_is_its_error() {
        let error = Netlink::open(0).unwrap().set_mtu(0x7fff_0000, 1500).unwrap_err();
        assert!([Some(libc::ENODEV), Some(libc::EPERM)].contains(&error.raw_os_error()), "{error}");
    }

    #[test]
    fn a_link_is_read_with_both_addresses() {
        let mut body = link_header(7, 0x1_0001, 0);
        body[2..4].copy_from_slice(&1u16.to_ne_bytes());
        attribute(&mut body, 3, b"eno1\0");
        attribute(&mut body, 1, &[2, 0, 0, 0, 0, 1]);
        attribute(&mut body, 4, &9000u32.to_ne_bytes());
        attribute(&mut body, 54, &[0xaa, 0, 0, 0, 0, 2]);
        let bytes = message(NEW_LINK, 0, 5, &body);
        let link = parse_link(messages(&bytes).next().unwrap().body).unwrap();
        assert_eq!(
            link,
            Link {
                index: 7,
                name: "eno1".into(),
                hardware: 1,
                mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
                permanent: Some(MacAddress([0xaa, 0, 0, 0, 0, 2])),
                up: true,
                carrier: true,
                mtu: 9000,
                master: None,
            }
        );
    }

    #[test]
    fn the_broadcast_address_ends_in_ones() {
        for (prefix, last) in
            [(24, Some([10, 0, 0, 255])), (8, Some([10, 255, 255, 255])), (32, None), (31, None)]
        {
            let body = address_body(3, Ipv4Addr::new(10, 0, 0, 5).into(), prefix);
            let found = attributes(&body[8..]).find(|(kind, _)| *kind == 4).map(|(_, value)| value.to_vec());
            assert_eq!(found, last.map(|bytes| bytes.to_vec()), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&bytes).filter_map(|m| parse_link(m.body)).count();
            let _ = parse_link(&bytes);
        }
    }
}
