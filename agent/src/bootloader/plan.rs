//! What to change among the firmware's variables so that the new entries come first. Pure.
//!
//! Firmware's memory wears out and is small: nothing is written that is there already, and an entry of the same name is
//! overwritten in place. The order is changed after the entries that it names, and what is doubled goes last.

use super::entry::{self, Entry};
use std::collections::{BTreeMap, BTreeSet};

/// The variable with the numbers of the entries in the order in which they are tried.
pub const ORDER: &str = "BootOrder";

/// One step. `Write` replaces a variable of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Write(String, Vec<u8>),
    Remove(String),
}

/// The number of a boot entry, by its variable's name.
pub fn number(variable: &str) -> Option<u16> {
    let digits = variable.strip_prefix("Boot")?;
    let upper = digits.len() == 4 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    upper.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

fn name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The changes, in order. `existing` are the entries by number, `order` is `BootOrder` as it is. `None` if no number is free.
pub fn plan(existing: &BTreeMap<u16, Vec<u8>>, order: &[u8], wanted: &[Entry]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut doubled = BTreeSet::new();
    let mut first = Vec::new();
    for entry in wanted {
        let same = |bytes: &Vec<u8>| entry::description(bytes).as_ref() == Some(&entry.description);
        let mut named = existing.iter().filter(|(_, bytes)| same(bytes)).map(|(number, _)| *number);
        let mut free = (0..=u16::MAX).filter(|n| !existing.contains_key(n) && !first.contains(n));
        let place = match named.next() {
            Some(number) if !first.contains(&number) => number,
            _ => free.next()?,
        };
        doubled.extend(named);
        let bytes = entry.encode();
        if existing.get(&place) != Some(&bytes) {
            changes.push(Change::Write(name(place), bytes));
        }
        first.push(place);
    }
    let before: Vec<u16> = order.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    let rest = before.iter().copied().filter(|number| !first.contains(number) && !doubled.contains(number));
    let after: Vec<u16> = first.iter().copied().chain(rest).collect();
    if after != before {
        changes.push(Change::Write(ORDER.to_owned(), after.into_iter().flat_map(u16::to_le_bytes).collect()));
    }
    changes.extend(
        doubled.into_iter().filter(|number| !first.contains(number)).map(|n| Change::Remove(name(n))),
    );
    Some(changes)
}

/// The changes that take entries away: out of the order first.
pub fn without(order: &[u8], gone: &[u16]) -> Vec<Change> {
    let before: Vec<u16> = order.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    let after: Vec<u16> = before.iter().copied().filter(|number| !gone.contains(number)).collect();
    let mut changes = Vec::new();
    if after != before {
        changes.push(Change::Write(ORDER.to_owned(), after.into_iter().flat_map(u16::to_le_bytes).collect()));
    }
    changes.extend(gone.iter().map(|number| Change::Remove(name(*number))));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootloader::entry::{Place, Signature};

    fn entry(description: &str, disk: u8) -> Entry {
        let signature = Signature::Gpt([disk; 16]);
        Entry {
            description: description.into(),
            place: Place { number: 1, first: 2048, sectors: 8192, signature },
            loader: "\\EFI\\BOOT\\BOOTX64.EFI".into(),
        }
    }

    /// Carries out the plan; entries as `number:name`, then the order; and how many changes that took.
    fn after(existing: &[(u16, Entry)], order: &[u16], wanted: &[Entry]) -> (String, usize) {
        let mut all: BTreeMap<u16, Vec<u8>> = existing.iter().map(|(n, e)| (*n, e.encode())).collect();
        let mut order: Vec<u8> = order.iter().flat_map(|n| n.to_le_bytes()).collect();
        let changes = plan(&all, &order, wanted).unwrap();
        let count = changes.len();
        for change in changes {
            match change {
                Change::Write(name, bytes) if name == ORDER => order = bytes,
                Change::Write(name, bytes) => drop(all.insert(number(&name).unwrap(), bytes)),
                Change::Remove(name) => assert!(all.remove(&number(&name).unwrap()).is_some()),
            }
            // Whatever comes next may fail: nothing in the order may be missing.
            let named = order.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
            assert!(named.into_iter().all(|n| all.contains_key(&n)));
        }
        let shown: Vec<String> =
            all.iter().map(|(n, bytes)| format!("{n}:{}", entry::description(bytes).unwrap())).collect();
        let order: Vec<u16> = order.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        (format!("{} {order:?}", shown.join(" ")), count)
    }

    #[test]
    fn new_entries_come_first_and_doubles_go() {
        let pxe = || (0, entry("UEFI PXE", 0));
        let cases = [
            ("an empty firmware", vec![], vec![], vec![entry("debian", 7)], "0:debian [0]", 2),
            (
                "beside others",
                vec![pxe()],
                vec![0],
                vec![entry("debian", 7)],
                "0:UEFI PXE 1:debian [1, 0]",
                2,
            ),
            (
                "a gap is filled",
                vec![pxe(), (2, entry("x", 1))],
                vec![2, 0],
                vec![entry("debian", 7)],
                "0:UEFI PXE 1:debian 2:x [1, 2, 0]",
                2,
            ),
            (
                "again the same",
                vec![pxe(), (1, entry("debian", 7))],
                vec![1, 0],
                vec![entry("debian", 7)],
                "0:UEFI PXE 1:debian [1, 0]",
                0,
            ),
            (
                "the same, but last",
                vec![pxe(), (1, entry("debian", 7))],
                vec![0, 1],
                vec![entry("debian", 7)],
                "0:UEFI PXE 1:debian [1, 0]",
                1,
            ),
            (
                "another disk",
                vec![pxe(), (1, entry("debian", 6))],
                vec![0, 1],
                vec![entry("debian", 7)],
                "0:UEFI PXE 1:debian [1, 0]",
                2,
            ),
            (
                "doubled",
                vec![(3, entry("debian", 1)), (5, entry("debian", 2)), (9, entry("x", 3))],
                vec![5, 9, 3],
                vec![entry("debian", 7)],
                "3:debian 9:x [3, 9]",
                3,
            ),
            (
                "two loaders",
                vec![pxe()],
                vec![0],
                vec![entry("ironic1", 7), entry("ironic2", 7)],
                "0:UEFI PXE 1:ironic1 2:ironic2 [1, 2, 0]",
                3,
            ),
        ];
        for (case, existing, order, wanted, expected, changes) in cases {
            let (found, count) = after(&existing, &order, &wanted);
            assert_eq!((found.as_str(), count), (expected, changes), "{case}");
        }
    }

    #[test]
    fn what_is_no_entry_is_left_alone() {
        for name in ["BootOrder", "BootCurrent", "Boot000", "Boot00000", "Boot000a", "Boot+00A", "Key0000"] {
            assert_eq!(number(name), None, "{name}");
        }
        assert_eq!((number("Boot000A"), name(10)), (Some(10), "Boot000A".to_string()));
        let broken = BTreeMap::from([(0, vec![1, 2, 3])]);
        let changes = plan(&broken, &[0], &[entry("debian", 7)]).unwrap();
        let expected = [
            Change::Write("Boot0001".into(), entry("debian", 7).encode()),
            Change::Write(ORDER.into(), vec![1, 0]),
        ];
        assert_eq!(changes, expected, "an order cut in the middle of a number counts up to there");
    }

    #[test]
    fn a_full_firmware_is_told() {
        let full: BTreeMap<u16, Vec<u8>> = (0..=u16::MAX).map(|n| (n, Vec::new())).collect();
        assert_eq!(plan(&full, &[], &[entry("debian", 7)]), None);
    }
}
