//! Compressed raw images that are damaged, or swell without end.

use super::super::content::{self, text};
use super::super::packed::{fields, pack};
use super::super::tables::crc32;
use super::{Hostile, Kind};
use crate::write::{Left, scratch};
use Kind::{Bz2, Gz, Xz, Zst};
use anyhow::Result;

/// A sentence, what it is, what made it, and what is done to it.
type Case = (&'static str, Kind, &'static str, fn(Vec<u8>) -> Vec<u8>);

const CASES: &[Case] = &[
    ("gzip with a wrong checksum", Gz, "gzip", |b| flip_from_end(b, 8)),
    ("gzip with a wrong length", Gz, "gzip", |b| flip_from_end(b, 4)),
    ("gzip without its last byte", Gz, "gzip", |b| short(b, 1)),
    ("gzip without its trailer", Gz, "gzip", |b| short(b, 8)),
    ("gzip cut in its middle", Gz, "gzip", half),
    ("gzip that is damaged in its middle", Gz, "gzip", damaged),
    ("gzip with nonsense behind it", Gz, "gzip", |b| [b, text(1, 1000)].concat()),
    ("gzip whose second member has a wrong checksum", Gz, "gzip", |b| {
        [b.clone(), flip_from_end(b, 8)].concat()
    }),
    ("gzip whose second member is cut", Gz, "gzip", |b| [b.clone(), half(b)].concat()),
    ("gzip whose second member's header is cut", Gz, "gzip", |b| [b.clone(), b[..5].to_vec()].concat()),
    ("xz with a damaged block", Xz, "xz -0", damaged),
    ("xz with a wrong checksum", Xz, "xz -0 -C crc32", |b| flip_from_end(b, 30)),
    ("xz without its last byte", Xz, "xz -0", |b| short(b, 1)),
    ("xz without its footer", Xz, "xz -0", |b| short(b, 12)),
    ("xz cut in its middle", Xz, "xz -0", half),
    ("xz with nonsense behind it", Xz, "xz -0", |b| [b, text(2, 1000)].concat()),
    ("xz with padding of no whole words", Xz, "xz -0", |b| [b, vec![0; 3]].concat()),
    ("xz whose second stream is cut", Xz, "xz -0", |b| [b.clone(), half(b)].concat()),
    ("zstd with a wrong checksum", Zst, "zstd", |b| flip_from_end(b, 1)),
    ("zstd without its last byte", Zst, "zstd", |b| short(b, 1)),
    ("zstd cut in its middle", Zst, "zstd", half),
    ("zstd that is damaged in its middle", Zst, "zstd", damaged),
    ("zstd with nonsense behind it", Zst, "zstd", |b| [b, text(3, 1000)].concat()),
    ("zstd whose second frame is cut", Zst, "zstd", |b| [b.clone(), half(b)].concat()),
    ("zstd whose skippable frame is cut", Zst, "zstd", |b| {
        [b, vec![0x50, 0x2a, 0x4d, 0x18, 100, 0, 0, 0, 1, 2, 3]].concat()
    }),
    ("bzip2 with a wrong checksum", Bz2, "bzip2 -1", |b| flip_from_end(b, 3)),
    ("bzip2 without its last byte", Bz2, "bzip2 -1", |b| short(b, 1)),
    ("bzip2 cut in its middle", Bz2, "bzip2 -1", half),
    ("bzip2 that is damaged in its middle", Bz2, "bzip2 -1", damaged),
    ("bzip2 with nonsense behind it", Bz2, "bzip2 -1", |b| [b, text(4, 1000)].concat()),
    ("bzip2 whose second stream is cut", Bz2, "bzip2 -1", |b| [b.clone(), half(b)].concat()),
];

/// The same where the start already shows it: who looks far enough before the first write leaves the disk untouched.
const STARTS: &[Case] = &[
    ("gzip with reserved flags", Gz, "gzip", |b| set(b, 3, 0xe0)),
    ("gzip of another method", Gz, "gzip", |b| set(b, 2, 7)),
    ("gzip with a wrong header checksum", Gz, "gzip", |b| {
        let mut b = fields(&b);
        b[4] ^= 1;
        b
    }),
    ("gzip with a comment without end", Gz, "gzip", |_| {
        [&[0x1f, 0x8b, 8, 16, 0, 0, 0, 0, 0, 3][..], &vec![b'a'; 3 << 20]].concat()
    }),
    ("gzip with a name of 70 KiB", Gz, "gzip", |b| {
        let deflated = &b[10 + b[10..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1..];
        [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &vec![b'a'; 70 << 10], &[0], deflated].concat()
    }),
    ("xz with a damaged header", Xz, "xz -0", |b| set(b, 7, 0x55)),
    ("xz of a reserved check", Xz, "xz -0", |b| {
        let mut b = set(b, 7, 0x0f);
        let sum = crc32(&b[6..8]);
        b[8..12].copy_from_slice(&sum.to_le_bytes());
        b
    }),
    ("xz with a dictionary of 4 GiB", Xz, "xz -0 -T1", |b| dictionary(b, 40)),
    ("xz with a dictionary of 512 MiB", Xz, "xz -0 -T1", |b| dictionary(b, 34)),
    ("zstd with a window of 128 MiB", Zst, "zstd --no-content-size", |b| set(b, 5, 17 << 3)),
    ("zstd with a window of 2 TiB", Zst, "zstd --no-content-size", |b| set(b, 5, 31 << 3)),
    ("zstd with a dictionary", Zst, "zstd --no-content-size --no-check", |b| {
        [&b[..4], &[b[4] | 1, b[5], 0x2a], &b[6..]].concat()
    }),
    ("zstd with a reserved bit", Zst, "zstd", |b| {
        let descriptor = b[4] | 8;
        set(b, 4, descriptor)
    }),
    ("bzip2 with blocks of no size", Bz2, "bzip2 -1", |b| set(b, 3, b'0')),
    ("bzip2 without its first block", Bz2, "bzip2 -1", |b| set(b, 4, 0x30)),
];

/// What swells to more than the disk has.
const BOMBS: &[(&str, Kind, &str)] = &[
    ("gzip that swells beyond the disk", Gz, "gzip -9"),
    ("xz that swells beyond the disk", Xz, "xz -0"),
    ("zstd that swells beyond the disk", Zst, "zstd"),
    ("zstd that swells beyond the disk and does not say so", Zst, "zstd --no-content-size"),
    ("bzip2 that swells beyond the disk", Bz2, "bzip2 -9"),
];

/// Bytes of the disk: more than is unpacked to see what an image begins with, so that damage in the middle shows late.
const CONTENT: usize = 2_500_000;

fn word(kind: Kind) -> &'static str {
    match kind {
        Gz => "gzip",
        Xz => "xz",
        Zst => "zstd",
        _ => "bzip2",
    }
}

pub fn all() -> Vec<Hostile> {
    let make = |program: &'static str, spoil: fn(Vec<u8>) -> Vec<u8>| {
        move || -> Result<Vec<u8>> {
            Ok(spoil(pack(program, &content::disk(55, CONTENT), scratch("pack")?.path())?))
        }
    };
    let hostile = |(name, kind, program, spoil): &Case| {
        Hostile::new(name, *kind, word(*kind), Left::Blank, Box::new(make(program, *spoil)))
    };
    let starts = STARTS.iter().map(|case| Hostile { left: None, ..hostile(case) });
    let bombs = BOMBS.iter().map(|(name, kind, program)| {
        let bytes = || pack(program, &vec![0x11; 200 << 20], scratch("pack")?.path());
        let hostile = Hostile::new(name, *kind, "has only", Left::Blank, Box::new(bytes));
        Hostile { left: None, ..hostile }
    });
    CASES.iter().map(hostile).chain(starts).chain(bombs).collect()
}

fn set(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

fn flip_from_end(mut bytes: Vec<u8>, back: usize) -> Vec<u8> {
    let at = bytes.len() - back;
    bytes[at] ^= 1;
    bytes
}

fn short(mut bytes: Vec<u8>, by: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - by);
    bytes
}

fn half(bytes: Vec<u8>) -> Vec<u8> {
    let by = bytes.len() / 2;
    short(bytes, by)
}

fn damaged(mut bytes: Vec<u8>) -> Vec<u8> {
    let half = bytes.len() / 2;
    bytes[half..half + 16].fill(0);
    bytes
}

/// The first block's filter says another size of its dictionary (the xz format, 5.3.1), its checksum is right.
fn dictionary(mut bytes: Vec<u8>, code: u8) -> Vec<u8> {
    // Stream header of 12 bytes; block header: size, flags, filter id 0x21, one byte of properties, padding, CRC32.
    let size = (usize::from(bytes[12]) + 1) * 4;
    let at = 12 + bytes[12..12 + size].windows(2).position(|pair| pair == [0x21, 1]).unwrap_or(0) + 2;
    bytes[at] = code;
    let sum = crc32(&bytes[12..12 + size - 4]);
    bytes[12 + size - 4..12 + size].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::readers;

    /// What the packers' own programs read all the same: they allow more memory, or say that they ignore what is behind.
    const LENIENT: &[&str] = &[
        "bzip2 with nonsense behind it",
        "gzip with a name of 70 KiB",
        "xz with a dictionary of 4 GiB",
        "xz with a dictionary of 512 MiB",
        "zstd with a window of 128 MiB",
    ];

    #[test]
    fn the_packers_own_programs_refuse_them_too() -> Result<()> {
        let folder = scratch("packed")?;
        let mut read = Vec::new();
        for image in all().iter().filter(|image| !BOMBS.iter().any(|(name, ..)| *name == image.name)) {
            std::fs::write(folder.path().join("image"), (image.bytes)()?)?;
            if readers::first(image.kind, folder.path()).is_ok() {
                read.push(image.name.clone());
            }
        }
        assert_eq!(read, LENIENT);
        Ok(())
    }
}
