//! Valid images of every kind that qemu-img and qemu-io make: the disk must be what `qemu-img convert -O raw` says.

use super::server::{Answer, Server};
use super::*;
use std::path::PathBuf;

/// An image of the corpus. Paths are relative to its folder; the image is `img`.
struct Case {
    name: &'static str,
    /// Words for `qemu-img create`, or for `convert` when `from` is set.
    options: &'static [&'static str],
    /// Virtual size in bytes.
    size: u64,
    /// Converted from random content instead of created empty.
    from: bool,
    /// qemu-io commands, one after the other.
    io: &'static [&'static str],
    /// What happens to it afterwards: words for qemu-img.
    then: &'static [&'static [&'static str]],
}

const PLAIN: Case = Case { name: "", options: &[], size: 8 << 20, from: true, io: &[], then: &[] };
/// Writes that leave every kind of cluster and their order mixed up.
const MIXED: &[&str] = &[
    "write -P 7 6M 128k",
    "write -P 1 0 64k",
    "write -z 1M 256k",
    "write -P 2 3000k 300k",
    "discard 6M 64k",
    "write -z -u 2M 64k",
    "write -P 3 512 512",
    "write -P 9 7M 1M",
    "write -P 4 1500k 3k",
];
const COMPRESSED: &[&str] = &["write -c -P 5 4M 64k", "write -P 6 5M 64k", "write -c -P 8 64k 64k"];

const CASES: &[Case] = &[
    Case { name: "plain", ..PLAIN },
    Case { name: "version 2", options: &["-o", "compat=0.10"], ..PLAIN },
    Case { name: "version 2 zlib", options: &["-c", "-o", "compat=0.10"], ..PLAIN },
    Case { name: "zlib", options: &["-c"], ..PLAIN },
    Case { name: "zstd", options: &["-c", "-o", "compression_type=zstd"], ..PLAIN },
    Case { name: "512 B", options: &["-o", "cluster_size=512"], size: 3 << 20, ..PLAIN },
    Case { name: "512 B zlib", options: &["-c", "-o", "cluster_size=512"], size: 3 << 20, ..PLAIN },
    Case { name: "1 KiB", options: &["-o", "cluster_size=1k"], size: 3 << 20, ..PLAIN },
    Case { name: "4 KiB", options: &["-o", "cluster_size=4k"], ..PLAIN },
    Case { name: "4 KiB zlib", options: &["-c", "-o", "cluster_size=4k"], ..PLAIN },
    Case { name: "4 KiB zstd", options: &["-c", "-o", "cluster_size=4k,compression_type=zstd"], ..PLAIN },
    Case { name: "256 KiB zlib", options: &["-c", "-o", "cluster_size=256k"], ..PLAIN },
    Case { name: "2 MiB", options: &["-o", "cluster_size=2M"], ..PLAIN },
    Case { name: "2 MiB zlib", options: &["-c", "-o", "cluster_size=2M"], ..PLAIN },
    Case { name: "2 MiB zstd", options: &["-c", "-o", "cluster_size=2M,compression_type=zstd"], ..PLAIN },
    Case { name: "extended L2", options: &["-o", "extended_l2=on"], ..PLAIN },
    Case { name: "extended L2 zlib", options: &["-c", "-o", "extended_l2=on"], ..PLAIN },
    Case { name: "extended L2 holes", options: &["-o", "extended_l2=on"], from: false, io: MIXED, ..PLAIN },
    Case {
        name: "extended L2 128k",
        options: &["-o", "extended_l2=on,cluster_size=128k"],
        from: false,
        io: MIXED,
        ..PLAIN
    },
    Case { name: "empty", from: false, ..PLAIN },
    Case { name: "mixed", from: false, io: MIXED, ..PLAIN },
    Case {
        name: "mixed version 2",
        options: &["-o", "compat=0.10"],
        from: false,
        io: &["write -P 7 6M 128k", "write -P 1 0 64k", "write -z 1M 256k", "discard 6M 64k"],
        ..PLAIN
    },
    Case { name: "mixed 512 B", options: &["-o", "cluster_size=512"], from: false, io: MIXED, ..PLAIN },
    Case { name: "compressed among plain", from: false, io: COMPRESSED, ..PLAIN },
    Case { name: "over compressed", options: &["-c"], io: MIXED, ..PLAIN },
    Case {
        name: "preallocated tables",
        options: &["-o", "preallocation=metadata"],
        from: false,
        io: &["write -P 1 1M 64k"],
        ..PLAIN
    },
    Case {
        name: "preallocated",
        options: &["-o", "preallocation=falloc"],
        from: false,
        io: &["write -P 1 1M 64k"],
        ..PLAIN
    },
    Case { name: "refcounts of one bit", options: &["-o", "refcount_bits=1"], ..PLAIN },
    Case { name: "refcounts of 64 bits", options: &["-o", "refcount_bits=64"], ..PLAIN },
    Case { name: "lazy refcounts", options: &["-o", "lazy_refcounts=on"], from: false, io: MIXED, ..PLAIN },
    Case { name: "odd size", size: (5 << 20) + 512 * 3, ..PLAIN },
    Case { name: "odd size zlib", options: &["-c"], size: (5 << 20) + 512 * 7, ..PLAIN },
    Case {
        name: "odd size 2 MiB",
        options: &["-c", "-o", "cluster_size=2M"],
        size: (5 << 20) + 512,
        ..PLAIN
    },
    Case { name: "one sector", size: 512, ..PLAIN },
    Case { name: "less than two MiB", size: (1 << 20) + 4096, ..PLAIN },
    Case { name: "snapshot", from: false, io: MIXED, then: &[&["snapshot", "-c", "s", "img"]], ..PLAIN },
    Case {
        name: "snapshot written over",
        then: &[
            &["snapshot", "-c", "s", "img"],
            &["bench", "-w", "-c", "20", "-S", "200000", "-f", "qcow2", "img"],
        ],
        ..PLAIN
    },
    Case {
        name: "grown, its L1 last",
        options: &["-o", "cluster_size=512"],
        size: 2 << 20,
        then: &[&["resize", "img", "12M"]],
        ..PLAIN
    },
    Case { name: "shrunk", then: &[&["resize", "--shrink", "img", "3M"]], ..PLAIN },
    Case { name: "bitmap", then: &[&["bitmap", "--add", "img", "b"]], ..PLAIN },
    Case { name: "amended", then: &[&["amend", "-o", "lazy_refcounts=on", "img"]], ..PLAIN },
];

struct Made {
    file: Vec<u8>,
    raw: Vec<u8>,
    /// Bytes that have a place in the file, as `qemu-img map` says.
    allocated: u64,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn make(case: &Case) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    if case.from {
        std::fs::write(path.join("raw"), disk_bytes(case.size, case.size as usize)).unwrap();
        let words = [&["convert", "-f", "raw", "-O", "qcow2"], case.options, &["raw", "img"]].concat();
        qemu_ok("qemu-img", &words, path);
    } else {
        let size = case.size.to_string();
        let words = [&["create", "-q", "-f", "qcow2"], case.options, &["img", &size]].concat();
        qemu_ok("qemu-img", &words, path);
    }
    for command in case.io {
        qemu_ok("qemu-io", &["-f", "qcow2", "-d", "unmap", "-c", command, "img"], path);
    }
    for words in case.then {
        qemu_ok("qemu-img", words, path);
    }
    qemu_ok("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", "img", "out"], path);
    let (_, map) = qemu("qemu-img", &["map", "--output=json", "-f", "qcow2", "img"], path);
    Made {
        file: std::fs::read(path.join("img")).unwrap(),
        raw: std::fs::read(path.join("out")).unwrap(),
        allocated: data_bytes(&map),
        path: path.join("img"),
        _folder: folder,
    }
}

fn data_bytes(map: &str) -> u64 {
    let map: serde_json::Value = serde_json::from_str(map).unwrap();
    let data = map.as_array().unwrap().iter().filter(|e| e["data"] == true || e.get("offset").is_some());
    data.map(|e| e["length"].as_u64().unwrap()).sum()
}

/// Writes one image in one way and compares the whole disk.
fn check(name: &str, request: &WriteRequest, raw: &[u8], allocated: u64, disk: MemDisk) {
    let offload = disk.zero(ferric_common::units::DiskOffset(0), ByteCount(0)).is_ok();
    let (result, disk) = write(request, disk);
    let report = result.unwrap_or_else(|e| panic!("{name}: {}", e.for_operator()));
    let content = disk.content();
    assert!(content.starts_with(raw), "{name}: differs at byte {:?}", differs(&content, raw));
    // The first MiB is blanked even where the image is smaller.
    let (rest, end) = (raw.len().max(MIB as usize), content.len() - (MIB as usize).min(content.len()));
    if rest < end {
        assert!(content[rest..end].iter().all(|b| *b == 0xa5), "{name}: touched behind the image");
        assert!(content[end..].iter().all(|b| *b == 0), "{name}: the end is not blank");
    }
    let limit = allocated + allocated / 100 + (4 << 20);
    assert!(report.written.0 <= limit, "{name}: {report}, {allocated} allocated");
    if offload {
        assert!(report.zeros_written.0 == 0, "{name}: {report}");
    }
}

fn differs(a: &[u8], b: &[u8]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// The disks that every image is written onto: as big as the image and bigger, both sector sizes, with zeroing and
/// without.
fn disks(size: u64, round: u64) -> [MemDisk; 2] {
    let exact = size.next_multiple_of(4096).max(2 << 20);
    match round % 2 {
        0 => [
            MemDisk::new(size.max(2 << 20)),
            MemDisk::new(exact + (3 << 20)).with_sector(4096).without_offload(),
        ],
        _ => [MemDisk::new(exact).with_sector(4096), MemDisk::new(exact + (3 << 20)).without_offload()],
    }
}

fn check_all(cases: &[Case]) {
    for (round, case) in (0..).zip(cases) {
        let made = make(case);
        let ranged = Server::honest(&made.file);
        let plain = Server::new(&made.file, [], Answer::no_ranges());
        let urls = [format!("file://{}", made.path.display()), ranged.url(), plain.url()];
        for (nth, url) in (round..).zip(urls) {
            let request = ask(&url, ImageFormat::Qcow2, &made.file);
            for disk in disks(made.raw.len() as u64, nth) {
                check(&format!("{} from {url}", case.name), &request, &made.raw, made.allocated, disk);
            }
        }
    }
}

#[test]
fn qcow2_images_equal_what_qemu_reads_part_one() {
    check_all(&CASES[..CASES.len() / 2]);
}

#[test]
fn qcow2_images_equal_what_qemu_reads_part_two() {
    check_all(&CASES[CASES.len() / 2..]);
}

#[test]
fn raw_images_with_holes_are_written_where_they_hold_something() {
    for (nth, size) in (0..).zip([8 << 20, (6 << 20) + 512, (3 << 20) + 100 * 512, 1 << 20, 512]) {
        let raw = disk_bytes(size as u64, size);
        let data = raw.chunks(64 << 10).filter(|b| b.iter().any(|b| *b != 0)).map(<[u8]>::len).sum::<usize>();
        let ranged = Server::honest(&raw);
        let plain = Server::new(&raw, [], Answer::no_ranges());
        for url in [ranged.url(), plain.url()] {
            for disk in disks(size as u64, nth) {
                check(&format!("raw of {size}"), &ask(&url, ImageFormat::Raw, &raw), &raw, data as u64, disk);
            }
        }
    }
}

#[test]
fn sha512_proves_as_well() {
    let raw = disk_bytes(5, 3 << 20);
    let server = Server::honest(&raw);
    let mut request = ask(&server.url(), ImageFormat::Raw, &raw);
    request.image.digest =
        Digest { algorithm: DigestAlgorithm::Sha512, bytes: sha2::Sha512::digest(&raw).to_vec() };
    check("sha512", &request, &raw, raw.len() as u64, MemDisk::new(3 << 20));
}
