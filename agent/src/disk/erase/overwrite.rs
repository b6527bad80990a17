//! Erasing by writing: passes of noise, zeros last; and by discarding.

use super::fault::DeviceFault;
use super::noise::Noise;
use super::settings::Settings;
use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset, GIB, MIB};
use std::io;

/// Bytes of one write.
const CHUNK: u64 = 4 * MIB;
/// Bytes of one discard: short enough to hear of a cancellation in between.
const DISCARD: u64 = 8 * GIB;

/// What a pass writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Noise,
    Zeros,
}

/// The passes, in order. At least one: a disk that was to be erased is never left as it was.
pub fn passes(settings: &Settings) -> Vec<Pass> {
    let mut passes = vec![Pass::Noise; settings.random_passes as usize];
    if settings.zeros_last || passes.is_empty() {
        passes.push(Pass::Zeros);
    }
    passes
}

/// Why a disk was not overwritten to its end.
#[derive(Debug, thiserror::Error)]
pub enum OverwriteError {
    #[error(transparent)]
    Device(#[from] DeviceFault),
    #[error("stopped at byte {at} of {device}: the step was cancelled")]
    Cancelled { device: String, at: u64 },
}

/// Writes the whole disk once and flushes. `told` hears the bytes written so far and says whether to go on.
///
/// # Errors
/// [`OverwriteError`] names the byte.
pub fn overwrite(
    disk: &dyn BlockDevice,
    pass: Pass,
    seed: u64,
    told: &dyn Fn(u64) -> bool,
) -> Result<(), OverwriteError> {
    let size = disk.size().0;
    let align = disk.alignment().max(1);
    let mut memory = vec![0u8; CHUNK as usize + align];
    let shift = memory.as_ptr().align_offset(align);
    let mut noise = Noise::new(seed);
    let mut at = 0;
    while at < size {
        if !told(at) {
            return Err(OverwriteError::Cancelled { device: disk.name().to_owned(), at });
        }
        let length = CHUNK.min(size - at);
        let chunk = memory.get_mut(shift..shift + length as usize).unwrap_or_default();
        if pass == Pass::Noise {
            noise.fill(chunk);
        }
        disk.write_at(DiskOffset(at), chunk).map_err(DeviceFault::at("overwriting", disk, at))?;
        at += length;
    }
    told(size);
    Ok(disk.flush().map_err(DeviceFault::at("flushing", disk, 0))?)
}

/// Discards the whole disk, securely where the device can. Proves nothing.
///
/// # Errors
/// [`OverwriteError`]: the device cannot discard, or failed.
pub fn discard(disk: &dyn BlockDevice, told: &dyn Fn(u64) -> bool) -> Result<(), OverwriteError> {
    let size = disk.size().0;
    let whole = |how: &dyn Fn(DiskOffset, ByteCount) -> io::Result<()>| {
        let mut at = 0;
        while at < size {
            if !told(at) {
                return Err(OverwriteError::Cancelled { device: disk.name().to_owned(), at });
            }
            let length = DISCARD.min(size - at);
            how(DiskOffset(at), ByteCount(length)).map_err(DeviceFault::at("discarding", disk, at))?;
            at += length;
        }
        Ok(disk.flush().map_err(DeviceFault::at("flushing", disk, 0))?)
    };
    match whole(&|at, length| disk.secure_discard(at, length)) {
        Err(OverwriteError::Device(_)) => whole(&|at, length| disk.discard(at, length)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::block::{Discard, Fault, MemDisk};
    use std::cell::RefCell;

    const SIZE: u64 = 9 * MIB + 512;

    #[test]
    fn every_byte_is_overwritten_and_flushed() {
        let disk = MemDisk::new(SIZE);
        let heard = RefCell::new(Vec::new());
        let told = |at| {
            heard.borrow_mut().push(at);
            true
        };
        overwrite(&disk, Pass::Noise, 1, &told).unwrap();
        let noise = disk.content();
        assert!(noise.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0xA5)));
        assert_ne!(
            noise[..MIB as usize],
            noise[CHUNK as usize..][..MIB as usize],
            "each chunk has its own noise"
        );
        overwrite(&disk, Pass::Zeros, 1, &told).unwrap();
        assert!(disk.content().iter().all(|byte| *byte == 0));
        assert_eq!(heard.borrow()[..4], [0, CHUNK, 2 * CHUNK, SIZE]);
        let flushes = disk
            .log()
            .iter()
            .filter(|entry| matches!(entry, crate::platform::fake::block::LogEntry::Flush))
            .count();
        assert_eq!(flushes, 2);
    }

    #[test]
    fn a_bad_sector_is_named_by_its_chunk_and_a_cancellation_by_its_byte() {
        let disk = MemDisk::new(SIZE).with_fault(Fault::Write(5 * MIB));
        let error = overwrite(&disk, Pass::Zeros, 1, &|_| true).unwrap_err();
        assert_eq!(
            super::super::chain(&error),
            format!("overwriting /dev/mem0 at byte {CHUNK}: medium error")
        );
        let error = overwrite(&MemDisk::new(SIZE), Pass::Zeros, 1, &|at| at < CHUNK).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("stopped at byte {CHUNK} of /dev/mem0: the step was cancelled")
        );
    }

    #[test]
    fn a_discard_is_done_or_told() {
        let disk = MemDisk::new(SIZE).with_discard(Discard::Zeros);
        discard(&disk, &|_| true).unwrap();
        assert!(disk.content().iter().all(|byte| *byte == 0));
        let error = discard(&MemDisk::new(SIZE), &|_| true).unwrap_err();
        assert_eq!(error.to_string(), "discarding /dev/mem0 at byte 0");
        assert!(matches!(discard(&disk, &|_| false), Err(OverwriteError::Cancelled { .. })));
    }

    #[test]
    fn passes_follow_the_settings_and_are_never_none() {
        let check = |random_passes, zeros_last, expected: &[Pass]| {
            let settings = Settings { random_passes, zeros_last, ..Settings::read(&serde_json::Map::new()) };
            assert_eq!(passes(&settings), expected);
        };
        check(1, true, &[Pass::Noise, Pass::Zeros]);
        check(2, false, &[Pass::Noise, Pass::Noise]);
        check(0, false, &[Pass::Zeros]);
    }
}
