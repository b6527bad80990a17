//! The threads: one reads, one hashes, several decode and write, one zeroes.
//!
//! The reader is the caller's thread. Every queue is bounded and every consumer can finish without taking another
//! buffer from the pool, so nothing can lock up; the pool alone makes the reader wait.

use super::buffers::{CHUNK, Chunk, Pool};
use super::plan::{Content, Plan, Proof};
use super::queue::{Queue, Stop};
use super::report::Limit;
use super::route::{Batch, Bytes, Op, Router};
use super::target::Target;
use super::{CancelFlag, ImageError, ImageRequest, ProgressCell, Source};
use crate::image::buffers::{ALIGN, AlignedBuf};
use ferric_common::formats::qcow2::Compression;
use ferric_common::ids::{Digest, DigestAlgorithm};
use ferric_common::units::ByteCount;
use sha2::{Digest as _, Sha256, Sha512};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Buffers of the stream: 8 × 1 MiB.
pub const CHUNKS: usize = 8;
/// Most workers: their output buffers are part of the memory bound.
const WORKERS: usize = 8;
/// Memory for the workers' output buffers, one cluster or 1 MiB each: with clusters of 2 MiB there are four workers.
const OUTPUT: usize = 8 << 20;
/// A run of zeros in a raw image from this size on is zeroed, not written.
const ZERO_RUN: usize = 64 << 10;

/// What the body of a write came to.
pub struct Body {
    pub received: u64,
    pub virtual_size: u64,
    pub resumes: u32,
    pub took: Duration,
    pub limit: Limit,
}

/// Time spent by kind of work, in nanoseconds.
#[derive(Default)]
struct Spent {
    network: AtomicU64,
    hash: AtomicU64,
    decode: AtomicU64,
    write: AtomicU64,
}

fn spent<T>(counter: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    counter.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}

struct Shared<'a> {
    stop: Stop,
    hashing: Queue<Arc<Chunk>>,
    work: Queue<Batch>,
    zeros: Queue<(u64, u64)>,
    target: &'a Target,
    spent: Spent,
}

/// Receives, hashes, decodes and writes the body. When it returns `Ok`, length and digest are right; nothing is flushed
/// yet, head and tail are still held back.
///
/// # Errors
/// The first error of any thread.
pub fn run(
    image: &ImageRequest,
    plan: Plan,
    source: Source,
    target: &Target,
    progress: &ProgressCell,
    cancel: &CancelFlag,
) -> Result<Body, ImageError> {
    let cluster = match &plan.content {
        Content::Raw => 0,
        Content::Qcow2 { cluster, .. } => *cluster as usize,
    };
    let output = cluster.max(Decoder::SMALLEST);
    let workers =
        std::thread::available_parallelism().map_or(2, usize::from).clamp(2, WORKERS).min(OUTPUT / output);
    let shared = Shared {
        stop: Stop::default(),
        hashing: Queue::new(CHUNKS),
        // A waiting batch may hold a copy of one compressed cluster.
        work: Queue::new(if cluster < CHUNK { workers * 2 } else { 2 }),
        zeros: Queue::new(1024),
        target,
        spent: Spent::default(),
    };
    let started = Instant::now();
    let (compression, gaps) = match &plan.content {
        Content::Raw => (Compression::Zlib, [].as_slice()),
        Content::Qcow2 { compression, gaps, .. } => (*compression, gaps.as_slice()),
    };
    let shared_ref = &shared;
    let outcome = std::thread::scope(|scope| {
        let hash = scope.spawn(move || hash_stream(image.digest.algorithm, shared_ref));
        for _ in 0..workers {
            scope.spawn(move || guarded(shared_ref, || work(shared_ref, cluster, compression)));
        }
        scope.spawn(move || guarded(shared_ref, || zero(shared_ref, gaps)));
        let read = read_stream(&plan, source, shared_ref, progress, cancel).unwrap_or_else(|error| {
            shared_ref.stop.fail(error);
            (0, 0)
        });
        shared_ref.hashing.close();
        shared_ref.work.close();
        shared_ref.zeros.close();
        let digest = hash.join().unwrap_or_else(|_| Err(internal("the hash thread panicked")));
        (digest, read)
    });
    if let Some(error) = shared.stop.take_error() {
        return Err(error);
    }
    let (digest, (received, resumes)) = outcome;
    let actual = digest?;
    if actual != image.digest {
        let expected = image.digest.clone();
        return Err(ImageError::Digest { expected, actual, received: ByteCount(received) });
    }
    let took = started.elapsed();
    Ok(Body {
        received,
        virtual_size: plan.virtual_size,
        resumes,
        took,
        limit: limit(&shared.spent, workers),
    })
}

fn internal(what: &str) -> ImageError {
    ImageError::Internal { what: what.to_string() }
}

/// Runs a thread's work and turns its error into the end of all.
fn guarded(shared: &Shared<'_>, work: impl FnOnce() -> Result<(), ImageError>) {
    if let Err(error) = work() {
        shared.stop.fail(error);
    }
}

fn limit(spent: &Spent, workers: usize) -> Limit {
    let load = |a: &AtomicU64, by: usize| a.load(Ordering::Relaxed) / by.max(1) as u64;
    let kinds = [
        (load(&spent.network, 1), Limit::Network),
        (load(&spent.hash, 1), Limit::Hash),
        (load(&spent.decode, workers), Limit::Decompression),
        (load(&spent.write, workers), Limit::Disk),
    ];
    kinds.into_iter().max_by_key(|(time, _)| *time).map_or(Limit::Network, |(_, limit)| limit)
}

fn hash_stream(algorithm: DigestAlgorithm, shared: &Shared<'_>) -> Result<Digest, ImageError> {
    enum Hasher {
        Sha256(Sha256),
        Sha512(Sha512),
    }
    let mut hasher = match algorithm {
        DigestAlgorithm::Sha256 => Hasher::Sha256(Sha256::new()),
        DigestAlgorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        DigestAlgorithm::Md5 => return Err(ImageError::WeakDigest),
    };
    while let Some(chunk) = shared.hashing.pop(&shared.stop) {
        spent(&shared.spent.hash, || match &mut hasher {
            Hasher::Sha256(h) => h.update(chunk.bytes()),
            Hasher::Sha512(h) => h.update(chunk.bytes()),
        });
    }
    let bytes = match hasher {
        Hasher::Sha256(h) => h.finalize().to_vec(),
        Hasher::Sha512(h) => h.finalize().to_vec(),
    };
    Ok(Digest { algorithm, bytes })
}

/// Reads the file from byte 0 to its end and deals it out. Returns bytes received and resumes.
fn read_stream(
    plan: &Plan,
    mut source: Source,
    shared: &Shared<'_>,
    progress: &ProgressCell,
    cancel: &CancelFlag,
) -> Result<(u64, u32), ImageError> {
    let pool = Pool::new(CHUNKS, CHUNK);
    let mut dealer = match &plan.content {
        Content::Raw => Dealer::Raw { run: 0..0 },
        Content::Qcow2 { pieces, proofs, .. } => {
            Dealer::Qcow2 { router: Router::new(pieces), proofs: Proofs::new(proofs) }
        }
    };
    let mut at = 0u64;
    loop {
        if cancel.is_set() {
            return Err(ImageError::Cancelled);
        }
        let Some(mut buffer) = pool.take(&shared.stop) else { return Ok((at, source.resumes())) };
        let count = spent(&shared.spent.network, || fill(&mut source, buffer.bytes_mut()))?;
        if count == 0 {
            break;
        }
        let chunk = pool.chunk(buffer, at, count);
        at += count as u64;
        shared.hashing.push(chunk.clone(), &shared.stop);
        dealer.deal(&chunk, shared, source.name())?;
        progress.received(at);
        progress.written(shared.target.counts().0);
    }
    if at != plan.length {
        let (url, expected) = (source.name().to_string(), plan.length.into());
        return Err(ImageError::Truncated { url, got: at.into(), expected });
    }
    dealer.finish(shared)?;
    Ok((at, source.resumes()))
}

fn fill(source: &mut Source, buffer: &mut [u8]) -> Result<usize, ImageError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Turns received chunks into work.
enum Dealer<'a> {
    Raw { run: std::ops::Range<u64> },
    Qcow2 { router: Router<'a>, proofs: Proofs<'a> },
}

impl Dealer<'_> {
    fn deal(&mut self, chunk: &Arc<Chunk>, shared: &Shared<'_>, name: &str) -> Result<(), ImageError> {
        match self {
            Dealer::Raw { run } => deal_raw(run, chunk, shared),
            Dealer::Qcow2 { router, proofs } => {
                proofs.check(chunk, name)?;
                router.route(chunk, &mut |batch| shared.work.push(batch, &shared.stop));
            }
        }
        Ok(())
    }
    fn finish(&mut self, shared: &Shared<'_>) -> Result<(), ImageError> {
        match self {
            Dealer::Raw { run } if !run.is_empty() => {
                shared.zeros.push((run.start, run.end - run.start), &shared.stop);
                Ok(())
            }
            Dealer::Qcow2 { router, .. } if !router.is_done() => {
                Err(internal("the image ended before all its pieces had passed"))
            }
            _ => Ok(()),
        }
    }
}

/// Raw: blocks of zeros are gathered into runs across chunks, all else is written where it is.
fn deal_raw(run: &mut std::ops::Range<u64>, chunk: &Arc<Chunk>, shared: &Shared<'_>) {
    let mut ops = Vec::new();
    let mut data: Option<std::ops::Range<usize>> = None;
    let mut at = 0;
    for block in chunk.bytes().chunks(ZERO_RUN) {
        let place = chunk.offset + at as u64;
        if is_zero(block) {
            if run.is_empty() {
                *run = place..place;
            }
            run.end = place + block.len() as u64;
            if let Some(bytes) = data.take() {
                ops.push(Op::Plain { guest: chunk.offset + bytes.start as u64, bytes });
            }
        } else {
            if !run.is_empty() {
                shared.zeros.push((run.start, run.end - run.start), &shared.stop);
                *run = 0..0;
            }
            data.get_or_insert(at..at).end = at + block.len();
        }
        at += block.len();
    }
    if let Some(bytes) = data {
        ops.push(Op::Plain { guest: chunk.offset + bytes.start as u64, bytes });
    }
    if !ops.is_empty() {
        shared.work.push(Batch { chunk: chunk.clone(), ops }, &shared.stop);
    }
}

fn is_zero(block: &[u8]) -> bool {
    // Compared with itself shifted by one byte: memcmp stops at the first difference.
    match block.split_first() {
        Some((0, rest)) => block.get(..rest.len()) == Some(rest),
        _ => false,
    }
}

/// Compares the table bytes that pass in the stream with those the plan was made from.
struct Proofs<'a> {
    waiting: &'a [Proof],
    active: Vec<(&'a Proof, Sha256)>,
}

impl<'a> Proofs<'a> {
    fn new(proofs: &'a [Proof]) -> Proofs<'a> {
        Proofs { waiting: proofs, active: Vec::new() }
    }
    fn check(&mut self, chunk: &Chunk, name: &str) -> Result<(), ImageError> {
        let count = self.waiting.partition_point(|p| p.range.start < chunk.end());
        let (begun, later) = self.waiting.split_at_checked(count).unwrap_or((&[], &[]));
        self.waiting = later;
        self.active.extend(begun.iter().map(|p| (p, Sha256::new())));
        let mut remaining = Vec::new();
        for (proof, mut hasher) in self.active.drain(..) {
            hasher.update(chunk.bytes().get(chunk.part(proof.range.clone())).unwrap_or_default());
            if proof.range.end > chunk.end() {
                remaining.push((proof, hasher));
            } else if hasher.finalize().as_slice() != proof.digest {
                let what = format!("the table at byte {} is not the one read before", proof.range.start);
                return Err(ImageError::Changed { url: name.to_string(), what });
            }
        }
        self.active = remaining;
        Ok(())
    }
}

fn zero(shared: &Shared<'_>, gaps: &[(u64, u64)]) -> Result<(), ImageError> {
    for (at, length) in gaps {
        if shared.stop.is_set() {
            return Ok(());
        }
        spent(&shared.spent.write, || shared.target.zero(*at, *length, &shared.stop))?;
    }
    while let Some((at, length)) = shared.zeros.pop(&shared.stop) {
        spent(&shared.spent.write, || shared.target.zero(at, length, &shared.stop))?;
    }
    Ok(())
}

fn work(shared: &Shared<'_>, cluster: usize, compression: Compression) -> Result<(), ImageError> {
    let mut decoder = Decoder::new(compression, cluster);
    while let Some(batch) = shared.work.pop(&shared.stop) {
        let chunk = batch.chunk.bytes();
        for op in &batch.ops {
            match op {
                Op::Plain { bytes, guest } => {
                    let bytes = chunk.get(bytes.clone()).unwrap_or_default();
                    spent(&shared.spent.write, || shared.target.put(*guest, bytes))?;
                }
                Op::Packed { bytes, guest, length, host } => {
                    let packed = match bytes {
                        Bytes::InChunk(range) => chunk.get(range.clone()).unwrap_or_default(),
                        Bytes::Copied(bytes) => bytes,
                    };
                    if !decoder.has_room_at(*guest) {
                        spent(&shared.spent.write, || decoder.flush(shared.target))?;
                    }
                    spent(&shared.spent.decode, || decoder.decode(packed, *guest, *length as usize, *host))?;
                }
            }
        }
        spent(&shared.spent.write, || decoder.flush(shared.target))?;
    }
    Ok(())
}

/// Decodes clusters into an aligned buffer and writes neighbours in one piece.
struct Decoder {
    compression: Compression,
    cluster: usize,
    zlib: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    out: AlignedBuf,
    /// Where the output begins in `out`: as far from an aligned address as `guest` is from an aligned place on the disk.
    shift: usize,
    filled: usize,
    guest: u64,
}

impl Decoder {
    /// Small clusters are gathered into writes of this size.
    const SMALLEST: usize = 1 << 20;

    fn new(compression: Compression, cluster: usize) -> Decoder {
        Decoder {
            compression,
            cluster,
            zlib: libdeflater::Decompressor::new(),
            zstd: None,
            // Raw images have no clusters and need no buffer.
            out: AlignedBuf::new(if cluster == 0 { 0 } else { cluster.max(Self::SMALLEST) + ALIGN }),
            shift: 0,
            filled: 0,
            guest: 0,
        }
    }
    fn has_room_at(&self, guest: u64) -> bool {
        self.filled == 0
            || self.guest + self.filled as u64 == guest
                && self.filled.is_multiple_of(self.cluster)
                && self.shift + self.filled + self.cluster <= self.out.bytes().len()
    }
    fn decode(&mut self, packed: &[u8], guest: u64, length: usize, host: u64) -> Result<(), ImageError> {
        let fault = |what: String| ImageError::Decode { host, what };
        if self.filled == 0 {
            self.guest = guest;
            self.shift = (guest % ALIGN as u64) as usize;
        }
        let (from, cluster) = (self.shift + self.filled, self.cluster);
        let room =
            self.out.bytes_mut().get_mut(from..from + cluster).ok_or_else(|| fault("no room".into()))?;
        let count = match self.compression {
            Compression::Zlib => self
                .zlib
                .deflate_decompress(packed, room)
                .map_err(|e| fault(format!("not valid deflate data ({e})")))?,
            Compression::Zstd => {
                // One frame; what follows it in the sector is the next cluster's or garbage.
                let frame = zstd::zstd_safe::find_frame_compressed_size(packed).map_err(|code| {
                    fault(format!("not a zstd frame ({})", zstd::zstd_safe::get_error_name(code)))
                })?;
                let frame = packed.get(..frame).unwrap_or_default();
                let decoder = match &mut self.zstd {
                    Some(decoder) => decoder,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| fault(e.to_string()))?),
                };
                decoder
                    .decompress_to_buffer(frame, room)
                    .map_err(|e| fault(format!("not valid zstd data ({e})")))?
            }
        };
        if count != cluster {
            return Err(fault(format!("{count} bytes come out, a cluster has {cluster}")));
        }
        self.filled += length;
        Ok(())
    }
    fn flush(&mut self, target: &Target) -> Result<(), ImageError> {
        let filled = std::mem::take(&mut self.filled);
        match self.out.bytes().get(self.shift..self.shift + filled) {
            Some(bytes) if filled > 0 => target.put(self.guest, bytes),
            _ => Ok(()),
        }
    }
}
