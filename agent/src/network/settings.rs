//! What the network child found, for the rest of the agent: `/run/ferric/network.json` and `/etc/resolv.conf`. Pure but for
//! [`read`].

use super::client::Lease;
use crate::platform::linux::STATE_DIR;
use ferric_common::ids::MacAddress;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The C library's resolver looks at no more.
const NAME_SERVERS: usize = 3;

/// All NICs, the one the machine was booted from first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Network {
    pub nics: Vec<Nic>,
}

/// One NIC and its lease.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Nic {
    pub name: String,
    pub mac: MacAddress,
    /// Whether `BOOTIF` names it.
    pub boot: bool,
    pub carrier: bool,
    pub lease: Option<NicLease>,
    #[serde(default)]
    pub six: Six,
    /// What `network_data.json` of the boot medium says.
    #[serde(default)]
    pub fixed: Option<Fixed>,
}

/// What routers and DHCPv6 servers said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Six {
    pub addresses: Vec<Ipv6Addr>,
    /// As they stand in `resolv.conf`: a link-local one names its interface.
    pub dns: Vec<String>,
    pub domains: Vec<String>,
    pub ntp: Vec<Ipv6Addr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fixed {
    pub addresses: Vec<IpAddr>,
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct NicLease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub server: Ipv4Addr,
    pub router: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub hostname: Option<String>,
    pub mtu: Option<u16>,
    /// `None`: for ever.
    pub seconds: Option<u32>,
}

impl From<&Lease> for NicLease {
    fn from(lease: &Lease) -> NicLease {
        NicLease {
            address: lease.address,
            prefix: lease.prefix,
            server: lease.server,
            router: lease.router,
            dns: lease.dns.clone(),
            ntp: lease.ntp.clone(),
            domain: lease.domain.clone(),
            hostname: lease.hostname.clone(),
            mtu: lease.mtu,
            seconds: lease.seconds,
        }
    }
}

impl Network {
    /// Whether any NIC has an address.
    pub fn has_address(&self) -> bool {
        let has = |nic: &Nic| nic.lease.is_some() || nic.fixed.is_some() || !nic.six.addresses.is_empty();
        self.nics.iter().any(has)
    }

    /// Time servers that the network named, in order.
    pub fn ntp(&self) -> Vec<IpAddr> {
        let of = |nic: &Nic| -> Vec<IpAddr> {
            let fixed = nic.fixed.iter().flat_map(|fixed| fixed.ntp.iter().copied());
            let four = nic.lease.iter().flat_map(|lease| lease.ntp.iter().copied().map(IpAddr::from));
            fixed.chain(four).chain(nic.six.ntp.iter().copied().map(IpAddr::from)).collect()
        };
        self.nics.iter().flat_map(of).collect()
    }

    /// The text of `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        let mut domains: Vec<&str> = Vec::new();
        let mut servers: Vec<String> = Vec::new();
        for nic in &self.nics {
            let four = nic.lease.iter().filter_map(|lease| lease.domain.as_deref());
            for domain in four.chain(nic.six.domains.iter().map(String::as_str)) {
                if !domains.contains(&domain) {
                    domains.push(domain);
                }
            }
            let fixed = nic.fixed.iter().flat_map(|fixed| fixed.dns.iter().map(IpAddr::to_string));
            let four = nic.lease.iter().flat_map(|lease| lease.dns.iter().map(Ipv4Addr::to_string));
            for server in fixed.chain(four).chain(nic.six.dns.iter().cloned()) {
                if !servers.contains(&server) && servers.len() < NAME_SERVERS {
                    servers.push(server);
                }
            }
        }
        let search =
            if domains.is_empty() { String::new() } else { format!("search {}\n", domains.join(" ")) };
        servers.iter().fold(search, |text, server| format!("{text}nameserver {server}\n"))
    }
}

/// The network as the child last wrote it; `None` before it did.
pub fn read() -> Option<Network> {
    serde_json::from_slice(&std::fs::read(path()).ok()?).ok()
}

pub(super) fn path() -> PathBuf {
    Path::new(STATE_DIR).join("network.json")
}

/// The NIC that the machine was booted from, of a kernel command line. The last `BOOTIF` counts.
pub fn boot_interface(command_line: &str) -> Option<MacAddress> {
    command_line.split_whitespace().filter_map(|word| word.strip_prefix("BOOTIF=")).next_back()?.parse().ok()
}

/// How long a switch may take to speak by LLDP before its silence is told: `ipa-lldp-timeout`, in seconds. What it does not say well is
/// refused elsewhere; 30 s here.
pub fn lldp_patience(command_line: &str) -> Duration {
    let words = command_line.split_whitespace();
    let given = words.filter_map(|word| word.strip_prefix("ipa-lldp-timeout=")).next_back();
    let seconds = given.and_then(|text| text.parse::<f64>().ok()).filter(|s| (1.0..=3600.0).contains(s));
    seconds.map_or(Duration::from_secs(30), Duration::from_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_a_switch_is_borne_as_long_as_was_said() {
        let seconds = |text: &str| lldp_patience(text).as_secs_f64();
        assert_eq!(seconds("ipa-lldp-timeout=9 a ipa-lldp-timeout=2.5"), 2.5);
        for odd in
            ["", "ipa-lldp-timeout=", "ipa-lldp-timeout=-1", "ipa-lldp-timeout=NaN", "ipa-lldp-timeout=1e99"]
        {
            assert_eq!(seconds(odd), 30.0, "{odd}");
        }
    }

    fn nic(name: &str, dns: &[u8], domain: Option<&str>) -> Nic {
        Nic {
            name: name.into(),
            mac: MacAddress([2; 6]),
            boot: false,
            carrier: true,
            lease: Some(NicLease {
                address: Ipv4Addr::new(10, 0, 0, 9),
                prefix: 24,
                server: Ipv4Addr::new(10, 0, 0, 1),
                router: None,
                dns: dns.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last)).collect(),
                ntp: vec![],
                domain: domain.map(str::to_owned),
                hostname: None,
                mtu: None,
                seconds: Some(60),
            }),
            six: Six::default(),
            fixed: None,
        }
    }

    #[test]
    fn the_boot_nics_name_servers_come_first_and_none_twice() {
        let network =
            Network { nics: vec![nic("a", &[1, 2], Some("x.org")), nic("b", &[2, 3, 4], Some("x.org"))] };
        assert_eq!(
            network.resolv_conf(),
            "search x.org\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
        );
        assert_eq!(Network::default().resolv_conf(), "");
        assert!(network.has_address() && !Network::default().has_address());
    }

    #[test]
    fn what_routers_and_the_medium_say_is_used_too() {
        let mut network = Network { nics: vec![nic("a", &[1], None)] };
        network.nics[0].six = Six {
            addresses: vec![Ipv6Addr::LOCALHOST],
            dns: vec!["fe80::1%a".into()],
            domains: vec!["y.org".into()],
            ntp: vec![Ipv6Addr::LOCALHOST],
        };
        assert_eq!(network.resolv_conf(), "search y.org\nnameserver 10.0.0.1\nnameserver fe80::1%a\n");
        let fixed = Fixed {
            dns: vec!["192.0.2.3".parse().unwrap()],
            ntp: vec!["192.0.2.4".parse().unwrap()],
            ..Fixed::default()
        };
        (network.nics[0].lease, network.nics[0].fixed) = (None, Some(fixed));
        assert_eq!(network.resolv_conf(), "search y.org\nnameserver 192.0.2.3\nnameserver fe80::1%a\n");
        let ntp: Vec<String> = network.ntp().iter().map(IpAddr::to_string).collect();
        assert_eq!(ntp, ["192.0.2.4", "::1"]);
    }

    #[test]
    fn the_last_bootif_counts() {
        let mac = boot_interface("quiet BOOTIF=52-54-00-00-00-01 BOOTIF=01-52-54-00-00-00-02 x").unwrap();
        assert_eq!(mac.to_string(), "52:54:00:00:00:02");
        for none in ["", "BOOTIF=", "BOOTIF=${mac}", "XBOOTIF=52:54:00:00:00:01"] {
            assert_eq!(boot_interface(none), None, "{none}");
        }
    }

    #[test]
    fn the_file_comes_back_as_written() {
        let network = Network { nics: vec![nic("a", &[1], None)] };
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
    }
}
