//! Files that are not what they are declared to be.

use super::super::content;
use super::super::qcow2::{Recipe, mixed};
use super::{Hostile, Kind};
use crate::write::Left;

/// A sentence, where the magic stands, the magic, and what it is called. All are declared raw.
const NOT_RAW: &[(&str, usize, &[u8], &str)] = &[
    ("raw that is VMDK", 0, b"KDMV\x01\0\0\0", "VMDK"),
    ("raw that is an old VMDK", 0, b"COWD\x01\0\0\0", "VMDK"),
    ("raw that is a VMDK descriptor", 0, b"# Disk DescriptorFile\nversion=1\n", "VMDK"),
    ("raw that is a VHD", 0, b"conectix\0\0\0\x02", "VHD"),
    ("raw that is VHDX", 0, b"vhdxfile", "VHDX"),
    ("raw that is VDI", 64, b"\x7f\x10\xda\xbe", "VDI"),
    ("raw that is QED", 0, b"QED\0", "QED"),
    ("raw that is LUKS 1", 0, b"LUKS\xba\xbe\0\x01", "LUKS"),
    ("raw that is LUKS 2", 0, b"LUKS\xba\xbe\0\x02", "LUKS"),
    ("raw that is gzip", 0, b"\x1f\x8b\x08\0", "gzip"),
    ("raw that is xz", 0, b"\xfd7zXZ\0\0\x04", "xz"),
    ("raw that is zstd", 0, b"\x28\xb5\x2f\xfd", "zstd"),
    ("raw that is bzip2", 0, b"BZh91AY&SY", "bzip2"),
    ("raw that is a web page", 0, b"<!DOCTYPE html><html><title>Log in</title>", "page"),
    ("raw that is a page of JSON", 0, b"{\"error\": {\"code\": 404}}", "page"),
];

/// The same, declared as something else than raw.
const NOT_THAT: &[(&str, Kind, &[u8], &str)] = &[
    ("qcow2 that is raw", Kind::Qcow2, b"\xeb\x63\x90\x10\x8e\xd0", "no qcow2"),
    ("qcow2 that is VMDK", Kind::Qcow2, b"KDMV\x01\0\0\0", "VMDK"),
    ("qcow2 that is gzip", Kind::Qcow2, b"\x1f\x8b\x08\0", "gzip"),
    ("qcow2 that is a web page", Kind::Qcow2, b"<html>", "page"),
    ("qcow2 that is QCOW 1", Kind::Qcow2, b"QFI\xfb\0\0\0\x01", "version 1"),
    ("gzip that is raw", Kind::Gz, b"\xeb\x63\x90\x10\x8e\xd0", "gzip"),
    ("gzip that is xz", Kind::Gz, b"\xfd7zXZ\0\0\x04", "xz"),
    ("xz that is raw", Kind::Xz, b"\xeb\x63\x90\x10\x8e\xd0", "xz"),
    ("xz that is gzip", Kind::Xz, b"\x1f\x8b\x08\0", "gzip"),
    ("zstd that is raw", Kind::Zst, b"\xeb\x63\x90\x10\x8e\xd0", "zstd"),
    ("bzip2 that is raw", Kind::Bz2, b"\xeb\x63\x90\x10\x8e\xd0", "bzip2"),
    ("bzip2 that is a web page", Kind::Bz2, b"<html>", "page"),
];

pub fn all() -> Vec<Hostile> {
    let begins_with = |at: usize, magic: &'static [u8]| {
        move || {
            let mut bytes = content::text(77, 3 << 20);
            bytes[..at].fill(0);
            bytes[at..at + magic.len()].copy_from_slice(magic);
            Ok(bytes)
        }
    };
    let raws = NOT_RAW.iter().map(|(name, at, magic, words)| {
        Hostile::new(name, Kind::Raw, words, Left::Untouched, Box::new(begins_with(*at, magic)))
    });
    let others = NOT_THAT.iter().map(|(name, kind, magic, words)| {
        Hostile::new(name, *kind, words, Left::Untouched, Box::new(begins_with(0, magic)))
    });
    let whole = || Ok(Recipe::of(12, mixed(78, 12, 500)).build().bytes);
    let qcow2 = Hostile::new("raw that is qcow2", Kind::Raw, "qcow2", Left::Untouched, Box::new(whole));
    raws.chain(others).chain([qcow2]).collect()
}
