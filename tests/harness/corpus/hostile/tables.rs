//! Whole-disk images whose partition table is broken, missing, or made for another disk.

use super::super::content;
use super::super::qcow2::{Cluster, Recipe, deflate};
use super::super::tables::{Gpt, mbr};
use super::{DISK, Hostile, Kind};
use crate::write::Left;

const SIZE: usize = 4 << 20;
/// Sectors of the disk, of which the last 34 belong to the GPT.
const SECTORS: u64 = DISK / 512;

type Case = (&'static str, fn() -> Vec<u8>, &'static str);

const CASES: &[Case] = &[
    ("no partition table at all", || content::text(1, SIZE), "no partition table"),
    ("nothing but zeros", || vec![0; SIZE], "no partition table"),
    ("an MBR without entries", || mbr(2, SIZE, &[]), "no partition table"),
    ("a boot sector of a file system", boot_sector, "no partition table"),
    (
        "an MBR partition starts behind the disk",
        || mbr(3, SIZE, &[(0x83, SECTORS as u32, 100)]),
        "MBR partition 1",
    ),
    (
        "an MBR partition starts at the end of all numbers",
        || mbr(4, SIZE, &[(0x83, 2048, 100), (0x83, u32::MAX, u32::MAX)]),
        "MBR partition 2",
    ),
    ("an MBR that says GPT, and no GPT", || mbr(5, SIZE, &[(0xee, 1, u32::MAX)]), "type 0xee"),
    ("a GPT whose header has a wrong checksum", || flip(512 + 60), "GPT header CRC"),
    ("a GPT whose checksum itself is wrong", || flip(512 + 16), "GPT header CRC"),
    ("a GPT whose entries have a wrong checksum", || flip(1024 + 60), "array CRC"),
    ("a GPT whose last entry has a wrong checksum", || flip(1024 + 16_383), "array CRC"),
    (
        "GPT entries of 256 bytes",
        || Gpt { entry_size: 256, ..Gpt::default() }.disk(6, SIZE),
        "entry size is 256",
    ),
    ("GPT entries of 0 bytes", || Gpt { entry_size: 0, ..Gpt::default() }.disk(7, SIZE), "entry size is 0"),
    (
        "a GPT without room for entries",
        || Gpt { entries: 0, ..Gpt::default() }.disk(8, SIZE),
        "number of entries is 0",
    ),
    (
        "a GPT of 1025 entries",
        || Gpt { entries: 1025, ..Gpt::default() }.disk(9, SIZE),
        "number of entries is 1025",
    ),
    (
        "a GPT of 2^32 - 1 entries",
        || Gpt { entries: u32::MAX, ..Gpt::default() }.disk(10, SIZE),
        "4294967295",
    ),
    (
        "a GPT header of 91 bytes",
        || Gpt { header_size: 91, ..Gpt::default() }.disk(11, SIZE),
        "its size is 91",
    ),
    (
        "a GPT header larger than its sector",
        || Gpt { header_size: 513, ..Gpt::default() }.disk(12, SIZE),
        "its size is 513",
    ),
    (
        "a GPT that thinks it is elsewhere",
        || Gpt { own_lba: 2, ..Gpt::default() }.disk(13, SIZE),
        "its own sector is 2",
    ),
    (
        "GPT entries in the header",
        || Gpt { array_lba: 1, ..Gpt::default() }.disk(14, SIZE),
        "partition array is 1",
    ),
    (
        "GPT entries at the end of all numbers",
        || Gpt { array_lba: u64::MAX, ..Gpt::default() }.disk(15, SIZE),
        "partition array",
    ),
    ("a GPT partition ends behind the disk", || partition(2048, SECTORS), "GPT partition 1 ends in sector"),
    (
        "a GPT partition ends in the table's second copy",
        || partition(2048, SECTORS - 10),
        "GPT partition 1 ends",
    ),
    ("a GPT partition ends at the end of all numbers", || partition(2048, u64::MAX), "GPT partition 1 ends"),
    ("a GPT partition ends before it starts", || partition(4096, 2048), "GPT partition 1 goes from"),
    ("a GPT partition starts in the table", || partition(1, 4096), "GPT partition 1 goes from"),
    (
        "a GPT made for sectors of 4096 bytes",
        || Gpt { sector: 4096, ..Gpt::default() }.disk(16, SIZE),
        "4096-byte sectors",
    ),
];

pub fn all() -> Vec<Hostile> {
    let mut all: Vec<Hostile> = CASES
        .iter()
        .map(|(name, bytes, words)| {
            let bytes = move || Ok(bytes());
            let hostile = Hostile::new(name, Kind::Raw, words, Left::Untouched, Box::new(bytes));
            Hostile { wants_table: true, ..hostile }
        })
        .collect();
    // In a qcow2 the start of the disk is read before the first write.
    for (name, disk, words) in [
        ("a qcow2 without a partition table", content::text(17, SIZE), "no partition table"),
        ("a qcow2 with nothing where the table should be", vec![0; SIZE], "no partition table"),
        ("a qcow2 whose GPT has a wrong checksum", flip(512 + 60), "GPT header CRC"),
        (
            "a qcow2 whose GPT was made for other sectors",
            Gpt { sector: 4096, ..Gpt::default() }.disk(18, SIZE),
            "4096-byte",
        ),
    ] {
        let bytes = move || {
            let cluster = |plain: &[u8]| match plain.iter().all(|byte| *byte == 0) {
                true => Cluster::Hole,
                false => Cluster::Packed { plain: plain.to_vec(), stream: deflate(plain, 6) },
            };
            let clusters = disk.chunks(1 << 16).map(cluster).collect();
            Ok(Recipe { has_refcounts: false, ..Recipe::of(16, clusters) }.build().bytes)
        };
        let hostile = Hostile::new(name, Kind::Qcow2, words, Left::Untouched, Box::new(bytes));
        all.push(Hostile { wants_table: true, ..hostile });
    }
    all
}

fn partition(first: u64, last: u64) -> Vec<u8> {
    Gpt { partition: Some((first, last)), ..Gpt::default() }.disk(19, SIZE)
}

/// A good GPT with one byte changed.
fn flip(at: usize) -> Vec<u8> {
    let mut disk = Gpt::default().disk(20, SIZE);
    disk[at] ^= 0x10;
    disk
}

/// FAT: it carries the mark of an MBR, and code where the entries would be.
fn boot_sector() -> Vec<u8> {
    let mut disk = content::text(21, SIZE);
    disk[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    disk[54..62].copy_from_slice(b"FAT16   ");
    disk[446..510].fill(0x33);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}
