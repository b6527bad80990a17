//! qcow2 headers, and L1 and L2 tables, that say what must not be: found before the first write.

use super::super::qcow2::{self, Built, COMPRESSED, Cluster, Recipe};
use super::{Hostile, Kind};
use crate::write::Left;
use Put::{Byte, U32, U64};

/// Bytes to put at a place of the header.
#[derive(Clone, Copy)]
enum Put {
    Byte(usize, u8),
    U32(usize, u32),
    U64(usize, u64),
}

/// Bytes of a cluster, and clusters of the disk: two L2 tables.
const C: u64 = 4096;
const CLUSTERS: usize = 600;

/// A sentence, what is put into the header, and what is said about it.
const HEADERS: &[(&str, &[Put], &str)] = &[
    ("the magic is not qcow2's", &[U32(0, 0x5146_49fc)], "its content is no qcow2"),
    ("the version is 0", &[U32(4, 0)], "qcow2 version 0 is not supported"),
    ("the version is 1", &[U32(4, 1)], "qcow2 version 1 is not supported"),
    ("the version is 4", &[U32(4, 4)], "qcow2 version 4 is not supported"),
    ("the version is as large as can be", &[U32(4, u32::MAX)], "qcow2 version 4294967295 is not"),
    ("a backing file has a place", &[U64(8, 0x210)], "names a backing file"),
    ("a backing file has a length", &[U32(16, 7)], "names a backing file"),
    (
        "a backing file reaches past all numbers",
        &[U64(8, u64::MAX), U32(16, u32::MAX)],
        "names a backing file",
    ),
    ("clusters have 1 byte", &[U32(20, 0)], "clusters of 2^0 bytes"),
    ("clusters have 256 bytes", &[U32(20, 8)], "clusters of 2^8 bytes"),
    ("clusters have 4 MiB", &[U32(20, 22)], "clusters of 2^22 bytes"),
    ("clusters have 2^64 bytes", &[U32(20, 64)], "clusters of 2^64 bytes"),
    ("clusters have 2^4294967295 bytes", &[U32(20, u32::MAX)], "clusters of 2^4294967295"),
    ("the disk has no bytes", &[U64(24, 0)], "a disk of 0 bytes"),
    ("the disk is larger than its L1 table", &[U64(24, 7 << 20)], "L1 table has 2 entries"),
    ("the disk has 2^63 bytes", &[U64(24, 1 << 63)], "L1 table has"),
    ("the disk has 2^64 - 1 bytes", &[U64(24, u64::MAX)], "L1 table has"),
    ("the disk is larger than ours", &[U64(24, 9 << 20), U32(36, 512)], "has only"),
    ("encrypted with AES", &[U32(32, 1)], "encrypted (method 1)"),
    ("encrypted with LUKS", &[U32(32, 2)], "encrypted (method 2)"),
    ("encrypted in an unknown way", &[U32(32, u32::MAX)], "encrypted (method 4294967295)"),
    ("there is no L1 table", &[U32(36, 0)], "L1 table has 0 entries"),
    ("the L1 table is too short", &[U32(36, 1)], "L1 table has 1 entries"),
    ("the L1 table is longer than 32 MiB", &[U32(36, 0x40_0001)], "expected at most 4194304"),
    ("the L1 table has 2^32 - 1 entries", &[U32(36, u32::MAX)], "expected at most 4194304"),
    ("the L1 table is longer than the file", &[U32(36, 0x40_0000)], "not inside the file"),
    ("the L1 table is the header", &[U64(40, 0)], "L1 table at 0x0 lies on the header"),
    ("the L1 table is not aligned", &[U64(40, C * 2 + 8)], "expected a multiple of the cluster size"),
    ("the L1 table is behind the file", &[U64(40, 1 << 40)], "not inside the file"),
    ("the L1 table is at the end of all numbers", &[U64(40, u64::MAX - 4095)], "not inside the file"),
    ("the L1 table is the refcount table", &[U64(40, C)], "on the refcount table"),
    ("the refcount table is the header", &[U64(48, 0)], "lies on the header"),
    ("the refcount table is not aligned", &[U64(48, C + 512)], "refcount table is at"),
    ("the refcount table is behind the file", &[U64(48, 1 << 50)], "not inside the file"),
    ("there is no refcount table", &[U32(56, 0)], "the refcount table is 0 clusters"),
    ("the refcount table is longer than 8 MiB", &[U32(56, 2049)], "the refcount table is 2049 clusters"),
    ("the refcount table has 2^32 - 1 clusters", &[U32(56, u32::MAX)], "the refcount table is 4294967295"),
    ("there are too many snapshots", &[U32(60, 65_537)], "65537 snapshots"),
    ("the snapshot table is not aligned", &[U32(60, 1), U64(64, C + 1)], "snapshot table is at"),
    ("the snapshot table is behind the file", &[U32(60, 1), U64(64, 1 << 44)], "not inside the file"),
    ("the snapshot table is the header", &[U32(60, 1), U64(64, 0)], "lies on the header"),
    ("marked corrupt", &[U64(72, 2)], "marked corrupt"),
    ("the data is in another file", &[U64(72, 4)], "external data file"),
    ("marked as compressed by an unnamed type", &[U64(72, 8)], "compression type is 0"),
    ("compressed with zstd and not marked so", &[Byte(104, 1)], "compression type is 1"),
    ("the compression type is unknown", &[U64(72, 8), Byte(104, 2)], "compression type is 2"),
    ("extended entries with small clusters", &[U64(72, 16)], "extended L2 entries with clusters of 4096"),
    ("an unknown feature is needed", &[U64(72, 32)], "incompatible bits 0x20"),
    ("the last unknown feature is needed", &[U64(72, 1 << 63)], "incompatible bits 0x8000000000000000"),
    ("refcounts have 128 bits", &[U32(96, 7)], "refcounts of 2^7 bits"),
    ("refcounts have 2^4294967295 bits", &[U32(96, u32::MAX)], "refcounts of 2^4294967295"),
    ("the header says it has 0 bytes", &[U32(100, 0)], "gives its own length as 0"),
    ("the header says it has 103 bytes", &[U32(100, 103)], "gives its own length as 103"),
    ("the header says it has 108 bytes", &[U32(100, 108)], "gives its own length as 108"),
    ("the header is larger than a cluster", &[U32(100, 4104)], "gives its own length as 4104"),
    ("the header has 2^32 - 1 bytes", &[U32(100, u32::MAX)], "gives its own length as 4294967295"),
    ("an extension has 2^32 - 1 bytes", &[U32(112, 7), U32(116, u32::MAX)], "is 4294967295 bytes long"),
    ("an extension leaves the first cluster", &[U32(112, 7), U32(116, 4000)], "is 4000 bytes long"),
];

/// A place in a table.
#[derive(Clone, Copy)]
enum At {
    L1(usize),
    L2(usize),
    /// The second half of an extended L2 entry.
    Map(usize),
}
use At::{L1, L2, Map};

/// Values that depend on where things are.
#[derive(Clone, Copy)]
enum Value {
    Is(u64),
    /// The table or cluster, and bytes added.
    L1Table(u64),
    L2Table(usize, u64),
    Data(u64),
    /// Compressed, at a place.
    PackedAt(fn(&Built) -> u64),
}
use Value::{Data, Is, L1Table, L2Table, PackedAt};

type Broken = (&'static str, &'static [(At, Value)], &'static str);

const TABLES: &[Broken] = &[
    ("an L1 entry has its lowest bit set", &[(L1(1), Is(1))], "has reserved bits 0x1 set"),
    ("an L1 entry has its upper bits set", &[(L1(1), Is(0x7f << 56))], "has reserved bits 0x7f"),
    ("an L2 table is not aligned", &[(L1(1), Data(512))], "the L2 table is at"),
    ("an L2 table is behind the file", &[(L1(1), Is(1 << 40))], "L2 table at 0x10000000000"),
    (
        "an L2 table is at the end of all numbers",
        &[(L1(1), Is(0x00ff_ffff_ffff_f000))],
        "not inside the file",
    ),
    ("an L2 table is the refcount table", &[(L1(1), Is(C))], "on the refcount table"),
    ("an L2 table is the L1 table", &[(L1(1), L1Table(0))], "on the L1 table"),
    ("two L1 entries have one L2 table", &[(L1(1), L2Table(0, 0))], "second time"),
    ("an L2 entry has bit 1 set", &[(L2(1), Data(2))], "has reserved bits 0x2 set"),
    ("an L2 entry has bit 8 set", &[(L2(1), Data(0x100))], "reserved bits 0x100 set"),
    ("an L2 entry has bit 56 set", &[(L2(1), Data(1 << 56))], "has reserved bits"),
    ("an L2 entry has bit 61 set", &[(L2(1), Data(1 << 61))], "has reserved bits"),
    ("a cluster is not aligned", &[(L2(1), Data(512))], "expected a multiple of the cluster size"),
    ("a cluster is behind the file", &[(L2(1), Is(1 << 40))], "not inside the file"),
    ("a cluster is at the end of all numbers", &[(L2(1), Is(0x00ff_ffff_ffff_f000))], "not inside the file"),
    ("a cluster is the L1 table", &[(L2(1), L1Table(0))], "on the L1 table"),
    ("a cluster is its own L2 table", &[(L2(1), L2Table(0, 0))], "on the L2 table"),
    ("a cluster is the refcount table", &[(L2(1), Is(C))], "on the refcount table"),
    ("a compressed cluster is the header", &[(L2(1), Is(COMPRESSED))], "on the header"),
    ("a compressed cluster is behind the file", &[(L2(1), Is(COMPRESSED | 1 << 40))], "not inside the file"),
    ("a compressed cluster is at the end of all numbers", &[(L2(1), Is(u64::MAX))], "not inside the file"),
    (
        "a compressed cluster is in the L1 table",
        &[(L2(1), PackedAt(|built| built.l1 as u64 + 7))],
        "on the L1 table",
    ),
    (
        "a compressed cluster begins with the last byte of the refcount table",
        &[(L2(1), PackedAt(|_| 2 * C - 1))],
        "on the refcount table",
    ),
];

const MAPS: &[Broken] = &[
    ("a subcluster is both there and zero", &[(Map(1), Is(1 << 32 | 1))], "both allocated and zero"),
    ("all subclusters are both there and zero", &[(Map(1), Is(u64::MAX))], "both allocated and zero"),
    (
        "a subcluster is there, its cluster is not",
        &[(L2(1), Is(0)), (Map(1), Is(4))],
        "names no data cluster",
    ),
    ("an extended entry has the zero flag", &[(L2(1), Data(1))], "has reserved bits 0x1 set"),
    (
        "a compressed cluster has subclusters",
        &[(L2(1), PackedAt(|built| built.data[2] as u64)), (Map(1), Is(1))],
        "has reserved bits 0x1",
    ),
    ("an extended cluster is behind the file", &[(L2(1), Is(1 << 40))], "not inside the file"),
    ("an extended cluster is not aligned", &[(L2(1), Data(512))], "expected a multiple of the cluster size"),
];

fn clusters(bits: u32, count: usize) -> Vec<Cluster> {
    (0..count as u64).map(|n| Cluster::Data(super::super::content::text(900 + n, 1 << bits))).collect()
}

fn good() -> Recipe {
    Recipe::of(12, clusters(12, CLUSTERS))
}

fn extended() -> Recipe {
    Recipe { extended: true, ..Recipe::of(14, clusters(14, 40)) }
}

fn old() -> Recipe {
    Recipe { version: 2, ..good() }
}

pub fn all() -> Vec<Hostile> {
    let refused = |name: &str, words, bytes: Box<dyn Fn() -> Vec<u8>>| {
        Hostile::new(name, Kind::Qcow2, words, Left::Untouched, Box::new(move || Ok(bytes())))
    };
    let mut all: Vec<Hostile> = HEADERS
        .iter()
        .map(|(name, patches, words)| {
            refused(
                name,
                words,
                Box::new(move || {
                    let mut bytes = good().build().bytes;
                    patches.iter().for_each(|patch| patch.apply(&mut bytes));
                    bytes
                }),
            )
        })
        .collect();
    let broken = |case: &'static Broken, recipe: fn() -> Recipe, words: usize| {
        let (name, patches, said) = *case;
        refused(name, said, Box::new(move || spoil(recipe().build(), patches, words)))
    };
    all.extend(TABLES.iter().map(|case| broken(case, good, 1)));
    all.extend(MAPS.iter().map(|case| broken(case, extended, 2)));
    static OLD: Broken = ("version 2 has the zero flag", &[(L2(1), Data(1))], "has reserved bits 0x1 set");
    all.push(broken(&OLD, old, 1));
    all.push(refused("the L1 table is 32 MiB of the same L2 table", "second time", Box::new(long_l1)));
    all
}

impl Put {
    fn apply(self, bytes: &mut [u8]) {
        match self {
            Byte(at, value) => bytes[at] = value,
            U32(at, value) => bytes[at..at + 4].copy_from_slice(&value.to_be_bytes()),
            U64(at, value) => bytes[at..at + 8].copy_from_slice(&value.to_be_bytes()),
        }
    }
}

fn spoil(mut built: Built, patches: &[(At, Value)], words: usize) -> Vec<u8> {
    for (at, value) in patches {
        let at = match at {
            L1(nth) => built.l1 + nth * 8,
            L2(nth) => built.l2[0] + nth * 8 * words,
            Map(nth) => built.l2[0] + nth * 16 + 8,
        };
        let value = match value {
            Is(value) => *value,
            L1Table(more) => built.l1 as u64 + more,
            L2Table(nth, more) => built.l2[*nth] as u64 + more,
            Data(more) => built.data[2] as u64 + more,
            PackedAt(place) => COMPRESSED | place(&built),
        };
        built.put64(at, value);
    }
    built.bytes
}

/// The largest L1 table that is read, for the disk of 8 MiB that clusters of 512 bytes need 256 entries for; all name one
/// table.
fn long_l1() -> Vec<u8> {
    let mut recipe = Recipe::of(9, vec![Cluster::Hole; 16_384]);
    recipe.l1_rest = vec![0; (4 << 20) - 256];
    recipe.has_refcounts = false;
    let mut built = recipe.build();
    let first = built.l2[0] as u64;
    for nth in 0..4 << 20 {
        built.put64(built.l1 + nth * 8, first);
    }
    debug_assert_eq!(qcow2::OFFSET & first, first);
    built.bytes
}
