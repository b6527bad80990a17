//! LLDP (IEEE 802.1AB, chapter 8): the information that a switch sends about itself, still packed.
//!
//! Only the list is read; what each value means is for those who ask for it raw.

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
    fn a_cut_unit_gives_what_came_before() {
        assert_eq!(tlvs(&[0x02, 0x01, 7, 0x04, 0x05, 1]), [Tlv { kind: 1, value: &[7] }]);
        assert_eq!(tlvs(&[0x02]), []);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(unit in prop::collection::vec(any::<u8>(), 0..600)) {
            let total: usize = tlvs(&unit).iter().map(|tlv| tlv.value.len() + 2).sum();
            prop_assert!(total <= unit.len());
        }
    }
}
