//! Reads and writes of any offset and length on a [`BlockDevice`], which itself takes aligned ones only.
//!
//! For tables, signatures and config drives: kilobytes. Image bytes go through buffers of the image pipeline.

use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset};
use std::io;

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

/// Writes `bytes` at `at`, keeping what surrounds them: reads the device's blocks at both ends first.
///
/// # Errors
/// Those of the device; `InvalidInput` for a range past its end.
pub fn write(disk: &dyn BlockDevice, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
    each_chunk(disk, at, ByteCount(bytes.len() as u64), |block, whole, from, range| {
        let part = bytes.get(from..from + range.len()).unwrap_or_default();
        if range.len() < whole.len() {
            disk.read_at(block, whole)?;
        }
        if let Some(target) = whole.get_mut(range) {
            target.copy_from_slice(part);
        }
        disk.write_at(block, whole)
    })
}

/// Reads exactly `length` bytes from `at`.
///
/// # Errors
/// Those of the device; `InvalidInput` for a range past its end.
pub fn read(disk: &dyn BlockDevice, at: DiskOffset, length: ByteCount) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    each_chunk(disk, at, length, |block, whole, _, range| {
        disk.read_at(block, whole)?;
        bytes.extend_from_slice(whole.get(range).unwrap_or_default());
        Ok(())
    })?;
    Ok(bytes)
}

/// Calls `act(block, whole, from, range)` for aligned pieces that cover the bytes: `whole` is an aligned buffer for the
/// blocks at `block`, `range` the wanted part of it, `from` how many wanted bytes came before.
///
/// The last piece of a disk whose size is not a multiple of the alignment ends with the disk; the kernel asks for whole
/// sectors only.
fn each_chunk(
    disk: &dyn BlockDevice,
    at: DiskOffset,
    length: ByteCount,
    mut act: impl FnMut(DiskOffset, &mut [u8], usize, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let past_end = || {
        io::Error::new(io::ErrorKind::InvalidInput, format!("byte {at} is past the end of {}", disk.name()))
    };
    let end = at.checked_add(length).filter(|end| end.0 <= disk.size().0).ok_or_else(past_end)?.0;
    let align = disk.alignment().max(1);
    let step = CHUNK.next_multiple_of(align) as u64;
    let mut memory = vec![0u8; CHUNK.next_multiple_of(align) + align];
    let shift = memory.as_ptr().align_offset(align);
    let mut block = at.0 - at.0 % align as u64;
    while block < end {
        let stop = (block + step).min(end.next_multiple_of(align as u64)).min(disk.size().0);
        let whole = memory.get_mut(shift..shift + (stop - block) as usize).ok_or_else(past_end)?;
        let (first, last) = (at.0.max(block), end.min(stop));
        act(
            DiskOffset(block),
            whole,
            (first - at.0) as usize,
            (first - block) as usize..(last - block) as usize,
        )?;
        block = stop;
    }
    Ok(())
}
