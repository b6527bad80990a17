//! A boot entry as firmware keeps it in `Boot####`: EFI_LOAD_OPTION with a device path of partition and file. Pure.
//!
//! Specification: UEFI 2.10, 3.1.3 (load options), 10.3.5.1 (hard drive), 10.3.5.4 (file path).

/// LOAD_OPTION_ACTIVE.
const ACTIVE: u32 = 1;
/// Types and subtypes of device path nodes.
const HARD_DRIVE: [u8; 2] = [4, 1];
const FILE_PATH: [u8; 2] = [4, 4];
const END: [u8; 2] = [0x7f, 0xff];
/// Units of UTF-16 in a description; longer ones are of no use in a firmware's menu.
const DESCRIPTION: usize = 128;

/// A partition, as firmware finds it again on whichever port its disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub number: u32,
    /// In sectors of the disk.
    pub first: u64,
    pub sectors: u64,
    pub signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// The partition's GUID, in on-disk byte order.
    Gpt([u8; 16]),
    /// The disk's signature.
    Mbr([u8; 4]),
}

/// What the firmware shall boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub description: String,
    pub place: Place,
    /// Path on the partition, with backslashes: `\EFI\BOOT\BOOTX64.EFI`.
    pub loader: String,
}

impl Entry {
    /// The content of a `Boot####` variable.
    pub fn encode(&self) -> Vec<u8> {
        let mut path = Vec::new();
        node(&mut path, HARD_DRIVE, &self.place.encode());
        node(&mut path, FILE_PATH, &utf16(&self.loader, usize::MAX));
        node(&mut path, END, &[]);
        let mut out = ACTIVE.to_le_bytes().to_vec();
        out.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(utf16(&self.description, DESCRIPTION));
        out.extend(path);
        out
    }
}

impl Place {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.number.to_le_bytes().to_vec();
        out.extend(self.first.to_le_bytes());
        out.extend(self.sectors.to_le_bytes());
        let (signature, format, kind) = match self.signature {
            Signature::Gpt(guid) => (guid.to_vec(), 2, 2),
            Signature::Mbr(signature) => ([signature.as_slice(), &[0; 12]].concat(), 1, 1),
        };
        out.extend(signature);
        out.extend([format, kind]);
        out
    }
}

fn node(out: &mut Vec<u8>, kind: [u8; 2], data: &[u8]) {
    out.extend(kind);
    out.extend(u16::try_from(data.len().saturating_add(4)).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(data);
}

/// UTF-16, little-endian, cut to `most` units, with its NUL.
fn utf16(text: &str, most: usize) -> Vec<u8> {
    text.encode_utf16().take(most).chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// The description of any `Boot####` variable; `None` if it is no load option.
pub fn description(option: &[u8]) -> Option<String> {
    let units = option.get(6..)?.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    let text: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    // Without its NUL it is cut off.
    option.get(6 + 2 * text.len()..8 + 2 * text.len())?;
    Some(String::from_utf16_lossy(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(signature: Signature) -> Entry {
        Entry {
            description: "debian".into(),
            place: Place { number: 1, first: 2048, sectors: 81_920, signature },
            loader: "\\EFI\\debian\\shimx64.efi".into(),
        }
    }

    /// By hand, after the specification's tables. That firmware boots such an entry is shown end to end.
    #[test]
    fn an_entry_has_the_bytes_of_the_specification() {
        let guid: [u8; 16] = core::array::from_fn(|i| i as u8 + 1);
        let mut expected = vec![1, 0, 0, 0, 98, 0];
        expected.extend(b"d\0e\0b\0i\0a\0n\0\0\0");
        expected.extend([4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0, 0, 0, 0]);
        expected.extend(guid);
        expected.extend([2, 2]);
        expected.extend([4, 4, 52, 0]);
        expected.extend("\\EFI\\debian\\shimx64.efi\0".encode_utf16().flat_map(u16::to_le_bytes));
        expected.extend([0x7f, 0xff, 4, 0]);
        assert_eq!(entry(Signature::Gpt(guid)).encode(), expected);
        assert_eq!(usize::from(expected[4]), expected.len() - 6 - 14, "the length of the device path");
    }

    #[test]
    fn an_mbr_is_known_by_its_disk_signature() {
        let bytes = entry(Signature::Mbr([1, 2, 3, 4])).encode();
        let node = &bytes[6 + 14..][..42];
        assert_eq!(node[24..40], [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(node[40..], [1, 1]);
    }

    #[test]
    fn a_description_reads_back_and_long_ones_are_cut() {
        let mut entry = entry(Signature::Mbr([0; 4]));
        for text in ["debian", "", "Ünïcode 🦀"] {
            entry.description = text.into();
            assert_eq!(description(&entry.encode()).as_deref(), Some(text));
        }
        entry.description = "x".repeat(1000);
        assert_eq!(description(&entry.encode()).unwrap().len(), 128);
        for short in [vec![], vec![1, 0, 0, 0, 0, 0], vec![1, 0, 0, 0, 0, 0, b'a', 0]] {
            assert_eq!(description(&short), None, "{short:?}");
        }
    }

    proptest! {
        #[test]
        fn no_variable_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = description(&bytes);
        }
    }
}
