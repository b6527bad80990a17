//! Valid qcow2 images that qemu-img reads and never writes: by the small writer in `qcow2.rs`.

use super::Valid;
use super::content::{self, Rng};
use super::qcow2::{Cluster, Frame, Part, Recipe, Stated, deflate, mixed, packed, stored, zstd_frame};
use Part::{Backwards, Data, FirstHalf, Garbage, L1, L2, RefcountTable, SecondHalf};
use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;

type Case = (&'static str, fn() -> Recipe);

const CASES: &[Case] = &[
    ("all tables are behind the data", || ordered(mixed(1, 12, 600), &[Data, RefcountTable, L2, L1])),
    ("the tables are amidst the data", || {
        ordered(mixed(2, 12, 600), &[RefcountTable, FirstHalf, L1, L2, SecondHalf])
    }),
    ("L2 is first, then the data, then L1", || ordered(mixed(3, 9, 3000), &[L2, Data, RefcountTable, L1])),
    ("the clusters lie backwards", || ordered(mixed(4, 12, 600), &[RefcountTable, L1, L2, Backwards])),
    ("the second half is before the first", || {
        ordered(mixed(5, 16, 40), &[Garbage, L1, SecondHalf, Garbage, RefcountTable, L2, FirstHalf, Garbage])
    }),
    ("compressed clusters lie backwards, tables last", || Recipe {
        order: vec![RefcountTable, Backwards, L1, L2],
        ..Recipe::of(12, packed(6, 12, 500, |plain| deflate(plain, 6)))
    }),
    ("every cluster of the disk is the same cluster of the file", || {
        let mut clusters = vec![Cluster::Data(content::text(7, 4096))];
        clusters.extend((1..600).map(|_| Cluster::Like(0)));
        Recipe::of(12, clusters)
    }),
    ("clusters of the file are used again far away", || {
        let mut clusters = mixed(8, 12, 500);
        let used: Vec<usize> = (0..500).filter(|n| matches!(clusters[*n], Cluster::Data(_))).collect();
        let mut rng = Rng::new(8);
        clusters.extend((0..200).map(|_| Cluster::Like(rng.one(&used))));
        ordered(clusters, &[RefcountTable, Backwards, L1, L2])
    }),
    ("one compressed stream is many clusters", || {
        let plain = content::text(9, 4096);
        let mut clusters = vec![Cluster::Hole, Cluster::Packed { stream: deflate(&plain, 9), plain }];
        clusters.extend((0..400).map(|_| Cluster::Like(1)));
        Recipe::of(12, clusters)
    }),
    ("one compressed stream is many clusters and crosses a MiB of the file", || alike(16, 100)),
    ("the same with clusters of 2 MiB", || alike(21, 6)),
    ("compressed streams share their sectors", || Recipe::of(12, tiny(10, 12, 700))),
    ("compressed streams share their sectors, zstd", || Recipe {
        zstd: true,
        gap: 1,
        ..Recipe::of(14, packed(11, 14, 150, |plain| zstd_frame(plain, Frame::Full, 9)))
    }),
    ("compressed streams begin at every byte", || Recipe { gap: 37, ..Recipe::of(9, tiny(12, 9, 2000)) }),
    ("compressed streams cross the clusters of the file", || Recipe {
        gap: 1234,
        ..Recipe::of(12, packed(13, 12, 400, |plain| deflate(plain, 6)))
    }),
    ("compressed streams say that they are as long as can be", || Recipe {
        stated: Stated::Most,
        has_refcounts: false,
        ..Recipe::of(16, packed(14, 16, 40, |plain| deflate(plain, 6)))
    }),
    ("compressed streams say that they are as long as can be, 2 MiB", || Recipe {
        stated: Stated::Most,
        has_refcounts: false,
        ..Recipe::of(21, packed(15, 21, 3, |plain| deflate(plain, 6)))
    }),
    ("compressed streams say that they are as long as can be, zstd", || Recipe {
        stated: Stated::Most,
        has_refcounts: false,
        zstd: true,
        gap: 5,
        ..Recipe::of(12, packed(16, 12, 400, |plain| zstd_frame(plain, Frame::Full, 3)))
    }),
    ("deflate that stores", || Recipe::of(14, packed(17, 14, 60, stored))),
    ("deflate at its lowest level", || Recipe::of(13, packed(18, 13, 200, |plain| deflate(plain, 1)))),
    ("zstd frames that say neither size nor checksum", || Recipe {
        zstd: true,
        ..Recipe::of(13, packed(19, 13, 200, |plain| zstd_frame(plain, Frame::Bare, 1)))
    }),
    ("zstd frames of many small blocks", || Recipe {
        zstd: true,
        ..Recipe::of(13, packed(20, 13, 100, |plain| zstd_frame(plain, Frame::Blocks, 3)))
    }),
    ("zstd frames at a high level in clusters of 2 MiB", || Recipe {
        zstd: true,
        ..Recipe::of(21, packed(21, 21, 3, |plain| zstd_frame(plain, Frame::Bare, 19)))
    }),
    ("the file ends with the last byte of the disk", || Recipe {
        is_cut: true,
        order: vec![RefcountTable, L1, L2, Data],
        size: (99 << 12) + 512,
        ..Recipe::of(12, cut(22, 12, 100, 512))
    }),
    ("the file ends with the last byte of a disk that is no whole sector", || Recipe {
        is_cut: true,
        order: vec![RefcountTable, L1, L2, Data],
        size: (99 << 12) + 100,
        ..Recipe::of(12, cut(23, 12, 100, 100))
    }),
    ("the disk has no whole number of sectors", || Recipe {
        size: (500 << 12) - 77,
        ..Recipe::of(12, full(24, 12, 500))
    }),
    ("the disk has no whole number of sectors, zlib", || Recipe {
        size: (100 << 14) - 1,
        ..Recipe::of(14, packed(25, 14, 100, |plain| deflate(plain, 6)))
    }),
    ("the header has 104 bytes", || Recipe { header_length: 104, ..Recipe::of(12, mixed(26, 12, 300)) }),
    ("the header has 104 bytes, zlib", || Recipe {
        header_length: 104,
        ..Recipe::of(12, packed(27, 12, 300, |plain| deflate(plain, 6)))
    }),
    ("the header is longer than is known", || Recipe {
        header_length: 256,
        ..Recipe::of(12, mixed(28, 12, 300))
    }),
    ("the header fills its cluster", || Recipe { header_length: 512, ..Recipe::of(9, mixed(29, 9, 3000)) }),
    ("unknown header extensions of odd lengths", || Recipe {
        extensions: vec![(0x1234_5678, vec![1; 5]), (0xffff_ffff, Vec::new()), (0x77, vec![2; 64])],
        ..Recipe::of(12, mixed(30, 12, 300))
    }),
    ("an extension ends with the first cluster", || Recipe {
        extensions: vec![(0x1234_5678, vec![3; 512 - 112 - 8])],
        ..Recipe::of(9, mixed(31, 9, 2000))
    }),
    ("version 2 with a header extension", || Recipe {
        version: 2,
        extensions: vec![(0x1234_5678, vec![0; 16])],
        ..Recipe::of(12, full(32, 12, 300))
    }),
    ("all unknown compatible and autoclear bits", || Recipe {
        compatible: !1,
        autoclear: !3,
        ..Recipe::of(12, mixed(33, 12, 300))
    }),
    ("L1 is longer than the disk needs, its rest is nonsense", || Recipe {
        l1_rest: vec![u64::MAX, 0x0123_4567_89ab_cdef, 1 << 40, 7],
        has_refcounts: false,
        ..Recipe::of(12, mixed(34, 12, 600))
    }),
    ("L2 entries behind the disk are nonsense", || Recipe {
        l2_rest: 0x3fff_ffff_ffff_ffff,
        has_refcounts: false,
        ..Recipe::of(12, mixed(35, 12, 601))
    }),
    ("all refcounts are 0", || Recipe { has_refcounts: false, ..Recipe::of(12, mixed(36, 12, 600)) }),
    ("every mixture of subclusters", || {
        let mut rng = Rng::new(37);
        let clusters = (0..200).map(|nth| {
            let (allocated, zero) = (rng.next() as u32, rng.next() as u32);
            Cluster::Parts { data: content::text(nth, 16 << 10), allocated, zero: zero & !allocated }
        });
        Recipe { extended: true, ..Recipe::of(14, clusters.collect()) }
    }),
    ("subclusters at the edges of their maps", || {
        let maps = [1, 1 << 31, u32::MAX >> 1, u32::MAX << 1, 0x5555_5555, 0xaaaa_aaaa, 0xffff, u32::MAX, 0];
        let clusters = maps.iter().zip(0..).flat_map(|(&allocated, nth)| {
            [!allocated, 0].map(|zero| Cluster::Parts { data: content::text(nth, 64 << 10), allocated, zero })
        });
        Recipe { extended: true, ..Recipe::of(16, clusters.collect()) }
    }),
    ("extended entries of every kind", || {
        let mut clusters = packed(39, 14, 60, |plain| deflate(plain, 6));
        clusters.extend(mixed(40, 14, 60));
        clusters.extend((0..60).map(|n| Cluster::Parts {
            data: content::text(n, 16 << 10),
            allocated: 1 << (n % 32),
            zero: 0,
        }));
        Recipe { extended: true, ..Recipe::of(14, clusters) }
    }),
    ("the disk ends within a subcluster", || {
        let clusters = (0..50).map(|n| Cluster::Parts {
            data: content::text(n, 16 << 10),
            allocated: 0xfff0_0fff,
            zero: 0x000f_0000,
        });
        Recipe { extended: true, size: (50 << 14) - 1000, ..Recipe::of(14, clusters.collect()) }
    }),
];

fn ordered(clusters: Vec<Cluster>, order: &[Part]) -> Recipe {
    let bits = clusters.iter().find_map(|c| match c {
        Cluster::Data(data) => Some(data.len().trailing_zeros()),
        _ => None,
    });
    Recipe { order: order.to_vec(), ..Recipe::of(bits.unwrap_or(12), clusters) }
}

/// Clusters that are all data.
fn full(seed: u64, bits: u32, count: u64) -> Vec<Cluster> {
    (0..count).map(|n| Cluster::Data(content::text(seed << 20 | n, 1 << bits))).collect()
}

/// The same, the last one cut to `last` bytes.
fn cut(seed: u64, bits: u32, count: u64, last: usize) -> Vec<Cluster> {
    let mut clusters = full(seed, bits, count);
    if let Some(Cluster::Data(data)) = clusters.last_mut() {
        data.truncate(last);
    }
    clusters
}

/// Compressed clusters of a few bytes each: dozens of streams in a sector.
fn tiny(seed: u64, bits: u32, count: u64) -> Vec<Cluster> {
    (0..count)
        .map(|n| {
            let mut plain = vec![(n * 7 + 1) as u8; 1 << bits];
            plain[..8].copy_from_slice(&(seed << 32 | n).to_be_bytes());
            Cluster::Packed { stream: deflate(&plain, 9), plain }
        })
        .collect()
}

/// One compressed stream that is so many clusters of the disk, is said to be as long as can be, and crosses a MiB of the file.
pub fn alike(bits: u32, count: usize) -> Recipe {
    const MIB: usize = 1 << 20;
    let plain = content::text(41, 1 << bits);
    let mut clusters = vec![Cluster::Packed { stream: deflate(&plain, 6), plain }];
    clusters.extend((1..count).map(|_| Cluster::Like(0)));
    // What it is said to be long goes on in these.
    clusters.extend(full(42, bits, 3));
    // Header, refcounts, L1 and L2 are a cluster each.
    let gap = MIB - (64 << 10) - (4 << bits) % MIB;
    Recipe { stated: Stated::Most, has_refcounts: false, gap, ..Recipe::of(bits, clusters) }
}

pub fn all() -> Vec<Valid> {
    CASES.iter().map(|(name, recipe)| Valid::qcow2(name, move |folder| make(&recipe(), folder))).collect()
}

fn make(recipe: &Recipe, folder: &Path) -> Result<Option<Vec<u8>>> {
    let built = recipe.build();
    fs::write(folder.join("image"), &built.bytes)?;
    ensure!(built.content.len() as u64 == recipe.size, "the writer made a disk of another size");
    Ok(Some(built.content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::qemu;
    use crate::write::scratch;

    /// The writer is not its own judge. Recipes without refcounts, or with lengths past their end, stray on purpose.
    #[test]
    fn qemu_finds_nothing_wrong_with_what_the_writer_makes() -> Result<()> {
        let folder = scratch("by-hand")?;
        let mut checked = 0;
        for (name, recipe) in CASES {
            let recipe = recipe();
            if recipe.has_refcounts && !recipe.is_cut {
                make(&recipe, folder.path())?;
                let said = qemu("qemu-img", &["check", "-f", "qcow2", "image"], folder.path());
                let said = said.map_err(|error| error.context(*name))?;
                assert!(said.contains("No errors were found"), "{name}: {said}");
                checked += 1;
            }
        }
        assert!(checked >= 25, "{checked}");
        Ok(())
    }
}
