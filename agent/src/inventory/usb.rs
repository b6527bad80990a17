//! USB devices, from /sys/bus/usb/devices: names as the devices give them, hubs and single interfaces left out.

use super::{names, number, text};
use serde::Serialize;
use std::path::Path;

/// `bDeviceClass` of a hub (USB 2.0, table 11-1).
const HUB: &str = "09";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UsbDevice {
    pub product: String,
    pub vendor: String,
    /// `USB:<bus>:<device>`.
    pub handle: String,
}

pub fn list(sys: &Path) -> Vec<UsbDevice> {
    let folder = sys.join("bus/usb/devices");
    names(&folder).iter().filter_map(|name| read(&folder.join(name))).collect()
}

fn read(folder: &Path) -> Option<UsbDevice> {
    if text(&folder.join("bDeviceClass"))? == HUB {
        return None;
    }
    let (bus, device): (u32, u32) = (number(&folder.join("busnum"))?, number(&folder.join("devnum"))?);
    let field = |name: &str| text(&folder.join(name)).unwrap_or_default();
    Some(UsbDevice {
        product: field("product"),
        vendor: field("manufacturer"),
        handle: format!("USB:{bus}:{device}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;

    #[test]
    fn a_stick_is_listed_and_its_hub_and_interface_are_not() {
        let tree = Tree::new();
        for (name, class) in [("1-1", "00"), ("usb1", "09")] {
            for (file, content) in [
                ("bDeviceClass", class),
                ("busnum", "1"),
                ("devnum", "2"),
                ("product", "Virtual Floppy"),
                ("manufacturer", "AMI"),
            ] {
                tree.file(&format!("bus/usb/devices/{name}/{file}"), format!("{content}\n"));
            }
        }
        tree.file("bus/usb/devices/1-1:1.0/bInterfaceClass", "08\n");
        assert_eq!(
            list(tree.root()),
            [UsbDevice { product: "Virtual Floppy".into(), vendor: "AMI".into(), handle: "USB:1:2".into() }]
        );
    }
}
