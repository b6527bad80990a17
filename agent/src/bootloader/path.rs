//! A boot entry's device path in words, as efibootmgr shows it. Pure. Specification: UEFI 2.10, 10.6.1.6 (text), 10.3 (nodes).

use super::entry;

/// Nodes that are shown.
const NODES: usize = 64;

/// The device path of a `Boot####` variable in words; `None` if it is no load option.
pub fn text(option: &[u8]) -> Option<String> {
    let length = usize::from(u16::from_le_bytes(*option.get(4..6)?.as_array()?));
    let description = entry::description(option)?;
    let start = 6 + (description.encode_utf16().count() + 1) * 2;
    let mut rest = option.get(start..)?;
    rest = rest.get(..length.min(rest.len()))?;
    let mut shown = Vec::new();
    for _ in 0..NODES {
        let Some(([kind, subtype], [low, high])) = header(rest) else { break };
        let length = usize::from(u16::from_le_bytes([low, high]));
        let Some((node, after)) = rest.split_at_checked(length).filter(|_| length >= 4) else { break };
        if kind == 0x7f {
            break;
        }
        shown.push(self::node(kind, subtype, node.get(4..).unwrap_or_default()));
        rest = after;
    }
    Some(shown.join("/"))
}

fn header(bytes: &[u8]) -> Option<([u8; 2], [u8; 2])> {
    Some((*bytes.get(..2)?.as_array()?, *bytes.get(2..4)?.as_array()?))
}

fn node(kind: u8, subtype: u8, data: &[u8]) -> String {
    let shown = match (kind, subtype) {
        (4, 1) => hard_drive(data),
        (4, 4) => Some(format!("File({})", utf16(data))),
        (2, 1) => acpi(data),
        (1, 1) => {
            data.first().zip(data.get(1)).map(|(function, device)| format!("Pci({device:#x},{function:#x})"))
        }
        (3, 11) => data.get(..6).map(|mac| format!("MAC({},{})", hex(mac), data.get(32).unwrap_or(&0))),
        (3, 12) => Some("IPv4()".to_owned()),
        (3, 13) => Some("IPv6()".to_owned()),
        (3, 24) => Some(format!("Uri({})", String::from_utf8_lossy(data))),
        _ => None,
    };
    shown.unwrap_or_else(|| format!("Path({kind},{subtype},{})", hex(data)))
}

fn hard_drive(data: &[u8]) -> Option<String> {
    let number = u32::from_le_bytes(*data.get(..4)?.as_array()?);
    let first = u64::from_le_bytes(*data.get(4..12)?.as_array()?);
    let sectors = u64::from_le_bytes(*data.get(12..20)?.as_array()?);
    let signature: &[u8; 16] = data.get(20..36)?.as_array()?;
    let (scheme, signature) = match data.get(37)? {
        2 => ("GPT", uuid::Uuid::from_bytes_le(*signature).to_string()),
        1 => {
            let [a, b, c, d, ..] = *signature;
            ("MBR", format!("{:#x}", u32::from_le_bytes([a, b, c, d])))
        }
        _ => ("None", "0".to_owned()),
    };
    Some(format!("HD({number},{scheme},{signature},{first:#x},{sectors:#x})"))
}

fn acpi(data: &[u8]) -> Option<String> {
    let name = u32::from_le_bytes(*data.get(..4)?.as_array()?);
    let number = u32::from_le_bytes(*data.get(4..8)?.as_array()?);
    // EISA identifiers PNP0A03 and PNP0A08.
    Some(match name {
        0x0a03_41d0 => format!("PciRoot({number:#x})"),
        0x0a08_41d0 => format!("PcieRoot({number:#x})"),
        _ => format!("Acpi({name:#010x},{number:#x})"),
    })
}

fn utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    String::from_utf16_lossy(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootloader::entry::{Entry, Place, Signature};
    use proptest::prelude::*;

    fn entry(signature: Signature) -> Vec<u8> {
        Entry {
            description: "debian".into(),
            place: Place { number: 1, first: 2048, sectors: 81_920, signature },
            loader: "\\EFI\\debian\\shimx64.efi".into(),
        }
        .encode()
    }

    /// The forms that efibootmgr 17 prints.
    #[test]
    fn a_disks_entry_reads_as_efibootmgr_shows_it() {
        let guid = uuid::Uuid::parse_str("6a1f0c5e-0000-4000-8000-000000000012").unwrap().to_bytes_le();
        assert_eq!(
            text(&entry(Signature::Gpt(guid))).unwrap(),
            "HD(1,GPT,6a1f0c5e-0000-4000-8000-000000000012,0x800,0x14000)/File(\\EFI\\debian\\shimx64.efi)"
        );
        assert_eq!(
            text(&entry(Signature::Mbr([0x78, 0x56, 0x34, 0x12]))).unwrap(),
            "HD(1,MBR,0x12345678,0x800,0x14000)/File(\\EFI\\debian\\shimx64.efi)"
        );
    }

    #[test]
    fn a_network_cards_entry_is_no_disks() {
        let mut path = vec![2, 1, 12, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, 3];
        path.extend([3, 11, 37, 0, 0x52, 0x54, 0, 0xab, 0xcd, 1]);
        path.extend([0; 26]);
        path.push(1);
        path.extend([3, 12, 4, 0, 9, 9, 5, 0, 7, 0x7f, 0xff, 4, 0]);
        let mut option = vec![1, 0, 0, 0, path.len() as u8, 0, b'P', 0, 0, 0];
        option.extend(&path);
        assert_eq!(
            text(&option).unwrap(),
            "PciRoot(0x0)/Pci(0x3,0x0)/MAC(525400abcd01,1)/IPv4()/Path(9,9,07)"
        );
        assert_eq!(text(&[1, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn no_variable_panics(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = text(&bytes);
        }
    }
}
