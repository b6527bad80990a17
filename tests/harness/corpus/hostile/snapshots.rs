//! qcow2 images whose table of internal snapshots leads astray. Nothing of a snapshot is on the disk, but readers walk the table.

use super::super::content;
use super::super::qcow2::{Cluster, Recipe};
use super::{Hostile, Kind};
use crate::write::Left;

/// Bytes of a cluster.
const C: u64 = 4096;

/// An entry: its texts are an id of one byte and a name.
#[derive(Clone, Copy)]
struct Entry {
    l1: u64,
    l1_entries: u32,
    name: u16,
    extra: u32,
    /// Bytes of the extra data that are there.
    there: usize,
}

const GOOD: Entry = Entry { l1: 2 * C, l1_entries: 1, name: 9, extra: 24, there: 24 };

/// A sentence, the entries, how many the header says there are, and what is said about them.
type Case = (&'static str, &'static [Entry], u32, &'static str);

const CASES: &[Case] = &[
    (
        "a snapshot has 1,025 bytes of extra data",
        &[Entry { extra: 1025, there: 1025, ..GOOD }],
        1,
        "1025 bytes of extra data",
    ),
    (
        "a snapshot has 2^32 - 1 bytes of extra data",
        &[GOOD, Entry { extra: u32::MAX, ..GOOD }],
        2,
        "snapshot 2 of the image has 4294967295 bytes of extra data",
    ),
    (
        "the name of a snapshot goes past the end of the file",
        &[Entry { name: u16::MAX, ..GOOD }],
        1,
        "not inside the file",
    ),
    ("there are fewer snapshots than the header says", &[GOOD, GOOD], 3, "entry of the snapshot table"),
    ("there are 65,536 snapshots in one", &[GOOD], 65_536, "entry of the snapshot table"),
    ("there are no snapshots in the table", &[], 1, "snapshot table"),
    (
        "the L1 table of a snapshot is not aligned",
        &[Entry { l1: 2 * C + 8, ..GOOD }],
        1,
        "L1 table of a snapshot is at",
    ),
    ("the L1 table of a snapshot is the header", &[Entry { l1: 0, ..GOOD }], 1, "lies on the header"),
    (
        "the L1 table of a snapshot is behind the file",
        &[Entry { l1: 1 << 40, ..GOOD }],
        1,
        "L1 table of a snapshot at",
    ),
    (
        "the L1 table of a snapshot is longer than the file",
        &[Entry { l1_entries: u32::MAX, ..GOOD }],
        1,
        "L1 table of a snapshot at",
    ),
    (
        "the L1 table of a snapshot is at the end of all numbers",
        &[Entry { l1: u64::MAX - (C - 1), ..GOOD }],
        1,
        "L1 table of a snapshot at",
    ),
];

pub fn all() -> Vec<Hostile> {
    let refused = |name: &str, words, bytes: Box<dyn Fn() -> Vec<u8>>| {
        Hostile::new(name, Kind::Qcow2, words, Left::Untouched, Box::new(move || Ok(bytes())))
    };
    let mut all: Vec<Hostile> = CASES
        .iter()
        .map(|(name, entries, count, words)| {
            refused(name, words, Box::new(move || with_table(entries, *count)))
        })
        .collect();
    for (name, place, words) in [
        ("the snapshot table is the refcount table", C, "on the refcount table"),
        ("the snapshot table is the L1 table", 2 * C, "on the L1 table"),
    ] {
        let made = move || {
            let mut bytes = with_table(&[GOOD], 1);
            bytes[64..72].copy_from_slice(&place.to_be_bytes());
            bytes
        };
        all.push(refused(name, words, Box::new(made)));
    }
    all
}

/// An image with a snapshot table as its last cluster, which is cut where the table ends.
fn with_table(entries: &[Entry], count: u32) -> Vec<u8> {
    let clusters = (0..300).map(|n| Cluster::Data(content::text(1500 + n, C as usize))).collect();
    let mut bytes = Recipe::of(12, clusters).build().bytes;
    let place = bytes.len().next_multiple_of(C as usize);
    bytes.resize(place, 0);
    bytes[60..64].copy_from_slice(&count.to_be_bytes());
    bytes[64..72].copy_from_slice(&(place as u64).to_be_bytes());
    for entry in entries {
        bytes.extend([&entry.l1.to_be_bytes()[..], &entry.l1_entries.to_be_bytes()].concat());
        bytes.extend([1, entry.name].map(u16::to_be_bytes).concat());
        bytes.extend([0; 20]);
        bytes.extend(entry.extra.to_be_bytes());
        bytes.resize(bytes.len() + entry.there + 10, b's');
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}
