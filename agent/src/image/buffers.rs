//! The stream's buffers: aligned for direct I/O, a fixed number of them, returned to the pool when the last user lets
//! go. The pool is the only place where the pipeline blocks for lack of room, so a slow disk becomes TCP back-pressure.

use super::queue::Stop;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of one buffer. From 1 MiB on a disk is written at its full rate.
pub const CHUNK: usize = 1 << 20;
/// Alignment that every disk's direct I/O accepts.
pub const ALIGN: usize = 4096;

/// Memory aligned to [`ALIGN`]. (Over-allocated and shifted: no unsafe code outside `platform`.)
pub struct AlignedBuf {
    memory: Vec<u8>,
    shift: usize,
    length: usize,
}

impl AlignedBuf {
    pub fn new(length: usize) -> AlignedBuf {
        let memory = vec![0u8; length + ALIGN];
        let shift = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        AlignedBuf { memory, shift, length }
    }
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.shift..self.shift + self.length).unwrap_or_default()
    }
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.shift..self.shift + self.length).unwrap_or_default()
    }
}

struct Shelf {
    free: Mutex<Vec<AlignedBuf>>,
    came_back: Condvar,
}

/// A fixed number of buffers.
#[derive(Clone)]
pub struct Pool(Arc<Shelf>);

impl Pool {
    pub fn new(count: usize, length: usize) -> Pool {
        let free = (0..count).map(|_| AlignedBuf::new(length)).collect();
        Pool(Arc::new(Shelf { free: Mutex::new(free), came_back: Condvar::new() }))
    }
    /// Waits for a buffer; `None` when the work was stopped.
    pub fn take(&self, stop: &Stop) -> Option<AlignedBuf> {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop.is_set() {
                return None;
            }
            if let Some(buffer) = free.pop() {
                return Some(buffer);
            }
            free = self
                .0
                .came_back
                .wait_timeout(free, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
    /// Turns a filled buffer into a chunk of the stream that many may read.
    pub fn chunk(&self, buffer: AlignedBuf, offset: u64, length: usize) -> Arc<Chunk> {
        Arc::new(Chunk { offset, length, buffer: Some(buffer), shelf: self.0.clone() })
    }
}

/// A piece of the file as received.
pub struct Chunk {
    /// Where in the file it begins.
    pub offset: u64,
    pub length: usize,
    buffer: Option<AlignedBuf>,
    shelf: Arc<Shelf>,
}

impl Chunk {
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|b| b.bytes().get(..self.length)).unwrap_or_default()
    }
    /// The part of the chunk that holds these bytes of the file, cut to what is here.
    pub fn part(&self, file: Range<u64>) -> Range<usize> {
        let end = self.offset + self.length as u64;
        let from = file.start.clamp(self.offset, end) - self.offset;
        let to = file.end.clamp(self.offset, end) - self.offset;
        from as usize..to.max(from) as usize
    }
    pub fn end(&self) -> u64 {
        self.offset + self.length as u64
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
            self.shelf.came_back.notify_one();
        }
    }
}
