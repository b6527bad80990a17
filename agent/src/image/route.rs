//! Cuts the stream into work: which bytes of a received chunk go where on the disk. Pure.

use super::buffers::{CHUNK, Chunk};
use super::map::{GROW, Piece};
use std::ops::Range;
use std::sync::Arc;

/// Output bytes after which a batch is handed to a worker.
const BATCH: u64 = 1 << 20;
/// The same for places that do not follow one another: each is a write of its own, and many disks are fast only at many
/// of them at once.
const SCATTERED: u64 = 256 << 10;
/// Operations after which it is handed over however small they are.
const OPS: usize = 1024;

pub enum Op {
    Plain {
        bytes: Range<usize>,
        guest: u64,
    },
    /// The compressed form is `stored` bytes of the file at `host`: [`Batch::stored`] has them.
    Packed {
        guest: u64,
        length: u32,
        host: u64,
        stored: u32,
    },
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
    /// The chunks before it in which compressed clusters of this batch began; none, if none did.
    pub earlier: Vec<Arc<Chunk>>,
    pub ops: Vec<Op>,
}

/// The bytes of the last compressed cluster that crossed a chunk's border, put together. Each decoder has one, so that
/// clusters which share their bytes, as many as there are, cannot multiply them.
#[derive(Default)]
pub struct Seam {
    file: Range<u64>,
    bytes: Vec<u8>,
}

impl Batch {
    /// These bytes of the file, which end in the batch's chunk.
    pub fn stored<'a>(&'a self, file: Range<u64>, seam: &'a mut Seam) -> &'a [u8] {
        if file.start >= self.chunk.offset {
            return self.chunk.bytes().get(self.chunk.part(file)).unwrap_or_default();
        }
        if seam.file != file {
            seam.bytes.clear();
            seam.bytes.reserve_exact(file.end.saturating_sub(file.start) as usize);
            for chunk in self.earlier.iter().chain([&self.chunk]) {
                let part = chunk.part(file.clone());
                seam.bytes.extend_from_slice(chunk.bytes().get(part).unwrap_or_default());
            }
            seam.file = file;
        }
        &seam.bytes
    }
}

/// What is to be done with a part of the disk.
pub enum Found {
    Batch(Batch),
    /// A range that reads as zeros: where, and how long.
    Zeros(u64, u64),
}

/// Walks the pieces of an image as its file passes.
pub struct Router {
    /// In the order of the file. Those before `first` have passed whole, those from `next` on have not begun.
    pieces: Vec<Piece>,
    first: usize,
    next: usize,
    /// The last chunks, back to where compressed pieces began that go on.
    carry: Vec<Arc<Chunk>>,
}

impl Router {
    pub fn new(pieces: Vec<Piece>) -> Router {
        Router { pieces, first: 0, next: 0, carry: Vec::new() }
    }

    /// Chunks that are kept at most for compressed pieces, each of which may be as long as two clusters of `cluster` bytes.
    pub fn carries(cluster: u64) -> usize {
        (cluster as usize).saturating_mul(2).div_ceil(CHUNK)
    }

    /// Takes more pieces, which begin no earlier than what has been routed. What has passed is forgotten.
    pub fn feed(&mut self, more: Vec<Piece>) {
        self.pieces.drain(..self.first);
        self.next -= self.first;
        self.first = 0;
        if self.pieces.is_empty() {
            self.pieces = more;
            return;
        }
        if self.pieces.capacity() - self.pieces.len() < more.len() {
            self.pieces.reserve_exact(more.len().max(GROW));
        }
        self.pieces.extend(more);
        // Those that have begun stay in front: they lie before all that is new.
        self.pieces.sort_unstable_by_key(|p| (p.host, p.guest));
    }

    /// The piece that begins at this place of the disk, if it has not passed.
    pub fn piece_at(&self, guest: u64) -> Option<Piece> {
        self.pieces.get(self.first..)?.iter().find(|piece| piece.guest == guest).copied()
    }

    /// Pieces that have not passed yet, and some that have.
    pub fn left(&self) -> usize {
        self.pieces.len() - self.first
    }

    /// Whether every piece has been delivered whole.
    pub fn is_done(&self) -> bool {
        self.left() == 0
    }

    /// Turns a chunk into batches. Chunks come in file order without gaps.
    pub fn route(&mut self, chunk: &Arc<Chunk>, emit: &mut dyn FnMut(Batch)) {
        let (ops, earlier) = (Vec::new(), Vec::new());
        let mut open = Open { chunk, earlier, ops, bytes: 0, guest: 0, scattered: false, emit };
        let fresh = self.pieces.get(self.next..).unwrap_or_default();
        self.next += fresh.partition_point(|p| p.host < chunk.end());
        let begun = self.pieces.get(self.first..self.next).unwrap_or_default();
        for piece in begun.iter().filter(|piece| piece.file().end > chunk.offset) {
            let file = piece.file();
            if piece.stored == 0 {
                let part = chunk.part(file.clone());
                let from = chunk.offset + part.start as u64;
                let guest = piece.guest + (from - file.start);
                open.add(guest, part.len() as u64, Op::Plain { guest, bytes: part });
            } else if file.end <= chunk.end() {
                if file.start < chunk.offset && open.earlier.is_empty() {
                    open.earlier.clone_from(&self.carry);
                }
                let Piece { host, guest, length, stored } = *piece;
                open.add(guest, u64::from(length), Op::Packed { guest, length, host, stored });
            }
        }
        open.flush();
        self.forget(chunk);
    }

    /// Lets go of what has passed with this chunk.
    fn forget(&mut self, chunk: &Arc<Chunk>) {
        let begun = self.pieces.get(self.first..self.next).unwrap_or_default();
        let goes_on = |piece: &Piece| piece.file().end > chunk.end();
        let packed = begun.iter().find(|piece| piece.stored != 0 && goes_on(piece));
        match packed.map(|piece| piece.host) {
            Some(from) => {
                self.carry.push(chunk.clone());
                self.carry.retain(|chunk| chunk.end() > from);
            }
            None => self.carry.clear(),
        }
        self.first += begun.iter().position(goes_on).unwrap_or(begun.len());
    }
}

/// A batch being filled.
struct Open<'a> {
    chunk: &'a Arc<Chunk>,
    earlier: Vec<Arc<Chunk>>,
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
            let (earlier, ops) = (std::mem::take(&mut self.earlier), std::mem::take(&mut self.ops));
            (self.emit)(Batch { chunk: self.chunk.clone(), earlier, ops });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::Pool;
    use super::super::queue::Stop;
    use super::super::tests::Rng;
    use super::*;

    /// Routes a file of some chunks and a bit, and gives what each batch means: place, bytes of the file.
    fn routed(file: &[u8], router: &mut Router, keep: usize) -> Vec<(u64, Vec<u8>)> {
        let pool = Pool::new(keep + 1, CHUNK);
        let (mut seam, mut said) = (Seam::default(), Vec::new());
        for (nth, part) in (0..).zip(file.chunks(CHUNK)) {
            // Nothing but what is carried may hold buffers: else none would be left.
            let mut buffer = pool.take(&Stop::default()).unwrap();
            buffer.bytes_mut()[..part.len()].copy_from_slice(part);
            let chunk = pool.chunk(buffer, nth * CHUNK as u64, part.len());
            router.route(&chunk, &mut |batch| {
                assert!(batch.earlier.len() <= keep);
                for op in &batch.ops {
                    said.push(match op {
                        Op::Plain { bytes, guest } => (*guest, batch.chunk.bytes()[bytes.clone()].to_vec()),
                        Op::Packed { guest, host, stored, .. } => {
                            let file = *host..*host + u64::from(*stored);
                            (*guest, batch.stored(file, &mut seam).to_vec())
                        }
                    });
                }
            });
        }
        said
    }

    #[test]
    fn every_piece_comes_whole_however_many_chunks_it_crosses() {
        let mut rng = Rng::new(81);
        let file = rng.bytes(7 * CHUNK + 777);
        let keep = Router::carries(2 << 20);
        assert_eq!(keep, 4);
        let mut pieces = Vec::new();
        for nth in 0..400u64 {
            let host = rng.below(file.len() as u64 - 1);
            let stored = (1 + rng.below(4 << 20)).min(file.len() as u64 - host) as u32;
            // Half of them name the bytes of the one before.
            let before = pieces.last().copied().filter(|_| nth % 2 == 1);
            let (host, stored) = before.map_or((host, stored), |p: Piece| (p.host, p.stored));
            pieces.push(Piece { host, guest: nth << 21, length: 1 << 21, stored });
        }
        pieces.push(Piece { host: 1000, guest: 1 << 40, length: 3 << 20, stored: 0 });
        pieces.sort_unstable_by_key(|p| (p.host, p.guest));
        let (early, late): (Vec<_>, Vec<_>) = pieces.iter().copied().partition(|p| p.guest % (8 << 20) != 0);
        let mut router = Router::new(early);
        router.feed(late);
        let mut said = routed(&file, &mut router, keep);
        assert!(router.is_done() && router.carry.is_empty());
        let plain: Vec<u8> = {
            said.sort_unstable_by_key(|(guest, _)| *guest);
            let at = said.partition_point(|(guest, _)| *guest < 1 << 40);
            said.split_off(at).into_iter().flat_map(|(_, bytes)| bytes).collect()
        };
        assert!(plain == file[1000..1000 + (3 << 20)]);
        assert_eq!(said.len(), 400);
        pieces.sort_unstable_by_key(|p| p.guest);
        for (piece, (guest, bytes)) in pieces.iter().zip(&said) {
            let range = piece.file().start as usize..piece.file().end as usize;
            assert!(piece.guest == *guest && file[range] == bytes[..], "{piece:?}");
        }
    }

    #[test]
    fn pieces_that_share_a_cluster_share_its_bytes() {
        let file = Rng::new(82).bytes(2 * CHUNK);
        let host = CHUNK as u64 - 1000;
        let piece = |nth: u64| Piece { host, guest: nth << 16, length: 1 << 16, stored: 5000 };
        let mut router = Router::new((0..500).map(piece).collect());
        let pool = Pool::new(2, CHUNK);
        let mut batches = Vec::new();
        for nth in 0..2 {
            let mut buffer = pool.take(&Stop::default()).unwrap();
            buffer.bytes_mut().copy_from_slice(&file[nth * CHUNK..][..CHUNK]);
            router.route(&pool.chunk(buffer, (nth * CHUNK) as u64, CHUNK), &mut |batch| batches.push(batch));
        }
        assert_eq!(batches.iter().map(|batch| batch.ops.len()).sum::<usize>(), 500);
        let mut seam = Seam::default();
        for batch in &batches {
            assert!(Arc::ptr_eq(&batch.earlier[0], &batches[0].earlier[0]) && batch.earlier.len() == 1);
            for _ in &batch.ops {
                let bytes = batch.stored(host..host + 5000, &mut seam);
                assert!(bytes == &file[host as usize..][..5000]);
            }
        }
        assert_eq!(seam.bytes.capacity(), 5000);
    }
}
