//! Names that a disk gives itself, from the pages that the kernel shows as files: unit serial number (VPD 0x80), device
//! identification (0x83) and ATA identify data (in 0x89). SPC-5, SAT-4, ACS-4. Pure.
//!
//! The strings are those that udev's scsi_id and ata_id make, as hints were written from what those showed.

/// What page 0x83 tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identification {
    /// `0x` and 16 hexadecimal digits.
    pub wwn: Option<String>,
    /// For 128-bit names, the lower half: `0x` and 16 digits.
    pub vendor_extension: Option<String>,
    /// `0x` and 16 or 32 digits: the whole name.
    pub with_extension: Option<String>,
    /// udev's short and long serial: hexadecimal digits, and the same behind the kind of the name (`3`: NAA).
    pub short_serial: Option<String>,
    pub long_serial: Option<String>,
}

/// What a SATA disk says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtaIdentity {
    pub model: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
}

/// The serial number of page 0x80.
pub fn unit_serial(page: &[u8]) -> Option<String> {
    printable(payload(page, 0x80)?)
}

/// Reads page 0x83: of the names of the disk itself (not of its port) the best, NAA before EUI-64.
pub fn identification(page: &[u8]) -> Identification {
    const NAA: u8 = 3;
    const EUI: u8 = 2;
    let mut best: Option<(u8, String)> = None;
    let mut rest = payload(page, 0x83).unwrap_or_default();
    while let [_, kind, _, length, after @ ..] = rest {
        let Some((value, next)) = after.split_at_checked(usize::from(*length)) else { break };
        rest = next;
        let (association, kind) = ((kind >> 4) & 3, kind & 15);
        // A 128-bit NAA name holds the 64-bit one as its first half.
        let rank = |kind: u8, length: usize| (kind == NAA, length);
        if association == 0 && [NAA, EUI].contains(&kind) && [8, 12, 16].contains(&value.len()) {
            let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            let better = best.as_ref().is_none_or(|(k, d)| rank(kind, digits.len()) > rank(*k, d.len()));
            if better {
                best = Some((kind, digits));
            }
        }
    }
    let Some((kind, digits)) = best else { return Identification::default() };
    let mut found = Identification {
        short_serial: Some(digits.clone()),
        long_serial: Some(format!("{kind}{digits}")),
        ..Identification::default()
    };
    // As scsi_id: only NAA names are world-wide names, and only NAA 6 has an extension.
    if kind == NAA {
        found.wwn = digits.get(..16).map(|first| format!("0x{first}"));
        found.vendor_extension =
            digits.get(16..32).filter(|_| digits.starts_with('6')).map(|second| format!("0x{second}"));
        found.with_extension = Some(format!("0x{digits}"));
    }
    found
}

/// Reads the ATA identify data that page 0x89 carries from byte 60.
pub fn ata_identity(page: &[u8]) -> Option<AtaIdentity> {
    let _ = payload(page, 0x89)?;
    let identify: &[u8; 512] = page.get(60..)?.first_chunk()?;
    let word = |at: usize| -> Option<u16> {
        identify.get(at * 2..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    };
    // Text is stored with the two characters of each word swapped.
    let text = |from: usize, to: usize| {
        let bytes: Vec<u8> = (from..to).filter_map(word).flat_map(u16::to_be_bytes).collect();
        printable(&bytes)
    };
    // Word 87, bit 8: the name is there; bits 15:14 say that the word means anything.
    let named = word(87).is_some_and(|word| word & 0xc100 == 0x4100);
    let wwn = (108..112).filter_map(word).map(|word| format!("{word:04x}")).collect::<String>();
    Some(AtaIdentity {
        model: text(27, 47),
        serial: text(10, 20),
        wwn: (named && wwn.bytes().any(|digit| digit != b'0')).then(|| format!("0x{wwn}")),
    })
}

/// What follows the header of a page, if it is the right page.
fn payload(page: &[u8], code: u8) -> Option<&[u8]> {
    let [_, found, high, low, rest @ ..] = page else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (*found == code).then(|| rest.get(..length).unwrap_or(rest))
}

/// Printable ASCII without blanks around; `None` when nothing is left.
fn printable(bytes: &[u8]) -> Option<String> {
    let text: String =
        bytes.iter().filter(|byte| (0x20..0x7f).contains(*byte)).map(|byte| char::from(*byte)).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Pages as disks send them, for tests.
#[cfg(test)]
pub(crate) mod pages {
    pub fn page(code: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, code], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
    }
    pub fn designator(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[1, kind, 0, value.len() as u8], value].concat()
    }
    pub fn ata(model: &str, serial: &str, wwn: u64) -> Vec<u8> {
        let mut identify = vec![0u8; 512];
        for (at, size, text) in [(54, 40, model), (20, 20, serial)] {
            for (offset, pair) in format!("{text:<size$}").as_bytes().chunks(2).enumerate() {
                identify[at + offset * 2] = pair[1];
                identify[at + offset * 2 + 1] = pair[0];
            }
        }
        if wwn != 0 {
            identify[174..176].copy_from_slice(&0x4100u16.to_le_bytes());
            for (offset, pair) in wwn.to_be_bytes().chunks(2).enumerate() {
                identify[216 + offset * 2] = pair[1];
                identify[217 + offset * 2] = pair[0];
            }
        }
        page(0x89, &[&[0u8; 56][..], &identify].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::pages::*;
    use super::*;
    use proptest::prelude::*;

    const NAA5: [u8; 8] = [0x50, 0, 0xc5, 0, 0xa1, 0xb2, 0xc3, 0xd4];
    const NAA6: [u8; 16] = [0x60, 5, 8, 0xb1, 0, 0x1c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    #[test]
    fn a_sas_disk_has_a_64_bit_name_and_its_port_is_not_it() {
        let port = designator(0x13, &[0x50, 1, 1, 1, 1, 1, 1, 1]);
        let found = identification(&page(0x83, &[port, designator(0x03, &NAA5)].concat()));
        assert_eq!(
            found,
            Identification {
                wwn: Some("0x5000c500a1b2c3d4".into()),
                vendor_extension: None,
                with_extension: Some("0x5000c500a1b2c3d4".into()),
                short_serial: Some("5000c500a1b2c3d4".into()),
                long_serial: Some("35000c500a1b2c3d4".into()),
            }
        );
    }

    #[test]
    fn a_raid_volume_has_an_extension() {
        let names = [designator(0x02, &[1; 8]), designator(0x03, &NAA6), designator(0x03, &NAA5)].concat();
        let found = identification(&page(0x83, &names));
        assert_eq!(found.wwn.as_deref(), Some("0x600508b1001c0102"));
        assert_eq!(found.vendor_extension.as_deref(), Some("0x030405060708090a"));
        assert_eq!(found.with_extension.as_deref(), Some("0x600508b1001c0102030405060708090a"));
    }

    #[test]
    fn names_that_are_no_wwn_are_serials_only() {
        let found = identification(&page(0x83, &designator(0x02, &[0xab; 8])));
        assert_eq!((found.wwn, found.long_serial.as_deref()), (None, Some("2abababababababab")));
        assert_eq!(identification(&page(0x80, &designator(0x03, &NAA5))), Identification::default());
    }

    #[test]
    fn serials_lose_their_padding() {
        assert_eq!(unit_serial(&page(0x80, b"   WD-WX1\0  ")).as_deref(), Some("WD-WX1"));
        assert_eq!(unit_serial(&page(0x80, b"     ")), None);
        assert_eq!(unit_serial(&page(0x83, b"X")), None);
    }

    #[test]
    fn identify_data_is_unswapped() {
        let found =
            ata_identity(&ata("Samsung SSD 870 EVO 500GB", "S62ANJ0R123456", 0x5002_538f_1234_5678)).unwrap();
        assert_eq!(
            found,
            AtaIdentity {
                model: Some("Samsung SSD 870 EVO 500GB".into()),
                serial: Some("S62ANJ0R123456".into()),
                wwn: Some("0x5002538f12345678".into()),
            }
        );
        assert_eq!(ata_identity(&ata("QEMU HARDDISK", "QM00001", 0)).unwrap().wwn, None);
    }

    proptest! {
        #[test]
        fn any_page_is_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), code in 0x80u8..0x8a) {
            if let Some(slot) = bytes.get_mut(1) { *slot = code; }
            let _ = (unit_serial(&bytes), identification(&bytes), ata_identity(&bytes));
        }
    }
}
