//! Images made by `qemu-img` and `qemu-io`, rebuilt through [`Header`] and [`Planner`] and compared with what
//! `qemu-img convert -O raw` makes of them. The one test that a misreading of the specification cannot pass.
//!
//! Needs `qemu-img` and `qemu-io`; works on files in a temporary folder only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use ferric_common::formats::qcow2::{Compression, Extent, ExtentKind, Header, Planner, Step};
use std::path::Path;
use std::process::Command;

/// Runs one program in `folder`; words are parted by blanks, `'…'` keeps blanks.
fn run(folder: &Path, line: &str) {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_string());
        } else {
            words.extend(part.split_whitespace().map(String::from));
        }
    }
    let output = Command::new(&words[0]).args(&words[1..]).current_dir(folder).output();
    let output = output.unwrap_or_else(|e| panic!("{line}: {e}; install qemu-utils"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The raw content of an image, as the project reads it, and the number of extents.
fn rebuild(file: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let header =
        Header::parse(&file[..file.len().min(2 << 20)], file.len() as u64).map_err(|e| e.to_string())?;
    let mut raw = vec![0_u8; usize::try_from(header.virtual_size().0).unwrap()];
    let mut planner = Planner::new(&header, file.len() as u64);
    let mut extents: Vec<Extent> = Vec::new();
    while let Step::Need(range) = planner.step() {
        assert!(range.end - range.start <= 4 << 20);
        let bytes = &file[range.start as usize..range.end as usize];
        let mut keep = |extent| {
            extents.push(extent);
            true
        };
        planner.supply(bytes, &mut keep).map_err(|e| e.to_string())?;
    }
    let mut end = 0;
    for extent in &extents {
        assert!(extent.guest >= end, "{extent:?} is out of order");
        end = extent.guest + extent.length;
        let target = &mut raw[extent.guest as usize..end as usize];
        let host = extent.host as usize;
        match extent.kind {
            ExtentKind::Plain => target.copy_from_slice(&file[host..host + target.len()]),
            ExtentKind::Compressed { stored } => {
                let cluster = inflate(&header, &file[host..host + stored as usize]);
                target.copy_from_slice(&cluster[..target.len()]);
            }
        }
    }
    Ok((raw, extents.len()))
}

fn inflate(header: &Header, stored: &[u8]) -> Vec<u8> {
    let mut cluster = vec![0; header.cluster_size() as usize];
    let length = match header.compression() {
        Compression::Zlib => {
            libdeflater::Decompressor::new().deflate_decompress(stored, &mut cluster).unwrap()
        }
        Compression::Zstd => {
            let mut out = zstd::stream::raw::OutBuffer::around(&mut cluster[..]);
            let mut input = zstd::stream::raw::InBuffer::around(stored);
            let mut decoder = zstd::stream::raw::Decoder::new().unwrap();
            while zstd::stream::raw::Operation::run(&mut decoder, &mut input, &mut out).unwrap() != 0 {}
            out.pos()
        }
    };
    assert_eq!(length, cluster.len());
    cluster
}

/// A raw disk of `length` bytes: text-like, random and empty stretches of odd lengths.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut raw = Vec::with_capacity(length + 400_000);
    while raw.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let stretch = (state >> 40) as usize % 300_000 + 1;
        match (state >> 33) % 3 {
            0 => raw.extend(std::iter::repeat_n(0, stretch)),
            1 => raw.extend((0..stretch).map(|i| (i / 7) as u8)),
            _ => raw.extend((0..stretch).map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i as u64 | 1);
                (state >> 56) as u8
            })),
        }
    }
    raw.truncate(length);
    raw
}

/// Names the case, then the programs to run; they leave `image` behind. `disk.raw` holds content of 5000.5 KiB.
const CASES: &[(&str, &[&str])] = &[
    ("default", &["qemu-img convert -O qcow2 disk.raw image"]),
    ("clusters of 512 bytes", &["qemu-img convert -O qcow2 -o cluster_size=512 disk.raw image"]),
    ("clusters of 4 KiB", &["qemu-img convert -O qcow2 -o cluster_size=4k disk.raw image"]),
    ("clusters of 2 MiB", &["qemu-img convert -O qcow2 -o cluster_size=2M disk.raw image"]),
    ("version 2", &["qemu-img convert -O qcow2 -o compat=0.10 disk.raw image"]),
    ("version 2, zlib", &["qemu-img convert -c -O qcow2 -o compat=0.10 disk.raw image"]),
    ("zlib", &["qemu-img convert -c -O qcow2 disk.raw image"]),
    ("zlib, 512 bytes", &["qemu-img convert -c -O qcow2 -o cluster_size=512 disk.raw image"]),
    ("zlib, 2 MiB", &["qemu-img convert -c -O qcow2 -o cluster_size=2M disk.raw image"]),
    ("zstd", &["qemu-img convert -c -O qcow2 -o compression_type=zstd disk.raw image"]),
    (
        "zstd, 4 KiB",
        &["qemu-img convert -c -O qcow2 -o compression_type=zstd,cluster_size=4k disk.raw image"],
    ),
    (
        "zstd, 2 MiB",
        &["qemu-img convert -c -O qcow2 -o compression_type=zstd,cluster_size=2M disk.raw image"],
    ),
    ("out of order", &["qemu-img convert -W -m 8 -O qcow2 -o cluster_size=4k disk.raw image"]),
    ("one-bit refcounts", &["qemu-img convert -O qcow2 -o refcount_bits=1 disk.raw image"]),
    ("lazy refcounts", &["qemu-img convert -O qcow2 -o lazy_refcounts=on disk.raw image"]),
    ("extended L2", &["qemu-img convert -O qcow2 -o extended_l2=on disk.raw image"]),
    ("extended L2, zlib", &["qemu-img convert -c -O qcow2 -o extended_l2=on disk.raw image"]),
    (
        "extended L2, subclusters written, zeroed, discarded",
        &[
            "qemu-img create -f qcow2 -o extended_l2=on,cluster_size=64k image 3M",
            "qemu-io -f qcow2 -c 'write -P 1 0 2k' -c 'write -P 2 10k 4k' -c 'write -P 3 62k 70k' image",
            "qemu-io -f qcow2 -c 'write -P 4 1M 128k' -c 'write -z 1030k 20k' -c 'discard 1100k 10k' image",
            "qemu-io -f qcow2 -c 'write -z 2M 6k' -c 'write -P 5 3070k 2k' image",
        ],
    ),
    (
        "extended L2 in 2 MiB, last cluster cut",
        &[
            "qemu-img create -f qcow2 -o extended_l2=on,cluster_size=2M image 5000k",
            "qemu-io -f qcow2 -c 'write -P 1 4096k 1k' -c 'write -P 2 4990k 10k' -c 'write -P 3 1M 64k' image",
        ],
    ),
    (
        "extended L2, preallocated",
        &[
            "qemu-img create -f qcow2 -o extended_l2=on,preallocation=metadata image 5000k",
            "qemu-io -f qcow2 -c 'write -P 1 4096k 1k' image",
        ],
    ),
    (
        "zero clusters",
        &[
            "qemu-img create -f qcow2 image 5000k",
            "qemu-io -f qcow2 -c 'write -P 7 0 3M' -c 'write -z 128k 256k' -c 'write -z -u 1M 256k' -c 'write -z 4M 64k' image",
            "qemu-io -f qcow2 -c 'discard 2M 128k' image",
        ],
    ),
    (
        "version 2, discarded",
        &[
            "qemu-img create -f qcow2 -o compat=0.10 image 5000k",
            "qemu-io -f qcow2 -c 'write -P 7 0 3M' -c 'write -z 128k 256k' -c 'discard 2M 128k' image",
        ],
    ),
    ("preallocation metadata", &["qemu-img create -f qcow2 -o preallocation=metadata image 5000k"]),
    (
        "preallocation metadata, some written",
        &[
            "qemu-img create -f qcow2 -o preallocation=metadata,cluster_size=2M image 5000k",
            "qemu-io -f qcow2 -c 'write -P 9 1M 64k' image",
        ],
    ),
    ("preallocation falloc", &["qemu-img convert -O qcow2 -o preallocation=falloc disk.raw image"]),
    (
        "preallocation full",
        &["qemu-img convert -O qcow2 -o preallocation=full,cluster_size=2M disk.raw image"],
    ),
    (
        "internal snapshots",
        &[
            "qemu-img convert -O qcow2 disk.raw image",
            "qemu-img snapshot -c one image",
            "qemu-io -f qcow2 -c 'write -P 3 100k 900k' image",
            "qemu-img snapshot -c two image",
            "qemu-io -f qcow2 -c 'write -P 4 2M 70k' image",
        ],
    ),
    (
        "a size that is no multiple of anything",
        &["qemu-img convert -O qcow2 -o cluster_size=2M odd.raw image"],
    ),
    ("odd size, zlib", &["qemu-img convert -c -O qcow2 odd.raw image"]),
    (
        "last cluster partly written",
        &[
            "qemu-img create -f qcow2 -o cluster_size=2M image 4097k",
            "qemu-io -f qcow2 -c 'write -P 3 4096k 512' image",
        ],
    ),
    (
        "resized, L1 at the end",
        &[
            "qemu-img convert -O qcow2 -o cluster_size=512 disk.raw image",
            "qemu-img resize image 40M",
            "qemu-io -f qcow2 -c 'write -P 3 33M 70k' image",
        ],
    ),
    (
        "shrunk",
        &[
            "qemu-img convert -O qcow2 -o cluster_size=512 disk.raw image",
            "qemu-img resize --shrink image 1M",
        ],
    ),
    (
        "compressed, then partly rewritten",
        &["qemu-img convert -c -O qcow2 disk.raw image", "qemu-io -f qcow2 -c 'write -P 8 30k 300k' image"],
    ),
    ("bitmap", &["qemu-img convert -O qcow2 disk.raw image", "qemu-img bitmap --add -f qcow2 image changes"]),
    ("empty", &["qemu-img create -f qcow2 image 64M"]),
];

#[test]
fn images_read_as_qemu_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.raw"), content(5000 * 1024 + 512)).unwrap();
    std::fs::write(folder.path().join("odd.raw"), content(4_200_001)).unwrap();
    let mut wrong = Vec::new();
    for (name, lines) in CASES {
        for line in *lines {
            run(folder.path(), line);
        }
        run(folder.path(), "qemu-img convert -f qcow2 -O raw image judged.raw");
        let file = std::fs::read(folder.path().join("image")).unwrap();
        let judged = std::fs::read(folder.path().join("judged.raw")).unwrap();
        match rebuild(&file) {
            Err(error) => wrong.push(format!("{name}: refused: {error}")),
            Ok((raw, extents)) if raw != judged => {
                let at = raw.iter().zip(&judged).position(|(a, b)| a != b);
                wrong.push(format!(
                    "{name}: differs at {at:?}, {} and {} bytes, {extents} extents",
                    raw.len(),
                    judged.len()
                ));
            }
            Ok(_) => {}
        }
        std::fs::remove_file(folder.path().join("image")).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_that_ends_before_its_last_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.raw"), content(5000 * 1024 + 512)).unwrap();
    run(folder.path(), "qemu-img convert -O qcow2 disk.raw image");
    let file = std::fs::read(folder.path().join("image")).unwrap();
    let error = rebuild(&file[..file.len() - 70_000]).unwrap_err();
    assert!(error.contains("the image is cut short or damaged"), "{error}");
}

#[test]
fn a_disk_of_many_tebibytes_is_walked_with_few_reads() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "qemu-img create -f qcow2 image 10T");
    run(folder.path(), "qemu-io -f qcow2 -c 'write -P 3 9T 192k' -c 'write -P 4 1T 64k' image");
    let file = std::fs::read(folder.path().join("image")).unwrap();
    let header = Header::parse(&file[..65536], file.len() as u64).unwrap();
    let mut planner = Planner::new(&header, file.len() as u64);
    let (mut extents, mut steps) = (Vec::new(), 0);
    while let Step::Need(range) = planner.step() {
        steps += 1;
        let mut keep = |extent: Extent| {
            extents.push((extent.guest, extent.length));
            true
        };
        planner.supply(&file[range.start as usize..range.end as usize], &mut keep).unwrap();
    }
    assert_eq!(extents, [(1 << 40, 65536), (9 << 40, 192 << 10)]);
    assert!(steps <= 3, "{steps} reads");
}
