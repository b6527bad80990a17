//! Writes qcow2 images whose clusters lie in random order: neighbours in the file are far apart on the disk, as in an
//! image that a virtual machine has lived in. All tables come first, as QEMU lays them out.
//!
//! Specification: QEMU's `docs/interop/qcow2.rst`, version 3, 16-bit reference counts.

use anyhow::{Context, Result, ensure};
use flate2::{Compress, Compression, FlushCompress, Status};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// How clusters are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Plain,
    Deflated,
}

#[derive(Clone, Copy, Debug)]
pub struct Scattered {
    pub virtual_bytes: u64,
    pub cluster_bits: u32,
    /// How many clusters have data.
    pub clusters: u64,
    pub cut: Cut,
}

/// Different contents of clusters; each starts with its number.
const PATTERNS: u64 = 64;
const SECTOR: u64 = 512;
/// This cluster is referred to once, its entry may be changed in place.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// Where things lie in the file, in clusters.
#[derive(Clone, Copy, Debug)]
struct Layout {
    cluster: u64,
    /// Of the reference count table and of its blocks.
    counts_table: u64,
    counts: u64,
    l1: u64,
    l1_entries: u64,
    l2: u64,
    data: u64,
}

impl Layout {
    fn of(image: Scattered) -> Layout {
        let cluster = 1 << image.cluster_bits;
        let l1_entries = image.virtual_bytes.div_ceil(cluster * (cluster / 8));
        let l1_clusters = (l1_entries * 8).div_ceil(cluster);
        // Room for every cluster, were none compressed, and a few more for the tables themselves.
        let blocks = (image.clusters + l1_entries + l1_clusters) / (cluster / 2) + 2;
        let table = (blocks * 8).div_ceil(cluster);
        let counts = 1 + table;
        let l1 = counts + blocks;
        let l2 = l1 + l1_clusters;
        Layout { cluster, counts_table: 1, counts, l1, l1_entries, l2, data: l2 + l1_entries }
    }
}

/// Writes the image; the same every time.
pub fn write(path: &Path, image: Scattered) -> Result<()> {
    let layout = Layout::of(image);
    let places = order(image.virtual_bytes / layout.cluster, image.clusters);
    let patterns = (0..PATTERNS).map(|n| stored(image, layout, n)).collect::<Result<Vec<_>>>()?;
    let mut file = BufWriter::with_capacity(4 << 20, File::create(path).context("making the image")?);
    let mut entries = vec![0_u64; usize::try_from(layout.l1_entries * layout.cluster / 8)?];
    let mut at = layout.data * layout.cluster;
    let mut counts = vec![1_u16; usize::try_from(layout.data)?];
    file.seek(SeekFrom::Start(at))?;
    for (nth, place) in places.into_iter().enumerate() {
        let bytes = patterns.get(nth % patterns.len()).context("no patterns")?;
        file.write_all(bytes)?;
        let entry = entries.get_mut(usize::try_from(place)?).context("a place outside the image")?;
        *entry = entry_of(image, at, bytes.len() as u64);
        count(&mut counts, at, bytes.len() as u64, layout.cluster);
        at += bytes.len() as u64;
    }
    // A file ends with a whole cluster.
    file.write_all(&vec![0; usize::try_from(at.next_multiple_of(layout.cluster) - at)?])?;
    file.rewind()?;
    file.write_all(&header(image, layout))?;
    let numbers =
        |values: &mut dyn Iterator<Item = u64>| values.flat_map(u64::to_be_bytes).collect::<Vec<u8>>();
    let table = numbers(&mut (layout.counts..layout.l1).map(|block| block * layout.cluster));
    let l1 = numbers(&mut (layout.l2..layout.data).map(|l2| (l2 * layout.cluster) | COPIED));
    let counts = counts.into_iter().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    ensure!(
        counts.len() as u64 <= (layout.l1 - layout.counts) * layout.cluster,
        "too many clusters to count"
    );
    for (cluster, bytes) in [
        (layout.counts_table, table),
        (layout.counts, counts),
        (layout.l1, l1),
        (layout.l2, numbers(&mut entries.into_iter())),
    ] {
        file.seek(SeekFrom::Start(cluster * layout.cluster))?;
        file.write_all(&bytes)?;
    }
    file.flush().context("writing the image")
}

/// The table entry for a cluster that is stored at `at` in `length` bytes.
fn entry_of(image: Scattered, at: u64, length: u64) -> u64 {
    match image.cut {
        Cut::Plain => at | COPIED,
        // Sectors beyond the one it starts in.
        Cut::Deflated => {
            let more = (at + length - 1) / SECTOR - at / SECTOR;
            at | more << (62 - (image.cluster_bits - 8)) | COMPRESSED
        }
    }
}

/// Counts one more reference to all clusters of the file that these bytes touch.
fn count(counts: &mut Vec<u16>, at: u64, length: u64, cluster: u64) {
    for touched in at / cluster..=(at + length - 1) / cluster {
        let touched = touched as usize;
        counts.resize(counts.len().max(touched + 1), 0);
        if let Some(count) = counts.get_mut(touched) {
            *count += 1;
        }
    }
}

fn header(image: Scattered, layout: Layout) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut word = |value: u64, length: usize| {
        let all = value.to_be_bytes();
        bytes.extend_from_slice(all.get(8 - length..).unwrap_or_default());
    };
    word(0x5146_49fb, 4);
    word(3, 4);
    // No backing file.
    word(0, 8);
    word(0, 4);
    word(u64::from(image.cluster_bits), 4);
    word(image.virtual_bytes, 8);
    // Not encrypted.
    word(0, 4);
    word(layout.l1_entries, 4);
    word(layout.l1 * layout.cluster, 8);
    word(layout.counts_table * layout.cluster, 8);
    word(layout.counts - layout.counts_table, 4);
    // No snapshots, no features.
    word(0, 4);
    word(0, 8);
    word(0, 8);
    word(0, 8);
    word(0, 8);
    // Reference counts of 2^4 bits; the header's length.
    word(4, 4);
    word(104, 4);
    bytes
}

/// The bytes in the file for the cluster with this pattern.
fn stored(image: Scattered, layout: Layout, pattern: u64) -> Result<Vec<u8>> {
    let length = usize::try_from(layout.cluster)?;
    let mut random = Random(pattern + 1);
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(length).collect();
    if let Some(start) = bytes.get_mut(..8) {
        start.copy_from_slice(&pattern.to_be_bytes());
    }
    if image.cut == Cut::Plain {
        return Ok(bytes);
    }
    // An eighth of random bytes: what is left to store is little, as each has an entry to remember.
    if let Some(rest) = bytes.get_mut(length / 8..) {
        rest.fill(0x5a);
    }
    // QEMU's window is 2^12.
    let mut deflate = Compress::new_with_window_bits(Compression::default(), false, 12);
    let mut out = vec![0; length];
    let status = deflate.compress(&bytes, &mut out, FlushCompress::Finish)?;
    ensure!(status == Status::StreamEnd, "a cluster that does not shrink");
    out.truncate(usize::try_from(deflate.total_out())?);
    Ok(out)
}

/// `wanted` of the numbers below `count`, in random order.
fn order(count: u64, wanted: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..count).collect();
    let mut random = Random(1);
    for last in (1..all.len()).rev() {
        let other = random.next() % (last as u64 + 1);
        all.swap(last, other as usize);
    }
    all.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    all
}

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferric_tests::process::call;

    /// `qemu-img` finds no fault, and each cluster where it should be.
    fn check(image: Scattered) {
        let folder = tempfile::tempdir().unwrap();
        let (qcow2, raw) = (folder.path().join("a.qcow2"), folder.path().join("a.raw"));
        write(&qcow2, image).unwrap();
        let (qcow2, raw) = (qcow2.display().to_string(), raw.display().to_string());
        call("qemu-img", &["check", "-f", "qcow2", &qcow2]).unwrap();
        call("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &qcow2, &raw]).unwrap();
        let bytes = std::fs::read(raw).unwrap();
        assert_eq!(bytes.len() as u64, image.virtual_bytes);
        let cluster = 1 << image.cluster_bits;
        let places = order(image.virtual_bytes / cluster as u64, image.clusters);
        assert!(
            places.windows(2).filter(|w| w[1] != w[0] + 1).count() as u64 > image.clusters / 2,
            "not scattered"
        );
        for (nth, place) in places.iter().enumerate() {
            let number = u64::from_be_bytes(bytes[*place as usize * cluster..][..8].try_into().unwrap());
            assert_eq!(number, nth as u64 % PATTERNS, "cluster {place}");
        }
        let used = bytes.chunks(cluster).filter(|c| c.iter().any(|b| *b != 0)).count();
        assert_eq!(used as u64, image.clusters);
    }

    #[test]
    fn plain_clusters_are_where_they_should_be() {
        check(Scattered { virtual_bytes: 64 << 20, cluster_bits: 16, clusters: 300, cut: Cut::Plain });
    }

    #[test]
    fn deflated_clusters_are_where_they_should_be() {
        check(Scattered { virtual_bytes: 16 << 20, cluster_bits: 12, clusters: 2000, cut: Cut::Deflated });
    }
}
