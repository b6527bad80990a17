//! LLDP (IEEE 802.1AB, chapter 8): the information that a switch sends about itself, still packed.
//!
//! Only the list is read, and the entries that name VLANs; what other values mean is for those who ask for them raw.

use alloc::vec::Vec;

/// The type and value of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Seven bits: 0 ends the list.
    pub kind: u8,
    /// At most 511 bytes.
    pub value: &'a [u8],
}

/// The entries of an LLDP data unit (without the Ethernet header), the one that ends the list included and padding left
/// out. A unit that is cut gives the entries before the cut.
pub fn tlvs(unit: &[u8]) -> Vec<Tlv<'_>> {
    let mut found = Vec::new();
    let mut rest = unit;
    while let [high, low, after @ ..] = rest {
        let length = usize::from(high & 1) << 8 | usize::from(*low);
        let Some((value, next)) = after.split_at_checked(length) else { break };
        let kind = high >> 1;
        found.push(Tlv { kind, value });
        if kind == 0 {
            break;
        }
        rest = next;
    }
    found
}

/// The tags of the VLANs that the sender names, each once and in its order: entries of IEEE 802.1 (OUI 00-80-C2) of subtype 3
/// (IEEE 802.1Q, D.2.3). Tags that no frame can carry are left out.
pub fn vlans(unit: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    for tlv in tlvs(unit) {
        let (127, [0x00, 0x80, 0xc2, 3, high, low, ..]) = (tlv.kind, tlv.value) else { continue };
        let id = u16::from_be_bytes([*high, *low]);
        if (1..=4094).contains(&id) && !found.contains(&id) {
            found.push(id);
        }
    }
    found
}

/// Whether the sender says goodbye: a time to live of 0 (8.5.4), as a port sends before it is switched off. Such a unit
/// holds nothing but who says so.
pub fn is_shutdown(unit: &[u8]) -> bool {
    tlvs(unit).iter().any(|tlv| tlv.kind == 3 && matches!(tlv.value, [0, 0, ..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn entries_are_told_apart_and_padding_is_left_out() {
        let mut unit = vec![0x02, 0x07, 4, 1, 2, 3, 4, 5, 6, 0x04, 0x02, 5, b'1', 0x06, 0x02, 0, 120];
        unit.extend([0x09, 0x2c]); // type 4, 300 bytes
        unit.extend([b'x'; 300]);
        unit.extend([0, 0, 0, 0, 0, 9]);
        let found = tlvs(&unit);
        let shape: Vec<(u8, usize)> = found.iter().map(|tlv| (tlv.kind, tlv.value.len())).collect();
        assert_eq!(shape, [(1, 7), (2, 2), (3, 2), (4, 300), (0, 0)]);
        assert_eq!(found[0].value, [4, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_time_to_live_of_zero_is_a_goodbye() {
        let unit = |high, low| vec![0x02, 0x02, 4, 1, 0x04, 0x02, 5, b'1', 0x06, 0x02, high, low, 0, 0];
        assert!(is_shutdown(&unit(0, 0)));
        assert!(!is_shutdown(&unit(0, 120)) && !is_shutdown(&unit(1, 0)));
        assert!(!is_shutdown(&[0x06, 0x01, 0]) && !is_shutdown(&[]));
    }

    #[test]
    fn names_of_vlans_are_told_from_other_entries_of_ieee_802_1() {
        let entry = |value: &[u8]| [&[0xfe, value.len() as u8], value].concat();
        let name = |id: u16| {
            let [high, low] = id.to_be_bytes();
            entry(&[0x00, 0x80, 0xc2, 3, high, low, 4, b'n', b'a', b'm', b'e'])
        };
        // The untagged VLAN of the port, IEEE 802.3, one without a name's length, and one that is cut.
        let others = [
            entry(&[0x00, 0x80, 0xc2, 1, 0, 9]),
            entry(&[0x00, 0x12, 0x0f, 3, 0, 9]),
            entry(&[0x00, 0x80, 0xc2, 3, 0, 5]),
            entry(&[0x00, 0x80, 0xc2, 3, 0]),
        ];
        let unit = [name(100), others.concat(), name(4094), name(0), name(4095), name(100), name(2)].concat();
        assert_eq!(vlans(&unit), [100, 5, 4094, 2]);
        assert!(vlans(&[]).is_empty());
    }

    #[test]
    fn a_cut_unit_gives_what_came_before() {
        assert_eq!(tlvs(&[0x02, 0x01, 7, 0x04, 0x05, 1]), [Tlv { kind: 1, value: &[7] }]);
        assert_eq!(tlvs(&[0x02]), []);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(unit in prop::collection::vec(any::<u8>(), 0..600)) {
            let total: usize = tlvs(&unit).iter().map(|tlv| tlv.value.len() + 2).sum();
            prop_assert!(total <= unit.len());
            prop_assert!(vlans(&unit).iter().all(|id| (1..=4094).contains(id)));
        }
    }
}
