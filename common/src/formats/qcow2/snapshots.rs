//! The table of internal snapshots: only looked over. The disk is what the active tables say; but readers walk this table whenever
//! they open an image, so one that leads them astray shows a damaged or malicious file.
//!
//! Entries have no fixed length, each says how long it is. Their texts and states are skipped, whatever they hold.

use super::header::place;
use super::{Header, Qcow2Error, be32, be64};
use core::ops::Range;

/// Bytes of an entry before what may be of any length.
const FIXED: usize = 40;
/// QEMU's own limits: bytes of extra data, bytes of the whole table.
const EXTRA: u32 = 1024;
const TABLE: u64 = 64 << 20;
/// Bytes asked for at once at most, and for each entry: few have more.
const NEED: u64 = 1 << 20;
const USUAL: u64 = 512;

/// A walk over the table.
#[derive(Clone, Debug)]
pub struct Snapshots {
    header: Header,
    file_length: u64,
    /// Entries looked over.
    done: u32,
    /// Where the next entry begins, and as much of it as has come.
    at: u64,
    entry: [u8; FIXED],
    filled: usize,
}

impl Snapshots {
    /// A walk over the table of `header`'s image, whose file is `file_length` bytes long.
    pub fn new(header: &Header, file_length: u64) -> Snapshots {
        let at = header.snapshots_offset;
        Snapshots { header: header.clone(), file_length, done: 0, at, entry: [0; FIXED], filled: 0 }
    }

    /// Bytes of the file that are to be passed next, at most 1 MiB and never past its end; `None` when all was looked over.
    pub fn need(&self) -> Option<Range<u64>> {
        let left = u64::from(self.header.snapshots.saturating_sub(self.done));
        let start = self.at + self.filled as u64;
        let length = NEED.min(left * USUAL);
        (left > 0).then(|| start..(start + length).min(self.file_length))
    }

    /// Takes bytes of the file from `offset` on: those asked for, or all of them, in order, as they come.
    ///
    /// # Errors
    /// The table is damaged; see [`Qcow2Error`].
    pub fn pass(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Qcow2Error> {
        while self.done < self.header.snapshots {
            let next = self.at + self.filled as u64;
            // No entry that begins in the file and is not whole there.
            self.inside(FIXED as u64)?;
            let from = next.checked_sub(offset).and_then(|from| usize::try_from(from).ok());
            let Some(fresh) = from.and_then(|from| bytes.get(from..)).filter(|fresh| !fresh.is_empty())
            else {
                return Ok(());
            };
            let room = self.entry.get_mut(self.filled..).unwrap_or_default();
            room.iter_mut().zip(fresh).for_each(|(to, from)| *to = *from);
            self.filled += room.len().min(fresh.len());
            if self.filled == FIXED {
                self.look()?;
            }
        }
        Ok(())
    }

    /// Looks at the entry and goes to the next.
    fn look(&mut self) -> Result<(), Qcow2Error> {
        let (h, number) = (&self.header, self.done + 1);
        let u32_at = |at| be32(&self.entry, at).unwrap_or(0);
        let (texts, extra) = (u32_at(12), u32_at(36));
        if extra > EXTRA {
            return Err(Qcow2Error::SnapshotExtra { number, found: extra });
        }
        let length = FIXED as u64 + u64::from(extra) + u64::from(texts >> 16) + u64::from(texts & 0xffff);
        self.inside(length)?;
        h.on_table("snapshot table", self.at, length)?;
        let (l1, entries) = (be64(&self.entry, 0).unwrap_or(0), u32_at(8));
        if entries > 0 {
            place("L1 table of a snapshot", l1, u64::from(entries) * 8, h.cluster_size(), self.file_length)?;
        }
        // Entries begin at multiples of 8, as the table does.
        let next = (self.at + length).next_multiple_of(8);
        let size = next - h.snapshots_offset;
        if size > TABLE {
            return Err(Qcow2Error::SnapshotTable { most: TABLE, number });
        }
        (self.at, self.filled, self.done) = (next, 0, number);
        Ok(())
    }

    /// Whether so many bytes of the entry are in the file.
    fn inside(&self, length: u64) -> Result<(), Qcow2Error> {
        if self.at.checked_add(length).is_some_and(|end| end <= self.file_length) {
            return Ok(());
        }
        let (table, offset, file_length) = ("entry of the snapshot table", self.at, self.file_length);
        Err(Qcow2Error::TableOutside { table, offset, length, file_length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    const C: u64 = 512;
    /// The table's place: behind header, L1 and refcount table.
    const START: u64 = 3 * C;

    /// Version 2, a disk of one cluster.
    fn header(snapshots: u32, file_length: u64) -> Header {
        let words: [u32; 18] =
            [0x5146_49fb, 2, 0, 0, 0, 9, 0, 512, 0, 1, 0, 512, 0, 1024, 1, snapshots, 0, START as u32];
        Header::parse(&words.map(u32::to_be_bytes).concat(), file_length).unwrap()
    }

    fn entry(l1: u64, entries: u32, id: u16, name: u16, extra: u32) -> Vec<u8> {
        let mut entry = [&l1.to_be_bytes()[..], &entries.to_be_bytes()].concat();
        entry.extend([id.to_be_bytes(), name.to_be_bytes()].concat());
        entry.extend([[0; 20], [0x77; 20]].concat());
        entry[36..40].copy_from_slice(&extra.to_be_bytes());
        let length = 40 + usize::from(id) + usize::from(name) + extra as usize;
        entry.resize(length.next_multiple_of(8), 0x77);
        entry
    }

    fn plain() -> Vec<u8> {
        entry(C, 1, 1, 9, 24)
    }

    /// What is said, the same by requests and by pieces of any length.
    fn told(table: &[Vec<u8>], count: u32, file_length: u64) -> String {
        let mut file = [&[0; START as usize], &table.concat()[..]].concat();
        file.resize(file_length as usize, 0);
        let header = header(count, file_length);
        let mut asked = Snapshots::new(&header, file_length);
        let mut ended = Ok(());
        while let (Some(range), Ok(())) = (asked.need(), &ended) {
            assert!(range.start < range.end && range.end <= file_length && range.end - range.start <= NEED);
            ended = asked.pass(range.start, &file[range.start as usize..range.end as usize]);
        }
        for length in [1, 39, 512, file.len()].into_iter().filter(|length| file.len() / length < 10_000) {
            let mut passed = Snapshots::new(&header, file_length);
            let mut pieces = (0..).zip(file.chunks(length));
            assert_eq!(pieces.try_for_each(|(nth, piece)| passed.pass(nth * length as u64, piece)), ended);
            assert!(ended.is_err() || passed.need().is_none());
        }
        ended.map_or_else(|error| error.to_string(), |()| String::new())
    }

    fn check(table: &[Vec<u8>], expected: &str) {
        let length = START + table.concat().len() as u64;
        let said = told(table, table.len() as u32, length);
        assert!(if expected.is_empty() { said.is_empty() } else { said.contains(expected) }, "{said}");
    }

    #[test]
    fn tables_as_they_should_be_are_passed_over() {
        check(&[], "");
        check(&[plain()], "");
        check(&[plain(), entry(2 * C, 1, 9, 99, 16), entry(0, 0, 0, 0, 0), plain()], "");
        check(&[entry(C, 64, u16::MAX, u16::MAX, 1024), plain()], "");
        // The last entry need not be filled up.
        assert_eq!(told(&[plain()], 1, START + 74), "");
    }

    #[test]
    fn tables_that_lead_astray_are_refused() {
        check(&[plain(), entry(C, 1, 1, 9, 1025)], "snapshot 2 of the image has 1025 bytes of extra data");
        check(&[entry(C, 1, 0, 0, 0), entry(C + 8, 1, 1, 9, 0)], "L1 table of a snapshot is at 0x208");
        check(&[entry(0, 1, 1, 9, 0)], "L1 table of a snapshot at 0x0 lies on the header");
        check(&[entry(1 << 40, 1, 1, 9, 0)], "L1 table of a snapshot at 0x10000000000");
        check(&[entry(C, u32::MAX, 1, 9, 0)], "L1 table of a snapshot at 0x200 (34359738360 bytes) is not");
        let end = told(&[plain()], 1, START + 73);
        assert!(end.contains("entry of the snapshot table at 0x600 (74 bytes) is not inside"), "{end}");
        let end = told(&[plain()], 2, START + 80 + 39);
        assert!(end.contains("entry of the snapshot table at 0x650 (40 bytes) is not inside"), "{end}");
        let long = alloc::vec![entry(C, 1, u16::MAX, u16::MAX, 1024); 509];
        check(&long[..507], "");
        check(&long, "the snapshot table is longer than 67108864 bytes at its entry 508");
    }

    #[test]
    fn a_table_on_a_table_is_refused() {
        let mut header = header(1, 1 << 20);
        header.l1_offset = START + C;
        let mut snapshots = Snapshots::new(&header, 1 << 20);
        let said = snapshots.pass(START, &entry(C, 1, 0, 500, 0)).unwrap_err().to_string();
        assert!(said.contains("the snapshot table at 0x600 lies on the L1 table"), "{said}");
    }
}
