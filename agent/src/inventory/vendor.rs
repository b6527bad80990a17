//! Who made the machine, from the DMI strings under /sys/class/dmi/id.

use super::text;
use ferric_common::wire::inventory::{Firmware, SystemVendor};
use std::path::Path;

/// Texts that firmware carries where nobody filled in a stock-keeping number.
const NO_SKU: &[&str] = &["Not Specified", "To be filled by O.E.M.", "Default string", "None", "SKU"];

pub fn read(sys: &Path) -> SystemVendor {
    let id = sys.join("class/dmi/id");
    let field = |name: &str| text(&id.join(name)).unwrap_or_default();
    let product = field("product_name");
    let sku = field("product_sku");
    // lshw's form, which inspection rules were written against: `PowerEdge R650 (SKU=0A6B)`.
    let product_name = if sku.is_empty() || NO_SKU.contains(&sku.as_str()) || product.is_empty() {
        product
    } else {
        format!("{product} ({sku})")
    };
    SystemVendor {
        product_name,
        serial_number: field("product_serial"),
        manufacturer: field("sys_vendor"),
        firmware: Firmware {
            vendor: field("bios_vendor"),
            version: field("bios_version"),
            build_date: field("bios_date"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;

    #[test]
    fn the_stock_number_stands_behind_the_product() {
        for (sku, name) in [
            (
                "SKU=NotProvided;ModelName=PowerEdge R650\n",
                "PowerEdge R650 (SKU=NotProvided;ModelName=PowerEdge R650)",
            ),
            ("Not Specified\n", "PowerEdge R650"),
            ("\n", "PowerEdge R650"),
        ] {
            let tree = Tree::new();
            tree.file("class/dmi/id/product_name", "PowerEdge R650\n")
                .file("class/dmi/id/product_sku", sku)
                .file("class/dmi/id/sys_vendor", "Dell Inc.\n")
                .file("class/dmi/id/bios_date", "04/01/2024\n");
            let found = read(tree.root());
            assert_eq!((found.product_name.as_str(), found.manufacturer.as_str()), (name, "Dell Inc."));
            assert_eq!(
                (found.serial_number.as_str(), found.firmware.build_date.as_str()),
                ("", "04/01/2024")
            );
        }
    }
}
