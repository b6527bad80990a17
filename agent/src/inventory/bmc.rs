//! The address of the machine's BMC, asked of it through IPMI messages (IPMI 2.0, section 23.2, Get LAN Configuration
//! Parameters). Which messages and what the answers mean is here; how they travel is the [`Ipmi`] trait's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Network function and command of Get LAN Configuration Parameters.
const TRANSPORT: u8 = 0x0c;
const GET_LAN: u8 = 0x02;
/// Channels that can be assigned; 0, 12 to 15 have fixed meanings.
const CHANNELS: std::ops::RangeInclusive<u8> = 1..=11;

const IP_ADDRESS: u8 = 3;
const MAC_ADDRESS: u8 = 5;
const ADDRESSING_ENABLES: u8 = 51;
const STATIC_V6: u8 = 56;
const DYNAMIC_V6: u8 = 59;
/// Sets asked of each channel's IPv6 lists; a BMC has one or two.
const SETS: u8 = 4;
/// `IPv6/IPv4 Addressing Enables`: IPv6 only, both.
const WITH_V6: [u8; 2] = [1, 2];
const ACTIVE: u8 = 0;

/// What an answer to `lan print` is when nothing is set, as the reference agent writes it.
const NO_V4: &str = "0.0.0.0";
const NO_V6: &str = "::/0";

/// Addresses as the inventory has them; all `None` on a machine without a BMC that can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bmc {
    pub address: Option<String>,
    pub v6address: Option<String>,
    pub mac: Option<String>,
}

/// Carries one message to the BMC and its answer back.
pub trait Ipmi {
    /// The answer's data behind a completion code of 0.
    ///
    /// # Errors
    /// No answer in time; another completion code is [`io::ErrorKind::Unsupported`].
    fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<Vec<u8>>;
}

/// Asks all channels; the first that has an address speaks for the machine, for each kind of address by itself.
pub fn read(ipmi: &mut dyn Ipmi) -> Bmc {
    let mut found = Bmc::default();
    for channel in CHANNELS {
        let v4 = match parameter(ipmi, channel, IP_ADDRESS, 0) {
            // A channel that is no LAN, or is not there.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => continue,
            // A BMC that does not answer would cost its time-out for each question to come.
            Err(error) => {
                tracing::warn!("asking the BMC for its address: {error}");
                break;
            }
            Ok(data) => v4(&data),
        };
        if v4.is_some() && found.address.is_none() {
            found.mac = parameter(ipmi, channel, MAC_ADDRESS, 0).ok().and_then(|data| mac(&data));
            found.address = v4;
        }
        if found.v6address.is_none() {
            found.v6address = v6(ipmi, channel);
        }
        if found.address.is_some() && found.v6address.is_some() {
            break;
        }
    }
    found.mac = found.mac.or_else(|| first_mac(ipmi));
    Bmc {
        address: found.address.or_else(|| Some(NO_V4.to_owned())),
        v6address: found.v6address.or_else(|| Some(NO_V6.to_owned())),
        mac: found.mac,
    }
}

/// For a BMC that has no IPv4 address yet.
fn first_mac(ipmi: &mut dyn Ipmi) -> Option<String> {
    for channel in CHANNELS {
        match parameter(ipmi, channel, MAC_ADDRESS, 0) {
            Ok(data) => return mac(&data),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(_) => return None,
        }
    }
    None
}

/// The parameter's data, the revision in front of it left out.
fn parameter(ipmi: &mut dyn Ipmi, channel: u8, parameter: u8, set: u8) -> io::Result<Vec<u8>> {
    let mut data = ipmi.ask(TRANSPORT, GET_LAN, &[channel, parameter, set, 0])?;
    if data.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    data.remove(0);
    Ok(data)
}

fn v4(data: &[u8]) -> Option<String> {
    let address = Ipv4Addr::from(*data.first_chunk::<4>()?);
    (!address.is_unspecified()).then(|| address.to_string())
}

fn mac(data: &[u8]) -> Option<String> {
    let mac = ferric_common::ids::MacAddress(*data.first_chunk::<6>()?);
    (mac.0 != [0; 6]).then(|| mac.to_string())
}

/// Dynamic addresses come before static ones.
fn v6(ipmi: &mut dyn Ipmi, channel: u8) -> Option<String> {
    let enables = parameter(ipmi, channel, ADDRESSING_ENABLES, 0).ok()?;
    if !WITH_V6.contains(enables.first()?) {
        return None;
    }
    for kind in [DYNAMIC_V6, STATIC_V6] {
        for set in 0..SETS {
            let Ok(data) = parameter(ipmi, channel, kind, set) else { break };
            if let Some(address) = v6_of(kind, &data) {
                return Some(address);
            }
        }
    }
    None
}

/// Set selector, source, 16 bytes of address, prefix length, status.
fn v6_of(kind: u8, data: &[u8]) -> Option<String> {
    let source = *data.get(1)?;
    let address = Ipv6Addr::from(*data.get(2..)?.first_chunk::<16>()?);
    // Static: bit 7 enables it. Dynamic: 1 by router advertisement, 2 by DHCPv6.
    let enabled = if kind == STATIC_V6 { source & 0x80 != 0 } else { matches!(source & 0x0f, 1 | 2) };
    let usable = enabled && data.get(19) == Some(&ACTIVE) && !address.is_unspecified();
    usable.then(|| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Answers by channel, parameter and set; everything else is not supported.
    #[derive(Default)]
    struct Scripted {
        answers: BTreeMap<(u8, u8, u8), Vec<u8>>,
        asked: usize,
        dead: bool,
    }

    impl Scripted {
        fn with(mut self, channel: u8, parameter: u8, set: u8, data: &[u8]) -> Scripted {
            self.answers.insert((channel, parameter, set), [&[0x11], data].concat());
            self
        }
    }

    impl Ipmi for Scripted {
        fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<Vec<u8>> {
            assert_eq!((function, command), (0x0c, 0x02));
            self.asked += 1;
            if self.dead {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let key = (data[0], data[1], data[2]);
            self.answers.get(&key).cloned().ok_or_else(|| io::ErrorKind::Unsupported.into())
        }
    }

    fn set(number: u8, source: u8, address: &str, status: u8) -> Vec<u8> {
        let address: Ipv6Addr = address.parse().unwrap();
        [&[number, source], &address.octets()[..], &[64, status]].concat()
    }

    fn bmc(address: &str, v6address: &str, mac: Option<&str>) -> Bmc {
        Bmc { address: Some(address.into()), v6address: Some(v6address.into()), mac: mac.map(str::to_owned) }
    }

    #[test]
    fn the_first_channel_with_an_address_speaks() {
        let mut ipmi = Scripted::default()
            .with(1, 3, 0, &[0, 0, 0, 0])
            .with(8, 3, 0, &[10, 0, 0, 5])
            .with(8, 5, 0, &[0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff])
            .with(8, 51, 0, &[2])
            .with(8, 59, 0, &set(0, 1, "fe80::1", 1))
            .with(8, 59, 1, &set(1, 2, "2001:db8::5", 0))
            .with(8, 56, 0, &set(0, 0x80, "2001:db8::6", 0));
        assert_eq!(read(&mut ipmi), bmc("10.0.0.5", "2001:db8::5", Some("aa:bb:cc:dd:ee:ff")));
    }

    #[test]
    fn a_static_address_counts_where_nothing_dynamic_is_active() {
        let mut ipmi = Scripted::default()
            .with(1, 3, 0, &[0, 0, 0, 0])
            .with(1, 5, 0, &[2, 0, 0, 0, 0, 1])
            .with(1, 51, 0, &[1])
            .with(1, 59, 0, &set(0, 0, "2001:db8::7", 0))
            .with(1, 56, 0, &set(0, 0, "2001:db8::8", 0))
            .with(1, 56, 1, &set(1, 0x80, "2001:db8::9", 0));
        assert_eq!(read(&mut ipmi), bmc("0.0.0.0", "2001:db8::9", Some("02:00:00:00:00:01")));
    }

    #[test]
    fn without_a_lan_channel_the_addresses_are_those_of_nobody() {
        let mut ipmi = Scripted::default();
        assert_eq!(read(&mut ipmi), bmc("0.0.0.0", "::/0", None));
    }

    #[test]
    fn a_silent_bmc_is_asked_twice_and_no_more() {
        let mut ipmi = Scripted { dead: true, ..Scripted::default() };
        assert_eq!(read(&mut ipmi), bmc("0.0.0.0", "::/0", None));
        assert_eq!(ipmi.asked, 2);
    }

    #[test]
    fn short_answers_are_no_addresses() {
        for data in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!((v4(data), mac(data), v6_of(STATIC_V6, data)), (None, None, None));
        }
    }
}
