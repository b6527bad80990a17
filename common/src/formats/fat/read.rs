//! Reads small FAT file systems: the files of a config drive that another tool made.
//!
//! For an image in memory. Every place and length is checked against it; entries, depth, the clusters of directories and the sum
//! of what the files hold are bounded, so that chains that lead in a circle or cross each other end in a refusal. As Linux does,
//! and not as the specification: a FAT has entries of 32 bits where its length is written for those, whatever the number
//! of clusters. Specification as beside it.

use super::{FAT16, RECORD};
use crate::formats::gpt::le32;
use crate::formats::tree::Entry;
use crate::units::ByteCount;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Files and directories that are taken, and how deep they may lie.
const ENTRIES: usize = 4096;
const DEPTH: usize = 16;
/// Bytes of directories that are looked at in all.
const DIRECTORIES: usize = 16 << 20;
/// Records of a long name.
const PIECES: usize = 20;

/// Why an image is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no FAT file system begins here")]
    NoVolume,
    #[error("{what} lies outside of the image")]
    Outside { what: String },
    #[error("the chain of clusters of {what} ends early or leads to one that is free, bad or not there")]
    Chain { what: String },
    #[error("it has more than {0}")]
    TooMany(&'static str),
    #[error("its files hold more than {0}")]
    TooLarge(ByteCount),
}

/// Bytes of a sector, if a FAT file system begins here.
pub fn sector_size(image: &[u8]) -> Option<u32> {
    let geometry = Geometry::read(image)?;
    u32::try_from(geometry.sector).ok()
}

/// Everything in the image, of files at most `most` in sum.
///
/// # Errors
/// [`ReadError`].
pub fn read(image: &[u8], most: ByteCount) -> Result<Vec<Entry<'_>>, ReadError> {
    let geometry = Geometry::read(image).ok_or(ReadError::NoVolume)?;
    let mut reader = Reader { image, geometry, left: DIRECTORIES };
    let mut entries = alloc::vec![Entry::root()];
    let mut waiting = alloc::vec![(0, 0, reader.root()?)];
    let mut sum = 0_usize;
    while let Some((parent, depth, records)) = waiting.pop() {
        if depth > DEPTH {
            return Err(ReadError::TooMany("16 levels of directories"));
        }
        for found in directory(&records) {
            if entries.len() >= ENTRIES {
                return Err(ReadError::TooMany("4096 files and directories"));
            }
            let what = || {
                format!("{} {}", if found.is_directory { "directory" } else { "file" }, shown(&found.name))
            };
            // As Linux reads it: with 12 and 16 bits the upper half means something else.
            let first = match reader.geometry.root {
                Root::Cluster(_) => found.first,
                Root::Place(..) => found.first & 0xffff,
            };
            let bytes = if found.is_directory {
                waiting.push((entries.len(), depth.saturating_add(1), reader.directory(first, what)?));
                None
            } else {
                sum = sum.saturating_add(found.length);
                if u64::try_from(sum).unwrap_or(u64::MAX) > most.0 {
                    return Err(ReadError::TooLarge(most));
                }
                Some(reader.file(first, found.length, what)?)
            };
            entries.push(Entry { name: found.name, parent, bytes, modified: found.modified });
        }
    }
    Ok(entries)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// What the boot sector says, in bytes from the start of the image; nothing of it is checked against its length.
#[derive(Clone, Copy)]
struct Geometry {
    sector: usize,
    cluster: usize,
    fat: usize,
    width: Width,
    root: Root,
    data: usize,
    /// Number of clusters; the first has the number 2.
    clusters: usize,
}

#[derive(Clone, Copy)]
enum Root {
    /// From byte, so many bytes.
    Place(usize, usize),
    Cluster(usize),
}

impl Geometry {
    fn read(image: &[u8]) -> Option<Geometry> {
        let boot = image.get(..512).filter(|boot| boot.ends_with(&[0x55, 0xaa]))?;
        let byte = |at: usize| boot.get(at).map(|byte| usize::from(*byte));
        let two = |at: usize| Some(byte(at)? | (byte(at.checked_add(1)?)? << 8));
        let four = |at: usize| usize::try_from(le32(boot, at)).ok();
        let either = |small: usize, large: usize| if small == 0 { large } else { small };
        let (sector, per_cluster, reserved, fats) = (two(11)?, byte(13)?, two(14)?, byte(16)?);
        let is_sane =
            (512..=4096).contains(&sector) && sector.is_power_of_two() && per_cluster.is_power_of_two();
        if !is_sane || reserved == 0 || !(1..=2).contains(&fats) {
            return None;
        }
        let has_32_bits = two(22)? == 0;
        let length = either(two(22)?, four(36)?);
        let root = two(17)?.checked_mul(RECORD)?;
        let total = either(two(19)?, four(32)?);
        let data = reserved.checked_add(fats.checked_mul(length)?)?.checked_add(root.div_ceil(sector))?;
        let clusters = total.checked_sub(data)?.checked_div(per_cluster)?;
        let fat = reserved.checked_mul(sector)?;
        let root = match has_32_bits {
            true => Root::Cluster(four(44)?),
            false => Root::Place(fat.checked_add(fats.checked_mul(length)?.checked_mul(sector)?)?, root),
        };
        let width = match (has_32_bits, clusters >= FAT16) {
            (true, _) => Width::Bits32,
            (false, true) => Width::Bits16,
            (false, false) => Width::Bits12,
        };
        let (cluster, data) = (per_cluster.checked_mul(sector)?, data.checked_mul(sector)?);
        (length > 0 && clusters > 0).then_some(Geometry { sector, cluster, fat, width, root, data, clusters })
    }
}

struct Reader<'a> {
    image: &'a [u8],
    geometry: Geometry,
    /// Of [`DIRECTORIES`].
    left: usize,
}

impl<'a> Reader<'a> {
    fn root(&mut self) -> Result<Cow<'a, [u8]>, ReadError> {
        let what = || "the root directory".to_string();
        match self.geometry.root {
            Root::Cluster(first) => self.directory(first, what),
            Root::Place(at, length) => {
                let bytes = self.image.get(at..).and_then(|rest| rest.get(..length));
                bytes.map(Cow::Borrowed).ok_or_else(|| ReadError::Outside { what: what() })
            }
        }
    }

    /// All clusters of a chain: a directory has no length of its own.
    fn directory(&mut self, first: usize, what: impl Fn() -> String) -> Result<Cow<'a, [u8]>, ReadError> {
        let mut clusters = Vec::new();
        let mut at = first;
        loop {
            self.left = self
                .left
                .checked_sub(self.geometry.cluster)
                .ok_or(ReadError::TooMany("16 MiB of directories"))?;
            clusters.push(at);
            match self.next(at) {
                Some(Next::Cluster(next)) => at = next,
                Some(Next::End) => break,
                None => return Err(ReadError::Chain { what: what() }),
            }
        }
        self.content(&clusters, clusters.len().saturating_mul(self.geometry.cluster), what)
    }

    /// As many clusters of a chain as a file of this length has.
    fn file(
        &self,
        first: usize,
        length: usize,
        what: impl Fn() -> String,
    ) -> Result<Cow<'a, [u8]>, ReadError> {
        let mut clusters = Vec::new();
        let mut at = first;
        // No file is longer than the image, whatever its record says, so the list of its clusters is not, either.
        if length > self.image.len() {
            return Err(ReadError::Outside { what: what() });
        }
        for number in 0..length.div_ceil(self.geometry.cluster) {
            if number > 0 {
                let Some(Next::Cluster(next)) = self.next(at) else {
                    return Err(ReadError::Chain { what: what() });
                };
                at = next;
            }
            clusters.push(at);
        }
        self.content(&clusters, length, what)
    }

    /// The first `length` bytes of these clusters; a part of the image if they follow one another.
    fn content(
        &self,
        clusters: &[usize],
        length: usize,
        what: impl Fn() -> String,
    ) -> Result<Cow<'a, [u8]>, ReadError> {
        let outside = || ReadError::Outside { what: what() };
        let is_one_piece =
            clusters.windows(2).all(|pair| matches!(pair, [a, b] if a.checked_add(1) == Some(*b)));
        if is_one_piece {
            let Some(first) = clusters.first() else { return Ok(Cow::Borrowed(&[])) };
            let bytes = self.place(*first).and_then(|at| self.image.get(at..)?.get(..length));
            return bytes.map(Cow::Borrowed).ok_or_else(outside);
        }
        let mut bytes = Vec::new();
        for number in clusters {
            let want = self.geometry.cluster.min(length.saturating_sub(bytes.len()));
            let part = self.place(*number).and_then(|at| self.image.get(at..)?.get(..want));
            bytes.extend_from_slice(part.ok_or_else(outside)?);
        }
        Ok(Cow::Owned(bytes))
    }

    fn place(&self, cluster: usize) -> Option<usize> {
        let number = cluster.checked_sub(2).filter(|number| *number < self.geometry.clusters)?;
        number.checked_mul(self.geometry.cluster)?.checked_add(self.geometry.data)
    }

    /// What follows a cluster; none if it is none of the file system's, or what follows is.
    fn next(&self, cluster: usize) -> Option<Next> {
        self.place(cluster)?;
        let fat = self.image.get(self.geometry.fat..)?;
        let two = |at: usize| Some(u32::from(u16::from_le_bytes(*fat.get(at..)?.first_chunk()?)));
        let (value, end) = match self.geometry.width {
            Width::Bits12 => {
                let pair = two(cluster.checked_add(cluster / 2)?)?;
                (if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            Width::Bits16 => (two(cluster.checked_mul(2)?)?, 0xfff8),
            Width::Bits32 => {
                let bytes = fat.get(cluster.checked_mul(4)?..)?.first_chunk()?;
                (u32::from_le_bytes(*bytes) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        if value >= end {
            return Some(Next::End);
        }
        let next = usize::try_from(value).ok()?;
        self.place(next).map(|_| Next::Cluster(next))
    }
}

enum Next {
    Cluster(usize),
    End,
}

struct Found {
    name: String,
    is_directory: bool,
    first: usize,
    length: usize,
    modified: [u16; 6],
}

/// The files and directories of one directory, by their long names where those belong to the record they stand before.
fn directory(records: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut long = Long::default();
    for record in records.chunks_exact(RECORD) {
        // One more than is taken is enough to be refused.
        if found.len() > ENTRIES {
            break;
        }
        let (Some(first), Some(attribute)) = (record.first(), record.get(11)) else { break };
        match (*first, *attribute) {
            (0, _) => break,
            (0xe5, _) => long = Long::default(),
            (_, attribute) if attribute & 0x3f == 0x0f => long.take(record),
            // A label, or the directory itself and the one above.
            (_, attribute) if attribute & 0x08 != 0 => long = Long::default(),
            (b'.', _) => long = Long::default(),
            _ => found.extend(file(record, core::mem::take(&mut long))),
        }
    }
    found
}

fn file(record: &[u8], long: Long) -> Option<Found> {
    let short: &[u8; 11] = record.first_chunk()?;
    let two = |at: usize| Some(u16::from_le_bytes(*record.get(at..)?.first_chunk()?));
    let (high, low) = (usize::from(two(20)?), usize::from(two(26)?));
    let (time, date) = (two(22)?, two(24)?);
    let modified = [
        (date >> 9).saturating_add(1980),
        (date >> 5) & 0xf,
        date & 0x1f,
        time >> 11,
        (time >> 5) & 0x3f,
        (time & 0x1f).saturating_mul(2),
    ];
    Some(Found {
        name: long.name(short).unwrap_or_else(|| short_name(short, *record.get(12).unwrap_or(&0))),
        is_directory: record.get(11)? & 0x10 != 0,
        first: (high << 16) | low,
        length: usize::try_from(le32(record, 28)).ok()?,
        modified,
    })
}

/// The pieces of a long name, which stand before its record, the last first.
#[derive(Default)]
struct Long {
    pieces: Vec<[u16; 13]>,
    /// Number of the piece that comes next; 0: all are there, or none.
    wanted: u8,
    sum: u8,
}

impl Long {
    fn take(&mut self, record: &[u8]) {
        let (Some(order), Some(sum)) = (record.first(), record.get(13)) else { return };
        let number = order & 0x3f;
        if order & 0x40 != 0 {
            *self = Long { pieces: Vec::new(), wanted: number, sum: *sum };
        }
        let fits = number > 0 && number == self.wanted && *sum == self.sum && usize::from(number) <= PIECES;
        if !fits {
            *self = Long::default();
            return;
        }
        let mut piece = [0_u16; 13];
        let places = [1_usize, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        for (to, at) in piece.iter_mut().zip(places) {
            *to = record
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |bytes| u16::from_le_bytes(*bytes));
        }
        self.pieces.push(piece);
        self.wanted = number.saturating_sub(1);
    }

    fn name(&self, short: &[u8; 11]) -> Option<String> {
        if self.wanted != 0 || self.pieces.is_empty() || self.sum != super::checksum(short) {
            return None;
        }
        let units = self.pieces.iter().rev().flatten().copied().take_while(|unit| *unit != 0);
        Some(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
    }
}

/// A short name as Linux shows it: in capitals, unless the record says that it was written in small ones.
fn short_name(short: &[u8; 11], case: u8) -> String {
    let part = |bytes: &[u8], is_small: bool| -> String {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(' ');
        if is_small { text.to_ascii_lowercase() } else { text.to_string() }
    };
    let (stem, extension) = short.split_at(8);
    let (stem, extension) = (part(stem, case & 0x08 != 0), part(extension, case & 0x10 != 0));
    if extension.is_empty() { stem } else { format!("{stem}.{extension}") }
}

/// A name of an image for a line of a log.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

#[cfg(test)]
mod tests;
