//! A disk in memory that keeps a log of its writes, and one that fails at a named byte.

use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset, SectorSize};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One thing that happened to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    Write { at: u64, bytes: Vec<u8> },
    Zero { at: u64, length: u64 },
    Flush,
}

/// Where the disk goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write that touches this byte fails.
    Write(u64),
    /// A read that touches this byte fails.
    Read(u64),
    /// The n-th flush (from 0) fails.
    Flush(usize),
    /// A write that touches this byte is reported as done but is lost (a lying disk).
    Lost(u64),
}

/// What `discard` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    Unsupported,
    /// Makes zeros.
    Zeros,
    /// Leaves the old data, as a device may.
    Keeps,
}

struct State {
    bytes: Vec<u8>,
    log: Vec<LogEntry>,
    flushes: usize,
}

/// A disk in memory.
pub struct MemDisk {
    name: String,
    sector: u32,
    alignment: usize,
    /// Whether `zero` is offered as an offload.
    offload: bool,
    discard: Discard,
    fault: Option<Fault>,
    state: Mutex<State>,
}

impl MemDisk {
    /// A disk filled with old data (0xA5), so that a gap left unwritten shows.
    pub fn new(size: u64) -> MemDisk {
        let bytes = vec![0xA5; usize::try_from(size).unwrap_or(0)];
        MemDisk {
            name: "/dev/mem0".into(),
            sector: 512,
            alignment: 512,
            offload: true,
            discard: Discard::Unsupported,
            fault: None,
            state: Mutex::new(State { bytes, log: Vec::new(), flushes: 0 }),
        }
    }
    /// Puts an old system's bytes where nothing else is said.
    pub fn holding(self, bytes: &[u8]) -> MemDisk {
        if let Some(place) = self.state().bytes.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }
    pub fn named(mut self, name: &str) -> MemDisk {
        self.name = name.into();
        self
    }
    pub fn with_sector(mut self, sector: u32) -> MemDisk {
        self.sector = sector;
        self.alignment = sector as usize;
        self
    }
    pub fn without_offload(mut self) -> MemDisk {
        self.offload = false;
        self
    }
    pub fn with_discard(mut self, discard: Discard) -> MemDisk {
        self.discard = discard;
        self
    }
    pub fn with_fault(mut self, fault: Fault) -> MemDisk {
        self.fault = Some(fault);
        self
    }
    pub fn content(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }
    pub fn log(&self) -> Vec<LogEntry> {
        self.state().log.clone()
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn check(&self, at: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
        let align = self.alignment as u64;
        let end = at.checked_add(length as u64).filter(|end| *end <= self.size().0);
        let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "past the end"))?;
        if !at.is_multiple_of(align) || !end.is_multiple_of(align) && end != self.size().0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not aligned"));
        }
        Ok(at as usize..end as usize)
    }
}

fn touches(range: &std::ops::Range<usize>, byte: u64) -> bool {
    range.contains(&(byte as usize))
}

impl BlockDevice for MemDisk {
    fn name(&self) -> &str {
        &self.name
    }
    fn size(&self) -> ByteCount {
        ByteCount(self.state().bytes.len() as u64)
    }
    fn sector_size(&self) -> SectorSize {
        SectorSize(self.sector)
    }
    fn alignment(&self) -> usize {
        self.alignment
    }
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()> {
        let range = self.check(at.0, buffer.len())?;
        if matches!(self.fault, Some(Fault::Read(byte)) if touches(&range, byte)) {
            return Err(io::Error::other("medium error"));
        }
        buffer.copy_from_slice(self.state().bytes.get(range).unwrap_or_default());
        Ok(())
    }
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
        let range = self.check(at.0, bytes.len())?;
        match self.fault {
            Some(Fault::Write(byte)) if touches(&range, byte) => {
                return Err(io::Error::other("medium error"));
            }
            Some(Fault::Lost(byte)) if touches(&range, byte) => return Ok(()),
            _ => {}
        }
        let mut state = self.state();
        if let Some(place) = state.bytes.get_mut(range) {
            place.copy_from_slice(bytes);
        }
        state.log.push(LogEntry::Write { at: at.0, bytes: bytes.to_vec() });
        Ok(())
    }
    fn zero(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        if !self.offload {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = self.check(at.0, length.0 as usize)?;
        let mut state = self.state();
        if let Some(place) = state.bytes.get_mut(range) {
            place.fill(0);
        }
        state.log.push(LogEntry::Zero { at: at.0, length: length.0 });
        Ok(())
    }
    fn discard(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        let range = self.check(at.0, length.0 as usize)?;
        match self.discard {
            Discard::Unsupported => return Err(io::ErrorKind::Unsupported.into()),
            Discard::Keeps => return Ok(()),
            Discard::Zeros => {}
        }
        let mut state = self.state();
        if let Some(place) = state.bytes.get_mut(range) {
            place.fill(0);
        }
        state.log.push(LogEntry::Zero { at: at.0, length: length.0 });
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        let number = state.flushes;
        state.flushes += 1;
        if self.fault == Some(Fault::Flush(number)) {
            return Err(io::Error::other("cache flush failed"));
        }
        state.log.push(LogEntry::Flush);
        Ok(())
    }
}
