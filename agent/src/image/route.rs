//! Cuts the stream into work: which bytes of a received chunk go where on the disk. Pure.

use super::buffers::Chunk;
use super::map::Piece;
use std::ops::Range;
use std::sync::Arc;

/// Output bytes after which a batch is handed to a worker.
const BATCH: u64 = 1 << 20;
/// The same for places that do not follow one another: each is a write of its own, and many disks are fast only at many
/// of them at once.
const SCATTERED: u64 = 256 << 10;
/// Operations after which it is handed over however small they are.
const OPS: usize = 1024;

/// Bytes of one operation: a part of the batch's chunk, or a copy where they crossed a chunk's border.
pub enum Bytes {
    InChunk(Range<usize>),
    Copied(Vec<u8>),
}

pub enum Op {
    Plain { bytes: Range<usize>, guest: u64 },
    Packed { bytes: Bytes, guest: u64, length: u32, host: u64 },
}

impl Op {
    /// Where on the disk it writes.
    pub fn place(&self) -> Range<u64> {
        match self {
            Op::Plain { bytes, guest } => *guest..*guest + bytes.len() as u64,
            Op::Packed { guest, length, .. } => *guest..*guest + u64::from(*length),
        }
    }
}

/// Work for one worker.
pub struct Batch {
    pub chunk: Arc<Chunk>,
    pub ops: Vec<Op>,
}

/// What is to be done with a part of the disk.
pub enum Found {
    Batch(Batch),
    /// A range that reads as zeros: where, and how long.
    Zeros(u64, u64),
}

/// Walks the pieces of an image as its file passes.
pub struct Router {
    /// In the order of the file.
    pieces: Vec<Piece>,
    next: usize,
    /// Pieces that began in an earlier chunk and go on.
    active: Vec<Piece>,
    /// File bytes from `carry_at` to the end of the last chunk: what the active compressed pieces began with. One copy
    /// for all of them, so that a hostile image cannot multiply it; at most two clusters.
    carry: Vec<u8>,
    carry_at: u64,
}

impl Router {
    pub fn new(pieces: Vec<Piece>) -> Router {
        Router { pieces, next: 0, active: Vec::new(), carry: Vec::new(), carry_at: 0 }
    }

    /// Takes more pieces, which begin no earlier than what has been routed. What has passed is forgotten.
    pub fn feed(&mut self, more: Vec<Piece>) {
        self.pieces.drain(..self.next);
        self.next = 0;
        if self.pieces.is_empty() {
            self.pieces = more;
        } else {
            self.pieces.extend(more);
            self.pieces.sort_unstable_by_key(|p| (p.host, p.guest));
        }
    }

    /// The piece that begins at this place of the disk, if it has not begun to pass.
    pub fn piece_at(&self, guest: u64) -> Option<Piece> {
        self.pieces.get(self.next..)?.iter().find(|piece| piece.guest == guest).copied()
    }

    /// Pieces that have not begun yet.
    pub fn left(&self) -> usize {
        self.pieces.len() - self.next
    }

    /// Turns a chunk into batches. Chunks come in file order without gaps.
    pub fn route(&mut self, chunk: &Arc<Chunk>, emit: &mut dyn FnMut(Batch)) {
        let mut open = Open { chunk, ops: Vec::new(), bytes: 0, guest: 0, scattered: false, emit };
        let started = std::mem::take(&mut self.active);
        let mut remaining = Vec::new();
        let fresh = self.pieces.get(self.next..).unwrap_or_default();
        let count = fresh.partition_point(|p| p.host < chunk.end());
        self.next += count;
        for piece in started.iter().chain(fresh.get(..count).unwrap_or_default()) {
            if piece.stored == 0 {
                let file = piece.file();
                let part = chunk.part(file.clone());
                if !part.is_empty() {
                    let from = chunk.offset + part.start as u64;
                    let guest = piece.guest + (from - file.start);
                    open.add(guest, part.len() as u64, Op::Plain { guest, bytes: part });
                }
            } else if piece.file().end <= chunk.end() {
                let bytes = self.packed(piece, chunk);
                let (guest, length, host) = (piece.guest, piece.length, piece.host);
                open.add(guest, u64::from(length), Op::Packed { bytes, guest, length, host });
            }
            if piece.file().end > chunk.end() {
                remaining.push(*piece);
            }
        }
        open.flush();
        self.active = remaining;
        self.keep_carry(chunk);
    }

    /// Whether every piece has been delivered whole.
    pub fn is_done(&self) -> bool {
        self.active.is_empty() && self.next == self.pieces.len()
    }

    fn packed(&self, piece: &Piece, chunk: &Chunk) -> Bytes {
        let file = piece.file();
        let here = chunk.part(file.clone());
        if file.start >= chunk.offset {
            return Bytes::InChunk(here);
        }
        let before = (file.start.saturating_sub(self.carry_at)) as usize;
        let mut bytes = self.carry.get(before..).unwrap_or_default().to_vec();
        bytes.extend_from_slice(chunk.bytes().get(here).unwrap_or_default());
        Bytes::Copied(bytes)
    }

    fn keep_carry(&mut self, chunk: &Chunk) {
        let packed = self.active.iter().filter(|p| p.stored != 0);
        let Some(from) = packed.map(|p| p.host).min() else {
            self.carry.clear();
            return;
        };
        if from < chunk.offset {
            let drop = (from - self.carry_at) as usize;
            self.carry.drain(..drop.min(self.carry.len()));
        } else {
            self.carry.clear();
        }
        self.carry_at = from;
        self.carry.extend_from_slice(chunk.bytes().get(chunk.part(from..chunk.end())).unwrap_or_default());
    }
}

/// A batch being filled.
struct Open<'a> {
    chunk: &'a Arc<Chunk>,
    ops: Vec<Op>,
    bytes: u64,
    /// Where the last operation ends on the disk, and whether one did not follow its predecessor.
    guest: u64,
    scattered: bool,
    emit: &'a mut dyn FnMut(Batch),
}

impl Open<'_> {
    fn add(&mut self, guest: u64, bytes: u64, op: Op) {
        self.scattered |= !self.ops.is_empty() && guest != self.guest;
        self.ops.push(op);
        self.bytes += bytes;
        self.guest = guest + bytes;
        let most = if self.scattered { SCATTERED } else { BATCH };
        if self.bytes >= most || self.ops.len() >= OPS {
            self.flush();
        }
    }
    fn flush(&mut self) {
        if !self.ops.is_empty() {
            (self.bytes, self.scattered) = (0, false);
            (self.emit)(Batch { chunk: self.chunk.clone(), ops: std::mem::take(&mut self.ops) });
        }
    }
}
