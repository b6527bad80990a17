//! Raw images, and raw images inside gzip, xz, zstd and bzip2: by those programs, or put together from their output.

use super::tables::{self, Gpt, crc32};
use super::{Kind, Valid, content};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A sentence and what stands in the file, one after the other; the content is dealt out evenly to the programs.
/// - `gzip …`, `xz …`, `zstd …`, `bzip2 …`: what that program makes of its part of the content
/// - `empty PROGRAM`: what it makes of nothing
/// - `fields`: a gzip member with every optional header field; `stored`: a gzip member that only stores
/// - `skippable N`: a zstd frame that holds nothing to read
/// - `zeros N`
type Case = (&'static str, Kind, &'static [&'static str]);

use Kind::{Bz2, Gz, Xz, Zst};

const CASES: &[Case] = &[
    ("gzip at its quickest", Gz, &["gzip -1"]),
    ("gzip at its best", Gz, &["gzip -9"]),
    ("gzip that stores", Gz, &["stored"]),
    ("gzip with the name of the file", Gz, &["gzip -N"]),
    ("gzip with every header field and the header's checksum", Gz, &["fields"]),
    ("several gzip members", Gz, &["gzip -1", "gzip -9", "fields", "gzip -6", "stored"]),
    ("an empty gzip member among others", Gz, &["gzip", "empty gzip", "gzip", "empty gzip"]),
    ("xz at its quickest", Xz, &["xz -0"]),
    ("xz as it is", Xz, &["xz"]),
    ("xz in several blocks", Xz, &["xz -T2 --block-size=300KiB"]),
    ("xz in blocks whose sizes are not said", Xz, &["xz -1 --block-list=100KiB,1KiB,500KiB,0"]),
    ("several xz streams", Xz, &["xz -0", "xz -9 --lzma2=dict=4MiB", "xz -1 -T2 --block-size=64KiB"]),
    ("an empty xz stream among others", Xz, &["xz", "empty xz", "xz"]),
    ("xz streams with padding", Xz, &["xz -0", "zeros 4", "xz -0", "zeros 8"]),
    ("xz checked by CRC32", Xz, &["xz -C crc32"]),
    ("xz checked by SHA-256", Xz, &["xz -C sha256 -T2 --block-size=1MiB"]),
    ("xz that checks nothing", Xz, &["xz -C none"]),
    ("one zstd frame", Zst, &["zstd"]),
    ("zstd at a high level", Zst, &["zstd -19"]),
    ("zstd at its fastest", Zst, &["zstd --fast=5"]),
    ("a zstd frame without checksum", Zst, &["zstd --no-check"]),
    ("a zstd frame without content size", Zst, &["zstd --no-content-size"]),
    ("several zstd frames", Zst, &["zstd -1", "zstd -9 --no-check", "zstd --no-content-size", "zstd -3"]),
    ("an empty zstd frame among others", Zst, &["zstd", "empty zstd", "zstd"]),
    (
        "skippable zstd frames everywhere",
        Zst,
        &["skippable 5", "zstd", "skippable 70000", "zstd", "skippable 0"],
    ),
    ("zstd in the jobs of several threads", Zst, &["zstd -T2 -B512KiB"]),
    ("bzip2 with blocks of 100 kB", Bz2, &["bzip2 -1"]),
    ("bzip2 with blocks of 900 kB", Bz2, &["bzip2 -9"]),
    ("several bzip2 streams", Bz2, &["bzip2 -9", "bzip2 -1", "bzip2 -5"]),
    ("an empty bzip2 stream among others", Bz2, &["bzip2", "empty bzip2", "bzip2"]),
];

type Raw = (&'static str, bool, fn() -> Vec<u8>);

const SIZE: usize = 4 << 20;

const RAWS: &[Raw] = &[
    ("a raw image with holes", false, || content::disk(1, SIZE)),
    ("a raw image without holes", false, || content::text(2, SIZE)),
    ("a raw image of zeros", false, || vec![0; SIZE]),
    ("a raw image of one sector", false, || content::text(3, 512)),
    ("a raw image of no whole number of sectors", false, || content::text(4, (3 << 20) + 17)),
    ("a raw image that is smaller than the two ends that are blanked", false, || content::text(5, 1_300_000)),
    ("a raw image with a GPT", true, || Gpt::default().disk(6, SIZE)),
    ("a raw image with an MBR", true, || tables::mbr(7, SIZE, &[(0x83, 2048, 4096), (0x82, 6144, 2048)])),
];

pub fn all() -> Vec<Valid> {
    let raws = RAWS.iter().map(|(name, has_table, content)| Valid {
        name: (*name).to_owned(),
        kind: Kind::Raw,
        has_table: *has_table,
        make: Box::new(move |folder| {
            let content = content();
            fs::write(folder.join("image"), &content)?;
            Ok(Some(content))
        }),
    });
    let packed = CASES.iter().zip(200..).map(|((name, kind, parts), seed)| Valid {
        name: (*name).to_owned(),
        kind: *kind,
        has_table: false,
        make: Box::new(move |folder| {
            let content = content::disk(seed, (2 << 20) + 100_352);
            fs::write(folder.join("image"), join(&content, parts, folder)?)?;
            Ok(Some(content))
        }),
    });
    raws.chain(packed).collect()
}

/// Deals the content out to the parts and puts what they make together.
pub fn join(content: &[u8], parts: &[&str], folder: &Path) -> Result<Vec<u8>> {
    let is_program =
        |part: &&&str| !["empty", "skippable", "zeros"].iter().any(|word| part.starts_with(word));
    let share = content.len().div_ceil(parts.iter().filter(is_program).count().max(1));
    let mut pieces = content.chunks(share);
    let mut file = Vec::new();
    for part in parts {
        let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
        match word {
            "empty" => file.extend(pack(rest, &[], folder)?),
            "zeros" => file.resize(file.len() + rest.parse::<usize>()?, 0),
            "skippable" => {
                let length: u32 = rest.parse()?;
                file.extend(0x184d_2a53u32.to_le_bytes().into_iter().chain(length.to_le_bytes()));
                file.resize(file.len() + length as usize, 0x28);
            }
            _ => {
                let piece = pieces.next().context("more parts than pieces")?;
                match *part {
                    "fields" => file.extend(fields(&pack("gzip", piece, folder)?)),
                    "stored" => file.extend(member(piece)),
                    program => file.extend(pack(program, piece, folder)?),
                }
            }
        }
    }
    ensure!(pieces.next().is_none(), "a piece is left over");
    Ok(file)
}

/// What a program makes of these bytes.
pub fn pack(words: &str, bytes: &[u8], folder: &Path) -> Result<Vec<u8>> {
    let piece = folder.join("piece");
    fs::write(&piece, bytes)?;
    let mut words = words.split(' ');
    let program = words.next().context("no program")?;
    let output = Command::new(program).args(words).arg("-c").arg(&piece).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// A gzip member, its header exchanged for one with extra field, name, comment and checksum (RFC 1952).
pub fn fields(member: &[u8]) -> Vec<u8> {
    // gzip -c of a file gives a header of ten bytes and the file's name.
    let end = 10 + member[10..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
    let mut header = vec![0x1f, 0x8b, 8, 0b1_1110, 0x11, 0x22, 0x33, 0x44, 2, 3];
    header.extend([6, 0, b'x', b'y', 2, 0, 7, 7]);
    header.extend(b"disk.raw\0a comment, \xe9 in Latin-1\0");
    let checksum = crc32(&header) as u16;
    header.extend(checksum.to_le_bytes());
    header.extend_from_slice(&member[end..]);
    header
}

/// A gzip member of stored blocks.
fn member(bytes: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    member.extend(super::qcow2::stored(bytes));
    member.extend(crc32(bytes).to_le_bytes());
    member.extend((bytes.len() as u32).to_le_bytes());
    member
}
