//! Hand-made tables: extents out of them, one line per refusal, and a walk through damaged ones that must always end.

use super::super::header::tests::{good, put32};
use super::*;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

const COPIED: u64 = 1 << 63;
const FILE: usize = 16 << 16;

fn put(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// An image of 16 clusters of 64 KiB: L1 in cluster 3, two L2 tables in clusters 4 and 5, data from cluster 6 on. The disk
/// is 1 GiB, each table stands for 512 MiB.
fn image(words: &[(usize, u64)]) -> Vec<u8> {
    let mut file = good();
    file.resize(FILE, 0);
    put(&mut file, 0x30000, COPIED | 0x40000);
    put(&mut file, 0x30008, COPIED | 0x50000);
    words.iter().for_each(|&(at, value)| put(&mut file, at, value));
    file
}

/// The same with extended entries: each table stands for 256 MiB, so the L1 has four entries, two of them used.
fn extended(words: &[(usize, u64)]) -> Vec<u8> {
    let mut file = image(words);
    put32(&mut file, 76, 16);
    put32(&mut file, 36, 4);
    file
}

/// Walks the image; also checks what must hold of any walk.
fn walk(file: &[u8]) -> Result<(Vec<Extent>, usize), Qcow2Error> {
    let length = file.len() as u64;
    let header = Header::parse(file, length)?;
    let mut planner = Planner::new(&header, length);
    let (mut extents, mut steps) = (Vec::new(), 0);
    while let Step::Need(range) = planner.step() {
        steps += 1;
        assert!(steps <= 4096, "no end");
        assert!(
            range.start < range.end && range.end <= length && range.end - range.start <= NEED,
            "{range:x?}"
        );
        let mut keep = |extent| {
            extents.push(extent);
            true
        };
        planner.supply(&file[range.start as usize..range.end as usize], &mut keep)?;
    }
    let mut end = 0;
    for extent in &extents {
        assert!(extent.guest >= end && extent.length > 0, "{extent:?} after {end}");
        end = extent.guest + extent.length;
        let stored = match extent.kind {
            ExtentKind::Plain => extent.length,
            ExtentKind::Compressed { stored } => u64::from(stored),
        };
        assert!(stored > 0 && extent.host + stored <= length, "{extent:?}");
    }
    assert!(end <= header.virtual_size().0);
    Ok((extents, steps))
}

fn plain(host: u64, guest: u64, length: u64) -> Extent {
    Extent { host, guest, length, kind: ExtentKind::Plain }
}

#[test]
fn neighbours_join_and_gaps_part() {
    let half = 512 << 20;
    let file = image(&[
        (0x40000, COPIED | 0x60000),
        (0x40008, COPIED | 0x70000),
        (0x40010, 0x90000),
        (0x40018, 0xa0001),
        (0x40020, 0xa0000),
        (0x4fff8, COPIED | 0xb0000),
        (0x50000, COPIED | 0xc0000),
        (0x50008, (1 << 62) | (1 << 54) | 0xd0100),
        (0x50010, (1 << 62) | (200 << 54) | 0xff000),
    ]);
    let (extents, steps) = walk(&file).unwrap();
    let compressed =
        |host, guest, stored| Extent { host, guest, length: 65536, kind: ExtentKind::Compressed { stored } };
    assert_eq!(
        extents,
        [
            plain(0x60000, 0, 0x20000),
            plain(0x90000, 0x20000, 0x10000),
            plain(0xa0000, 0x40000, 0x10000),
            plain(0xb0000, half - 0x10000, 0x20000),
            compressed(0xd0100, half + 0x10000, 1024 - 0x100),
            compressed(0xff000, half + 0x20000, 0x1000),
        ]
    );
    assert_eq!(steps, 2, "the L1, then both tables at once");
}

#[test]
fn a_run_goes_on_across_reads() {
    // The tables lie in the wrong order, so they are read one by one.
    let file = image(&[(0x30000, 0x50000), (0x30008, 0x40000), (0x5fff8, 0x60000), (0x40000, 0x70000)]);
    let (extents, steps) = walk(&file).unwrap();
    assert_eq!((extents.as_slice(), steps), ([plain(0x60000, (512 << 20) - 0x10000, 0x20000)].as_slice(), 3));
}

#[test]
fn the_last_cluster_is_cut_with_the_disk() {
    let mut file = image(&[(0x40000, 0x70000), (0x40008, 0xf0000), (0x40010, 0xfff_f000)]);
    put32(&mut file, 28, 0x10001);
    // What lies past the disk is not looked at; of the last cluster one byte is enough.
    put(&mut file, 0x30008, 0x7fff);
    file.truncate(0xf0001);
    assert_eq!(walk(&file).unwrap().0, [plain(0x70000, 0, 0x10000), plain(0xf0000, 0x10000, 1)]);
}

#[test]
fn subclusters_are_taken_by_runs() {
    let file = extended(&[
        (0x40000, 0x60000),
        (0x40008, 0b1100_0111),
        (0x40010, 0x70000),
        (0x40018, 0x8000_0000),
        (0x40020, 0x80000),
        (0x40028, 0xffff_ffff),
        (0x40030, 0),
        (0x40038, 0xffff_ffff << 32),
    ]);
    assert_eq!(
        walk(&file).unwrap().0,
        [
            plain(0x60000, 0, 3 * 2048),
            plain(0x60000 + 6 * 2048, 6 * 2048, 2 * 2048),
            plain(0x70000 + 31 * 2048, 0x10000 + 31 * 2048, 0x10000 + 2048),
        ]
    );
}

#[test]
fn damaged_tables_are_refused_in_words() {
    let compressed = 1_u64 << 62;
    let cases: &[(Vec<u8>, &str)] = &[
        (
            image(&[(0x30000, 0x40001)]),
            "the L1 entry 0x0000000000040001 for disk byte 0 has reserved bits 0x1 set, expected none",
        ),
        (
            image(&[(0x30008, compressed | 0x50000)]),
            "the L1 entry 0x4000000000050000 for disk byte 536870912 has reserved bits 0x4000000000000000 set, expected none",
        ),
        (
            image(&[(0x30000, 0x40200)]),
            "the L2 table is at 0x40200, expected a multiple of the cluster size 65536",
        ),
        (
            image(&[(0x30000, 0x10_0000)]),
            "the L2 table at 0x100000 (65536 bytes) is not inside the file of 1048576 bytes; the image is cut short or damaged",
        ),
        (image(&[(0x30000, 0x30000)]), "the L2 table at 0x30000 lies on the L1 table; the image is damaged"),
        (
            image(&[(0x30000, 0x10000)]),
            "the L2 table at 0x10000 lies on the refcount table; the image is damaged",
        ),
        (
            image(&[(0x30008, 0x40000)]),
            "the L2 table at 0x40000 is used a second time for disk byte 536870912; the image is damaged",
        ),
        (
            image(&[(0x40008, 0x60002)]),
            "the L2 entry 0x0000000000060002 for disk byte 65536 has reserved bits 0x2 set, expected none",
        ),
        (
            image(&[(0x40000, 0x60200)]),
            "the data for disk byte 0 is at 0x60200 of the file, expected a multiple of the cluster size 65536",
        ),
        (
            image(&[(0x40000, 0x10_0000)]),
            "the data for disk byte 0 is at 0x100000 (65536 bytes), not inside the file of 1048576 bytes; the image is cut short or damaged",
        ),
        (
            image(&[(0x40000, 0xf0000)])[..0xf8000].to_vec(),
            "the data for disk byte 0 is at 0xf0000 (65536 bytes), not inside the file of 1015808 bytes; the image is cut short or damaged",
        ),
        (
            image(&[(0x40000, 0x30000)]),
            "the data for disk byte 0 is at 0x30000, on the L1 table; the image is damaged",
        ),
        (
            image(&[(0x40000, 0x10000)]),
            "the data for disk byte 0 is at 0x10000, on the refcount table; the image is damaged",
        ),
        (
            image(&[(0x40000, 0x50000)]),
            "the data for disk byte 0 is at 0x50000, on the L2 table of the active disk; the image is damaged",
        ),
        (
            image(&[(0x40000, compressed | 0x200)]),
            "the data for disk byte 0 is at 0x200, on the header; the image is damaged",
        ),
        (
            image(&[(0x40000, compressed | 0x10_0000)]),
            "the data for disk byte 0 is at 0x100000 (512 bytes), not inside the file of 1048576 bytes; the image is cut short or damaged",
        ),
        (
            extended(&[(0x40000, 0x60000), (0x40008, 3 << 32 | 2)]),
            "the subcluster map 0x0000000300000002 for disk byte 0 says both allocated and zero for the same subcluster",
        ),
        (
            extended(&[(0x40008, 2)]),
            "the subcluster map 0x0000000000000002 for disk byte 0 says allocated, but the entry names no data cluster",
        ),
        (
            extended(&[(0x40000, 0x60001)]),
            "the L2 entry 0x0000000000060001 for disk byte 0 has reserved bits 0x1 set, expected none",
        ),
        (
            extended(&[(0x40000, compressed | 0x60000), (0x40008, 1)]),
            "the L2 entry 0x4000000000060000 for disk byte 0 has reserved bits 0x1 set, expected none",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(&walk(file).map_err(|e| e.to_string()), &Err(String::from(*expected)));
    }
}

#[test]
fn the_zero_flag_is_unknown_to_version_2() {
    let mut file = image(&[(0x40000, 0x60001)]);
    put32(&mut file, 4, 2);
    assert!(matches!(walk(&file), Err(Qcow2Error::Reserved { table: "L2", bits: 1, .. })));
}

#[test]
fn a_sink_that_says_stop_ends_the_walk_and_wrong_bytes_are_refused() {
    let file = image(&[(0x40000, 0x60000), (0x40010, 0x70000), (0x40020, 0x80000)]);
    let header = Header::parse(&file, FILE as u64).unwrap();
    let mut planner = Planner::new(&header, FILE as u64);
    assert_eq!(planner.supply(&[0; 8], &mut |_| true), Err(Qcow2Error::Supply { given: 8, wanted: 16 }));
    planner.supply(&file[0x30000..0x30010], &mut |_| true).unwrap();
    let mut seen = 0;
    let mut stop = |_| {
        seen += 1;
        false
    };
    planner.supply(&file[0x40000..0x60000], &mut stop).unwrap();
    assert_eq!((seen, planner.step()), (1, Step::Done));
}

#[test]
fn a_large_l1_is_read_in_pieces() {
    // 262,144 entries with clusters of 512 bytes: a disk of 8 GiB, whose L1 is read as two pieces.
    let mut file = vec![0; 4 << 20];
    file[..65536].copy_from_slice(&good());
    let l1 = 1 << 20;
    for (at, value) in [(20, 9), (24, 2), (28, 0), (36, 262_144), (44, l1), (52, 512), (100, 104)] {
        put32(&mut file, at, value);
    }
    let (first, second) = (3 << 20, (3 << 20) + 512);
    put(&mut file, l1 as usize + 131_071 * 8, first);
    put(&mut file, l1 as usize + 131_072 * 8, second);
    put(&mut file, first as usize + 63 * 8, 0x38_0000);
    put(&mut file, second as usize, 0x38_0200);
    let (extents, steps) = walk(&file).unwrap();
    assert_eq!((extents.as_slice(), steps), ([plain(0x38_0000, (4 << 30) - 512, 1024)].as_slice(), 4));
}

#[test]
fn a_run_is_never_longer_than_a_gibibyte() {
    // A disk of 5 GiB.
    let mut start = good();
    put32(&mut start, 24, 1);
    put32(&mut start, 36, 10);
    let header = Header::parse(&start, 1 << 40).unwrap();
    let mut planner = Planner::new(&header, 1 << 40);
    let mut extents = Vec::new();
    let mut keep = |extent| {
        extents.push(extent);
        true
    };
    planner.run = Some(plain(0x10_0000, 0, RUN - 0x10000));
    assert!(planner.plain(RUN - 0x10000, RUN + 0xf_0000, header.cluster_size(), &mut keep).unwrap());
    assert_eq!(planner.run.take(), Some(plain(0x10_0000, 0, RUN)));
    planner.run = Some(plain(0x10_0000, 0, RUN - 0x8000));
    assert!(planner.plain(RUN - 0x8000, RUN + 0xf_8000, 0x8001, &mut keep).unwrap());
    assert_eq!(extents, [plain(0x10_0000, 0, RUN - 0x8000)]);
}

/// An L2 or L1 word that is often nearly right.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0_u64..20).prop_map(|c| c << 16),
        (0_u64..20, 0_u64..2).prop_map(|(c, zero)| COPIED | c << 16 | zero),
        (0_u64..0x11_0000, 0_u64..256).prop_map(|(at, sectors)| 1 << 62 | sectors << 54 | at),
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
    ]
}

proptest! {
    #[test]
    fn any_tables_are_walked_to_an_end(
        l1 in prop::collection::vec(prop_oneof![4 => Just(None), 1 => word().prop_map(Some)], 2),
        words in prop::collection::vec((0_usize..48, word()), 0..24),
        second in prop::collection::vec((0_usize..48, word()), 0..24),
        size in prop_oneof![1_u32..0x30_0000, Just(1 << 30)],
        big in any::<bool>(),
        cut in prop_oneof![Just(FILE), 0_usize..FILE],
    ) {
        let mut file = if big { extended(&[]) } else { image(&[]) };
        put32(&mut file, 28, size);
        for (i, value) in l1.into_iter().enumerate().filter_map(|(i, v)| Some((i, v?))) {
            put(&mut file, 0x30000 + i * 8, value);
        }
        words.into_iter().for_each(|(i, value)| put(&mut file, 0x40000 + i * 8, value));
        second.into_iter().for_each(|(i, value)| put(&mut file, 0x50000 + i * 8, value));
        file.truncate(cut);
        let _ = walk(&file);
    }

    #[test]
    fn any_changed_byte_is_survived(changes in prop::collection::vec((0_usize..FILE, any::<u8>()), 0..8), head in prop::collection::vec((0_usize..112, any::<u8>()), 0..3)) {
        let mut file = image(&[(0x40000, 0x60000), (0x40008, 0x70000), (0x50000, 1 << 62 | 0x80000)]);
        for (at, value) in changes.into_iter().chain(head) {
            file[at] = value;
        }
        let _ = walk(&file);
    }
}
