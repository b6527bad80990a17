//! Network interfaces, from /sys/class/net.

use super::{Live, link_name, names, number, text};
use ferric_common::ids::MacAddress;
use ferric_common::wire::inventory::Interface;
use std::path::Path;

/// `ARPHRD_INFINIBAND` of linux/if_arp.h.
const INFINIBAND: u16 = 32;

/// The first address of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub ipv4: Option<String>,
    /// May be link-local, then with `%interface` behind it.
    pub ipv6: Option<String>,
}

/// All interfaces with hardware, VLANs and bonds that have a MAC.
pub fn list(sys: &Path, live: &Live) -> Vec<Interface> {
    let folder = sys.join("class/net");
    names(&folder).iter().filter_map(|name| read(&folder.join(name), name, live)).collect()
}

fn read(folder: &Path, name: &str, live: &Live) -> Option<Interface> {
    let device = folder.join("device");
    if !(device.exists() || is_vlan(name) || folder.join("bonding").is_dir()) {
        return None;
    }
    let (mac, client_id) = if number::<u16>(&folder.join("type")) == Some(INFINIBAND) {
        infiniband(&text(&folder.join("address"))?)?
    } else {
        let current = || text(&folder.join("address")).and_then(|text| text.parse().ok());
        (live.permanent_macs.get(name).copied().or_else(current)?.to_string(), None)
    };
    if is_internal(&mac) || mac == MacAddress([0; 6]).to_string() {
        return None;
    }
    let addresses = live.addresses.get(name).cloned().unwrap_or_default();
    // -1 while the link is down.
    let speed: Option<i64> = number(&folder.join("speed"));
    Some(Interface {
        name: name.to_owned(),
        mac_address: mac,
        ipv4_address: addresses.ipv4,
        ipv6_address: addresses.ipv6,
        has_carrier: number::<u8>(&folder.join("carrier")) == Some(1),
        lldp: None,
        vendor: text(&device.join("vendor")),
        product: text(&device.join("device")),
        client_id,
        biosdevname: None,
        speed_mbps: speed.and_then(|speed| u64::try_from(speed).ok()).filter(|speed| *speed > 0),
        pci_address: link_name(&device),
        driver: link_name(&device.join("driver")),
    })
}

/// `eno1.100`.
fn is_vlan(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

/// `fa:` marks the NICs between an HPE server and its BMC, which are the same on every machine. `fa:16:3e:` is what OpenStack gives
/// to virtual machines.
fn is_internal(mac: &str) -> bool {
    mac.starts_with("fa:") && !mac.starts_with("fa:16:3e:")
}

/// The Ethernet-like address of a 20-byte one (bytes 13-15 and 18-20), and the DHCP client id made of its port GUID.
fn infiniband(address: &str) -> Option<(String, Option<String>)> {
    let parts: Vec<&str> = address.split(':').collect();
    if parts.len() != 20 {
        return None;
    }
    let mac = [parts.get(12..15)?, parts.get(17..20)?].concat().join(":");
    let client_id = format!("ff:00:00:00:00:00:02:00:00:02:c9:00:{}", parts.get(12..)?.join(":"));
    Some((mac, Some(client_id)))
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;

    fn nic(tree: &Tree, name: &str, address: &str) {
        let folder = format!("class/net/{name}");
        tree.file(&format!("{folder}/address"), format!("{address}\n"))
            .file(&format!("{folder}/type"), "1\n");
    }

    #[test]
    fn a_server_nic_has_all_fields() {
        let tree = Tree::new();
        nic(&tree, "eno1", "02:00:00:00:00:01");
        tree.file("class/net/eno1/carrier", "1\n")
            .file("class/net/eno1/speed", "25000\n")
            .file("devices/pci0/0000:01:00.0/vendor", "0x8086\n")
            .file("devices/pci0/0000:01:00.0/device", "0x1593\n")
            .link("class/net/eno1/device", "devices/pci0/0000:01:00.0")
            .link("devices/pci0/0000:01:00.0/driver", "bus/pci/drivers/ice");
        let mut live = Live::default();
        live.permanent_macs.insert("eno1".into(), MacAddress([0xaa, 0xbb, 0xcc, 0, 0, 1]));
        let address = Addresses { ipv4: Some("10.0.0.5".into()), ipv6: Some("fe80::1%eno1".into()) };
        live.addresses.insert("eno1".into(), address);
        assert_eq!(
            list(tree.root(), &live),
            [Interface {
                name: "eno1".into(),
                mac_address: "aa:bb:cc:00:00:01".into(),
                ipv4_address: Some("10.0.0.5".into()),
                ipv6_address: Some("fe80::1%eno1".into()),
                has_carrier: true,
                lldp: None,
                vendor: Some("0x8086".into()),
                product: Some("0x1593".into()),
                client_id: None,
                biosdevname: None,
                speed_mbps: Some(25_000),
                pci_address: Some("0000:01:00.0".into()),
                driver: Some("ice".into()),
            }]
        );
    }

    #[test]
    fn virtual_internal_and_nameless_ones_are_left_out() {
        let tree = Tree::new();
        for (name, address, device) in [
            ("lo", "00:00:00:00:00:00", false),
            ("br0", "52:54:00:00:00:01", false),
            ("eno1.100", "52:54:00:00:00:02", false),
            ("hpe", "fa:12:00:00:00:03", true),
            ("vm", "fa:16:3e:00:00:04", true),
            ("zero", "00:00:00:00:00:00", true),
            ("none", "", true),
        ] {
            nic(&tree, name, address);
            if device {
                tree.folder(&format!("class/net/{name}/device"));
            }
        }
        tree.file("class/net/bond0/address", "52:54:00:00:00:05\n").folder("class/net/bond0/bonding");
        tree.file("class/net/bonding_masters", "bond0\n");
        tree.file("class/net/vm/speed", "-1\n");
        let found = list(tree.root(), &Live::default());
        assert_eq!(
            found.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>(),
            ["bond0", "eno1.100", "vm"]
        );
        assert!(found.iter().all(|nic| nic.speed_mbps.is_none() && !nic.has_carrier));
    }

    #[test]
    fn infiniband_addresses_are_folded() {
        let tree = Tree::new();
        let address = "80:00:02:08:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:11:22:33";
        tree.file("class/net/ib0/address", address)
            .file("class/net/ib0/type", "32")
            .folder("class/net/ib0/device");
        let found = list(tree.root(), &Live::default());
        assert_eq!(found[0].mac_address, "e4:1d:2d:11:22:33");
        assert_eq!(
            found[0].client_id.as_deref(),
            Some("ff:00:00:00:00:00:02:00:00:02:c9:00:e4:1d:2d:03:00:11:22:33")
        );
    }
}
