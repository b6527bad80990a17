//! Valid qcow2 images that qemu-img and qemu-io make.

use super::{Valid, content, qemu};
use anyhow::{Context, Result, bail};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// A sentence, KiB of the disk (512 bytes more or less with a fraction), and what is done one after the other:
/// - `convert …`: the image is made from a disk with content; words for `qemu-img convert`
/// - `create …`: the image is made empty; words for `qemu-img create`
/// - `io …`: commands of qemu-io
/// - `crash …`: the same, and qemu-io is killed before it can close the image
/// - `img …`: `qemu-img …` with `image` as the image's name
/// - `byte AT VALUE`: a byte of the file is set
/// - `append N`: bytes that mean nothing are put behind the file
type Case = (&'static str, f64, &'static [&'static [&'static str]]);

/// Writes that leave every kind of cluster and their order mixed up.
const MIXED: &[&str] = &[
    "io",
    "write -P 7 2M 128k",
    "write -P 1 0 64k",
    "write -z 1M 256k",
    "write -P 2 1500k 300k",
    "discard 2M 64k",
    "write -z -u 1800k 64k",
    "write -P 3 512 512",
    "write -P 9 3M 1M",
    "write -P 4 900k 3k",
];
const HALF: &[&str] = &["io", "write -P 7 100k 600k", "write -z 300k 100k", "write -P 8 2M 70k"];
const OLD: &[&str] = &["io", "write -P 7 2M 128k", "write -P 1 0 64k", "write -z 1M 256k", "discard 2M 64k"];

const CASES: &[Case] = &[
    ("a plain image", 4096., &[&["convert"]]),
    ("a plain image of version 2", 4096., &[&["convert", "-o", "compat=0.10"]]),
    ("a zlib image", 4096., &[&["convert", "-c"]]),
    ("a zlib image of version 2", 4096., &[&["convert", "-c", "-o", "compat=0.10"]]),
    ("a zstd image", 4096., &[&["convert", "-c", "-o", "compression_type=zstd"]]),
    (
        "the compression type is zstd and nothing is compressed",
        2048.,
        &[&["convert", "-o", "compression_type=zstd"]],
    ),
    ("clusters have 512 bytes", 2048., &[&["convert", "-o", "cluster_size=512"]]),
    ("clusters have 512 bytes, zlib", 2048., &[&["convert", "-c", "-o", "cluster_size=512"]]),
    (
        "clusters have 512 bytes, zstd",
        1024.,
        &[&["convert", "-c", "-o", "cluster_size=512,compression_type=zstd"]],
    ),
    ("clusters have 512 bytes, version 2", 1024., &[&["convert", "-o", "cluster_size=512,compat=0.10"]]),
    ("clusters have 1 KiB", 2048., &[&["convert", "-o", "cluster_size=1k"]]),
    ("clusters have 2 KiB, zlib", 2048., &[&["convert", "-c", "-o", "cluster_size=2k"]]),
    ("clusters have 4 KiB", 4096., &[&["convert", "-o", "cluster_size=4k"]]),
    ("clusters have 4 KiB, zlib", 4096., &[&["convert", "-c", "-o", "cluster_size=4k"]]),
    (
        "clusters have 8 KiB, zstd",
        4096.,
        &[&["convert", "-c", "-o", "cluster_size=8k,compression_type=zstd"]],
    ),
    ("clusters have 16 KiB", 4096., &[&["convert", "-o", "cluster_size=16k"]]),
    ("clusters have 32 KiB, zlib", 4096., &[&["convert", "-c", "-o", "cluster_size=32k"]]),
    (
        "clusters have 128 KiB, zstd",
        4096.,
        &[&["convert", "-c", "-o", "cluster_size=128k,compression_type=zstd"]],
    ),
    ("clusters have 256 KiB, zlib", 4096., &[&["convert", "-c", "-o", "cluster_size=256k"]]),
    ("clusters have 512 KiB", 4096., &[&["convert", "-o", "cluster_size=512k"]]),
    ("clusters have 1 MiB, zlib", 4096., &[&["convert", "-c", "-o", "cluster_size=1M"]]),
    ("clusters have 2 MiB", 6144., &[&["convert", "-o", "cluster_size=2M"]]),
    ("clusters have 2 MiB, zlib", 6144., &[&["convert", "-c", "-o", "cluster_size=2M"]]),
    (
        "clusters have 2 MiB, zstd",
        6144.,
        &[&["convert", "-c", "-o", "cluster_size=2M,compression_type=zstd"]],
    ),
    ("extended L2 entries", 4096., &[&["convert", "-o", "extended_l2=on"]]),
    ("extended L2 entries, zlib", 4096., &[&["convert", "-c", "-o", "extended_l2=on"]]),
    (
        "extended L2 entries, zstd, clusters of 16 KiB",
        4096.,
        &[&["convert", "-c", "-o", "extended_l2=on,cluster_size=16k,compression_type=zstd"]],
    ),
    ("extended L2 entries with holes", 4096., &[&["create", "-o", "extended_l2=on"], MIXED]),
    (
        "extended L2 entries with holes, clusters of 16 KiB",
        4096.,
        &[&["create", "-o", "extended_l2=on,cluster_size=16k"], MIXED],
    ),
    (
        "extended L2 entries with holes, clusters of 2 MiB",
        6144.,
        &[&["create", "-o", "extended_l2=on,cluster_size=2M"], MIXED],
    ),
    (
        "extended L2 entries over preallocated clusters",
        4096.,
        &[&["create", "-o", "extended_l2=on,preallocation=metadata"], HALF],
    ),
    ("an empty image", 3072., &[&["create"]]),
    ("an empty image of version 2", 3072., &[&["create", "-o", "compat=0.10"]]),
    ("zero, discarded and written clusters", 4096., &[&["create"], MIXED]),
    (
        "zero, discarded and written clusters of 512 bytes",
        4096.,
        &[&["create", "-o", "cluster_size=512"], MIXED],
    ),
    ("zero, discarded and written clusters of 2 MiB", 6144., &[&["create", "-o", "cluster_size=2M"], MIXED]),
    ("discarded clusters of version 2", 4096., &[&["create", "-o", "compat=0.10"], OLD]),
    (
        "compressed clusters among plain ones",
        4096.,
        &[&["create"], &["io", "write -c -P 5 1M 64k", "write -P 6 2M 64k", "write -c -P 8 64k 64k"]],
    ),
    ("compressed clusters written over", 4096., &[&["convert", "-c"], MIXED]),
    (
        "zstd clusters written over",
        4096.,
        &[&["convert", "-c", "-o", "compression_type=zstd,cluster_size=16k"], MIXED],
    ),
    ("all zeros are written as data", 4096., &[&["convert", "-S", "0"]]),
    ("zeros are found in blocks of 4 KiB", 4096., &[&["convert", "-S", "4k"]]),
    ("written out of order", 6144., &[&["convert", "-W", "-m", "8", "-o", "cluster_size=4k"]]),
    ("compressed out of order", 6144., &[&["convert", "-c", "-W", "-m", "8", "-o", "cluster_size=8k"]]),
    ("tables are preallocated", 4096., &[&["create", "-o", "preallocation=metadata"], HALF]),
    ("clusters are preallocated", 4096., &[&["create", "-o", "preallocation=falloc"], HALF]),
    ("clusters are preallocated in full", 4096., &[&["create", "-o", "preallocation=full"], HALF]),
    (
        "zero clusters keep their preallocated place",
        4096.,
        &[&["create", "-o", "preallocation=full,cluster_size=4k"], HALF, &["io", "write -z 100k 900k"]],
    ),
    ("refcounts have 1 bit", 4096., &[&["convert", "-o", "refcount_bits=1"]]),
    ("refcounts have 2 bits", 2048., &[&["convert", "-o", "refcount_bits=2"]]),
    ("refcounts have 4 bits", 2048., &[&["convert", "-c", "-o", "refcount_bits=4"]]),
    ("refcounts have 8 bits", 2048., &[&["convert", "-o", "refcount_bits=8"]]),
    ("refcounts have 32 bits", 2048., &[&["convert", "-o", "refcount_bits=32"]]),
    ("refcounts have 64 bits", 4096., &[&["convert", "-o", "refcount_bits=64"]]),
    ("refcounts are lazy", 4096., &[&["create", "-o", "lazy_refcounts=on"], MIXED]),
    (
        "refcounts are lazy and the writer died: the dirty bit is set",
        4096.,
        &[&["create", "-o", "lazy_refcounts=on"], MIXED, &["crash", "write -P 11 3500k 200k"]],
    ),
    ("the dirty bit is set", 2048., &[&["convert", "-c"], &["byte", "79", "1"]]),
    ("the disk has a few sectors more than its clusters", 3001.5, &[&["convert"]]),
    ("the disk has a few sectors more than its clusters, zlib", 3003.5, &[&["convert", "-c"]]),
    (
        "the last cluster of 2 MiB is mostly behind the disk",
        4096.5,
        &[&["convert", "-c", "-o", "cluster_size=2M"]],
    ),
    ("the last extended cluster is cut within a subcluster", 2050.5, &[&["convert", "-o", "extended_l2=on"]]),
    ("the disk has one sector", 0.5, &[&["convert"]]),
    ("the disk is smaller than the two ends that are blanked", 1100., &[&["convert", "-c"]]),
    ("an internal snapshot", 4096., &[&["create"], MIXED, &["img", "snapshot", "-c", "one", "image"]]),
    (
        "the disk has changed since its snapshot",
        4096.,
        &[&["convert"], &["img", "snapshot", "-c", "one", "image"], MIXED],
    ),
    (
        "three snapshots, all of them other than the disk",
        4096.,
        &[
            &["convert", "-o", "cluster_size=4k"],
            &["img", "snapshot", "-c", "one", "image"],
            MIXED,
            &["img", "snapshot", "-c", "two", "image"],
            HALF,
            &["img", "snapshot", "-c", "three", "image"],
            &["io", "write -P 77 10k 300k"],
        ],
    ),
    (
        "the disk was set back to its snapshot",
        4096.,
        &[
            &["convert", "-c"],
            &["img", "snapshot", "-c", "one", "image"],
            MIXED,
            &["img", "snapshot", "-a", "one", "image"],
        ],
    ),
    (
        "the disk was grown, its L1 table is last",
        1024.,
        &[&["convert", "-o", "cluster_size=512"], &["img", "resize", "-q", "image", "6M"]],
    ),
    (
        "the disk was grown and written, its L1 table is in the middle",
        1024.,
        &[
            &["convert", "-o", "cluster_size=512"],
            &["img", "resize", "-q", "image", "5M"],
            &["io", "write -P 3 3M 500k"],
        ],
    ),
    ("the disk was shrunk", 4096., &[&["convert"], &["img", "resize", "-q", "--shrink", "image", "2M"]]),
    (
        "the disk was shrunk within a compressed cluster",
        4096.,
        &[&["convert", "-c"], &["img", "resize", "-q", "--shrink", "image", "2112000"]],
    ),
    ("a bitmap", 4096., &[&["convert"], &["img", "bitmap", "--add", "image", "one"]]),
    (
        "a bitmap that has recorded writes",
        4096.,
        &[&["convert"], &["img", "bitmap", "--add", "-g", "4k", "image", "one"], MIXED],
    ),
    ("options were amended", 4096., &[&["convert"], &["img", "amend", "-o", "lazy_refcounts=on", "image"]]),
    (
        "version 2 was upgraded to 3",
        4096.,
        &[&["convert", "-o", "compat=0.10"], &["img", "amend", "-o", "compat=1.1", "image"], MIXED],
    ),
    (
        "version 3 was downgraded to 2",
        4096.,
        &[&["convert"], MIXED, &["img", "amend", "-o", "compat=0.10", "image"]],
    ),
    ("bytes behind the image mean nothing", 2048., &[&["convert", "-c"], &["append", "70000"]]),
    ("bytes behind the image are no whole sector", 2048., &[&["convert"], &["append", "3"]]),
    ("unknown compatible bits are set", 2048., &[&["convert"], &["byte", "80", "128"], &["byte", "86", "7"]]),
    ("unknown autoclear bits are set", 2048., &[&["convert"], &["byte", "88", "64"], &["byte", "94", "9"]]),
];

pub fn all() -> Vec<Valid> {
    CASES
        .iter()
        .zip(100..)
        .map(|((name, kib, steps), seed)| Valid::qcow2(name, move |folder| make(seed, *kib, steps, folder)))
        .collect()
}

/// Makes `image` in the folder. What it means is for qemu-img to say.
fn make(seed: u64, kib: f64, steps: &[&[&str]], folder: &Path) -> Result<Option<Vec<u8>>> {
    let size = (kib * 1024.) as usize;
    for step in steps {
        let (verb, words) = step.split_first().context("an empty step")?;
        match *verb {
            "convert" => {
                fs::write(folder.join("raw"), content::disk(seed, size))?;
                let all = [&["convert", "-f", "raw", "-O", "qcow2"], words, &["raw", "image"]].concat();
                qemu("qemu-img", &all, folder)?;
            }
            "create" => {
                let size = size.to_string();
                qemu(
                    "qemu-img",
                    &[&["create", "-q", "-f", "qcow2"], words, &["image", &size]].concat(),
                    folder,
                )?;
            }
            "io" | "crash" => {
                let mut all = vec!["-f", "qcow2", "-d", "unmap"];
                all.extend(words.iter().flat_map(|word| ["-c", word]));
                if *verb == "io" {
                    qemu("qemu-io", &[&all[..], &["image"]].concat(), folder)?;
                } else {
                    all.extend(["-c", "sigraise 9", "image"]);
                    Command::new("qemu-io")
                        .args(all)
                        .current_dir(folder)
                        .output()
                        .context("starting qemu-io")?;
                }
            }
            "img" => drop(qemu("qemu-img", words, folder)?),
            "byte" => {
                let numbers = words.iter().map(|w| w.parse()).collect::<Result<Vec<u64>, _>>()?;
                let file = OpenOptions::new().write(true).open(folder.join("image"))?;
                file.write_all_at(&[u8::try_from(numbers[1])?], numbers[0])?;
            }
            "append" => {
                let mut bytes = fs::read(folder.join("image"))?;
                bytes.resize(bytes.len() + words[0].parse::<usize>()?, 0xbb);
                fs::write(folder.join("image"), bytes)?;
            }
            other => bail!("'{other}' is no step"),
        }
    }
    Ok(None)
}
