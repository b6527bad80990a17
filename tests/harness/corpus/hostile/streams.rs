//! qcow2 images whose compressed clusters are not what they should be: found when the ends of the disk are blank already.

use super::super::content::text;
use super::super::qcow2::{Cluster, Frame, Recipe, deflate, zstd_frame};
use super::{Hostile, Kind};
use crate::write::Left;
use std::io::Write;

const C: usize = 1 << 14;

/// A sentence, bits of a cluster, whether zstd, the stream of one cluster, and what is said.
type Case = (&'static str, u32, bool, fn() -> Vec<u8>, &'static str);

const CASES: &[Case] = &[
    (
        "deflate yields a byte too few",
        14,
        false,
        || deflate(&text(1, C - 1), 6),
        "compressed cluster at byte",
    ),
    ("deflate yields nothing", 14, false, || deflate(&[], 6), "compressed cluster at byte"),
    (
        "deflate yields a byte too much",
        14,
        false,
        || deflate(&text(2, C + 1), 6),
        "compressed cluster at byte",
    ),
    ("deflate yields 512 MiB", 21, false, || deflate(&vec![0; 512 << 20], 9), "compressed cluster at byte"),
    ("deflate that is noise", 14, false, || noise(3), "not valid deflate"),
    ("deflate that is zeros", 14, false, || vec![0; 5000], "not valid deflate"),
    ("deflate of a reserved block type", 14, false, || vec![7; 5000], "not valid deflate"),
    ("deflate that is cut short", 14, false, || cut(deflate(&text(4, C), 6)), "compressed cluster at byte"),
    (
        "deflate that refers to before its start",
        14,
        false,
        || vec![0x03, 0x02, 0x00, 0x00],
        "not valid deflate",
    ),
    ("deflate inside a zlib header", 14, false, zlib, "not valid deflate"),
    (
        "zstd in an image of deflate",
        14,
        false,
        || zstd_frame(&text(5, C), Frame::Full, 3),
        "not valid deflate",
    ),
    ("deflate in an image of zstd", 14, true, || deflate(&text(6, C), 6), "not a zstd frame"),
    ("zstd yields a byte too few", 14, true, || zstd_frame(&text(7, C - 1), Frame::Full, 3), "come out"),
    (
        "zstd yields a byte too few and does not say so",
        14,
        true,
        || zstd_frame(&text(8, C - 1), Frame::Bare, 3),
        "come out",
    ),
    ("zstd yields nothing", 14, true, || zstd_frame(&[], Frame::Full, 3), "come out"),
    (
        "zstd yields a byte too much",
        14,
        true,
        || zstd_frame(&text(9, C + 1), Frame::Full, 3),
        "not valid zstd",
    ),
    ("zstd yields 512 MiB", 21, true, || zstd_frame(&vec![0; 512 << 20], Frame::Full, 3), "not valid zstd"),
    (
        "zstd yields 512 MiB and does not say so",
        21,
        true,
        || zstd_frame(&vec![0; 512 << 20], Frame::Bare, 3),
        "not valid zstd",
    ),
    ("zstd that is noise", 14, true, || noise(10), "zstd"),
    ("zstd that is cut short", 14, true, || cut(zstd_frame(&text(11, C), Frame::Full, 3)), "zstd"),
    (
        "zstd with a wrong checksum",
        14,
        true,
        || last_byte(zstd_frame(&text(12, C), Frame::Full, 3)),
        "not valid zstd",
    ),
    ("zstd with a wrong content size", 14, true, || content_size(-1), "zstd"),
    ("zstd with a content size of 2^32 - 1", 14, true, || content_size(i64::from(u32::MAX)), "zstd"),
    (
        "zstd with a dictionary",
        14,
        true,
        || with_dictionary_id(zstd_frame(&text(13, C), Frame::Bare, 3)),
        "zstd",
    ),
    (
        "zstd with a reserved bit",
        14,
        true,
        || descriptor(zstd_frame(&text(14, C), Frame::Bare, 3), 8),
        "zstd",
    ),
    (
        "zstd with a reserved block type",
        14,
        true,
        || block_type(zstd_frame(&text(15, C), Frame::Bare, 3)),
        "zstd",
    ),
    ("zstd with a skippable frame instead", 14, true, skippable, "compressed cluster at byte"),
    ("zstd with a window of 128 MiB", 14, true, || window(27 - 10), "window"),
    ("zstd with a window of 2 TiB", 14, true, || window(31), "zstd"),
];

pub fn all() -> Vec<Hostile> {
    CASES
        .iter()
        .map(|(name, bits, zstd, stream, words)| {
            let make = move || {
                let plain = text(20, 1 << bits);
                let mut clusters =
                    vec![Cluster::Data(plain.clone()), Cluster::Packed { plain, stream: stream() }];
                // Enough behind it that the broken stream is no matter of the file's end.
                clusters.push(Cluster::Data(text(21, 1 << bits)));
                let recipe = Recipe { zstd: *zstd, has_refcounts: false, ..Recipe::of(*bits, clusters) };
                Ok(recipe.build().bytes)
            };
            Hostile::new(name, Kind::Qcow2, words, Left::Blank, Box::new(make))
        })
        .collect()
}

fn noise(seed: u64) -> Vec<u8> {
    // The first bits say: a block with its own Huffman codes. Noise makes none.
    let mut bytes = super::super::content::Rng::new(seed).bytes(5000);
    bytes[0] = 0x05;
    bytes
}

/// What is left of a stream, and zeros where the rest was.
fn cut(mut stream: Vec<u8>) -> Vec<u8> {
    let half = stream.len() / 2;
    stream[half..].fill(0);
    stream
}

fn last_byte(mut stream: Vec<u8>) -> Vec<u8> {
    if let Some(byte) = stream.last_mut() {
        *byte ^= 1;
    }
    stream
}

fn zlib() -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(&text(22, C)).expect("writing into memory");
    packer.finish().expect("writing into memory")
}

/// A frame whose header (RFC 8878, 3.1.1.1) is written anew: descriptor, then the given fields.
fn reheaded(frame: &[u8], descriptor: u8, fields: &[u8]) -> Vec<u8> {
    // A bare frame's header is magic, descriptor, window.
    [&frame[..4], &[descriptor], fields, &frame[6..]].concat()
}

fn content_size(wrong: i64) -> Vec<u8> {
    let frame = zstd_frame(&text(23, C), Frame::Bare, 3);
    let size = (C as i64 + wrong) as u32;
    // Four bytes of content size, and the window that the frame has.
    reheaded(&frame, 0x80, &[&frame[5..6], &size.to_le_bytes()].concat())
}

fn with_dictionary_id(frame: Vec<u8>) -> Vec<u8> {
    reheaded(&frame, 0x01, &[frame[5], 0x2a])
}

fn descriptor(mut frame: Vec<u8>, bit: u8) -> Vec<u8> {
    frame[4] |= bit;
    frame
}

fn block_type(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6] |= 0b110;
    frame
}

/// A window of 2^(10 + `exponent`) bytes.
fn window(exponent: u8) -> Vec<u8> {
    let mut frame = zstd_frame(&text(24, C), Frame::Bare, 3);
    frame[5] = exponent << 3;
    frame
}

fn skippable() -> Vec<u8> {
    let mut bytes = [0x184d_2a50u32.to_le_bytes(), 100u32.to_le_bytes()].concat();
    bytes.resize(108, 0);
    bytes.extend(zstd_frame(&text(25, C), Frame::Full, 3));
    bytes
}
