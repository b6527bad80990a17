//! Router advertisements (RFC 4861, section 4.2) as far as a host's own programs need them: whether DHCPv6 is to be asked, and
//! name servers (RFC 8106). Addresses and routes are the kernel's.

use crate::formats::dhcp6::{domains, u16_at, u32_at};
use crate::limits;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

/// A router solicitation without options; the kernel fills in the checksum.
pub const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];
const ADVERTISEMENT: u8 = 134;

/// What a router says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterAdvert {
    /// Addresses come by DHCPv6.
    pub managed: bool,
    /// Addresses come of the prefixes, the rest by DHCPv6.
    pub other: bool,
    /// Seconds for which it is a default router; 0: it is none.
    pub router_seconds: u16,
    pub dns: Vec<Ipv6Addr>,
    pub domains: Vec<String>,
}

/// Reads an ICMPv6 message; `None` for any other than a router advertisement, and for a broken one.
pub fn parse(bytes: &[u8]) -> Option<RouterAdvert> {
    if *bytes.first()? != ADVERTISEMENT || *bytes.get(1)? != 0 {
        return None;
    }
    let flags = *bytes.get(5)?;
    let mut found = RouterAdvert {
        managed: flags & 0x80 != 0,
        other: flags & 0x40 != 0,
        router_seconds: u16_at(bytes, 6)?,
        ..RouterAdvert::default()
    };
    let mut rest = bytes.get(16..)?;
    while !rest.is_empty() {
        let length = usize::from(*rest.get(1)?).checked_mul(8).filter(|length| *length > 0)?;
        let option = rest.get(..length)?;
        rest = rest.get(length..)?;
        // A lifetime of zero takes back what was said before.
        let alive = u32_at(option, 4).is_some_and(|seconds| seconds > 0);
        match option.first() {
            Some(25) if alive => {
                let servers = option.get(8..)?.as_chunks::<16>().0;
                found.dns.extend(servers.iter().map(|server| Ipv6Addr::from(*server)));
            }
            Some(31) if alive => found.domains.extend(domains(option.get(8..)?)),
            _ => {}
        }
    }
    found.dns.truncate(limits::DNS_ANSWERS);
    found.domains.truncate(limits::DNS_ANSWERS);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn advert(flags: u8, options: &[u8]) -> Vec<u8> {
        [&[134, 0, 0, 0, 64, flags, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], options].concat()
    }

    #[test]
    fn flags_name_servers_and_domains_are_read() {
        let server = "2001:db8::53".parse::<Ipv6Addr>().unwrap();
        let dns = [&[25, 3, 0, 0, 0, 0, 0, 9][..], &server.octets()].concat();
        let over = [&[25, 3, 0, 0, 0, 0, 0, 0][..], &server.octets()].concat();
        let names = *b"\x1f\x03\0\0\0\0\0\x09\x01a\x03org\0\0\0\0\0\0\0\0\0\0";
        let bytes = advert(0xc0, &[&[1, 1, 2, 0, 0, 0, 0, 1][..], &dns, &over, &names].concat());
        let found = parse(&bytes).unwrap();
        assert_eq!((found.managed, found.other, found.router_seconds), (true, true, 0x0708));
        assert_eq!((found.dns, found.domains), (Vec::from([server]), Vec::from(["a.org".into()])));
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_refused() {
        let good = advert(0, &[1, 1, 0, 0, 0, 0, 0, 0]);
        assert!(parse(&good).is_some());
        for bad in [&good[..15], &good[..20], &[135], &[], &advert(0, &[1, 0, 0, 0, 0, 0, 0, 0])] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&advert(0, &bytes));
        }
    }
}
