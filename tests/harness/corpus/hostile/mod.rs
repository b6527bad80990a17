//! Broken and malicious images. Each has its verdict: words that must be said, and what the disk is afterwards.

mod containers;
mod header;
mod packed;
mod snapshots;
mod streams;
mod tables;
mod truncated;

use super::Kind;
use super::qcow2::{Cluster, Recipe};
use crate::write::Left;

/// An image that must be refused.
pub struct Hostile {
    /// A sentence.
    pub name: String,
    /// What it is declared to be.
    pub kind: Kind,
    /// Whether a partition table is asked for.
    pub wants_table: bool,
    /// A digest that is not the file's.
    pub is_digest_wrong: bool,
    /// What stands in the refusal, upper or lower case.
    pub words: &'static str,
    /// Untouched where it is known before the first write, else blank; `None`: either of them will do.
    pub left: Option<Left>,
    pub bytes: Make,
}

/// Made when it is needed: all at once would be a lot.
type Make = Box<dyn Fn() -> anyhow::Result<Vec<u8>>>;

impl Hostile {
    fn new(name: &str, kind: Kind, words: &'static str, left: Left, bytes: Make) -> Hostile {
        let (name, left) = (name.to_owned(), Some(left));
        Hostile { name, kind, wants_table: false, is_digest_wrong: false, words, left, bytes }
    }
}

/// Bytes of the disk that they are written to.
pub const DISK: u64 = 8 << 20;

/// Every image that must be refused.
pub fn all() -> Vec<Hostile> {
    let rooms = [
        header::all(),
        tables::all(),
        snapshots::all(),
        streams::all(),
        containers::all(),
        packed::all(),
        truncated::all(),
    ];
    rooms.into_iter().flatten().collect()
}

/// A qcow2 of so many clusters of 512 bytes, all of them the same cluster of the file: valid, but its map has no runs.
pub fn scattered(clusters: usize) -> Vec<u8> {
    const C: usize = 512;
    let mut built = Recipe::of(9, vec![Cluster::Data(vec![0x5a; C])]).build();
    let tables = clusters.div_ceil(C / 8);
    let l1 = built.bytes.len().next_multiple_of(C);
    let l2 = (l1 + tables * 8).next_multiple_of(C);
    let data = built.data[0] as u64;
    built.bytes.resize(l2 + tables * C, 0);
    for table in 0..tables {
        built.put64(l1 + table * 8, (l2 + table * C) as u64);
    }
    for nth in 0..clusters {
        built.put64(l2 + nth * 8, data);
    }
    built.put64(24, (clusters * C) as u64);
    built.put64(40, l1 as u64);
    built.bytes[36..40].copy_from_slice(&(tables as u32).to_be_bytes());
    built.bytes
}
