//! PCI devices, from /sys/bus/pci/devices, in the form that Ironic's inspection hooks `pci-devices` and `accelerators` read.

use super::{names, text};
use serde::Serialize;
use std::path::Path;

/// Numbers are hexadecimal texts without `0x`, as the hooks compare them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PciDevice {
    pub vendor_id: String,
    pub product_id: String,
    pub class: String,
    pub revision: Option<String>,
    pub bus: String,
    /// `-1` where the firmware names none.
    pub numa_node_id: Option<String>,
}

/// In the order of their addresses; one that hides its identity is left out.
///
/// # Errors
/// There is no such folder: a machine without PCI.
pub fn list(sys: &Path) -> std::io::Result<Vec<PciDevice>> {
    let folder = sys.join("bus/pci/devices");
    std::fs::read_dir(&folder)?;
    Ok(names(&folder).iter().filter_map(|name| read(&folder.join(name), name)).collect())
}

fn read(folder: &Path, name: &str) -> Option<PciDevice> {
    let hex = |file: &str| text(&folder.join(file))?.strip_prefix("0x").map(str::to_owned);
    Some(PciDevice {
        vendor_id: hex("vendor")?,
        product_id: hex("device")?,
        class: hex("class")?,
        revision: hex("revision"),
        bus: name.to_owned(),
        numa_node_id: text(&folder.join("numa_node")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;

    #[test]
    fn a_device_has_its_numbers_without_their_prefix_and_a_nameless_one_is_left_out() {
        let tree = Tree::new();
        for (file, content) in [
            ("vendor", "0x8086\n"),
            ("device", "0x1521\n"),
            ("class", "0x020000\n"),
            ("revision", "0x01\n"),
            ("numa_node", "-1\n"),
        ] {
            tree.file(&format!("bus/pci/devices/0000:01:00.0/{file}"), content);
        }
        tree.file("bus/pci/devices/0000:02:00.0/vendor", "0x8086\n");
        let found = list(tree.root()).unwrap();
        assert_eq!(
            found,
            [PciDevice {
                vendor_id: "8086".into(),
                product_id: "1521".into(),
                class: "020000".into(),
                revision: Some("01".into()),
                bus: "0000:01:00.0".into(),
                numa_node_id: Some("-1".into()),
            }]
        );
        assert!(list(&tree.root().join("none")).is_err());
    }
}
