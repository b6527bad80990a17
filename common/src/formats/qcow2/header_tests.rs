//! Hand-made headers: what is read from a good one, and one line per refusal with the words an operator sees.

use super::*;
use proptest::prelude::*;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

const FILE: u64 = 1 << 20;

/// A version 3 header with clusters of 64 KiB: refcount table in cluster 1, L1 in cluster 3, a disk of 1 GiB.
pub(in super::super) fn good() -> Vec<u8> {
    let mut header = vec![0; 65536];
    for (at, value) in [
        (0, MAGIC),
        (4, 3),
        (20, 16),
        (28, 1 << 30),
        (36, 2),
        (44, 0x30000),
        (52, 0x10000),
        (56, 1),
        (96, 4),
        (100, 112),
    ] {
        put32(&mut header, at, value);
    }
    header
}

pub(in super::super) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn a_good_header_gives_its_facts() {
    let header = Header::parse(&good(), FILE).unwrap();
    assert_eq!(header.version(), 3);
    assert_eq!(header.virtual_size(), ByteCount(1 << 30));
    assert_eq!(header.cluster_size(), 65536);
    assert_eq!(header.compression(), Compression::Zlib);
    assert!(!header.is_dirty() && !header.extended_l2);
    assert_eq!(header.l1_needed, 2);
    assert!(Header::is_qcow2(&good()) && !Header::is_qcow2(b"QFI"));
}

/// Each line: 4-byte fields to change, then what is read all the same.
#[test]
fn unusual_headers_are_read() {
    type Check = fn(&Header) -> bool;
    type Case = (&'static str, &'static [(usize, u32)], Check);
    let cases: &[Case] = &[
        ("dirty", &[(76, 1)], |h| h.is_dirty()),
        ("zstd", &[(76, 8), (104, 1 << 24)], |h| h.compression() == Compression::Zstd),
        ("extended L2", &[(76, 16), (36, 4)], |h| h.extended_l2 && h.l1_needed == 4),
        ("no room for a compression type", &[(100, 104), (104, 0)], |h| h.compression() == Compression::Zlib),
        ("a long header", &[(100, 4096)], |h| h.version() == 3),
        ("unknown compatible bits", &[(80, !0), (84, !0)], |h| h.version() == 3),
        ("unknown autoclear bits", &[(88, !0), (92, !0)], |h| h.version() == 3),
        ("version 2 has no feature bits", &[(4, 2), (72, 0x1234), (76, 8), (96, 99)], |h| h.version() == 2),
        ("one-bit refcounts", &[(96, 0)], |h| h.version() == 3),
        ("a longer L1 than needed", &[(36, 8192)], |h| h.l1_needed == 2),
        ("an unknown extension", &[(112, 0x1234), (116, 5), (128, 0)], |h| h.version() == 3),
        ("the name of a data file without its bit", &[(112, 0x4441_5441), (116, 8)], |h| h.version() == 3),
        ("a disk of odd length", &[(28, 1_000_001)], |h| h.virtual_size().0 == 1_000_001),
    ];
    for (name, changes, check) in cases {
        let mut bytes = good();
        changes.iter().for_each(|&(at, value)| put32(&mut bytes, at, value));
        let header = Header::parse(&bytes, FILE);
        assert!(header.as_ref().is_ok_and(check), "{name}: {header:?}");
    }
}

/// Each line: 4-byte fields to change, then the refusal.
#[test]
fn bad_headers_are_refused_in_words() {
    let cases: &[(&[(usize, u32)], &str)] = &[
        (
            &[(0, 0x1f8b_0800)],
            "the image is not qcow2: it starts with 0x1f8b0800, expected 0x514649fb; check the declared disk format",
        ),
        (
            &[(4, 1)],
            "qcow2 version 1 is not supported, expected 2 or 3; convert the image with qemu-img convert",
        ),
        (
            &[(4, 4)],
            "qcow2 version 4 is not supported, expected 2 or 3; convert the image with qemu-img convert",
        ),
        (&[(20, 8)], "the qcow2 header gives clusters of 2^8 bytes, expected 2^9 to 2^21"),
        (&[(20, 22)], "the qcow2 header gives clusters of 2^22 bytes, expected 2^9 to 2^21"),
        (
            &[(100, 96)],
            "the qcow2 header gives its own length as 96 bytes, expected 104 to 65536 and a multiple of 8",
        ),
        (
            &[(100, 107)],
            "the qcow2 header gives its own length as 107 bytes, expected 104 to 65536 and a multiple of 8",
        ),
        (
            &[(100, 65544)],
            "the qcow2 header gives its own length as 65544 bytes, expected 104 to 65536 and a multiple of 8",
        ),
        (
            &[(112, 0x1234), (116, 65536)],
            "the qcow2 header extension at 0x70 is 65536 bytes long and leaves the first cluster of 65536 bytes",
        ),
        (
            &[(112, 1), (116, !0)],
            "the qcow2 header extension at 0x70 is 4294967295 bytes long and leaves the first cluster of 65536 bytes",
        ),
        (&[(28, 0)], "the qcow2 header gives a disk of 0 bytes; there is nothing to write"),
        (
            &[(12, 0x400)],
            "the image names a backing file (name at 0x400, 0 bytes long); flatten it with qemu-img convert",
        ),
        (
            &[(16, 9)],
            "the image names a backing file (name at 0x0, 9 bytes long); flatten it with qemu-img convert",
        ),
        (
            &[(32, 1)],
            "the image is encrypted (method 1), expected method 0; decrypt it with qemu-img convert",
        ),
        (
            &[(32, 2)],
            "the image is encrypted (method 2), expected method 0; decrypt it with qemu-img convert",
        ),
        (&[(76, 2)], "the image is marked corrupt; repair it with qemu-img check -r all, or build it again"),
        (
            &[(76, 4)],
            "the image keeps its data in an external data file; put it into one file with qemu-img convert",
        ),
        (
            &[(76, 32)],
            "the image needs features that are not supported: incompatible bits 0x20, known are 0, 3 and 4",
        ),
        (
            &[(72, 1 << 31)],
            "the image needs features that are not supported: incompatible bits 0x8000000000000000, known are 0, 3 and 4",
        ),
        (&[(76, 8), (104, 2 << 24)], "the image's compression type is 2, expected 0 (zlib) or 1 (zstd)"),
        (
            &[(76, 8)],
            "the image's compression type is 0 and its compression bit is set, expected the bit exactly when the type is not 0",
        ),
        (
            &[(104, 1 << 24)],
            "the image's compression type is 1 and its compression bit is clear, expected the bit exactly when the type is not 0",
        ),
        (
            &[(20, 13), (76, 16)],
            "the image has extended L2 entries with clusters of 8192 bytes, expected 16384 or more",
        ),
        (&[(96, 7)], "the qcow2 header gives refcounts of 2^7 bits, expected at most 2^6"),
        (&[(56, 0)], "the refcount table is 0 clusters of 65536 bytes, expected 1 cluster to 8 MiB"),
        (&[(56, 129)], "the refcount table is 129 clusters of 65536 bytes, expected 1 cluster to 8 MiB"),
        (&[(52, 0x10200)], "the refcount table is at 0x10200, expected a multiple of the cluster size 65536"),
        (&[(52, 0)], "the refcount table at 0x0 lies on the header; the image is damaged"),
        (
            &[(48, 1)],
            "the refcount table at 0x100010000 (1 bytes) is not inside the file of 1048576 bytes; the image is cut short or damaged",
        ),
        (&[(60, 65537)], "the image has 65537 snapshots, expected at most 65536"),
        (
            &[(60, 1), (68, 0x50001)],
            "the snapshot table is at 0x50001, expected a multiple of the cluster size 65536",
        ),
        (&[(36, 1)], "the L1 table has 1 entries, but a disk of 1073741824 bytes needs 2"),
        (
            &[(24, 1 << 31)],
            "the L1 table has 2 entries, but a disk of 9223372037928517632 bytes needs 17179869186",
        ),
        (&[(36, (4 << 20) + 1)], "the L1 table has 4194305 entries, expected at most 4194304 (32 MiB)"),
        (&[(44, 0x30008)], "the L1 table is at 0x30008, expected a multiple of the cluster size 65536"),
        (&[(44, 0)], "the L1 table at 0x0 lies on the header; the image is damaged"),
        (&[(44, 0x10000)], "the L1 table at 0x10000 lies on the refcount table; the image is damaged"),
        (
            &[(44, 0x10_0000)],
            "the L1 table at 0x100000 (16 bytes) is not inside the file of 1048576 bytes; the image is cut short or damaged",
        ),
        (
            &[(40, !0), (44, 0xffff_0000), (36, 8192)],
            "the L1 table at 0xffffffffffff0000 (65536 bytes) is not inside the file of 1048576 bytes; the image is cut short or damaged",
        ),
    ];
    for (changes, expected) in cases {
        let mut bytes = good();
        changes.iter().for_each(|&(at, value)| put32(&mut bytes, at, value));
        let error = Header::parse(&bytes, FILE).expect_err(expected).to_string();
        assert_eq!(&error, expected);
    }
}

#[test]
fn a_header_cut_short_is_refused() {
    let bytes = good();
    for length in 0..112_usize {
        // Byte 104 is part of this header, since it says it is 112 bytes long.
        let result = Header::parse(&bytes[..length], FILE);
        assert_eq!(result.is_ok(), length > 104, "{length}: {result:?}");
    }
}

proptest! {
    #[test]
    fn no_header_panics(changes in prop::collection::vec((0_usize..128, any::<u8>()), 0..12), length in 0_usize..512, file in any::<u64>()) {
        let mut bytes = good();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(length);
        let _ = Header::parse(&bytes, file);
    }

    #[test]
    fn no_bytes_panic(tail in prop::collection::vec(any::<u8>(), 0..256), file in any::<u64>()) {
        let mut bytes = std::vec![0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3];
        bytes.extend(tail);
        let _ = Header::parse(&bytes, file);
    }
}
