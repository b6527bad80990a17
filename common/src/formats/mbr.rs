//! Master boot records: the four primary entries of sector 0, and the protective entry of a GPT disk.
//!
//! Logical partitions inside an extended one are not followed: nothing here moves or adds them.
//! Specification: UEFI 2.10, chapter 5.2.

use super::gpt::{le32, put};

/// Type of the one entry that covers a GPT disk.
pub const PROTECTIVE: u8 = 0xee;
/// Type FAT32 with LBA addressing: what Ironic's agent gives a config drive's partition.
pub const FAT32_LBA: u8 = 0x0c;

/// Bytes of an MBR, whatever the disk's sector size.
pub const SIZE: usize = 512;

const TABLE_AT: usize = 446;
const ENTRY_SIZE: usize = 16;

/// One primary entry, in sectors of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1 to 4.
    pub number: u8,
    pub kind: u8,
    pub first: u32,
    pub count: u32,
}

impl Entry {
    /// The sector after the last one.
    pub fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }
}

/// The used entries of an MBR, or `None` if the bytes do not hold one.
///
/// A boot sector of a bare FAT or NTFS file system carries the same 55 AA mark; its code bytes are told from a table by
/// the four status bytes, which in a table are 0x00 or 0x80 (the Linux kernel's rule).
pub fn parse(head: &[u8]) -> Option<impl Iterator<Item = Entry> + '_> {
    if head.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let table = head.get(TABLE_AT..510)?;
    if table.chunks_exact(ENTRY_SIZE).any(|e| e.first().is_some_and(|&status| status & 0x7f != 0)) {
        return None;
    }
    Some(table.chunks_exact(ENTRY_SIZE).zip(1u8..).filter_map(|(e, number)| {
        let kind = *e.get(4)?;
        (kind != 0).then(|| Entry { number, kind, first: le32(e, 8), count: le32(e, 12) })
    }))
}

/// Whether the disk says it is a GPT disk (the kernel and firmware look for GPT only then).
pub fn is_protective(head: &[u8]) -> bool {
    parse(head).is_some_and(|mut entries| entries.any(|e| e.kind == PROTECTIVE && e.first == 1))
}

/// Stretches a lone protective entry over a disk of `sectors` sectors. A hybrid MBR is left as it is.
pub fn fit_protective(head: &mut [u8], sectors: u64) {
    let mut entries = parse(head).into_iter().flatten();
    let (Some(only), None) = (entries.next(), entries.next()) else { return };
    drop(entries);
    if only.kind == PROTECTIVE && only.first == 1 {
        let count = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
        put(head, entry_at(only.number) + 12, &count.to_le_bytes());
    }
}

/// Marks the bytes as an MBR.
pub fn sign(head: &mut [u8]) {
    put(head, SIZE - 2, &[0x55, 0xaa]);
}

/// Puts an entry into its place (`entry.number`), LBA only: the cylinder fields say "too large".
pub fn add(head: &mut [u8], entry: &Entry) {
    let mut bytes = [0, 0xfe, 0xff, 0xff, entry.kind, 0xfe, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    put(&mut bytes, 8, &entry.first.to_le_bytes());
    put(&mut bytes, 12, &entry.count.to_le_bytes());
    put(head, entry_at(entry.number), &bytes);
}

fn entry_at(number: u8) -> usize {
    TABLE_AT + usize::from(number.saturating_sub(1)) * ENTRY_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn head(entries: &[Entry]) -> Vec<u8> {
        let mut head = std::vec![0; 512];
        sign(&mut head);
        for entry in entries {
            add(&mut head, entry);
        }
        head
    }

    #[test]
    fn entries_come_back_as_written() {
        let entries = [
            Entry { number: 1, kind: 0x83, first: 2048, count: 4096 },
            Entry { number: 4, kind: 0x0c, first: u32::MAX, count: u32::MAX },
        ];
        assert!(parse(&head(&entries)).unwrap().eq(entries));
        assert_eq!(entries[1].end(), 2 * u64::from(u32::MAX));
    }

    #[test]
    fn what_is_not_a_table_is_not_read_as_one() {
        let mut unmarked = head(&[Entry { number: 1, kind: 0x83, first: 1, count: 1 }]);
        unmarked[511] = 0;
        assert!(parse(&unmarked).is_none());
        let mut boot_code = head(&[]);
        boot_code[446] = 0x33;
        assert!(parse(&boot_code).is_none());
        assert!(parse(&[]).is_none());
    }

    #[test]
    fn only_a_lone_protective_entry_is_stretched() {
        let ee = Entry { number: 1, kind: PROTECTIVE, first: 1, count: 99 };
        let mut pure = head(&[ee]);
        fit_protective(&mut pure, 1000);
        assert_eq!(parse(&pure).unwrap().next().unwrap().count, 999);
        fit_protective(&mut pure, 1 << 40);
        assert_eq!(parse(&pure).unwrap().next().unwrap().count, u32::MAX);
        let hybrid = head(&[ee, Entry { number: 2, kind: 0x83, first: 2048, count: 9 }]);
        let mut stretched = hybrid.clone();
        fit_protective(&mut stretched, 1000);
        assert_eq!(stretched, hybrid);
    }
}
