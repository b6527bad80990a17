//! Broken and malicious images: refused in words, never a panic, and never taken for something that qemu-img does not read.

use super::server::{Answer, Server};
use super::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a patch goes.
#[derive(Clone, Copy)]
enum At {
    /// Byte of the header.
    H(usize),
    /// Entry of the L1 table, of the first L2 table (in words of eight bytes).
    L1(usize),
    L2(usize),
}
use At::{H, L1, L2};

/// Bytes to put there: four, or eight.
#[derive(Clone, Copy)]
enum Put {
    U32(u32),
    U64(u64),
    Byte(u8),
}
use Put::{Byte, U32, U64};

const C: u64 = 4096;
const COMPRESSED: u64 = 1 << 62;

/// Over an image of 8 MiB with clusters of 4 KiB: each patch, and a part of what is said about it.
/// A name, patches, and a part of what is said.
type Broken = (&'static str, &'static [(At, Put)], &'static str);
const BROKEN: &[Broken] = &[
    ("no magic", &[(H(0), U32(0x5146_49fc))], "its content is no qcow2"),
    ("another container", &[(H(0), U32(0x4b44_4d56))], "its content is VMDK"),
    ("version 0", &[(H(4), U32(0))], "qcow2 version 0 is not supported"),
    ("version 1", &[(H(4), U32(1))], "qcow2 version 1 is not supported"),
    ("version 4", &[(H(4), U32(4))], "qcow2 version 4 is not supported"),
    ("version at its end", &[(H(4), U32(u32::MAX))], "qcow2 version 4294967295 is not"),
    ("backing offset", &[(H(8), U64(0x210))], "names a backing file"),
    ("backing length", &[(H(16), U32(7))], "names a backing file"),
    ("backing both", &[(H(8), U64(u64::MAX)), (H(16), U32(u32::MAX))], "names a backing file"),
    ("clusters of 1 B", &[(H(20), U32(0))], "clusters of 2^0 bytes"),
    ("clusters of 256 B", &[(H(20), U32(8))], "clusters of 2^8 bytes"),
    ("clusters of 4 MiB", &[(H(20), U32(22))], "clusters of 2^22 bytes"),
    ("clusters of 2^64", &[(H(20), U32(64))], "clusters of 2^64 bytes"),
    ("clusters at their end", &[(H(20), U32(u32::MAX))], "clusters of 2^4294967295"),
    ("no disk", &[(H(24), U64(0))], "a disk of 0 bytes"),
    ("a larger disk than L1", &[(H(24), U64(9 << 20))], "needs 5"),
    ("a disk of 2^63", &[(H(24), U64(1 << 63))], "L1 table has"),
    ("a disk of 2^64 - 1", &[(H(24), U64(u64::MAX))], "L1 table has"),
    ("a disk larger than ours", &[(H(24), U64(17 << 20)), (H(36), U32(9))], "the disk /dev/mem0 has only"),
    ("AES", &[(H(32), U32(1))], "encrypted (method 1)"),
    ("LUKS", &[(H(32), U32(2))], "encrypted (method 2)"),
    ("encrypted somehow", &[(H(32), U32(u32::MAX))], "encrypted (method 4294967295)"),
    ("no L1", &[(H(36), U32(0))], "L1 table has 0 entries"),
    ("a short L1", &[(H(36), U32(3))], "L1 table has 3 entries"),
    ("a huge L1", &[(H(36), U32(0x40_0001))], "expected at most 4194304"),
    ("an endless L1", &[(H(36), U32(u32::MAX))], "expected at most 4194304"),
    ("an L1 longer than the file", &[(H(36), U32(0x40_0000))], "not inside the file"),
    ("L1 on the header", &[(H(40), U64(0))], "L1 table at 0x0 lies on the header"),
    ("L1 unaligned", &[(H(40), U64(C * 3 + 8))], "expected a multiple of the cluster size"),
    ("L1 outside", &[(H(40), U64(1 << 40))], "not inside the file"),
    ("L1 at the end of numbers", &[(H(40), U64(u64::MAX - 4095))], "not inside the file"),
    ("L1 on the refcount table", &[(H(40), U64(C))], "on the refcount table"),
    ("refcount table on the header", &[(H(48), U64(0))], "lies on the header"),
    ("refcount table unaligned", &[(H(48), U64(C + 512))], "refcount table is at"),
    ("refcount table outside", &[(H(48), U64(1 << 50))], "not inside the file"),
    ("no refcount table", &[(H(56), U32(0))], "the refcount table is 0 clusters"),
    ("a huge refcount table", &[(H(56), U32(2049))], "the refcount table is 2049 clusters"),
    ("an endless refcount table", &[(H(56), U32(u32::MAX))], "the refcount table is 4294967295"),
    ("many snapshots", &[(H(60), U32(65_537))], "65537 snapshots"),
    ("snapshots unaligned", &[(H(60), U32(1)), (H(64), U64(C + 1))], "snapshot table is at"),
    ("snapshots outside", &[(H(60), U32(1)), (H(64), U64(1 << 44))], "not inside the file"),
    ("marked corrupt", &[(H(72), U64(2))], "marked corrupt"),
    ("a data file", &[(H(72), U64(4))], "external data file"),
    ("a compression bit without type", &[(H(72), U64(8))], "compression type is 0"),
    ("a compression type without bit", &[(H(104), Byte(1))], "compression type is 1"),
    ("an unknown compression", &[(H(72), U64(8)), (H(104), Byte(2))], "compression type is 2"),
    ("extended L2, small clusters", &[(H(72), U64(16))], "extended L2 entries with clusters of 4096"),
    ("an unknown feature", &[(H(72), U64(32))], "incompatible bits 0x20"),
    ("the last unknown feature", &[(H(72), U64(1 << 63))], "incompatible bits 0x8000000000000000"),
    ("refcounts of 128 bits", &[(H(96), U32(7))], "refcounts of 2^7 bits"),
    ("refcounts at their end", &[(H(96), U32(u32::MAX))], "refcounts of 2^4294967295"),
    ("a header of 0", &[(H(100), U32(0))], "gives its own length as 0"),
    ("a header of 103", &[(H(100), U32(103))], "gives its own length as 103"),
    ("a header of 108", &[(H(100), U32(108))], "gives its own length as 108"),
    ("a header larger than a cluster", &[(H(100), U32(4104))], "gives its own length as 4104"),
    ("an endless header", &[(H(100), U32(u32::MAX))], "gives its own length as 4294967295"),
    ("an endless extension", &[(H(112), U32(7)), (H(116), U32(u32::MAX))], "is 4294967295 bytes long"),
    ("an extension over the edge", &[(H(112), U32(7)), (H(116), U32(4000))], "is 4000 bytes long"),
    ("L1 entry with a low reserved bit", &[(L1(1), U64(1))], "has reserved bits 0x1 set"),
    ("L1 entry with high reserved bits", &[(L1(1), U64(0x7f << 56))], "has reserved bits 0x7f"),
    ("L2 unaligned", &[(L1(1), U64(C * 8 + 512))], "the L2 table is at"),
    ("L2 outside", &[(L1(1), U64(1 << 40))], "L2 table at 0x10000000000"),
    ("L2 at the end of numbers", &[(L1(1), U64(0x00ff_ffff_ffff_f000))], "not inside the file"),
    ("L2 on the refcount table", &[(L1(1), U64(C))], "on the refcount table"),
    ("L2 on L1", &[(L1(1), U64(3 * C))], "on the L1 table"),
    ("one L2 for two", &[(L1(1), U64(4 * C)), (L1(2), U64(4 * C))], "second time"),
    ("L2 entry with a low reserved bit", &[(L2(1), U64((8 * C) | 2))], "has reserved bits 0x2 set"),
    ("L2 entry with reserved bit 8", &[(L2(1), U64((8 * C) | 0x100))], "reserved bits 0x100 set"),
    ("L2 entry with reserved bit 61", &[(L2(1), U64((8 * C) | (1 << 61)))], "has reserved bits"),
    ("L2 entry with reserved bit 56", &[(L2(1), U64((8 * C) | (1 << 56)))], "has reserved bits"),
    ("data unaligned", &[(L2(1), U64(8 * C + 512))], "expected a multiple of the cluster size"),
    ("data outside", &[(L2(1), U64(1 << 40))], "not inside the file"),
    ("data at the end of numbers", &[(L2(1), U64(0x00ff_ffff_ffff_f000))], "not inside the file"),
    ("data on L1", &[(L2(1), U64(3 * C))], "on the L1 table"),
    ("data on its own L2", &[(L2(1), U64(4 * C))], "on the L2 table"),
    ("data on the refcount table", &[(L2(1), U64(C))], "on the refcount table"),
    ("compressed data on the header", &[(L2(1), U64(COMPRESSED))], "on the header"),
    ("compressed data outside", &[(L2(1), U64(COMPRESSED | 1 << 40))], "not inside the file"),
    ("compressed data at the end", &[(L2(1), U64(u64::MAX))], "not inside the file"),
    ("compressed data on L1", &[(L2(1), U64(COMPRESSED | (3 * C + 17)))], "on the L1 table"),
    (
        "compressed data that is none",
        &[(L2(1), U64(COMPRESSED | (1 << 58) | (16 * C + 5)))],
        "compressed cluster at byte 65541 of the image",
    ),
];

fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// 8 MiB: random where there is data, so that neighbours cannot be mistaken.
fn good() -> Vec<u8> {
    let mut raw = disk_bytes(31, 8 << 20);
    raw[..64 << 10].copy_from_slice(&Rng::new(32).bytes(64 << 10));
    qcow2(&raw, &["-o", "cluster_size=4k"])
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn patch(file: &mut [u8], patches: &[(At, Put)]) {
    let l1 = be64(file, 40) as usize;
    let l2 = (be64(file, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    for (at, put) in patches {
        let at = match at {
            H(at) => *at,
            L1(nth) => l1 + nth * 8,
            L2(nth) => l2 + nth * 8,
        };
        match put {
            Byte(value) => file[at] = *value,
            U32(value) => file[at..at + 4].copy_from_slice(&value.to_be_bytes()),
            U64(value) => file[at..at + 8].copy_from_slice(&value.to_be_bytes()),
        }
    }
}

/// Writes a file whose digest is right, from a path, onto a disk of 16 MiB.
fn try_file(file: &[u8], size: u64) -> (Result<WriteReport, ImageError>, Arc<MemDisk>) {
    let mut place = tempfile::NamedTempFile::new_in(scratch()).unwrap();
    std::io::Write::write_all(&mut place, file).unwrap();
    let url = format!("file://{}", place.path().display());
    write(&ask(&url, ImageFormat::Qcow2, file), MemDisk::new(size))
}

#[track_caller]
fn refused(name: &str, file: &[u8], expected: &str) {
    let (result, disk) = try_file(file, 16 << 20);
    let text = words(&result);
    assert!(text.contains(expected), "{name}: {text}");
    let left = left(&disk.content(), b"never");
    // What only the data shows is found when the ends are blank already.
    let late = text.contains("compressed cluster");
    assert_eq!(left, if late { Left::Blank } else { Left::Untouched }, "{name}: {text}");
}

#[test]
fn broken_images_are_refused_in_words() {
    assert!(BROKEN.len() >= 60);
    let good = good();
    assert_eq!(words(&try_file(&good, 16 << 20).0), "complete");
    for (name, patches, expected) in BROKEN {
        let mut file = good.clone();
        patch(&mut file, patches);
        refused(name, &file, expected);
    }
}

#[test]
fn files_that_were_cut_short_are_refused() {
    let good = good();
    for (length, expected) in [
        (0, "the image is empty"),
        (3, "no qcow2"),
        (4, "cut short"),
        (50, "cut short"),
        (72, "cut short"),
        (103, "cut short"),
        (104, "cut short"),
        (4096, "not inside the file"),
        (4096 * 3, "not inside the file"),
        (4096 * 4, "not inside the file"),
        (good.len() / 2, "not inside the file"),
        (good.len() - 4096, "not inside the file"),
    ] {
        refused(&format!("cut at {length}"), &good[..length], expected);
    }
}

#[test]
fn broken_subclusters_and_old_zero_flags_are_refused() {
    let raw = disk_bytes(33, 2 << 20);
    let extended = qcow2(&raw, &["-o", "extended_l2=on"]);
    for (name, patches, expected) in [
        ("both", &[(L2(1), U64(1 << 32 | 1))][..], "both allocated and zero"),
        ("homeless", &[(L2(0), U64(0)), (L2(1), U64(1))], "names no data cluster"),
        ("zero flag", &[(L2(0), U64(0x5_0001))], "has reserved bits 0x1 set"),
        (
            "compressed with a map",
            &[(L2(0), U64(COMPRESSED | 0x5_0000)), (L2(1), U64(1))],
            "has reserved bits 0x1",
        ),
    ] {
        let mut file = extended.clone();
        patch(&mut file, patches);
        refused(name, &file, expected);
    }
    let mut old = qcow2(&raw, &["-o", "compat=0.10"]);
    patch(&mut old, &[(L2(0), U64(0x5_0001))]);
    refused("zero flag in version 2", &old, "has reserved bits 0x1 set");
}

/// A snapshot table lies behind the data. Where the server has ranges it is looked over first, for one request; where it has none, as
/// it passes, and the image is still sent once.
#[test]
fn a_broken_snapshot_table_is_refused_before_the_first_write_where_that_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("img");
    std::fs::write(&image, good()).unwrap();
    let plain = std::fs::read(&image).unwrap();
    for name in ["one", "two"] {
        qemu_ok("qemu-img", &["snapshot", "-c", name, "img"], folder.path());
    }
    let file = std::fs::read(&image).unwrap();
    let table = be64(&file, 64) as usize;
    assert!(table > 1 << 20, "it would be in the file's start");
    let mut broken = file.clone();
    patch(&mut broken, &[(H(table + 36), U32(1025))]);

    let run = |file: &[u8], answer: Answer| {
        let server = Server::new(file, [], answer);
        let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, file), MemDisk::new(16 << 20));
        (words(&result), disk, server)
    };
    let expected = "snapshot 1 of the image has 1025 bytes of extra data, expected at most 1024";
    let (said, disk, _) = run(&broken, Answer::default());
    assert!(said.contains(expected), "{said}");
    assert_eq!(left(&disk.content(), b"never"), Left::Untouched);
    let (said, disk, _) = run(&broken, Answer::no_ranges());
    assert!(said.contains(expected), "{said}");
    assert_eq!(left(&disk.content(), b"never"), Left::Blank);

    let (said, _, server) = run(&file, Answer::no_ranges());
    assert_eq!((said.as_str(), server.sent()), ("complete", file.len() as u64));
    let (said, _, with) = run(&file, Answer::default());
    assert_eq!(said, "complete");
    let (_, _, without) = run(&plain, Answer::default());
    // The snapshots' own clusters make the file longer; its tables are asked for as before.
    assert_eq!(with.seen().len(), without.seen().len() + 1);
}

#[test]
fn broken_streams_are_refused() {
    let raw = disk_bytes(34, 2 << 20);
    for (options, message) in
        [(&["-c"][..], "not valid deflate data"), (&["-c", "-o", "compression_type=zstd"], "zstd")]
    {
        let file = qcow2(&raw, options);
        let l1 = be64(&file, 40) as usize;
        let l2 = (be64(&file, l1) & 0x00ff_ffff_ffff_fe00) as usize;
        let entry = (0..32)
            .map(|n| be64(&file, l2 + n * 8))
            .find(|e| e & COMPRESSED != 0)
            .expect("a compressed cluster");
        let host = (entry & ((1 << 54) - 1)) as usize;
        let mut broken = file.clone();
        broken[host..host + 8].fill(0xff);
        refused(message, &broken, message);
    }
}

/// One seeded mutation: mostly of tables and header, sometimes of data.
fn mutate(file: &mut [u8], seed: u64) {
    let mut rng = Rng::new(seed);
    let l1 = be64(file, 40) as usize;
    let l2 = (be64(file, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    for _ in 0..=rng.below(3) {
        let at = match rng.below(5) {
            0 => rng.below(112) as usize,
            1 => l1 + rng.below(16) as usize,
            2 | 3 => l2 + rng.below(256) as usize,
            _ => rng.below(file.len() as u64) as usize,
        };
        let Some(place) = file.get_mut(at) else { continue };
        *place = match rng.below(3) {
            0 => rng.next() as u8,
            1 => *place ^ 1 << rng.below(8),
            _ => [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
        };
    }
}

/// Never a panic, and what is called complete is what qemu-img reads, where it reads it at all.
#[test]
fn mutated_images_are_refused_or_mean_what_qemu_says() {
    let raw = disk_bytes(35, 1 << 20);
    let bases = [
        qcow2(&raw, &["-o", "cluster_size=4k"]),
        qcow2(&raw, &["-c", "-o", "cluster_size=8k"]),
        qcow2(&raw, &["-c", "-o", "cluster_size=16k,compression_type=zstd"]),
        qcow2(&raw, &["-o", "cluster_size=16k,extended_l2=on"]),
        qcow2(&raw, &["-o", "compat=0.10,cluster_size=4k"]),
    ];
    let (next, complete, compared) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let folder = tempfile::tempdir_in(scratch()).unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= 2000 {
                        return;
                    }
                    let mut file = bases[(seed % 5) as usize].clone();
                    mutate(&mut file, seed);
                    let (result, disk) = try_file(&file, 2 << 20);
                    if result.is_err() {
                        continue;
                    }
                    complete.fetch_add(1, Ordering::SeqCst);
                    std::fs::write(folder.path().join("img"), &file).unwrap();
                    let words = ["convert", "-f", "qcow2", "-O", "raw", "img", "out"];
                    if qemu("qemu-img", &words, folder.path()).0 {
                        let expected = std::fs::read(folder.path().join("out")).unwrap();
                        assert!(disk.content().starts_with(&expected), "seed {seed} differs from qemu-img");
                        compared.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    println!("2000 mutations, {complete:?} complete, {compared:?} of them equal to qemu-img");
    assert!(compared.into_inner() > 200);
}
