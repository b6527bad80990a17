//! The images: good ones of every kind, and what a number changes in one of them.

use crate::corpus::content::{self, Rng};
use crate::corpus::qcow2::{self, Cluster, Frame, Part, Recipe};
use crate::corpus::qemu;
use crate::write::{MIB, scratch};
use anyhow::{Context, Result};
use std::fs;

/// A good image, and the places that matter in it.
pub struct Base {
    bytes: Vec<u8>,
    cluster: usize,
    l1: usize,
    /// File bytes of the entries that have something to say.
    l1_entries: Vec<usize>,
    l2_entries: Vec<usize>,
    is_extended: bool,
}

pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Base {
    fn of(bytes: Vec<u8>) -> Result<Base> {
        let header = |at| word(&bytes, at).context("a header");
        let cluster = 1usize << (header(16)? & 0xff);
        let (size, l1) = (header(24)?, header(40)? as usize);
        let is_extended = bytes[7] == 3 && header(72)? & 16 != 0;
        let step = if is_extended { 16 } else { 8 };
        let clusters = (size as usize).div_ceil(cluster);
        let tables = clusters.div_ceil(cluster / step);
        let l1_entries: Vec<usize> = (0..tables).map(|nth| l1 + nth * 8).collect();
        let mut l2_entries = Vec::new();
        for (nth, at) in l1_entries.iter().enumerate() {
            let l2 = (word(&bytes, *at).context("an L1 entry")? & qcow2::OFFSET) as usize;
            if l2 != 0 {
                let here = (clusters - nth * (cluster / step)).min(cluster / step);
                l2_entries.extend((0..here).map(|entry| l2 + entry * step));
            }
        }
        Ok(Base { bytes, cluster, l1, l1_entries, l2_entries, is_extended })
    }
}

/// Good images of 1 MiB or a little less, of every kind.
pub fn bases() -> Result<Vec<Base>> {
    let folder = scratch("bases")?;
    let path = folder.path();
    fs::write(path.join("raw"), content::disk(35, MIB as usize))?;
    let mut images = Vec::new();
    for options in [
        &["-o", "cluster_size=4k"][..],
        &["-c", "-o", "cluster_size=8k"],
        &["-c", "-o", "cluster_size=16k,compression_type=zstd"],
        &["-o", "cluster_size=16k,extended_l2=on"],
        &["-c", "-o", "cluster_size=16k,extended_l2=on,compression_type=zstd"],
        &["-o", "compat=0.10,cluster_size=4k"],
        &["-c", "-o", "compat=0.10,cluster_size=64k"],
        &["-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
    ] {
        let words = [&["convert", "-f", "raw", "-O", "qcow2"], options, &["raw", "image"]].concat();
        qemu("qemu-img", &words, path)?;
        images.push(fs::read(path.join("image"))?);
    }
    qemu("qemu-img", &["convert", "-O", "qcow2", "-o", "cluster_size=32k", "raw", "image"], path)?;
    for words in [&["snapshot", "-c", "one", "image"][..], &["bitmap", "--add", "image", "bits"]] {
        qemu("qemu-img", words, path)?;
    }
    qemu(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 9 100k 200k", "-c", "write -z 500k 200k", "image"],
        path,
    )?;
    images.push(fs::read(path.join("image"))?);
    images.extend([own_plain(), own_packed(), own_parts()].map(|recipe| recipe.build().bytes));
    images.into_iter().map(Base::of).collect()
}

fn own_plain() -> Recipe {
    let mut clusters = qcow2::mixed(71, 12, 250);
    clusters[200] = Cluster::Like(clusters.iter().position(|c| matches!(c, Cluster::Data(_))).unwrap_or(0));
    let order = vec![Part::Backwards, Part::L2, Part::RefcountTable, Part::L1];
    Recipe { order, ..Recipe::of(12, clusters) }
}

fn own_packed() -> Recipe {
    let pack = |plain: &[u8]| qcow2::zstd_frame(plain, Frame::Full, 3);
    let order = vec![Part::RefcountTable, Part::FirstHalf, Part::L1, Part::L2, Part::SecondHalf];
    Recipe { zstd: true, gap: 3, order, ..Recipe::of(13, qcow2::packed(72, 13, 120, pack)) }
}

fn own_parts() -> Recipe {
    let mut rng = Rng::new(73);
    let clusters = (0..60).map(|nth| {
        let (allocated, zero) = (rng.next() as u32, rng.next() as u32);
        Cluster::Parts { data: content::text(nth, 16 << 10), allocated, zero: zero & !allocated }
    });
    Recipe { extended: true, ..Recipe::of(14, clusters.collect()) }
}

/// Image number `seed`.
pub fn mutant(bases: &[Base], seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let base = &bases[rng.below(bases.len() as u64) as usize];
    let mut bytes = base.bytes.clone();
    for _ in 0..rng.one(&[1, 1, 2, 3]) {
        mutate(base, &mut bytes, &mut rng);
    }
    bytes
}

/// Header fields: place and length.
const FIELDS: &[(usize, usize)] = &[
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 4),
    (104, 1),
    (112, 4),
    (116, 4),
];

fn mutate(base: &Base, bytes: &mut Vec<u8>, rng: &mut Rng) {
    let l2 = |rng: &mut Rng| base.l2_entries.get(rng.below(base.l2_entries.len() as u64) as usize).copied();
    match rng.below(16) {
        0 => noise(bytes, rng.below(120) as usize, rng),
        1 => {
            let (at, length) = rng.one(FIELDS);
            let value = word(bytes, at).unwrap_or(0) >> (64 - 8 * length as u64);
            let value = odd_value(value, base, bytes.len(), rng).to_be_bytes();
            put(bytes, at, &value[8 - length..]);
        }
        2 => {
            let at = rng.one(&base.l1_entries);
            let value = match rng.below(3) {
                0 => word(bytes, rng.one(&base.l1_entries)).unwrap_or(0),
                _ => odd_value(word(bytes, at).unwrap_or(0), base, bytes.len(), rng),
            };
            put(bytes, at, &value.to_be_bytes());
        }
        3 => noise(bytes, base.l1 + rng.below(base.l1_entries.len() as u64 * 8) as usize, rng),
        4..=8 => {
            if let (Some(at), Some(other)) = (l2(rng), l2(rng)) {
                entry(base, bytes, at, other, rng);
            }
        }
        9 if base.is_extended => {
            if let Some(at) = l2(rng) {
                let map = word(bytes, at + 8).unwrap_or(0);
                let (random, bit) = (rng.next(), 1 << rng.below(64));
                let map = rng.one(&[random, map ^ bit, map.rotate_left(32), !map, random & !(random >> 32)]);
                put(bytes, at + 8, &map.to_be_bytes());
            }
        }
        9 | 10 => {
            if let Some(at) = l2(rng) {
                noise(bytes, at + rng.below(8) as usize, rng);
            }
        }
        11 => {
            // Into the data of a cluster, near its start: streams have their heads there.
            let host = l2(rng).and_then(|at| word(bytes, at)).unwrap_or(0) & 0x00ff_ffff_ffff;
            let at = host as usize + rng.below(64) as usize;
            noise(bytes, at, rng);
        }
        12 => {
            let cut = rng.below(bytes.len() as u64) as usize;
            let cut = if rng.below(2) == 0 { cut } else { cut / base.cluster * base.cluster };
            bytes.truncate(bytes.len() - cut.min(rng.one(&[1, 512, base.cluster, cut])));
        }
        13 => {
            let (from, to) = (rng.below(bytes.len() as u64) as usize, rng.below(bytes.len() as u64) as usize);
            let align = |at: usize| at / base.cluster * base.cluster;
            let piece = bytes.get(align(from)..align(from) + base.cluster).unwrap_or_default().to_vec();
            put(bytes, align(to), &piece);
        }
        14 => {
            let more = rng.below(3 * base.cluster as u64) as usize;
            let more = rng.bytes(more);
            bytes.extend(more);
        }
        _ => {
            let at = rng.below(bytes.len() as u64) as usize;
            noise(bytes, at, rng);
        }
    }
}

/// Changes one byte.
fn noise(bytes: &mut [u8], at: usize, rng: &mut Rng) {
    if let Some(place) = bytes.get_mut(at) {
        let (random, bit) = (rng.next() as u8, 1 << rng.below(8));
        *place = rng.one(&[random, *place ^ bit, 0, 1, 0x7f, 0x80, 0xff]);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A value that limits are about.
fn odd_value(old: u64, base: &Base, length: usize, rng: &mut Rng) -> u64 {
    let (cluster, length) = (base.cluster as u64, length as u64);
    let power = 1 << rng.below(64);
    let near = [cluster, length, length / cluster * cluster, length.next_multiple_of(cluster), power];
    let value = match rng.below(4) {
        0 => rng.one(&[0, 1, 2, 3, u64::MAX, u64::MAX / 2, 0x00ff_ffff_ffff_fe00]),
        1 => rng.one(&near),
        2 => old ^ power,
        _ => old.wrapping_add(rng.one(&[1, cluster, 512, old, 8])),
    };
    match rng.below(3) {
        0 => value.wrapping_sub(1),
        1 => value.wrapping_add(rng.one(&[1, 511, 512, cluster])),
        _ => value,
    }
}

/// Changes the L2 entry at `at`; `other` is another one.
fn entry(base: &Base, bytes: &mut [u8], at: usize, other: usize, rng: &mut Rng) {
    let (mine, theirs) = (word(bytes, at).unwrap_or(0), word(bytes, other).unwrap_or(0));
    let cluster = base.cluster as u64;
    let shift = 70 - cluster.trailing_zeros();
    let (sectors, offset) = ((mine & !qcow2::COMPRESSED) >> shift, mine & ((1 << shift) - 1));
    let value = match rng.below(10) {
        0 => {
            put(bytes, other, &mine.to_be_bytes());
            theirs
        }
        1 => theirs,
        2 => mine ^ 1 << rng.below(64),
        3 => mine ^ 1,
        4 => mine.wrapping_add(rng.one(&[cluster, 512, 1, cluster.wrapping_neg(), 512u64.wrapping_neg()])),
        5 => mine ^ qcow2::COMPRESSED,
        6 => qcow2::COMPRESSED | rng.below(cluster / 256) << shift | offset,
        7 => qcow2::COMPRESSED | sectors << shift | offset.wrapping_add(rng.one(&[1, u64::MAX, 512, 2])),
        8 => rng.below(bytes.len() as u64 / cluster + 2) * cluster,
        _ => odd_value(mine, base, bytes.len(), rng),
    };
    put(bytes, at, &value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_gives_the_same_image_and_most_numbers_a_changed_one() -> Result<()> {
        let good = own_plain().build().bytes;
        let bases = [Base::of(good.clone())?];
        let changed = (0..100).filter(|seed| mutant(&bases, *seed) != good).count();
        assert!(changed > 90, "{changed}");
        assert_eq!(mutant(&bases, 5), mutant(&bases, 5));
        Ok(())
    }
}
