//! The disk as the pipeline writes it: head and tail of the image held back, everything else at once; zeros by offload
//! where the disk guarantees them; a sample kept for the read-back.

use super::buffers::{ALIGN, AlignedBuf};
use super::queue::Stop;
use super::raw::is_zero;
use super::stride::Stride;
use super::sum::Sum;
use super::{ImageError, Verify};
use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset, MIB};
use sha2::{Digest, Sha256};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes held back at each end of the image: partition tables and boot code.
pub const HELD: u64 = MIB;
/// Bytes copied at once where the memory is not aligned as the disk wants it; a multiple of every alignment.
const BOUNCE: usize = 256 << 10;
/// Ways of making zeros, the cheapest first: the disk guarantees them; it discards, and they are read back; they are written.
const OFFLOAD: u8 = 0;
const DISCARD: u8 = 1;
const WRITE: u8 = 2;
/// Samples kept for the read-back.
const SAMPLES: usize = 128;

static ZEROS: LazyLock<AlignedBuf> = LazyLock::new(|| AlignedBuf::new(1 << 20));

/// A written range and the digest of its bytes.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: u64,
    pub length: u64,
    pub digest: [u8; 32],
}

#[derive(Default)]
struct Sampler {
    seen: u64,
    stride: u64,
    kept: Vec<Sample>,
}

pub struct Target {
    pub disk: Arc<dyn BlockDevice>,
    size: u64,
    head: Mutex<Vec<u8>>,
    tail: Mutex<Vec<u8>>,
    tail_start: u64,
    /// Held while a block is read, changed and written back.
    edges: Mutex<()>,
    /// How zeros are made: [`OFFLOAD`], [`DISCARD`] or [`WRITE`].
    zeroing: AtomicU8,
    pub stride: Stride,
    written: AtomicU64,
    zeroed: AtomicU64,
    zeros_written: AtomicU64,
    samples: Mutex<Sampler>,
    /// What all body bytes should add up to, where everything is to be read back.
    sum: Option<Sum>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// For an image of `size` bytes.
    pub fn new(disk: Arc<dyn BlockDevice>, size: ByteCount, verify: Verify) -> Target {
        let size = size.0;
        let head_end = size.min(HELD);
        let tail_start = size.saturating_sub(HELD).max(head_end);
        Target {
            disk,
            size,
            head: Mutex::new(vec![0; head_end as usize]),
            tail: Mutex::new(vec![0; (size - tail_start) as usize]),
            tail_start,
            edges: Mutex::new(()),
            zeroing: AtomicU8::new(OFFLOAD),
            stride: Stride::default(),
            written: AtomicU64::new(0),
            zeroed: AtomicU64::new(0),
            zeros_written: AtomicU64::new(0),
            samples: Mutex::new(Sampler { stride: 1, ..Sampler::default() }),
            sum: (verify == Verify::All).then(|| Sum::over(size)),
        }
    }
    /// Data bytes written; bytes zeroed by offload; zero bytes written for lack of one.
    pub fn counts(&self) -> (u64, u64, u64) {
        let load = |a: &AtomicU64| a.load(Ordering::Relaxed);
        (load(&self.written), load(&self.zeroed), load(&self.zeros_written))
    }
    /// The held head, the held tail and where it begins.
    pub fn held(&self) -> (Vec<u8>, Vec<u8>, u64) {
        (std::mem::take(&mut *lock(&self.head)), std::mem::take(&mut *lock(&self.tail)), self.tail_start)
    }
    /// Bytes of the disk that the image may define.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// The part of the disk that lies between the held ends, and what its bytes should add up to.
    pub fn body(&self) -> (Range<u64>, Option<&Sum>) {
        (self.size.min(HELD)..self.tail_start, self.sum.as_ref())
    }
    pub fn samples(&self) -> Vec<Sample> {
        std::mem::take(&mut lock(&self.samples).kept)
    }

    /// Puts image bytes at their place.
    pub fn put(&self, guest: u64, bytes: &[u8]) -> Result<(), ImageError> {
        let end = guest + bytes.len() as u64;
        if end > self.size {
            return Err(ImageError::Internal {
                what: format!("a write to byte {end} of {} was planned", self.size),
            });
        }
        let cut = |at: u64| (at.clamp(guest, end) - guest) as usize;
        let (head_end, tail_start) = (cut(self.size.min(HELD)), cut(self.tail_start));
        hold(&self.head, guest, bytes.get(..head_end).unwrap_or_default());
        if let Some(body) = bytes.get(head_end..tail_start).filter(|b| !b.is_empty()) {
            self.write(guest + head_end as u64, body)?;
            self.written.fetch_add(body.len() as u64, Ordering::Relaxed);
            self.sample(guest + head_end as u64, body);
            if let Some(sum) = &self.sum {
                sum.add(guest + head_end as u64, body);
            }
        }
        let late = bytes.get(tail_start..).unwrap_or_default();
        if !late.is_empty() {
            hold(&self.tail, guest + tail_start as u64 - self.tail_start, late);
        }
        Ok(())
    }

    /// Makes a range of the image read as zeros. (Held parts are zeros from the start.)
    pub fn zero(&self, guest: u64, length: u64, stop: &Stop) -> Result<(), ImageError> {
        let (start, end) = (guest.max(self.size.min(HELD)), (guest + length).min(self.tail_start));
        if start >= end {
            return Ok(());
        }
        let unit = self.disk.alignment().max(1) as u64;
        let (first, last) = (start.next_multiple_of(unit), end - end % unit);
        if first >= last {
            return self.write(start, &vec![0; (end - start) as usize]);
        }
        self.write(start, &vec![0; (first - start) as usize])?;
        self.write(last, &vec![0; (end - last) as usize])?;
        let mut at = first;
        while at < last && !stop.is_set() {
            let step = (last - at).min(self.stride.bytes());
            let begun = Instant::now();
            self.zero_step(at, step)?;
            self.stride.took(step, begun.elapsed());
            at += step;
        }
        self.sample_zeros(first..last);
        Ok(())
    }

    /// Zeroes a range that is not known to be empty, if the disk can do it by itself; else does nothing: `false`.
    pub fn zero_ahead(&self, range: Range<u64>) -> Result<bool, ImageError> {
        if self.zeroing.load(Ordering::Relaxed) != OFFLOAD {
            return Ok(false);
        }
        let unit = self.disk.alignment().max(1) as u64;
        if !range.start.is_multiple_of(unit) || !range.end.is_multiple_of(unit) {
            return Ok(false);
        }
        let length = range.end - range.start;
        let begun = Instant::now();
        match self.disk.zero(DiskOffset(range.start), ByteCount(length)) {
            Ok(()) => {
                self.stride.took(length, begun.elapsed());
                self.zeroed.fetch_add(length, Ordering::Relaxed);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                self.zeroing.fetch_max(DISCARD, Ordering::Relaxed);
                Ok(false)
            }
            Err(e) => Err(ImageError::device("zeroing", self.disk.name(), range.start, e)),
        }
    }

    /// Lets the read-back look whether the start of this range reads as zeros.
    pub fn sample_zeros(&self, range: Range<u64>) {
        let body = self.body().0;
        let (start, end) = (range.start.max(body.start), range.end.min(body.end));
        let length = end.saturating_sub(start).min(ALIGN as u64) as usize;
        if length > 0 {
            self.sample(start, ZEROS.bytes().get(..length).unwrap_or_default());
        }
    }

    /// By the cheapest way that this disk has been seen to do; a way that fails is not tried again.
    fn zero_step(&self, at: u64, length: u64) -> Result<(), ImageError> {
        let (place, count) = (DiskOffset(at), ByteCount(length));
        let way = self.zeroing.load(Ordering::Relaxed);
        let tried = match way {
            OFFLOAD => self.disk.zero(place, count),
            DISCARD => self.disk.discard(place, count),
            _ => return self.write_zeros(at, length),
        };
        match tried {
            Ok(()) if way == OFFLOAD => {
                self.zeroed.fetch_add(length, Ordering::Relaxed);
                Ok(())
            }
            Ok(()) => self.prove_zeros(at, length),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                self.zeroing.fetch_max(way + 1, Ordering::Relaxed);
                self.zero_step(at, length)
            }
            Err(e) => Err(ImageError::device("zeroing", self.disk.name(), at, e)),
        }
    }

    fn write_zeros(&self, at: u64, length: u64) -> Result<(), ImageError> {
        let mut done = 0;
        while done < length {
            let step = (length - done).min(ZEROS.bytes().len() as u64);
            self.raw_write(at + done, ZEROS.bytes().get(..step as usize).unwrap_or_default())?;
            done += step;
        }
        self.zeros_written.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Reads back all that was discarded and writes zeros where something else is. A disk whose discard leaves more than half
    /// of it is not asked again.
    fn prove_zeros(&self, at: u64, length: u64) -> Result<(), ImageError> {
        let mut block = AlignedBuf::new(length.min(ZEROS.bytes().len() as u64) as usize);
        let (mut done, mut left) = (0, 0);
        while done < length {
            let step = (length - done).min(block.bytes().len() as u64);
            let place = block.bytes_mut().get_mut(..step as usize).unwrap_or_default();
            self.disk
                .read_at(DiskOffset(at + done), place)
                .map_err(|e| ImageError::device("reading back", self.disk.name(), at + done, e))?;
            if is_zero(place) {
                self.zeroed.fetch_add(step, Ordering::Relaxed);
            } else {
                self.write_zeros(at + done, step)?;
                left += step;
            }
            done += step;
        }
        if left > length / 2 {
            self.zeroing.fetch_max(WRITE, Ordering::Relaxed);
        }
        Ok(())
    }

    fn raw_write(&self, at: u64, bytes: &[u8]) -> Result<(), ImageError> {
        self.disk
            .write_at(DiskOffset(at), bytes)
            .map_err(|e| ImageError::device("writing", self.disk.name(), at, e))
    }

    /// Writes any range: whole blocks straight from `bytes` where their memory is aligned too, else through a small
    /// aligned copy; the parts of blocks at both ends are read, changed and written back.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), ImageError> {
        let align = self.disk.alignment().max(1);
        let unit = align as u64;
        let end = at + bytes.len() as u64;
        let first = at.next_multiple_of(unit).min(end);
        let last = (end - end % unit).max(first);
        let cut =
            |from: u64, to: u64| bytes.get((from - at) as usize..(to - at) as usize).unwrap_or_default();
        self.edge(at, cut(at, first))?;
        let middle = cut(first, last);
        if middle.as_ptr().align_offset(align) == 0 && !middle.is_empty() {
            self.raw_write(first, middle)?;
        } else if !middle.is_empty() {
            let mut copy = AlignedBuf::new(middle.len().min(BOUNCE));
            for (nth, part) in (0u64..).zip(middle.chunks(BOUNCE)) {
                let place = copy.bytes_mut().get_mut(..part.len()).unwrap_or_default();
                place.copy_from_slice(part);
                self.raw_write(first + nth * BOUNCE as u64, place)?;
            }
        }
        self.edge(last, cut(last, end))
    }

    /// Writes a part of one block. (The last block of a disk may be short; the kernel asks for whole sectors only.)
    fn edge(&self, at: u64, bytes: &[u8]) -> Result<(), ImageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let unit = self.disk.alignment().max(1) as u64;
        let from = at - at % unit;
        let mut block = AlignedBuf::new((from + unit).min(self.disk.size().0).saturating_sub(from) as usize);
        let _guard = lock(&self.edges);
        self.disk
            .read_at(DiskOffset(from), block.bytes_mut())
            .map_err(|e| ImageError::device("reading", self.disk.name(), from, e))?;
        let inside = (at - from) as usize;
        if let Some(place) = block.bytes_mut().get_mut(inside..inside + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self.raw_write(from, block.bytes())
    }

    /// Keeps every n-th write for the read-back; n doubles when there are enough.
    fn sample(&self, at: u64, bytes: &[u8]) {
        let mut sampler = lock(&self.samples);
        sampler.seen += 1;
        if !sampler.seen.is_multiple_of(sampler.stride) {
            return;
        }
        if sampler.kept.len() >= SAMPLES {
            let mut odd = false;
            sampler.kept.retain(|_| {
                odd = !odd;
                odd
            });
            sampler.stride *= 2;
        }
        // 64 KiB of a write are enough to see whether it went where it should.
        let part = bytes.get(..bytes.len().min(64 << 10)).unwrap_or_default();
        let sample = Sample { at, length: part.len() as u64, digest: Sha256::digest(part).into() };
        sampler.kept.push(sample);
    }
}

fn hold(held: &Mutex<Vec<u8>>, at: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let at = at as usize;
    if let Some(place) = lock(held).get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
