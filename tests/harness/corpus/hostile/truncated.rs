//! Files that end too early, are empty or too large, or are not the file that was asked for.

use super::super::content;
use super::super::packed::pack;
use super::super::qcow2::{Part, Recipe, deflate, mixed, packed};
use super::super::tables::Gpt;
use super::{Hostile, Kind};
use crate::write::{Left, scratch};

/// A qcow2 whose tables are first.
fn good() -> Vec<u8> {
    Recipe::of(12, mixed(61, 12, 900)).build().bytes
}

/// A qcow2 whose tables are last.
fn tables_last() -> Vec<u8> {
    let order = vec![Part::RefcountTable, Part::Data, Part::L2, Part::L1];
    Recipe { order, has_refcounts: false, ..Recipe::of(12, mixed(62, 12, 900)) }.build().bytes
}

fn compressed() -> Vec<u8> {
    let clusters = packed(63, 12, 900, |plain| deflate(plain, 6));
    Recipe { has_refcounts: false, ..Recipe::of(12, clusters) }.build().bytes
}

/// Bytes that are left; all but so many.
#[derive(Clone, Copy)]
enum Cut {
    To(usize),
    By(usize),
}
use Cut::{By, To};

type Case = (&'static str, fn() -> Vec<u8>, Cut, &'static str);

const CASES: &[Case] = &[
    ("an empty file", good, To(0), "the image is empty"),
    ("three bytes of a qcow2", good, To(3), "no qcow2"),
    ("the magic of a qcow2 and no more", good, To(4), "cut short"),
    ("half a qcow2 header", good, To(50), "cut short"),
    ("a qcow2 header of version 2 where it says 3", good, To(72), "cut short"),
    ("a qcow2 header that lacks a byte", good, To(103), "cut short"),
    ("a qcow2 header that lacks the compression type", good, To(104), "cut short"),
    ("a qcow2 of its first cluster", good, To(4096), "not inside the file"),
    ("a qcow2 without its L1 table", good, To(2 * 4096), "not inside the file"),
    ("a qcow2 without its L2 tables", good, To(3 * 4096), "not inside the file"),
    ("a qcow2 without its data", good, To(5 * 4096), "not inside the file"),
    ("half a qcow2", good, By(900 * 2048), "not inside the file"),
    ("a qcow2 with its tables last, without them", tables_last, By(4096), "not inside the file"),
    ("half a qcow2 with its tables last", tables_last, By(900 * 2048), "not inside the file"),
    ("half a compressed qcow2", compressed, By(900 * 1000), "not inside the file"),
];

pub fn all() -> Vec<Hostile> {
    let mut all: Vec<Hostile> = CASES
        .iter()
        .map(|(name, whole, cut, words)| {
            let bytes = move || {
                let mut bytes = whole();
                bytes.truncate(match cut {
                    To(length) => *length,
                    By(count) => bytes.len() - count,
                });
                Ok(bytes)
            };
            Hostile::new(name, Kind::Qcow2, words, Left::Untouched, Box::new(bytes))
        })
        .collect();
    // The last stream ends with the file: what is left of it shows only when it is unpacked.
    let cut_stream = || {
        let clusters = packed(64, 12, 300, |plain| deflate(plain, 6));
        let order = vec![Part::RefcountTable, Part::L1, Part::L2, Part::Data];
        let last = super::super::qcow2::Cluster::Packed {
            plain: content::text(65, 4096),
            stream: deflate(&content::text(65, 4096), 6),
        };
        let clusters = clusters.into_iter().chain([last]).collect();
        let mut bytes = Recipe { order, has_refcounts: false, ..Recipe::of(12, clusters) }.build().bytes;
        bytes.truncate(bytes.len() - 100);
        Ok(bytes)
    };
    let name = "the file ends within its last compressed cluster";
    all.push(Hostile::new(name, Kind::Qcow2, "compressed cluster", Left::Blank, Box::new(cut_stream)));
    let large = || Ok(content::text(66, (super::DISK + 512) as usize));
    all.push(Hostile::new(
        "raw that is larger than the disk",
        Kind::Raw,
        "has only",
        Left::Untouched,
        Box::new(large),
    ));
    for (kind, program) in
        [(Kind::Gz, "gzip"), (Kind::Xz, "xz -0"), (Kind::Zst, "zstd"), (Kind::Bz2, "bzip2 -1")]
    {
        let bytes = move || pack(program, &content::disk(67, 1 << 20), scratch("pack")?.path());
        all.push(digest(
            &format!("another file than was asked for, {}", kind.ending()),
            kind,
            Box::new(bytes),
        ));
        let few =
            move || Ok(pack(program, &content::disk(68, 1 << 20), scratch("pack")?.path())?[..3].to_vec());
        let name = format!("three bytes of {}", kind.ending());
        let word = program.split(' ').next().unwrap_or(program);
        let hostile = Hostile::new(&name, kind, word, Left::Untouched, Box::new(few));
        all.push(Hostile { left: None, ..hostile });
        let name = format!("an empty file, {}", kind.ending());
        all.push(Hostile::new(
            &name,
            kind,
            "the image is empty",
            Left::Untouched,
            Box::new(|| Ok(Vec::new())),
        ));
    }
    all.push(digest(
        "another file than was asked for, raw",
        Kind::Raw,
        Box::new(|| Ok(Gpt::default().disk(69, 4 << 20))),
    ));
    all.push(digest("another file than was asked for, qcow2", Kind::Qcow2, Box::new(|| Ok(good()))));
    let bytes = || Ok([compressed(), vec![1]].concat());
    all.push(digest("the byte that is wrong is behind the image", Kind::Qcow2, Box::new(bytes)));
    all
}

fn digest(name: &str, kind: Kind, bytes: super::Make) -> Hostile {
    let hostile = Hostile::new(name, kind, "digest", Left::Blank, bytes);
    Hostile { is_digest_wrong: true, ..hostile }
}
