//! Writes FAT file systems, and [`read`]s them: the files of a config drive, for disks whose sectors are larger than those of ISO 9660.
//!
//! FAT12 or FAT16 as the number of clusters says, long names beside short ones, everything in one piece, no room left.
//! Deterministic: the same files give the same bytes. Specification: Microsoft FAT, revision 1.03 (section 6: long names).

use super::gpt::put;
use super::tree::Entry;
use crate::units::{ByteCount, SectorSize};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

pub mod read;

const CLUSTER: usize = 4096;
const RECORD: usize = 32;
/// From so many clusters on, a FAT has entries of 16 bits, and from so many on it would have such of 32.
const FAT16: usize = 4085;
const FAT32: usize = 65_525;
/// Records of a directory: their number is of 16 bits in the boot sector.
const RECORDS: usize = 65_000;
/// UTF-16 units of a name, and of one record of it.
const NAME: usize = 255;
const PIECE: usize = 13;

/// Why no file system was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatError {
    #[error("{0} is no name that FAT can hold")]
    Name(String),
    #[error("{0} is there twice: FAT does not tell capital letters from small ones")]
    Duplicate(String),
    #[error("sectors of {0} bytes are none of FAT")]
    Sector(u32),
    #[error("a directory of more than {0} records is more than it can hold")]
    TooMany(usize),
    #[error("files of {0} are more than it can hold")]
    TooLarge(ByteCount),
}

/// Makes a file system of these entries, the first of which is the root. `label` is of at most 11 bytes of ASCII.
///
/// # Errors
/// [`FatError`].
pub fn build(
    label: &str,
    serial: u32,
    sector: SectorSize,
    entries: &[Entry<'_>],
) -> Result<Vec<u8>, FatError> {
    let bytes_per_sector = usize::try_from(sector.0).unwrap_or(0);
    if !bytes_per_sector.is_power_of_two() || !(512..=CLUSTER).contains(&bytes_per_sector) {
        return Err(FatError::Sector(sector.0));
    }
    check(entries)?;
    let mut volume_label = [b' '; 11];
    volume_label.iter_mut().zip(label.bytes()).for_each(|(to, from)| *to = from);
    let plan = Plan::new(bytes_per_sector, entries)?;
    let mut image = vec![0; plan.total.saturating_mul(bytes_per_sector)];
    put(&mut image, 0, &plan.boot_sector(&volume_label, serial));
    for copy in 0..2 {
        put(&mut image, plan.fat_at(copy), &plan.fat());
    }
    for (index, entry) in entries.iter().enumerate() {
        let at = plan.place(index);
        match entry.bytes.as_deref() {
            Some(bytes) => put(&mut image, at, bytes),
            None => put(&mut image, at, &plan.directory(entries, index, &volume_label)),
        }
    }
    Ok(image)
}

fn check(entries: &[Entry<'_>]) -> Result<(), FatError> {
    let mut seen = alloc::collections::BTreeSet::new();
    for entry in entries.iter().skip(1) {
        let shown = || entry.name.escape_debug().to_string();
        let is_odd = |c: char| c.is_control() || "\"*/:<>?\\|".contains(c);
        let units = entry.name.encode_utf16().count();
        // Linux takes dots and blanks at the end away.
        if !(1..=NAME).contains(&units) || entry.name.ends_with(['.', ' ']) || entry.name.contains(is_odd) {
            return Err(FatError::Name(shown()));
        }
        if !seen.insert((entry.parent, entry.name.to_lowercase())) {
            return Err(FatError::Duplicate(shown()));
        }
    }
    Ok(())
}

/// Where everything goes.
struct Plan {
    sector: usize,
    /// Sectors of one FAT, of the root directory, and in all.
    fat: usize,
    root: usize,
    total: usize,
    is_16: bool,
    /// First cluster (from 2) and number of clusters of each entry; none for the root and for what is empty.
    chains: Vec<(usize, usize)>,
}

impl Plan {
    fn new(sector: usize, entries: &[Entry<'_>]) -> Result<Plan, FatError> {
        let lengths = directory_lengths(entries);
        if lengths.iter().any(|records| *records > RECORDS) {
            return Err(FatError::TooMany(RECORDS));
        }
        let mut chains = vec![(0, 0)];
        let mut next = 2_usize;
        for (entry, records) in entries.iter().zip(&lengths).skip(1) {
            let length = entry.bytes.as_deref().map_or(records.saturating_mul(RECORD), <[u8]>::len);
            let count = length.div_ceil(CLUSTER);
            chains.push(if count == 0 { (0, 0) } else { (next, count) });
            next = next.saturating_add(count);
        }
        // A file system without any is none to fsck.vfat, even where it holds nothing.
        let next = next.max(3);
        let clusters = next.saturating_sub(2);
        if clusters >= FAT32 {
            let bytes = u64::try_from(clusters.saturating_mul(CLUSTER)).unwrap_or(u64::MAX);
            return Err(FatError::TooLarge(ByteCount(bytes)));
        }
        let is_16 = clusters >= FAT16;
        let fat = if is_16 { next.saturating_mul(2) } else { next.saturating_mul(3).div_ceil(2) };
        let fat = fat.div_ceil(sector);
        let root = lengths.first().copied().unwrap_or(0).saturating_mul(RECORD).div_ceil(sector);
        let data = clusters.saturating_mul(CLUSTER / sector);
        let total = 1_usize.saturating_add(fat.saturating_mul(2)).saturating_add(root).saturating_add(data);
        Ok(Plan { sector, fat, root, total, is_16, chains })
    }

    fn fat_at(&self, copy: usize) -> usize {
        copy.saturating_mul(self.fat).saturating_add(1).saturating_mul(self.sector)
    }

    /// Byte at which an entry's content begins.
    fn place(&self, index: usize) -> usize {
        let root = self.fat_at(2);
        let (first, _) = self.chain(index);
        match first.checked_sub(2) {
            None => root,
            Some(cluster) => {
                let data = root.saturating_add(self.root.saturating_mul(self.sector));
                data.saturating_add(cluster.saturating_mul(CLUSTER))
            }
        }
    }

    fn chain(&self, index: usize) -> (usize, usize) {
        self.chains.get(index).copied().unwrap_or_default()
    }

    fn boot_sector(&self, label: &[u8; 11], serial: u32) -> Vec<u8> {
        let two = |value: usize| u16::try_from(value).unwrap_or(0).to_le_bytes();
        let four = |value: usize| u32::try_from(value).unwrap_or(0).to_le_bytes();
        let per_cluster = u8::try_from(CLUSTER / self.sector).unwrap_or(1);
        let root_records = self.root.saturating_mul(self.sector / RECORD);
        let mut boot = vec![0xeb, 0x3c, 0x90];
        boot.extend(b"FERRIC  ");
        boot.extend(two(self.sector));
        boot.extend([per_cluster, 1, 0, 2]); // reserved sectors, FATs
        boot.extend(two(root_records));
        boot.extend(two(self.total)); // 0 where it does not fit
        boot.push(0xf8); // a fixed disk
        boot.extend(two(self.fat));
        boot.extend([32, 0, 64, 0, 0, 0, 0, 0]); // sectors per track, heads, sectors before
        boot.extend(four(if self.total > usize::from(u16::MAX) { self.total } else { 0 }));
        boot.extend([0x80, 0, 0x29]); // drive, and that the next three are there
        boot.extend(serial.to_le_bytes());
        boot.extend(label);
        boot.extend(if self.is_16 { b"FAT16   " } else { b"FAT12   " });
        boot.resize(510, 0);
        boot.extend([0x55, 0xaa]);
        boot
    }

    fn fat(&self) -> Vec<u8> {
        // The first two are the medium and a clean end.
        let mut values = vec![0xfff8_u16, 0xffff];
        for (first, count) in self.chains.iter().copied().filter(|(_, count)| *count > 0) {
            let last = first.saturating_add(count).saturating_sub(1);
            let next = (first..last).map(|at| u16::try_from(at.saturating_add(1)).unwrap_or(0xffff));
            values.extend(next.chain([0xffff]));
        }
        if self.is_16 {
            return values.iter().flat_map(|value| value.to_le_bytes()).collect();
        }
        let pairs = values.chunks(2).map(|pair| (pair.first(), pair.get(1)));
        let packed = pairs.flat_map(|(even, odd)| {
            let (even, odd) = (even.map_or(0, |v| v & 0xfff), odd.map_or(0, |v| v & 0xfff));
            let [low, middle, high, _] = (u32::from(even) | (u32::from(odd) << 12)).to_le_bytes();
            [low, middle, high]
        });
        packed.collect()
    }

    fn directory(&self, entries: &[Entry<'_>], of: usize, label: &[u8; 11]) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(own) = entries.get(of) else { return out };
        if of == 0 {
            out.extend(record(label, 0x08, &own.modified, 0, 0));
        } else {
            // The root is cluster 0 for its children.
            for (name, cluster) in
                [(b".          ", self.chain(of).0), (b"..         ", self.chain(own.parent).0)]
            {
                out.extend(record(name, 0x10, &own.modified, cluster, 0));
            }
        }
        for (number, (index, entry)) in children(entries, of).enumerate() {
            let short = short_name(&entry.name, number);
            out.extend(long_name(&entry.name, &short));
            let attribute = if entry.bytes.is_some() { 0x20 } else { 0x10 };
            let length = entry.bytes.as_deref().map_or(0, <[u8]>::len);
            out.extend(record(&short, attribute, &entry.modified, self.chain(index).0, length));
        }
        out
    }
}

fn children<'e, 'a>(entries: &'e [Entry<'a>], of: usize) -> impl Iterator<Item = (usize, &'e Entry<'a>)> {
    entries.iter().enumerate().skip(1).filter(move |(_, entry)| entry.parent == of)
}

/// Records of each directory, with the label of the root and the two dots of the others.
fn directory_lengths(entries: &[Entry<'_>]) -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..entries.len()).map(|index| if index == 0 { 1 } else { 2 }).collect();
    for entry in entries.iter().skip(1) {
        let records = entry.name.encode_utf16().count().div_ceil(PIECE).saturating_add(1);
        if let Some(length) = lengths.get_mut(entry.parent) {
            *length = length.saturating_add(records);
        }
    }
    lengths
}

/// A short name that no other entry of the directory has: what is plain in the long one, and its number there.
fn short_name(name: &str, number: usize) -> [u8; 11] {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let plain = |text: &str, most: usize| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).take(most).map(|c| c.to_ascii_uppercase()).collect()
    };
    let tail = format!("~{number}");
    let stem = format!("{}{tail}", plain(stem, 8_usize.saturating_sub(tail.len())));
    let mut short = [b' '; 11];
    short.iter_mut().zip(stem.bytes()).for_each(|(to, from)| *to = from);
    short.iter_mut().skip(8).zip(plain(extension, 3).bytes()).for_each(|(to, from)| *to = from);
    short
}

/// The records of a long name, its last piece first.
fn long_name(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let sum = checksum(short);
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(PIECE) {
        units.push(0);
        units.resize(units.len().next_multiple_of(PIECE), 0xffff);
    }
    let mut records = Vec::new();
    for (piece, number) in units.chunks(PIECE).zip(1_u8..).collect::<Vec<_>>().into_iter().rev() {
        let is_last = usize::from(number).saturating_mul(PIECE) >= units.len();
        let mut bytes = piece.iter().flat_map(|unit| unit.to_le_bytes());
        let mut record = vec![number | if is_last { 0x40 } else { 0 }];
        record.extend(bytes.by_ref().take(10));
        record.extend([0x0f, 0, sum]);
        record.extend(bytes.by_ref().take(12));
        record.extend([0, 0]);
        record.extend(bytes);
        records.extend(record);
    }
    records
}

/// What binds a long name to its short one (section 6.2).
fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

fn record(
    name: &[u8; 11],
    attribute: u8,
    modified: &[u16; 6],
    cluster: usize,
    length: usize,
) -> [u8; RECORD] {
    let [year, month, day, hour, minute, second] = *modified;
    // Years are counted from 1980, in seven bits; what is no date is the first that there is.
    let is_date = (1980..2108).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = hour < 24 && minute < 60 && second < 60;
    let date = if is_date { (year.saturating_sub(1980) << 9) | (month << 5) | day } else { (1 << 5) | 1 };
    let time = if is_date && is_time { (hour << 11) | (minute << 5) | (second / 2) } else { 0 };
    let mut record = [0; RECORD];
    put(&mut record, 0, name);
    put(&mut record, 11, &[attribute]);
    for at in [14, 22] {
        put(&mut record, at, &time.to_le_bytes());
    }
    for at in [16, 18, 24] {
        put(&mut record, at, &date.to_le_bytes());
    }
    put(&mut record, 26, &u16::try_from(cluster).unwrap_or(0).to_le_bytes());
    put(&mut record, 28, &u32::try_from(length).unwrap_or(0).to_le_bytes());
    record
}

#[cfg(test)]
mod tests;
