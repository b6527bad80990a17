//! The threads: one reads, one hashes, several decode and write, one zeroes, and one unpacks a compressed raw image.
//!
//! The reader is the caller's thread. Every queue is bounded and every consumer can finish without taking another
//! buffer from the pool it consumes from, so nothing can lock up; the pools alone make the reader wait. Whatever ends one
//! thread early (an error, a panic, a cancellation) ends all: [`Stop`] is told at once, and no wait outlives it by more than
//! the write that the disk is at.

use super::ahead::{Ahead, Next};
use super::buffers::{CHUNK, Chunk, Pool};
use super::decode::{self, Decoder};
use super::guide::Guide;
use super::hash::Hasher;
use super::plan::{Content, Plan};
use super::queue::{Popped, Queue, Stop};
use super::raw::Splitter;
use super::report::{Load, Spent, spent};
use super::route::{Batch, Found, Op, Seam};
use super::target::Target;
use super::{ImageError, ImageRequest, Packing, ProgressCell, Source, unpack};
use ferric_common::ids::{Digest, DigestAlgorithm};
use ferric_common::units::{ByteCount, MIB};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Buffers of the stream, 1 MiB each, beside those that are held back ([`Guide::held`]); as many again for what is unpacked.
pub const CHUNKS: usize = 10;
/// Threads that write: so many writes are in flight on a disk that needs them to be fast.
const WRITERS: usize = 12;
/// Memory for decoded clusters, in bytes: one buffer of a cluster (or 1 MiB) for each of two to eight decoders.
pub const OUTPUT: usize = 8 << 20;
const DECODERS: usize = 8;
/// Most bytes that are zeroed ahead by one call; data for the place waits that long.
const AHEAD: u64 = 8 << 20;
/// How long nothing is zeroed ahead before it is looked at again whether it is time.
const MOMENT: Duration = Duration::from_millis(2);

/// What the body of a write came to.
pub struct Body {
    pub received: u64,
    pub virtual_size: u64,
    pub resumes: u32,
    pub took: Duration,
    pub load: Load,
}

struct Shared<'a> {
    stop: Stop,
    hashing: Queue<Arc<Chunk>>,
    work: Queue<Batch>,
    zeros: Queue<(u64, u64)>,
    packed: Queue<Arc<Chunk>>,
    /// Idle decoders; their number bounds the memory for decoded clusters, and for what they are made of.
    decoders: Queue<(Decoder, Seam)>,
    target: &'a Target,
    progress: &'a ProgressCell,
    ahead: Ahead,
    stream: Stream,
    spent: Spent,
}

/// How far the stream of the file is.
struct Stream {
    started: Instant,
    length: Option<u64>,
    received: AtomicU64,
}

impl Stream {
    /// How long it will last, if it goes on as it went; `None` before its first bytes, and where its length is not known.
    fn left(&self) -> Option<Duration> {
        let received = self.received.load(Ordering::Relaxed);
        let part = self.length?.saturating_sub(received) as f64 / received as f64;
        Duration::try_from_secs_f64(self.started.elapsed().as_secs_f64() * part).ok()
    }
}

impl<'a> Shared<'a> {
    fn new(
        plan: &Plan,
        idle: Vec<Decoder>,
        target: &'a Target,
        progress: &'a ProgressCell,
        stop: Stop,
    ) -> Shared<'a> {
        let shared = Shared {
            stop,
            hashing: Queue::new(CHUNKS * 2),
            work: Queue::new(WRITERS * 2),
            zeros: Queue::new(super::map::GAPS / size_of::<(u64, u64)>()),
            packed: Queue::new(CHUNKS),
            decoders: Queue::new(idle.len()),
            target,
            progress,
            ahead: ahead(&plan.content, target),
            stream: Stream { started: Instant::now(), length: plan.length, received: AtomicU64::new(0) },
            spent: Spent::default(),
        };
        idle.into_iter().for_each(|decoder| shared.decoders.push((decoder, Seam::default()), &shared.stop));
        shared
    }

    fn give(&self, found: Found) {
        match found {
            Found::Batch(batch) => {
                self.ahead.data(batch.ops.iter().map(Op::place), &self.stop);
                self.work.push(batch, &self.stop);
            }
            Found::Zeros(at, length) => {
                self.ahead.gap(&(at..at + length));
                self.zeros.push((at, length), &self.stop);
            }
        }
    }
}

/// What is zeroed before the image says so: all between the held ends, if its tables come with its data.
fn ahead(content: &Content, target: &Target) -> Ahead {
    match content {
        Content::Qcow2(guide) if guide.is_following() => {
            let Range { start, end } = target.body().0;
            // Aligned for every disk.
            Ahead::over(start..end - end % MIB)
        }
        _ => Ahead::nothing(),
    }
}

fn decoders(content: &Content) -> Vec<Decoder> {
    let Content::Qcow2(guide) = content else { return Vec::new() };
    let output = guide.cluster().max(decode::SMALLEST);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // Twice the cores: while one waits for the disk another decodes.
    let count = (cores * 2).clamp(2, DECODERS).min(OUTPUT / output);
    (0..count).map(|_| Decoder::new(guide.compression(), guide.cluster())).collect()
}

/// Receives, hashes, decodes and writes the body. When it returns `Ok`, length and digest are right; nothing is flushed
/// yet, head and tail are still held back.
///
/// # Errors
/// The first error of any thread.
pub fn run(
    image: &ImageRequest,
    mut plan: Plan,
    mut source: Source,
    target: &Target,
    progress: &ProgressCell,
    stop: Stop,
) -> Result<Body, ImageError> {
    let decoders = decoders(&plan.content);
    let cores = decoders.len().min(std::thread::available_parallelism().map_or(2, usize::from)).max(1);
    let shared = Shared::new(&plan, decoders, target, progress, stop);
    let packing = match &plan.content {
        Content::Packed(packing) => Some(*packing),
        _ => None,
    };
    let read = || read_stream(&mut plan, &mut source, &shared);
    let Ended { digest: actual, received, unpacked } =
        on_threads(image.digest.algorithm, packing, &shared, read)?;
    if actual != image.digest {
        let expected = image.digest.clone();
        return Err(ImageError::Digest { expected, actual, received: ByteCount(received) });
    }
    let took = shared.stream.started.elapsed();
    Ok(Body {
        received,
        virtual_size: unpacked.unwrap_or(plan.size_after(received)),
        resumes: source.resumes(),
        took,
        load: shared.spent.load(took, cores),
    })
}

/// What the threads leave when all went well.
struct Ended {
    digest: Digest,
    received: u64,
    /// Bytes of what a compressed image held.
    unpacked: Option<u64>,
}

/// Has `read` feed the threads from this one, and ends them in the order in which they feed each other.
fn on_threads(
    algorithm: DigestAlgorithm,
    packing: Option<Packing>,
    shared: &Shared<'_>,
    read: impl FnOnce() -> Result<u64, ImageError>,
) -> Result<Ended, ImageError> {
    let (digest, received, unpacked) = std::thread::scope(|scope| {
        let hash = start(scope, shared, "hash", move || hash_stream(algorithm, shared));
        for _ in 0..WRITERS {
            start(scope, shared, "writing", || work(shared));
        }
        start(scope, shared, "zeroing", || zero(shared));
        let unpack =
            packing.and_then(|p| start(scope, shared, "unpacking", move || unpack_stream(p, shared)));
        let received = guarded(shared, "reading", read);
        shared.hashing.close();
        shared.packed.close();
        let unpacked = unpack.and_then(outcome);
        shared.work.close();
        shared.zeros.close();
        (hash.and_then(outcome), received, unpacked)
    });
    if let Some(error) = shared.stop.take_error() {
        return Err(error);
    }
    let (Some(digest), Some(received)) = (digest, received) else {
        return Err(internal("a thread of the pipeline ended and did not say why"));
    };
    Ok(Ended { digest, received, unpacked })
}

/// Starts a thread whose failure ends all; `None` if there can be none.
fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared<'_>,
    name: &'static str,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, Option<T>>> {
    let builder = std::thread::Builder::new().name(name.to_string());
    match builder.spawn_scoped(scope, move || guarded(shared, name, work)) {
        Ok(thread) => Some(thread),
        Err(e) => {
            shared.stop.fail(internal(&format!("the {name} thread could not be started: {e}")));
            None
        }
    }
}

/// What a thread left, once it has ended.
fn outcome<T>(thread: ScopedJoinHandle<'_, Option<T>>) -> Option<T> {
    thread.join().ok().flatten()
}

fn internal(what: &str) -> ImageError {
    ImageError::Internal { what: what.to_string() }
}

/// Runs a thread's work and turns its error, or its panic, into the end of all.
fn guarded<T>(shared: &Shared<'_>, name: &str, work: impl FnOnce() -> Result<T, ImageError>) -> Option<T> {
    // Nothing of what is shared is used any more but to end: a state that a panic left half changed hurts nobody.
    let result = std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(internal(&format!("the {name} thread panicked"))));
    result.map_err(|error| shared.stop.fail(error)).ok()
}

fn hash_stream(algorithm: DigestAlgorithm, shared: &Shared<'_>) -> Result<Digest, ImageError> {
    let mut hasher = Hasher::new(algorithm);
    while let Some(chunk) = shared.hashing.pop(&shared.stop) {
        spent(&shared.spent.hash, || hasher.update(chunk.bytes()));
    }
    Ok(hasher.finish())
}

/// Reads the file from byte 0 to its end and deals it out. Returns bytes received.
fn read_stream(plan: &mut Plan, source: &mut Source, shared: &Shared<'_>) -> Result<u64, ImageError> {
    let held = match &plan.content {
        Content::Qcow2(guide) => guide.held(),
        _ => 0,
    };
    let pool = Pool::new(CHUNKS + held, CHUNK);
    let (length, most) = (plan.length, plan.most());
    let mut dealer = match &mut plan.content {
        Content::Raw => Dealer::Raw(Splitter::default()),
        Content::Packed(_) => Dealer::Packed,
        Content::Qcow2(guide) => Dealer::Qcow2(guide),
    };
    let mut at = 0u64;
    loop {
        let Some(mut buffer) = pool.take(&shared.stop) else { return Ok(at) };
        let arrived = |count: usize| shared.progress.received(at + count as u64);
        let count = spent(&shared.spent.network, || fill(source, buffer.bytes_mut(), arrived))?;
        if count == 0 {
            break;
        }
        let chunk = pool.chunk(buffer, at, count);
        at += count as u64;
        if at > most {
            let (needed, disk) = (ByteCount(at), &shared.target.disk);
            return Err(ImageError::TooLarge { needed, disk: disk.name().to_string(), size: disk.size() });
        }
        shared.stream.received.store(at, Ordering::Relaxed);
        shared.hashing.push(chunk.clone(), &shared.stop);
        dealer.deal(&chunk, source, shared)?;
    }
    if let Some(length) = length.filter(|length| *length != at) {
        let (url, expected) = (source.name().to_string(), length.into());
        return Err(ImageError::Truncated { url, got: at.into(), expected });
    }
    dealer.finish(source, shared)?;
    Ok(at)
}

/// Fills the buffer, if the file has as much; `arrived` is told how far it is.
fn fill(source: &mut Source, buffer: &mut [u8], arrived: impl Fn(usize)) -> Result<usize, ImageError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => break,
            count => filled += count,
        }
        arrived(filled);
    }
    Ok(filled)
}

/// Turns received chunks into work.
enum Dealer<'a> {
    Raw(Splitter),
    Packed,
    Qcow2(&'a mut Guide),
}

impl Dealer<'_> {
    fn deal(
        &mut self,
        chunk: &Arc<Chunk>,
        source: &mut Source,
        shared: &Shared<'_>,
    ) -> Result<(), ImageError> {
        match self {
            Dealer::Raw(splitter) => splitter.pass(chunk, &mut |found| shared.give(found)),
            Dealer::Packed => shared.packed.push(chunk.clone(), &shared.stop),
            Dealer::Qcow2(guide) => guide.pass(chunk, source, &mut |found| shared.give(found))?,
        }
        Ok(())
    }
    fn finish(&mut self, source: &mut Source, shared: &Shared<'_>) -> Result<(), ImageError> {
        match self {
            Dealer::Raw(splitter) => splitter.finish(&mut |found| shared.give(found)),
            Dealer::Packed => {}
            Dealer::Qcow2(guide) => guide.finish(source, &mut |found| shared.give(found))?,
        }
        Ok(())
    }
}

/// Unpacks a compressed raw image and deals out what it holds. Returns the bytes of the disk that it defines.
fn unpack_stream(packing: Packing, shared: &Shared<'_>) -> Result<u64, ImageError> {
    let size = shared.target.disk.size();
    let pool = Pool::new(CHUNKS, CHUNK);
    let waited = &shared.spent.starved;
    let feed = unpack::Feed::new(&shared.packed, &shared.stop, waited);
    let mut reader = unpack::open(packing, feed).map_err(|e| unpack::fault(packing, 0, &e))?;
    let mut splitter = Splitter::default();
    let mut at = 0u64;
    loop {
        let Some(mut buffer) = pool.take(&shared.stop) else { return Ok(at) };
        let (start, before) = (Instant::now(), waited.load(Ordering::Relaxed));
        let mut count = 0;
        while let Some(room) = buffer.bytes_mut().get_mut(count..).filter(|room| !room.is_empty()) {
            match reader.read(room).map_err(|e| unpack::fault(packing, at + count as u64, &e))? {
                0 => break,
                more => count += more,
            }
        }
        let idle = waited.load(Ordering::Relaxed) - before;
        let busy = (start.elapsed().as_nanos() as u64).saturating_sub(idle);
        shared.spent.decode.fetch_add(busy, Ordering::Relaxed);
        if count == 0 {
            break;
        }
        if at + count as u64 > size.0 {
            let (needed, disk) = (ByteCount(at + count as u64), shared.target.disk.name().to_string());
            return Err(ImageError::TooLarge { needed, disk, size });
        }
        let chunk = pool.chunk(buffer, at, count);
        at += count as u64;
        splitter.pass(&chunk, &mut |found| shared.give(found));
    }
    splitter.finish(&mut |found| shared.give(found));
    if at == 0 { Err(ImageError::Empty) } else { Ok(at) }
}

fn zero(shared: &Shared<'_>) -> Result<(), ImageError> {
    while !shared.stop.is_set() {
        if let Some(gap) = shared.zeros.try_pop() {
            zero_gap(gap, shared)?;
            continue;
        }
        let stride = &shared.target.stride;
        let needed = |bytes| stride.time_for(bytes);
        match shared.ahead.begin(AHEAD.min(stride.bytes()), shared.stream.left(), needed) {
            Next::Zero(range) => {
                let done = shared.spent.disk.with(|| shared.target.zero_ahead(range));
                shared.ahead.end(matches!(done, Ok(true)));
                done?;
            }
            Next::Later => match shared.zeros.pop_soon(MOMENT) {
                Popped::Item(gap) => zero_gap(gap, shared)?,
                Popped::NotYet => {}
                Popped::Ended => break,
            },
            Next::Never => {
                let Some(gap) = shared.zeros.pop(&shared.stop) else { break };
                zero_gap(gap, shared)?;
            }
        }
    }
    Ok(())
}

fn zero_gap((at, length): (u64, u64), shared: &Shared<'_>) -> Result<(), ImageError> {
    let made = shared.ahead.made(&(at..at + length));
    shared.target.sample_zeros(made.clone());
    for part in [at..made.start, made.end..at + length] {
        shared.spent.disk.with(|| shared.target.zero(part.start, part.end - part.start, &shared.stop))?;
    }
    Ok(())
}

fn work(shared: &Shared<'_>) -> Result<(), ImageError> {
    while let Some(batch) = shared.work.pop(&shared.stop) {
        let packed = batch.ops.iter().any(|op| matches!(op, Op::Packed { .. }));
        if !packed {
            for op in batch.ops.iter().take_while(|_| !shared.stop.is_set()) {
                put_plain(op, &batch, shared)?;
            }
            continue;
        }
        let Some((mut decoder, mut seam)) = shared.decoders.pop(&shared.stop) else { return Ok(()) };
        unpack_batch(&batch, &mut decoder, &mut seam, shared)?;
        shared.decoders.push((decoder, seam), &shared.stop);
    }
    Ok(())
}

fn put_plain(op: &Op, batch: &Batch, shared: &Shared<'_>) -> Result<(), ImageError> {
    let Op::Plain { bytes, guest } = op else { return Ok(()) };
    let bytes = batch.chunk.bytes().get(bytes.clone()).unwrap_or_default();
    put(*guest, bytes, shared)
}

fn unpack_batch(
    batch: &Batch,
    decoder: &mut Decoder,
    seam: &mut Seam,
    shared: &Shared<'_>,
) -> Result<(), ImageError> {
    for op in batch.ops.iter().take_while(|_| !shared.stop.is_set()) {
        let Op::Packed { guest, length, host, stored } = op else {
            put_plain(op, batch, shared)?;
            continue;
        };
        let packed = batch.stored(*host..*host + u64::from(*stored), seam);
        if !decoder.has_room_at(*guest) {
            put_decoded(decoder, shared)?;
        }
        spent(&shared.spent.decode, || decoder.decode(packed, *guest, *length as usize, *host))?;
    }
    put_decoded(decoder, shared)
}

fn put_decoded(decoder: &mut Decoder, shared: &Shared<'_>) -> Result<(), ImageError> {
    let Some((guest, bytes)) = decoder.take() else { return Ok(()) };
    put(guest, bytes, shared)
}

fn put(guest: u64, bytes: &[u8], shared: &Shared<'_>) -> Result<(), ImageError> {
    shared.spent.disk.with(|| shared.target.put(guest, bytes))?;
    shared.progress.written(shared.target.counts().0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Verify;
    use super::super::tests::endings::within;
    use super::*;
    use crate::platform::fake::block::MemDisk;

    #[test]
    fn a_reader_that_panics_ends_all() {
        let ended = within(|| {
            let target = Target::new(Arc::new(MemDisk::new(4 << 20)), ByteCount(4 << 20), Verify::Sample);
            let plan = Plan { capacity: 4 << 20, length: Some(4 << 20), content: Content::Raw };
            let progress = ProgressCell::default();
            let shared = Shared::new(&plan, Vec::new(), &target, &progress, Stop::default());
            let ended = on_threads(DigestAlgorithm::Sha256, None, &shared, || panic!("as the test wants it"));
            ended.map(|ended| ended.received)
        });
        assert_eq!(ended.unwrap_err().to_string(), "the reading thread panicked");
    }
}
