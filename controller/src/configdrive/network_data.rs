//! Checks `network_data.json` before a machine is booted with it: a file that cloud-init cannot read means DHCP on the
//! first NIC, and an operator who looks for the fault on the wrong machine.
//!
//! Rules of Nova's schema as Ironic ships it (`network-data-schema.json`); unknown fields are allowed.

use ferric_common::ids::MacAddress;
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, Ipv6Addr};

const LINK_TYPES: [&str; 9] = ["bridge", "dvs", "hw_veb", "hyperv", "ovs", "tap", "vhostuser", "vif", "phy"];
/// `802.1ad` stood in older schemas where `802.3ad` was meant.
const BOND_MODES: [&str; 8] = [
    "802.3ad",
    "802.1ad",
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "balance-tlb",
    "balance-alb",
];

/// The first fault found. `at` reads like `network_data.links[0].mtu`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkDataError {
    #[error("network_data is {0}, must be an object")]
    NotAnObject(&'static str),
    #[error("network_data has no {0}, links, networks and services are all needed (as lists)")]
    Missing(&'static str),
    #[error("{at} is missing")]
    MissingField { at: String },
    #[error("{at} is {found}, must be {wanted}")]
    Field { at: String, found: String, wanted: String },
}

type Checked = Result<(), NetworkDataError>;

/// Checks network data of a config drive or of a node.
///
/// # Errors
/// [`NetworkDataError`] names the field, what it is and what it must be.
pub fn check(data: &Value) -> Checked {
    let map = data.as_object().ok_or(NetworkDataError::NotAnObject(kind(data)))?;
    for (name, rule) in
        [("links", link as fn(&Object<'_>) -> Checked), ("networks", network), ("services", service)]
    {
        let list = map.get(name).and_then(Value::as_array).ok_or(NetworkDataError::Missing(name))?;
        each(list, &format!("network_data.{name}"), rule)?;
    }
    Ok(())
}

/// What a JSON value is, for error texts.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn link(link: &Object<'_>) -> Checked {
    link.text("id")?;
    let mac = |field| {
        link.meets(field, "a MAC address", |text| text.replace('-', ":").parse::<MacAddress>().is_ok())
    };
    if let Some(mtu) = link.get("mtu").filter(|mtu| !mtu.is_null())
        && !mtu.as_f64().is_some_and(|mtu| (1.0..=65535.0).contains(&mtu))
    {
        return Err(link.wrong("mtu", "1 to 65535 or null"));
    }
    if link.get("vif_id").is_some() {
        link.text("vif_id")?;
    }
    match link.text("type")? {
        "bond" => {
            mac("ethernet_mac_address")?;
            link.one_of("bond_mode", &BOND_MODES)?;
            let list = link.list("bond_links")?;
            if list.iter().all(Value::is_string) {
                Ok(())
            } else {
                Err(link.wrong("bond_links", "a list of link ids"))
            }
        }
        "vlan" => {
            mac("vlan_mac_address")?;
            link.text("vlan_link")?;
            match link.need("vlan_id")?.is_i64() {
                true => Ok(()),
                false => Err(link.wrong("vlan_id", "a whole number")),
            }
        }
        kind if LINK_TYPES.contains(&kind) => mac("ethernet_mac_address"),
        _ => Err(link.wrong("type", &format!("one of bond, vlan, {}", LINK_TYPES.join(", ")))),
    }
}

fn network(network: &Object<'_>) -> Checked {
    for field in ["id", "link", "network_id"] {
        network.text(field)?;
    }
    let is_v4 = match network.text("type")? {
        "ipv4" | "ipv4_dhcp" => true,
        "ipv6" | "ipv6_dhcp" | "ipv6_slaac" => false,
        _ => return Err(network.wrong("type", "one of ipv4, ipv4_dhcp, ipv6, ipv6_dhcp, ipv6_slaac")),
    };
    let host = |object: &Object<'_>, field| match is_v4 {
        true => object.meets(field, "an IPv4 address", is_v4_address),
        false => object.meets(field, "an IPv6 address", is_v6_host),
    };
    let mask = |object: &Object<'_>, field| match is_v4 {
        true => object.meets(field, "an IPv4 netmask such as 255.255.255.0", is_v4_mask),
        false => object.meets(field, "an IPv6 netmask such as ffff:ffff::", is_v6_address),
    };
    if network.get("ip_address").is_some() {
        host(network, "ip_address")?;
    }
    if network.get("netmask").is_some() {
        mask(network, "netmask")?;
    }
    if network.get("routes").is_some() {
        each(network.list("routes")?, &network.at("routes"), |route| {
            host(route, "network")?;
            mask(route, "netmask")?;
            host(route, "gateway")?;
            match route.get("services") {
                Some(_) => each(route.list("services")?, &route.at("services"), service),
                None => Ok(()),
            }
        })?;
    }
    Ok(())
}

fn service(service: &Object<'_>) -> Checked {
    service.one_of("type", &["dns"])?;
    service.meets("address", "an IP address", |text| is_v4_address(text) || is_v6_host(text))
}

fn is_v4_address(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

fn is_v4_mask(text: &str) -> bool {
    text.parse::<Ipv4Addr>()
        .is_ok_and(|mask| (!mask.to_bits()).checked_add(1).is_none_or(u32::is_power_of_two))
}

fn is_v6_address(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// An address that may carry a prefix length (`2001:db8::1/64`) or, if link-local, a zone (`fe80::1%eth0`).
fn is_v6_host(text: &str) -> bool {
    let (text, prefix) = text.split_once('/').unwrap_or((text, "0"));
    let (text, zone) = match text.split_once('%') {
        Some((text, zone)) => (text, Some(zone)),
        None => (text, None),
    };
    let Ok(address) = text.parse::<Ipv6Addr>() else { return false };
    let zone_fits = zone.is_none_or(|zone| address.is_unicast_link_local() && !zone.is_empty());
    zone_fits && prefix.parse::<u8>().is_ok_and(|bits| bits <= 128)
}

fn each(list: &[Value], at: &str, rule: impl Fn(&Object<'_>) -> Checked) -> Checked {
    list.iter().enumerate().try_for_each(|(i, item)| {
        let at = format!("{at}[{i}]");
        match item.as_object() {
            Some(map) => rule(&Object { map, at }),
            None => Err(NetworkDataError::Field { at, found: kind(item).into(), wanted: "an object".into() }),
        }
    })
}

/// An object and where it stands.
struct Object<'a> {
    map: &'a Map<String, Value>,
    at: String,
}

impl<'a> Object<'a> {
    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.at)
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field)
    }

    fn need(&self, field: &str) -> Result<&'a Value, NetworkDataError> {
        self.get(field).ok_or_else(|| NetworkDataError::MissingField { at: self.at(field) })
    }

    fn text(&self, field: &str) -> Result<&'a str, NetworkDataError> {
        self.need(field)?.as_str().ok_or_else(|| self.wrong(field, "a text"))
    }

    fn list(&self, field: &str) -> Result<&'a Vec<Value>, NetworkDataError> {
        self.need(field)?.as_array().ok_or_else(|| self.wrong(field, "a list"))
    }

    fn meets(&self, field: &str, wanted: &str, rule: impl Fn(&str) -> bool) -> Checked {
        if rule(self.text(field)?) { Ok(()) } else { Err(self.wrong(field, wanted)) }
    }

    fn one_of(&self, field: &str, allowed: &[&str]) -> Checked {
        self.meets(field, &format!("one of {}", allowed.join(", ")), |text| allowed.contains(&text))
    }

    fn wrong(&self, field: &str, wanted: &str) -> NetworkDataError {
        let found = match self.get(field) {
            Some(value @ (Value::String(_) | Value::Number(_))) => {
                value.to_string().chars().take(100).collect()
            }
            Some(other) => kind(other).to_string(),
            None => "missing".into(),
        };
        NetworkDataError::Field { at: self.at(field), found, wanted: wanted.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "links": [
                {"id": "eth0", "type": "phy", "ethernet_mac_address": "52:54:00:AA:bb:01", "mtu": 1500, "extra": 1},
                {"id": "eth1", "type": "vif", "ethernet_mac_address": "52-54-00-aa-bb-02", "mtu": null, "vif_id": "v"},
                {"id": "bond0", "type": "bond", "ethernet_mac_address": "52:54:00:aa:bb:01", "bond_mode": "802.3ad",
                 "bond_links": ["eth0", "eth1"]},
                {"id": "v7", "type": "vlan", "vlan_mac_address": "52:54:00:aa:bb:01", "vlan_link": "bond0", "vlan_id": 7},
            ],
            "networks": [
                {"id": "n0", "link": "v7", "network_id": "x", "type": "ipv4", "ip_address": "192.0.2.7", "netmask": "255.255.252.0",
                 "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1",
                             "services": [{"type": "dns", "address": "192.0.2.1"}]}]},
                {"id": "n1", "link": "v7", "network_id": "x", "type": "ipv6", "ip_address": "2001:db8::7/64",
                 "routes": [{"network": "::", "netmask": "::", "gateway": "fe80::1%eth0"}]},
                {"id": "n2", "link": "eth0", "network_id": "x", "type": "ipv4_dhcp"},
            ],
            "services": [{"type": "dns", "address": "2001:db8::53"}, {"type": "dns", "address": "192.0.2.53"}],
        })
    }

    #[test]
    fn good_data_passes() {
        assert_eq!(check(&good()), Ok(()));
        assert_eq!(check(&json!({"links": [], "networks": [], "services": []})), Ok(()));
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        for (pointer, value, want) in [
            (
                "/links",
                json!(5),
                "network_data has no links, links, networks and services are all needed (as lists)",
            ),
            ("/links/0", json!("eth0"), "network_data.links[0] is a text, must be an object"),
            ("/links/0/id", json!(1), "network_data.links[0].id is 1, must be a text"),
            ("/links/0/mtu", json!(70000), "network_data.links[0].mtu is 70000, must be 1 to 65535 or null"),
            (
                "/links/0/mtu",
                json!("1500"),
                "network_data.links[0].mtu is \"1500\", must be 1 to 65535 or null",
            ),
            (
                "/links/0/type",
                json!("ethernet"),
                "network_data.links[0].type is \"ethernet\", must be one of bond, vlan, bridge, dvs, hw_veb, hyperv, ovs, \
                 tap, vhostuser, vif, phy",
            ),
            (
                "/links/0/ethernet_mac_address",
                json!("52:54:00"),
                "network_data.links[0].ethernet_mac_address is \"52:54:00\", must be a MAC address",
            ),
            ("/links/1/vif_id", json!(null), "network_data.links[1].vif_id is null, must be a text"),
            (
                "/links/2/bond_mode",
                json!("lacp"),
                "network_data.links[2].bond_mode is \"lacp\", must be one of 802.3ad, 802.1ad, balance-rr, active-backup, \
                 balance-xor, broadcast, balance-tlb, balance-alb",
            ),
            (
                "/links/2/bond_links",
                json!([1]),
                "network_data.links[2].bond_links is a list, must be a list of link ids",
            ),
            (
                "/links/3/vlan_id",
                json!("7"),
                "network_data.links[3].vlan_id is \"7\", must be a whole number",
            ),
            ("/links/3/vlan_id", json!(7.5), "network_data.links[3].vlan_id is 7.5, must be a whole number"),
            (
                "/networks/0/type",
                json!("static"),
                "network_data.networks[0].type is \"static\", must be one of ipv4, ipv4_dhcp, ipv6, ipv6_dhcp, ipv6_slaac",
            ),
            (
                "/networks/0/ip_address",
                json!("192.0.2.7/24"),
                "network_data.networks[0].ip_address is \"192.0.2.7/24\", must be an IPv4 address",
            ),
            (
                "/networks/0/netmask",
                json!("255.0.255.0"),
                "network_data.networks[0].netmask is \"255.0.255.0\", must be an IPv4 netmask such as 255.255.255.0",
            ),
            (
                "/networks/1/ip_address",
                json!("2001:db8::7/129"),
                "network_data.networks[1].ip_address is \"2001:db8::7/129\", must be an IPv6 address",
            ),
            (
                "/networks/1/routes/0/gateway",
                json!("2001:db8::1%eth0"),
                "network_data.networks[1].routes[0].gateway is \"2001:db8::1%eth0\", must be an IPv6 address",
            ),
            (
                "/networks/0/routes/0/services/0/type",
                json!("ntp"),
                "network_data.networks[0].routes[0].services[0].type is \"ntp\", must be one of dns",
            ),
            (
                "/services/0/address",
                json!("ns"),
                "network_data.services[0].address is \"ns\", must be an IP address",
            ),
        ] {
            let mut data = good();
            *data.pointer_mut(pointer).unwrap() = value;
            assert_eq!(check(&data).unwrap_err().to_string(), want);
        }
        let mut data = good();
        data["networks"][0].as_object_mut().unwrap().remove("link");
        assert_eq!(check(&data).unwrap_err().to_string(), "network_data.networks[0].link is missing");
        assert_eq!(check(&json!([])).unwrap_err().to_string(), "network_data is a list, must be an object");
    }

    #[test]
    fn netmasks_are_contiguous() {
        for (mask, want) in [
            ("0.0.0.0", true),
            ("255.255.255.255", true),
            ("255.255.255.254", true),
            ("128.0.0.0", true),
            ("0.0.0.1", false),
            ("255.255.253.0", false),
            ("24", false),
        ] {
            assert_eq!(is_v4_mask(mask), want, "{mask}");
        }
    }
}
