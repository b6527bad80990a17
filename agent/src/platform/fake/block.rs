//! A disk in memory that keeps a log of its writes, and one that fails at a named byte or call.

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
    /// A write or zeroing that touches this byte is reported as done but is lost (a lying disk).
    Lost(u64),
    /// A write that touches this byte is on the disk up to that byte's sector, and fails.
    Torn(u64),
    /// The same, but it is reported as done.
    TornSilently(u64),
    /// The n-th write, read, or zeroing by offload (from 0) fails; the next one does not.
    NthWrite(usize),
    NthRead(usize),
    NthZero(usize),
    /// After so many calls nothing works any more: the cable is out.
    Gone(usize),
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

/// The kinds of calls, as places in the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Write,
    Read,
    Zero,
    Flush,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    log: Vec<LogEntry>,
    /// Calls so far, by [`Call`].
    calls: [usize; 4],
    /// Calls that a fault spoiled.
    met: usize,
}

impl State {
    /// Puts `bytes` (or zeros) at a place and notes it.
    fn put(&mut self, at: usize, bytes: Option<&[u8]>, length: usize) {
        if let Some(place) = self.bytes.get_mut(at..at + length).filter(|place| !place.is_empty()) {
            let entry = match bytes {
                Some(bytes) => {
                    place.copy_from_slice(bytes);
                    LogEntry::Write { at: at as u64, bytes: bytes.to_vec() }
                }
                None => {
                    place.fill(0);
                    LogEntry::Zero { at: at as u64, length: length as u64 }
                }
            };
            self.log.push(entry);
        }
    }
}

/// What becomes of a call that meets a fault.
enum Spoiled {
    /// This much of it is done, and it is reported as done.
    Quietly(usize),
    /// This much of it is done, and it fails.
    Fails(usize, &'static str),
}

/// A disk in memory.
pub struct MemDisk {
    name: String,
    sector: u32,
    alignment: usize,
    /// Whether `zero` is offered as an offload.
    offload: bool,
    discard: Discard,
    faults: Vec<Fault>,
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
            faults: Vec::new(),
            state: Mutex::new(State { bytes, ..State::default() }),
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
    /// Blocks of direct I/O that are larger than a sector.
    pub fn with_alignment(mut self, alignment: usize) -> MemDisk {
        self.alignment = alignment;
        self
    }
    pub fn with_fault(mut self, fault: Fault) -> MemDisk {
        self.faults.push(fault);
        self
    }
    /// How many calls met a fault.
    pub fn met(&self) -> usize {
        self.state().met
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

impl MemDisk {
    /// Counts a call and says what a fault makes of it.
    fn meet(&self, state: &mut State, call: Call, range: &std::ops::Range<usize>) -> Option<Spoiled> {
        let total = state.calls.iter().sum::<usize>();
        let number = state.calls.get_mut(call as usize).map_or(0, |count| {
            *count += 1;
            *count - 1
        });
        let spoiled = self.faults.iter().find_map(|fault| self.spoil(*fault, call, range, number, total));
        state.met += usize::from(spoiled.is_some());
        spoiled
    }
    fn spoil(
        &self,
        fault: Fault,
        call: Call,
        range: &std::ops::Range<usize>,
        number: usize,
        total: usize,
    ) -> Option<Spoiled> {
        use Spoiled::{Fails, Quietly};
        let touches = |byte: u64| range.contains(&(byte as usize));
        let up_to = |byte: u64| {
            let sector = byte as usize / self.sector as usize * self.sector as usize;
            sector.saturating_sub(range.start)
        };
        match (call, fault) {
            (Call::Write, Fault::Write(byte)) if touches(byte) => Some(Fails(0, "medium error")),
            (Call::Write, Fault::Torn(byte)) if touches(byte) => Some(Fails(up_to(byte), "medium error")),
            (Call::Write, Fault::TornSilently(byte)) if touches(byte) => Some(Quietly(up_to(byte))),
            (Call::Write | Call::Zero, Fault::Lost(byte)) if touches(byte) => Some(Quietly(0)),
            (Call::Read, Fault::Read(byte)) if touches(byte) => Some(Fails(0, "medium error")),
            (Call::Write, Fault::NthWrite(n)) | (Call::Read, Fault::NthRead(n)) if number == n => {
                Some(Fails(0, "medium error"))
            }
            (Call::Zero, Fault::NthZero(n)) if number == n => Some(Fails(0, "offload failed")),
            (Call::Flush, Fault::Flush(n)) if number == n => Some(Fails(0, "cache flush failed")),
            (_, Fault::Gone(after)) if total >= after => Some(Fails(0, "no such device")),
            _ => None,
        }
    }
    /// A write or zeroing, as far as the faults let it.
    fn change(&self, call: Call, range: std::ops::Range<usize>, bytes: Option<&[u8]>) -> io::Result<()> {
        let mut state = self.state();
        let spoiled = self.meet(&mut state, call, &range);
        let length = match &spoiled {
            Some(Spoiled::Quietly(length) | Spoiled::Fails(length, _)) => *length,
            None => range.len(),
        };
        state.put(range.start, bytes.map(|bytes| bytes.get(..length).unwrap_or_default()), length);
        match spoiled {
            Some(Spoiled::Fails(_, cause)) => Err(io::Error::other(cause)),
            _ => Ok(()),
        }
    }
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
        let mut state = self.state();
        if let Some(Spoiled::Fails(_, cause)) = self.meet(&mut state, Call::Read, &range) {
            return Err(io::Error::other(cause));
        }
        buffer.copy_from_slice(state.bytes.get(range).unwrap_or_default());
        Ok(())
    }
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
        let range = self.check(at.0, bytes.len())?;
        self.change(Call::Write, range, Some(bytes))
    }
    fn zero(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        if !self.offload {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = self.check(at.0, length.0 as usize)?;
        self.change(Call::Zero, range, None)
    }
    fn discard(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        let range = self.check(at.0, length.0 as usize)?;
        match self.discard {
            Discard::Unsupported => Err(io::ErrorKind::Unsupported.into()),
            Discard::Keeps => Ok(()),
            Discard::Zeros => self.change(Call::Zero, range, None),
        }
    }
    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(Spoiled::Fails(_, cause)) = self.meet(&mut state, Call::Flush, &(0..0)) {
            return Err(io::Error::other(cause));
        }
        state.log.push(LogEntry::Flush);
        Ok(())
    }
}
