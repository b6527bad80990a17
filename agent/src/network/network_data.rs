//! `openstack/latest/network_data.json` of a boot medium: what the operator fixed. Pure.
//!
//! Format: OpenStack's network_data.json schema (nova, `doc/api_schemas/network_data.json`), which Ironic passes on.

use crate::platform::linux::netlink::Bond;
use ferric_common::ids::MacAddress;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};

/// Links, networks, routes and services in one file.
const MEMBERS: usize = 256;

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("it has more than {MEMBERS} {0}")]
    Many(&'static str),
    #[error("link '{link}': {what}")]
    Link { link: String, what: String },
    #[error("network '{network}': {what}")]
    Network { network: String, what: String },
}

/// All of it, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixed {
    pub links: Vec<FixedLink>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FixedLink {
    pub id: String,
    pub kind: Kind,
    pub settings: Settings,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Nic(MacAddress),
    /// By the parent's id.
    Vlan {
        on: String,
        id: u16,
    },
    Bond {
        members: Vec<String>,
        bond: Bond,
    },
}

/// What one link gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub mtu: Option<u32>,
    pub addresses: Vec<(IpAddr, u8)>,
    /// Destination, its prefix, next hop.
    pub routes: Vec<(IpAddr, u8, IpAddr)>,
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
    /// IPv4 by DHCP.
    pub dhcp: bool,
    /// IPv6 by router advertisements, and DHCPv6 where they say so.
    pub router_adverts: bool,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    links: Vec<RawLink>,
    #[serde(default)]
    networks: Vec<RawNetwork>,
    #[serde(default)]
    services: Vec<RawService>,
}

#[derive(Deserialize)]
struct RawLink {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    ethernet_mac_address: Option<String>,
    mtu: Option<u32>,
    vlan_id: Option<serde_json::Value>,
    vlan_link: Option<String>,
    #[serde(default)]
    bond_links: Vec<String>,
    bond_mode: Option<serde_json::Value>,
    bond_miimon: Option<serde_json::Value>,
    bond_xmit_hash_policy: Option<String>,
}

#[derive(Deserialize)]
struct RawNetwork {
    #[serde(default)]
    id: String,
    #[serde(rename = "type")]
    kind: String,
    link: String,
    ip_address: Option<String>,
    netmask: Option<String>,
    gateway: Option<String>,
    #[serde(default)]
    routes: Vec<RawRoute>,
    #[serde(default)]
    services: Vec<RawService>,
    #[serde(default)]
    dns_nameservers: Vec<String>,
}

#[derive(Deserialize)]
struct RawRoute {
    network: String,
    netmask: Option<String>,
    gateway: String,
}

#[derive(Deserialize)]
struct RawService {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// # Errors
/// [`DataError`] naming the link or network: half of a network that an operator fixed is worse than none.
pub fn parse(bytes: &[u8]) -> Result<Fixed, DataError> {
    let data: Data = serde_json::from_slice(bytes)?;
    for (count, what) in
        [(data.links.len(), "links"), (data.networks.len(), "networks"), (data.services.len(), "services")]
    {
        if count > MEMBERS {
            return Err(DataError::Many(what));
        }
    }
    let mut fixed = Fixed { links: data.links.iter().map(link).collect::<Result<_, _>>()? };
    for network in &data.networks {
        let at = fixed.links.iter_mut().find(|link| link.id == network.link);
        let Some(at) = at else { return Err(wrong(network, format!("there is no link '{}'", network.link))) };
        add(&mut at.settings, network)?;
    }
    for link in fixed.links.iter_mut().filter(|link| link.settings != Settings::default()) {
        serve(&mut link.settings, &data.services);
    }
    Ok(fixed)
}

fn link(raw: &RawLink) -> Result<FixedLink, DataError> {
    let wrong = |what: String| DataError::Link { link: raw.id.clone(), what };
    let kind = match raw.kind.as_deref().unwrap_or("phy") {
        "vlan" => Kind::Vlan {
            on: raw.vlan_link.clone().ok_or_else(|| wrong("vlan_link is missing".into()))?,
            id: number(raw.vlan_id.as_ref())
                .and_then(|id| u16::try_from(id).ok())
                .filter(|id| (1..=4094).contains(id))
                .ok_or_else(|| wrong("vlan_id is not 1 to 4094".into()))?,
        },
        "bond" => Kind::Bond { members: raw.bond_links.clone(), bond: bond(raw).map_err(wrong)? },
        _ => Kind::Nic(
            raw.ethernet_mac_address
                .as_deref()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| wrong("ethernet_mac_address is no MAC address".into()))?,
        ),
    };
    let settings = Settings { mtu: raw.mtu.filter(|mtu| *mtu > 0), ..Settings::default() };
    Ok(FixedLink { id: raw.id.clone(), kind, settings })
}

fn bond(raw: &RawLink) -> Result<Bond, String> {
    const MODES: [&str; 7] =
        ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];
    const HASHES: [&str; 6] = ["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"];
    let place = |names: &[&str], name: &str| {
        names.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok())
    };
    let mode = match raw.bond_mode.as_ref() {
        None => Some(1),
        Some(serde_json::Value::String(name)) if place(&MODES, name).is_some() => place(&MODES, name),
        other => number(other).and_then(|mode| u8::try_from(mode).ok()).filter(|mode| *mode < 7),
    };
    let hash = match raw.bond_xmit_hash_policy.as_deref() {
        None => Some(0),
        Some(name) => place(&HASHES, name),
    };
    Ok(Bond {
        mode: mode.ok_or("bond_mode is not known")?,
        miimon: number(raw.bond_miimon.as_ref())
            .and_then(|ms| u32::try_from(ms).ok())
            .filter(|ms| *ms > 0)
            .unwrap_or(100),
        hash: hash.ok_or("bond_xmit_hash_policy is not known")?,
    })
}

/// A number, or one that somebody put into quotes.
fn number(value: Option<&serde_json::Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn wrong(network: &RawNetwork, what: String) -> DataError {
    DataError::Network { network: network.id.clone(), what }
}

fn add(settings: &mut Settings, network: &RawNetwork) -> Result<(), DataError> {
    match network.kind.as_str() {
        "ipv4_dhcp" => settings.dhcp = true,
        "ipv6_slaac" | "ipv6_dhcp" | "ipv6_dhcpv6-stateful" | "ipv6_dhcpv6-stateless" => {
            settings.router_adverts = true;
        }
        "ipv4" | "ipv6" => {
            let text = network.ip_address.as_deref().unwrap_or_default();
            let found = with_prefix(text, network.netmask.as_deref());
            let found =
                found.ok_or_else(|| wrong(network, format!("'{text}' with its netmask is no address")))?;
            settings.addresses.push(found);
            if let Some(text) = network.gateway.as_deref().filter(|text| !text.is_empty()) {
                let by: IpAddr =
                    text.parse().map_err(|_| wrong(network, format!("gateway '{text}' is no address")))?;
                settings.routes.push((any(by), 0, by));
            }
        }
        other => return Err(wrong(network, format!("the type '{other}' is not known"))),
    }
    for route in network.routes.iter().take(MEMBERS) {
        let to = with_prefix(&route.network, route.netmask.as_deref());
        let by: Option<IpAddr> = route.gateway.parse().ok();
        let pair = to.zip(by).filter(|((to, _), by)| to.is_ipv4() == by.is_ipv4());
        let ((to, prefix), by) = pair.ok_or_else(|| {
            wrong(network, format!("the route to '{}' by '{}' is none", route.network, route.gateway))
        })?;
        settings.routes.push((to, prefix, by));
    }
    settings.dns.extend(network.dns_nameservers.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
    serve(settings, &network.services);
    Ok(())
}

fn serve(settings: &mut Settings, services: &[RawService]) {
    for service in services.iter().take(MEMBERS) {
        let Ok(address) = service.address.parse() else { continue };
        let list = match service.kind.as_str() {
            "dns" => &mut settings.dns,
            "ntp" => &mut settings.ntp,
            _ => continue,
        };
        if !list.contains(&address) {
            list.push(address);
        }
    }
}

fn any(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// `192.0.2.5/24`, or an address and a mask, or an address alone (then all of its bits).
fn with_prefix(text: &str, mask: Option<&str>) -> Option<(IpAddr, u8)> {
    let (text, inside) = match text.split_once('/') {
        Some((text, prefix)) => (text, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = text.trim().parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match inside.or(mask).map(str::trim).filter(|mask| !mask.is_empty()) {
        None => most,
        Some(mask) => match mask.parse::<u8>() {
            Ok(prefix) => prefix,
            Err(_) => ones(mask.parse().ok()?)?,
        },
    };
    (prefix <= most).then_some((address, prefix))
}

/// The length of a mask whose ones come first.
fn ones(mask: IpAddr) -> Option<u8> {
    let (bits, width) = match mask {
        IpAddr::V4(mask) => (u128::from(u32::from(mask)) << 96, 32),
        IpAddr::V6(mask) => (u128::from(mask), 128),
    };
    let ones = bits.leading_ones();
    (bits.checked_shl(ones).unwrap_or(0) == 0 && ones <= width).then(|| u8::try_from(ones).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_routes_and_services_of_both_families_are_read() {
        let data = br#"{"links": [{"id": "nic", "type": "phy", "ethernet_mac_address": "52:54:00:00:00:01", "mtu": 1400}],
            "networks": [
              {"id": "4", "type": "ipv4", "link": "nic", "ip_address": "192.0.2.5", "netmask": "255.255.255.0",
               "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}],
               "services": [{"type": "dns", "address": "192.0.2.2"}]},
              {"id": "6", "type": "ipv6", "link": "nic", "ip_address": "2001:db8::5/64", "gateway": "2001:db8::1"}],
            "services": [{"type": "dns", "address": "192.0.2.3"}, {"type": "ntp", "address": "2001:db8::4"}, {"type": "x", "address": "?"}]}"#;
        let fixed = parse(data).unwrap();
        let [link] = fixed.links.as_slice() else { panic!("{fixed:?}") };
        assert_eq!(link.kind, Kind::Nic(MacAddress([0x52, 0x54, 0, 0, 0, 1])));
        let settings = &link.settings;
        assert_eq!(settings.addresses, [(address("192.0.2.5"), 24), (address("2001:db8::5"), 64)]);
        assert_eq!(
            settings.routes,
            [(address("0.0.0.0"), 0, address("192.0.2.1")), (address("::"), 0, address("2001:db8::1"))]
        );
        assert_eq!(settings.dns, [address("192.0.2.2"), address("192.0.2.3")]);
        assert_eq!((settings.ntp.as_slice(), settings.mtu), (&[address("2001:db8::4")][..], Some(1400)));
        assert!(!settings.dhcp && !settings.router_adverts);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let link = r#""links": [{"id": "a", "ethernet_mac_address": "52:54:00:00:00:01"}]"#;
        for (data, text) in [
            (r#"{"links": [{"id": "a"}]}"#.to_owned(), "link 'a': ethernet_mac_address is no MAC address"),
            (
                r#"{"links": [{"id": "v", "type": "vlan", "vlan_link": "a", "vlan_id": 4095}]}"#.to_owned(),
                "link 'v': vlan_id is not 1 to 4094",
            ),
            (
                r#"{"links": [{"id": "b", "type": "bond", "bond_mode": "fast"}]}"#.to_owned(),
                "link 'b': bond_mode is not known",
            ),
            (
                format!(r#"{{{link}, "networks": [{{"id": "n", "type": "ipv4", "link": "b"}}]}}"#),
                "network 'n': there is no link 'b'",
            ),
            (
                format!(
                    r#"{{{link}, "networks": [{{"id": "n", "type": "ipv4", "link": "a", "ip_address": "x"}}]}}"#
                ),
                "network 'n': 'x' with its netmask is no address",
            ),
            (
                format!(r#"{{{link}, "networks": [{{"id": "n", "type": "token", "link": "a"}}]}}"#),
                "network 'n': the type 'token' is not known",
            ),
        ] {
            assert_eq!(parse(data.as_bytes()).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn masks_are_counted_and_gaps_refused() {
        for (text, mask, prefix) in [
            ("10.0.0.1", Some("255.255.252.0"), Some(22)),
            ("10.0.0.1", Some("255.0.255.0"), None),
            ("10.0.0.1", None, Some(32)),
            ("10.0.0.1/33", None, None),
            ("fd00::1", Some("ffff:ffff:ffff:ffff::"), Some(64)),
            ("fd00::1", Some("0"), Some(0)),
        ] {
            assert_eq!(with_prefix(text, mask).map(|(_, prefix)| prefix), prefix, "{text} {mask:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}", mask in "[0-9a-f.:]{0,20}") {
            let _ = with_prefix(&text, Some(&mask));
            let _ = parse(text.as_bytes());
        }
    }
}
