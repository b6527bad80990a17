//! Where the pieces of a qcow2 file belong on the disk, in bounded memory: the map of one window of the file. Pure.
//!
//! An image with more pieces than fit is mapped one window of the file after the other: a full map forgets its upper half
//! and remembers where that began; when the stream comes there the tables are walked again for the next window. Ranges
//! that read as zeros are collected likewise, in windows of the disk.

use ferric_common::formats::qcow2::{Extent, ExtentKind};
use std::ops::Range;

/// Memory for pieces and for gaps, in bytes: 437,000 pieces of 24 bytes and 131,000 gaps of 16. An image in order needs far less.
/// (Tests make do with less, so that small images have several windows too.)
pub const PIECES: usize = if cfg!(test) { 2000 * size_of::<Piece>() } else { 10 << 20 };
pub const GAPS: usize = if cfg!(test) { 300 * size_of::<(u64, u64)>() } else { 2 << 20 };
/// Pieces for which room is made at once, so that a growing map does not take twice its size.
pub const GROW: usize = 64 << 10;

/// A piece of the file and where it lands. `stored` is 0 for plain bytes, else the bytes that hold the compressed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub host: u64,
    pub guest: u64,
    pub length: u32,
    pub stored: u32,
}

impl Piece {
    /// The bytes of the file that this piece needs.
    pub fn file(&self) -> Range<u64> {
        let bytes = if self.stored == 0 { self.length } else { self.stored };
        self.host..self.host + u64::from(bytes)
    }
}

/// The map of one window, filled with extents in the order of the disk.
pub struct Map {
    virtual_size: u64,
    /// Pieces whose place in the file is in here are kept. The end moves down when there are too many.
    window: Range<u64>,
    /// Gaps that begin in this part of the disk are kept. The end moves down when there are too many.
    gap_window: Range<u64>,
    pieces: Vec<Piece>,
    gaps: Vec<(u64, u64)>,
    /// Byte of the disk up to which everything is known.
    reached: u64,
    most_pieces: usize,
    most_gaps: usize,
}

/// Too many pieces lie at one and the same place of the file to be told apart by it.
#[derive(Debug, PartialEq, Eq)]
pub struct Overfull;

impl Map {
    /// The first window: everything, as long as it fits.
    pub fn new(virtual_size: u64) -> Map {
        Map::of(virtual_size, 0, 0)
    }
    /// A window from `host` of the file and gaps from `guest` of the disk on.
    pub fn of(virtual_size: u64, host: u64, guest: u64) -> Map {
        Map {
            virtual_size,
            window: host..u64::MAX,
            gap_window: guest..u64::MAX,
            pieces: Vec::new(),
            gaps: Vec::new(),
            reached: 0,
            most_pieces: PIECES / size_of::<Piece>(),
            most_gaps: GAPS / size_of::<(u64, u64)>(),
        }
    }

    #[cfg(test)]
    pub fn with_room(self, pieces: usize, gaps: usize) -> Map {
        Map { most_pieces: pieces, most_gaps: gaps, ..self }
    }

    /// Takes the next extent; extents come in the order of the disk.
    ///
    /// # Errors
    /// [`Overfull`].
    pub fn add(&mut self, extent: Extent) -> Result<(), Overfull> {
        self.gap(extent.guest);
        self.reached = self.reached.max(extent.guest + extent.length);
        if !self.window.contains(&extent.host) {
            return Ok(());
        }
        let stored = match extent.kind {
            ExtentKind::Plain => 0,
            ExtentKind::Compressed { stored } => stored,
        };
        let length = u32::try_from(extent.length).unwrap_or(u32::MAX);
        if self.pieces.len() == self.pieces.capacity() {
            self.pieces.reserve_exact(GROW);
        }
        self.pieces.push(Piece { host: extent.host, guest: extent.guest, length, stored });
        if self.pieces.len() > self.most_pieces { self.forget_half() } else { Ok(()) }
    }

    fn gap(&mut self, until: u64) {
        if until <= self.reached || !self.gap_window.contains(&self.reached) {
            return;
        }
        if self.gaps.len() >= self.most_gaps {
            self.gap_window.end = self.reached;
        } else {
            self.gaps.push((self.reached, until - self.reached));
        }
    }

    fn forget_half(&mut self) -> Result<(), Overfull> {
        let middle = self.pieces.len() / 2;
        let (_, piece, _) = self.pieces.select_nth_unstable_by_key(middle, |p| p.host);
        let end = piece.host;
        self.pieces.retain(|p| p.host < end);
        self.window.end = end;
        if self.pieces.is_empty() { Err(Overfull) } else { Ok(()) }
    }

    /// The walk is over: what is behind the last extent reads as zeros.
    pub fn end(&mut self) {
        self.gap(self.virtual_size);
        self.reached = self.virtual_size;
    }

    /// Byte of the file up to which all pieces are in the map; `u64::MAX`: all of them.
    pub fn pieces_until(&self) -> u64 {
        self.window.end
    }
    /// Byte of the disk up to which all gaps are in the map; `u64::MAX`: all of them.
    pub fn gaps_until(&self) -> u64 {
        self.gap_window.end
    }
    /// The pieces found since the last call, in the order of the file.
    pub fn take_pieces(&mut self) -> Vec<Piece> {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_unstable_by_key(|p| (p.host, p.guest));
        pieces
    }
    /// The gaps found since the last call, in the order of the disk.
    pub fn take_gaps(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(guest: u64, host: u64) -> Extent {
        Extent { host, guest, length: 10, kind: ExtentKind::Plain }
    }

    /// Twenty pieces, shuffled in the file, with a gap before every second one.
    fn extents() -> Vec<Extent> {
        (0..20u64).map(|n| plain(n * 10 + (n / 2) * 5, (n * 7 % 20) * 10)).collect()
    }

    #[test]
    fn windows_together_hold_every_piece_and_every_gap_once() {
        let (mut pieces, mut gaps) = (Vec::new(), Vec::new());
        let (mut host, mut guest, mut walks) = (0, 0, 0);
        while host < u64::MAX || guest < u64::MAX {
            let mut map = Map::of(400, host, guest).with_room(6, 4);
            extents().into_iter().try_for_each(|e| map.add(e)).unwrap();
            map.end();
            (host, guest) = (map.pieces_until(), map.gaps_until());
            let window = map.take_pieces();
            assert!(window.len() <= 6 && window.iter().all(|p| p.host < host));
            pieces.extend(window);
            gaps.extend(map.take_gaps());
            walks += 1;
            assert!(walks < 20);
        }
        assert!(walks > 3);
        assert!(pieces.is_sorted_by_key(|p| p.host));
        let mut whole = Map::new(400);
        extents().into_iter().try_for_each(|e| whole.add(e)).unwrap();
        whole.end();
        assert_eq!(pieces, whole.take_pieces());
        assert_eq!(gaps, whole.take_gaps());
        let covered = gaps.iter().map(|g| g.1).sum::<u64>() + 200;
        assert_eq!(covered, 400);
    }

    #[test]
    fn pieces_at_one_place_cannot_be_told_apart() {
        let mut map = Map::new(10_000).with_room(6, 4);
        let end = (0..20).map(|n| plain(n * 10, 70)).try_for_each(|e| map.add(e));
        assert_eq!(end, Err(Overfull));
    }
}
