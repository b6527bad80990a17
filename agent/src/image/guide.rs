//! Leads the chunks of a qcow2 file to their places: knows the pieces of what passes, and learns those of what comes.
//!
//! Two ways. *Mapped*: the tables were read before (by ranges), the map covers a window of the file, and the next window is
//! read when the stream comes to its end. *Following*: the server has no ranges; the tables are taken from the stream
//! itself, which runs a little ahead of what is dealt out, since `qemu-img convert -c` puts the first clusters of a table
//! just before it. An image whose tables come later than that makes the follower give up ([`ImageError::TablesLate`]).

use super::buffers::{CHUNK, Chunk};
use super::decode::Decoder;
use super::map::{self, Map, Piece};
use super::proofs::Proofs;
use super::route::{Found, Router};
use super::{ImageError, Source, tables};
use ferric_common::formats::qcow2::{Compression, Header, Planner, Snapshots, Step};
use ferric_common::units::ByteCount;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Clusters among which a freshly written image has its L1 table.
const EARLY: u64 = 8;
/// Largest L1 table that is kept while an image is followed, in bytes: enough for 64 TiB with clusters of 64 KiB.
const KNOWN: u64 = 1 << 20;

/// Bytes of the disk's start that hold a partition table as all writers place it.
const HEAD: u64 = 64 << 10;

pub struct Guide {
    header: Header,
    length: u64,
    router: Router,
    /// Looked over before the first write where ranges work or the table is in the file's start, else as it passes.
    snapshots: Snapshots,
    way: Way,
}

enum Way {
    Mapped { proofs: Proofs, first_gaps: Vec<(u64, u64)>, pieces_until: u64, gaps_until: u64 },
    Following(Box<Follower>),
}

struct Follower {
    planner: Planner,
    map: Map,
    /// The L1 table, where it was read before, and that it passes as it was.
    known: Vec<u8>,
    known_at: u64,
    proofs: Proofs,
    /// Chunks that have passed but are not dealt out yet.
    window: VecDeque<Arc<Chunk>>,
    keep: usize,
    ended: bool,
}

impl Guide {
    /// Reads and checks all tables first.
    ///
    /// # Errors
    /// Those of [`tables::walk`].
    pub fn mapped(header: Header, length: u64, source: &mut Source) -> Result<Guide, ImageError> {
        let mut proofs = Proofs::default();
        let head = source.start().len().min(CHUNK).min(header.cluster_size() as usize);
        let start = source.start().get(..head).unwrap_or_default().to_vec();
        proofs.see(0..head as u64, &start, source.name())?;
        let mut snapshots = Snapshots::new(&header, length);
        snapshots.pass(0, source.start())?;
        while let Some(range) = snapshots.need().filter(|_| source.has_ranges()) {
            let bytes = source.fetch(range.clone())?;
            snapshots.pass(range.start, &bytes)?;
            proofs.see(range, &bytes, source.name())?;
        }
        let mut map = Map::new(header.virtual_size().0);
        tables::walk(&header, length, source, &mut map, &mut proofs)?;
        if map.pieces_until() < u64::MAX && !source.has_ranges() {
            return Err(ImageError::MapTooLarge(ByteCount(map::PIECES as u64)));
        }
        proofs.seal();
        source.rewind();
        let (pieces_until, gaps_until) = (map.pieces_until(), map.gaps_until());
        let router = Router::new(map.take_pieces());
        let way = Way::Mapped { proofs, first_gaps: map.take_gaps(), pieces_until, gaps_until };
        Ok(Guide { header, length, router, snapshots, way })
    }

    /// Takes the tables from the stream as it passes. An L1 table that lies behind the file's start (as growing an image
    /// leaves it) is read in a pass of its own.
    ///
    /// # Errors
    /// Those of reading the L1 table.
    pub fn following(header: Header, length: u64, source: &mut Source) -> Result<Guide, ImageError> {
        let l1 = header.l1();
        let mut snapshots = Snapshots::new(&header, length);
        snapshots.pass(0, source.start())?;
        let mut proofs = Proofs::default();
        let mut known = Vec::new();
        // Writers put it among the first clusters.
        if l1.start > source.start().len() as u64 + EARLY * header.cluster_size() {
            if l1.end - l1.start > KNOWN {
                return Err(ImageError::TablesLate);
            }
            known = tables::read(source, l1.clone())?;
            source.rewind();
            proofs.see(l1.clone(), &known, source.name())?;
        }
        proofs.seal();
        let follower = Follower {
            planner: Planner::following(&header, length),
            map: Map::new(header.virtual_size().0),
            known,
            known_at: l1.start,
            proofs,
            window: VecDeque::new(),
            keep: Self::delay(&header),
            ended: false,
        };
        let (router, way) = (Router::new(Vec::new()), Way::Following(Box::new(follower)));
        Ok(Guide { header, length, router, snapshots, way })
    }

    /// Chunks by which a follower deals out later than it reads: a cluster that was begun before its table, and the table.
    fn delay(header: &Header) -> usize {
        (header.cluster_size() as usize).div_ceil(CHUNK) * 2
    }

    /// The disk's first bytes, at most [`HEAD`] or a cluster of them, where they are known before the data passes: `None` if not.
    ///
    /// # Errors
    /// Those of the server and of a damaged first cluster.
    pub fn head(&self, source: &mut Source) -> Result<Option<Vec<u8>>, ImageError> {
        let Way::Mapped { first_gaps, .. } = &self.way else { return Ok(None) };
        if let Some((0, length)) = first_gaps.first() {
            return Ok(Some(vec![0; (*length).min(HEAD) as usize]));
        }
        let piece = self.router.piece_at(0).filter(|_| source.has_ranges());
        let Some(piece) = piece else { return Ok(None) };
        let file = piece.file();
        if piece.stored == 0 {
            let end = file.end.min(file.start + self.header.cluster_size().max(HEAD));
            return source.fetch(file.start..end).map(Some);
        }
        let mut decoder = Decoder::new(self.compression(), self.cluster());
        decoder.decode(&source.fetch(file)?, 0, piece.length as usize, piece.host)?;
        Ok(Some(decoder.bytes().to_vec()))
    }

    /// Chunks that are held back at most.
    pub fn held(&self) -> usize {
        let carried = Router::carries(self.header.cluster_size());
        match &self.way {
            Way::Mapped { .. } => carried,
            Way::Following(follower) => carried + follower.keep + 1,
        }
    }
    /// Whether the tables come with the data, so that nobody knows beforehand what is empty.
    pub fn is_following(&self) -> bool {
        matches!(self.way, Way::Following(_))
    }
    pub fn compression(&self) -> Compression {
        self.header.compression()
    }
    pub fn cluster(&self) -> usize {
        self.header.cluster_size() as usize
    }
    /// One phrase for the console.
    pub fn describe(&self) -> String {
        match &self.way {
            Way::Mapped { pieces_until: u64::MAX, .. } => format!("qcow2, {} pieces", self.router.left()),
            Way::Mapped { .. } => format!("qcow2, the first {} pieces", self.router.left()),
            Way::Following(_) => "qcow2, its tables taken from the stream".to_string(),
        }
    }

    /// Takes the next chunk of the file; chunks come in order, without gaps between them.
    ///
    /// # Errors
    /// A table that changed or is damaged, and those of reading the next window's tables.
    pub fn pass(
        &mut self,
        chunk: &Arc<Chunk>,
        source: &mut Source,
        sink: &mut dyn FnMut(Found),
    ) -> Result<(), ImageError> {
        let Guide { header, length, router, snapshots, way } = self;
        snapshots.pass(chunk.offset, chunk.bytes())?;
        match way {
            Way::Mapped { proofs, first_gaps, pieces_until, gaps_until } => {
                // From the disk's end, where most of it is empty and no data is written meanwhile.
                for (at, length) in std::mem::take(first_gaps).into_iter().rev() {
                    sink(Found::Zeros(at, length));
                }
                proofs.pass(chunk, source.name())?;
                while chunk.end() > *pieces_until {
                    let mut map = Map::of(header.virtual_size().0, *pieces_until, *gaps_until);
                    tables::walk(header, *length, source, &mut map, proofs)?;
                    (*pieces_until, *gaps_until) = (map.pieces_until(), map.gaps_until());
                    router.feed(map.take_pieces());
                    map.take_gaps().into_iter().for_each(|(at, length)| sink(Found::Zeros(at, length)));
                }
                router.route(chunk, &mut |batch| sink(Found::Batch(batch)));
                Ok(())
            }
            Way::Following(follower) => {
                follower.proofs.pass(chunk, source.name())?;
                follower.pass(chunk, router, sink)
            }
        }
    }

    /// The file has ended.
    ///
    /// # Errors
    /// As [`Guide::pass`]; pieces that never came.
    pub fn finish(&mut self, source: &mut Source, sink: &mut dyn FnMut(Found)) -> Result<(), ImageError> {
        let Guide { header, length, router, way, .. } = self;
        match way {
            Way::Mapped { proofs, gaps_until, .. } => {
                while *gaps_until < u64::MAX {
                    // Without ranges the tables are read from the stream, which stands at its end.
                    source.rewind();
                    let mut map = Map::of(header.virtual_size().0, u64::MAX, *gaps_until);
                    tables::walk(header, *length, source, &mut map, proofs)?;
                    *gaps_until = map.gaps_until();
                    map.take_gaps().into_iter().for_each(|(at, length)| sink(Found::Zeros(at, length)));
                }
            }
            Way::Following(follower) => {
                if !follower.ended {
                    return Err(ImageError::TablesLate);
                }
                for chunk in std::mem::take(&mut follower.window) {
                    router.route(&chunk, &mut |batch| sink(Found::Batch(batch)));
                }
            }
        }
        if router.is_done() {
            return Ok(());
        }
        Err(ImageError::Internal { what: "the image ended before all its pieces had passed".into() })
    }
}

impl Follower {
    fn pass(
        &mut self,
        chunk: &Arc<Chunk>,
        router: &mut Router,
        sink: &mut dyn FnMut(Found),
    ) -> Result<(), ImageError> {
        self.window.push_back(chunk.clone());
        self.read_tables(chunk.end(), router, sink)?;
        while self.window.len() > self.keep
            && let Some(chunk) = self.window.pop_front()
        {
            router.route(&chunk, &mut |batch| sink(Found::Batch(batch)));
        }
        Ok(())
    }

    /// Takes every table that has come whole, and hands out the gaps that it shows.
    fn read_tables(
        &mut self,
        end: u64,
        router: &mut Router,
        sink: &mut dyn FnMut(Found),
    ) -> Result<(), ImageError> {
        let too_large = || ImageError::MapTooLarge(ByteCount(map::PIECES as u64));
        while let Step::Need(range) = self.planner.step() {
            let known = self.known(&range);
            if range.end > end && known.is_none() {
                return Ok(());
            }
            let bytes = match known {
                Some(bytes) => bytes,
                None => self.bytes(range)?,
            };
            let map = &mut self.map;
            let mut overfull = false;
            self.planner.supply(&bytes, &mut |extent| {
                overfull = map.add(extent).is_err();
                !overfull
            })?;
            let partial = self.map.pieces_until() < u64::MAX || self.map.gaps_until() < u64::MAX;
            if overfull || partial {
                return Err(too_large());
            }
            self.map.take_gaps().into_iter().for_each(|(at, length)| sink(Found::Zeros(at, length)));
            let pieces = self.map.take_pieces();
            let dealt = self.window.front().map_or(0, |chunk| chunk.offset);
            if pieces.first().is_some_and(|piece| piece.host < dealt) {
                return Err(ImageError::TablesLate);
            }
            router.feed(pieces);
            if router.left() * size_of::<Piece>() > map::PIECES {
                return Err(too_large());
            }
        }
        if !self.ended {
            self.ended = true;
            self.map.end();
            self.map.take_gaps().into_iter().for_each(|(at, length)| sink(Found::Zeros(at, length)));
        }
        Ok(())
    }

    /// Bytes of the file that were read before the stream began.
    fn known(&self, range: &Range<u64>) -> Option<Vec<u8>> {
        let from = usize::try_from(range.start.checked_sub(self.known_at)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.known_at)?).ok()?;
        self.known.get(from..to).filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec)
    }

    /// Bytes of the file that are still at hand.
    fn bytes(&self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        if self.window.front().is_none_or(|chunk| range.start < chunk.offset) {
            return Err(ImageError::TablesLate);
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for chunk in &self.window {
            bytes.extend_from_slice(chunk.bytes().get(chunk.part(range.clone())).unwrap_or_default());
        }
        Ok(bytes)
    }
}
