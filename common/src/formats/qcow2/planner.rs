//! Walks the L1 and L2 tables and says which bytes of the file become which bytes of the disk.
//!
//! The planner asks for bytes of the file ([`Step::Need`]) and is given them ([`Planner::supply`]); it reads nothing
//! itself. Tables are read in the order of the disk. Memory is bounded whatever the image says: one piece of the L1
//! table (1 MiB), a map of the L2 tables seen (512 KiB), and the caller's buffer for one `Need` (4 MiB).

use super::entry::{self, Mapping};
use super::header::place;
use super::{Header, Qcow2Error, be64};
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes asked for at once at most; of the L1 table at most.
const NEED: u64 = 4 << 20;
const L1_PIECE: u64 = 1 << 20;
/// The same for whoever follows the file: no more than passes at once.
const PASSING: u64 = 1 << 20;
/// Bytes of one extent at most, so that progress shows and a stop is heeded while one is copied.
const RUN: u64 = 1 << 30;
/// Clusters of a file up to which L2 tables are tracked, one bit each: 256 GiB with clusters of 64 KiB. In a larger file
/// a table used twice is read twice, which is defined and harmless; it is only not noticed as damage.
const TRACKED: u64 = 4 << 20;

/// Bytes of the disk whose content is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the content starts, in bytes of the file.
    pub host: u64,
    /// Where it belongs, in bytes of the disk.
    pub guest: u64,
    /// Bytes of the disk; cut at the disk's end.
    pub length: u64,
    pub kind: ExtentKind,
}

/// How an extent's content is kept in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// As it is: `length` bytes at `host`, all inside the file.
    Plain,
    /// One cluster, compressed: `stored` is the most bytes the stream may take at `host`, already cut at the file's end.
    /// The stream must yield exactly one cluster, of which the first `length` bytes belong to the disk.
    Compressed { stored: u32 },
}

/// What the planner wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes of the file, at most 4 MiB, never past its end.
    Need(Range<u64>),
    /// Everything was handed out (or the sink said stop).
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    L1 {
        bytes: Range<u64>,
    },
    /// The tables named by `entries` of the L1 piece; those that name one lie one after the other in the file.
    L2 {
        bytes: Range<u64>,
        entries: Range<usize>,
    },
    Done,
}

/// The walk through one image's tables.
#[derive(Clone, Debug)]
pub struct Planner {
    header: Header,
    file_length: u64,
    ask: Ask,
    /// L2 offsets of the L1 piece at hand (0: none), and the index in the whole L1 of its first entry.
    piece: Vec<u64>,
    piece_first: u64,
    /// A bit per cluster of the file: an L2 table is there. Empty if the file has too many clusters.
    tables: Vec<u64>,
    run: Option<Extent>,
    reading: Reading,
}

/// How whoever drives the planner comes by the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Any bytes at any time.
    Anywhere,
    /// As the file passes: at most one MiB (or one table) at once, and what a table shows is handed out at once, since its
    /// data passes before the next table.
    Passing,
}

impl Planner {
    /// A walk through the image of `header`, whose file is `file_length` bytes long (as given to [`Header::parse`]).
    pub fn new(header: &Header, file_length: u64) -> Planner {
        let clusters = file_length.div_ceil(header.cluster_size());
        let words = if clusters <= TRACKED { clusters.div_ceil(64) } else { 0 };
        let mut planner = Planner {
            header: header.clone(),
            file_length,
            ask: Ask::Done,
            piece: Vec::new(),
            piece_first: 0,
            tables: alloc::vec![0; usize::try_from(words).unwrap_or(0)],
            run: None,
            reading: Reading::Anywhere,
        };
        planner.ask = planner.ask_l1(0);
        planner
    }

    /// The same walk for whoever sees the file pass only once, from its first byte to its last: asks for at most 1 MiB (or
    /// one table) at once, and [`Planner::supply`] hands out all that the table shows.
    pub fn following(header: &Header, file_length: u64) -> Planner {
        Planner { reading: Reading::Passing, ..Planner::new(header, file_length) }
    }

    /// What is wanted next. Stays the same until it was supplied.
    pub fn step(&self) -> Step {
        match &self.ask {
            Ask::L1 { bytes } | Ask::L2 { bytes, .. } => Step::Need(bytes.clone()),
            Ask::Done => Step::Done,
        }
    }

    /// Takes exactly the bytes that the last [`Step::Need`] named and hands what they show to `sink`: extents in the
    /// order of the disk, not overlapping, inside the disk. What is never handed out reads as zeros. When `sink` returns
    /// false nothing more is handed out, this returns `Ok`, and the next step is [`Step::Done`].
    ///
    /// # Errors
    /// The image is damaged or cut short; see [`Qcow2Error`]. The walk cannot go on after one.
    pub fn supply(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Extent) -> bool) -> Result<(), Qcow2Error> {
        let wanted = match self.step() {
            Step::Need(range) => range.end.saturating_sub(range.start),
            Step::Done => 0,
        };
        if bytes.len() as u64 != wanted {
            return Err(Qcow2Error::Supply { given: bytes.len() as u64, wanted });
        }
        let from = match self.ask.clone() {
            Ask::Done => return Ok(()),
            Ask::L1 { .. } => {
                self.take_l1(bytes)?;
                0
            }
            Ask::L2 { entries, .. } => {
                if !self.take_l2(bytes, entries.clone(), sink)? {
                    self.ask = Ask::Done;
                    self.run = None;
                    return Ok(());
                }
                entries.end
            }
        };
        self.ask = self.ask_l2(from);
        if (self.ask == Ask::Done || self.reading == Reading::Passing)
            && let Some(run) = self.run.take()
        {
            sink(run);
        }
        Ok(())
    }

    /// Disk bytes that one L2 table stands for.
    fn coverage(&self) -> u64 {
        let cluster = self.header.cluster_size();
        cluster * (cluster / if self.header.extended_l2 { 16 } else { 8 })
    }

    fn ask_l1(&mut self, first: u64) -> Ask {
        let left = self.header.l1_needed.saturating_sub(first).saturating_mul(8);
        if left == 0 {
            return Ask::Done;
        }
        self.piece_first = first;
        self.piece.clear();
        // No overflow: the header's L1 lies inside the file.
        let start = self.header.l1_offset + first * 8;
        Ask::L1 { bytes: start..start + left.min(L1_PIECE) }
    }

    /// The next L2 tables from entry `from` of the piece on: as many as lie one after the other in the file.
    fn ask_l2(&mut self, from: usize) -> Ask {
        let cluster = self.header.cluster_size();
        let most = match self.reading {
            Reading::Anywhere => NEED,
            Reading::Passing => PASSING,
        };
        let mut found: Option<(Range<u64>, Range<usize>)> = None;
        for (index, &offset) in self.piece.iter().enumerate().skip(from) {
            match &mut found {
                _ if offset == 0 => {}
                None => found = Some((offset..offset + cluster, index..index + 1)),
                Some((bytes, entries)) => {
                    if offset != bytes.end || bytes.end - bytes.start + cluster > most {
                        break;
                    }
                    bytes.end += cluster;
                    entries.end = index + 1;
                }
            }
        }
        match found {
            Some((bytes, entries)) => Ask::L2 { bytes, entries },
            None => self.ask_l1(self.piece_first + self.piece.len() as u64),
        }
    }

    fn take_l1(&mut self, bytes: &[u8]) -> Result<(), Qcow2Error> {
        let cluster = self.header.cluster_size();
        let coverage = self.coverage();
        let mut piece = core::mem::take(&mut self.piece);
        piece.reserve_exact(bytes.len() / 8);
        for (index, word) in (self.piece_first..).zip(bytes.as_chunks::<8>().0) {
            let guest = index * coverage;
            let offset = entry::l1(u64::from_be_bytes(*word), guest)?;
            if offset != 0 {
                place("L2 table", offset, cluster, cluster, self.file_length)?;
                self.header.on_table("L2 table", offset, cluster)?;
                if self.mark_table(offset) {
                    return Err(Qcow2Error::SharedL2 { offset, guest });
                }
            }
            piece.push(offset);
        }
        self.piece = piece;
        Ok(())
    }

    /// Returns false when the sink said stop.
    fn take_l2(
        &mut self,
        bytes: &[u8],
        entries: Range<usize>,
        sink: &mut dyn FnMut(Extent) -> bool,
    ) -> Result<bool, Qcow2Error> {
        let cluster = self.header.cluster_size();
        let size = self.header.virtual_size().0;
        let (bits, extended) = (self.header.cluster_bits, self.header.extended_l2);
        let zero_flag = self.header.version() >= 3;
        let mut tables = bytes.chunks_exact(usize::try_from(cluster).unwrap_or(usize::MAX));
        for index in entries {
            if self.piece.get(index).is_none_or(|&offset| offset == 0) {
                continue;
            }
            let Some(table) = tables.next() else { break };
            let mut guest = (self.piece_first + index as u64) * self.coverage();
            for words in table.chunks_exact(if extended { 16 } else { 8 }) {
                if guest >= size {
                    break;
                }
                let first = be64(words, 0).unwrap_or(0);
                let bitmap = if extended { be64(words, 8) } else { None };
                let mapping = entry::l2(first, bitmap, guest, bits, zero_flag)?;
                if mapping != Mapping::Zeros && !self.map(guest, mapping, sink)? {
                    return Ok(false);
                }
                guest += cluster;
            }
        }
        Ok(true)
    }

    /// Hands out one cluster of the disk. Returns false when the sink said stop.
    fn map(
        &mut self,
        guest: u64,
        mapping: Mapping,
        sink: &mut dyn FnMut(Extent) -> bool,
    ) -> Result<bool, Qcow2Error> {
        let cluster = self.header.cluster_size();
        match mapping {
            Mapping::Zeros => Ok(true),
            Mapping::Plain { host } => {
                self.check_cluster(guest, host)?;
                self.plain(guest, host, cluster, sink)
            }
            Mapping::Subclusters { host, allocated } => {
                self.check_cluster(guest, host)?;
                let (mut left, sub) = (allocated, cluster / 32);
                while left != 0 {
                    let skip = left.trailing_zeros();
                    let count = (left >> skip).trailing_ones();
                    let at = u64::from(skip) * sub;
                    // Subclusters past the end of the disk say nothing.
                    if guest + at >= self.header.virtual_size().0 {
                        break;
                    }
                    if !self.plain(guest + at, host + at, u64::from(count) * sub, sink)? {
                        return Ok(false);
                    }
                    let done = skip + count;
                    left = if done >= 32 { 0 } else { left >> done << done };
                }
                Ok(true)
            }
            Mapping::Compressed { host, stored } => {
                if host >= self.file_length {
                    let file_length = self.file_length;
                    return Err(Qcow2Error::DataOutside { guest, offset: host, length: stored, file_length });
                }
                self.check_free(guest, host, 1)?;
                let stored = stored.min(self.file_length - host);
                let length = cluster.min(self.header.virtual_size().0 - guest);
                // At most 4 MiB, so the number fits.
                let kind = ExtentKind::Compressed { stored: u32::try_from(stored).unwrap_or(u32::MAX) };
                Ok(self.run.take().is_none_or(&mut *sink) && sink(Extent { host, guest, length, kind }))
            }
        }
    }

    fn check_cluster(&self, guest: u64, host: u64) -> Result<(), Qcow2Error> {
        let cluster = self.header.cluster_size();
        if !host.is_multiple_of(cluster) {
            return Err(Qcow2Error::DataUnaligned { guest, offset: host, cluster });
        }
        self.check_free(guest, host, cluster)
    }

    fn check_free(&self, guest: u64, host: u64, length: u64) -> Result<(), Qcow2Error> {
        let other = self
            .header
            .table_at(host, length)
            .or_else(|| self.is_table(host).then_some("L2 table of the active disk"));
        match other {
            Some(other) => Err(Qcow2Error::DataOnTable { guest, offset: host, other }),
            None => Ok(()),
        }
    }

    /// Joins plain content to the open run, or opens a new one. Only the bytes inside the disk must be in the file: a
    /// writer need not write the rest of the last cluster. Returns false when the sink said stop.
    fn plain(
        &mut self,
        guest: u64,
        host: u64,
        length: u64,
        sink: &mut dyn FnMut(Extent) -> bool,
    ) -> Result<bool, Qcow2Error> {
        let length = length.min(self.header.virtual_size().0.saturating_sub(guest));
        // No overflow: host offsets have 56 bits.
        if host + length > self.file_length {
            return Err(Qcow2Error::DataOutside {
                guest,
                offset: host,
                length,
                file_length: self.file_length,
            });
        }
        if let Some(run) = &mut self.run
            && run.guest + run.length == guest
            && run.host + run.length == host
            && run.length + length <= RUN
        {
            run.length += length;
            return Ok(true);
        }
        match self.run.replace(Extent { host, guest, length, kind: ExtentKind::Plain }) {
            Some(run) => Ok(sink(run)),
            None => Ok(true),
        }
    }

    fn table_bit(&self, offset: u64) -> (usize, u64) {
        let cluster = offset >> (self.header.cluster_bits & 63);
        (usize::try_from(cluster / 64).unwrap_or(usize::MAX), 1 << (cluster % 64))
    }

    fn is_table(&self, offset: u64) -> bool {
        let (word, bit) = self.table_bit(offset);
        self.tables.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Notes that an L2 table is at `offset`; returns whether one was noted there before.
    fn mark_table(&mut self, offset: u64) -> bool {
        let (word, bit) = self.table_bit(offset);
        let Some(w) = self.tables.get_mut(word) else { return false };
        let before = *w & bit != 0;
        *w |= bit;
        before
    }
}
