//! The order in which a disk becomes bootable, and how it is blanked when it must not be.
//!
//! Both ends blank, flush, looked at → body → digest right → flush → tail, config drive → flush → backup table → flush →
//! head but its first block → flush → first block → flush → read back. At no instant does a power cut leave a disk that boots bytes which were not proven.

use super::pipeline::Body;
use super::report::Took;
use super::reuse;
use super::sum::Sum;
use super::target::{HELD, Target};
use super::{CancelFlag, ImageError, ProgressCell, WriteReport, WriteRequest};
use crate::disk::{aligned, layout};
use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Blanks the first and the last MiB of the disk: no firmware boots what is left, not even from a backup table.
///
/// # Errors
/// [`ImageError::Device`], [`ImageError::Flush`].
pub fn blank_ends(disk: &dyn BlockDevice) -> Result<(), ImageError> {
    let size = disk.size().0;
    let zeros = vec![0u8; size.min(HELD) as usize];
    for at in [0, size.saturating_sub(HELD)] {
        aligned::write(disk, DiskOffset(at), &zeros)
            .map_err(|e| ImageError::device("blanking", disk.name(), at, e))?;
    }
    flush(disk, "after blanking both ends")?;
    // A disk that drops writes would keep what boots there; nobody should believe that it does not.
    for at in [0, size.saturating_sub(HELD)] {
        compare(disk, at, &zeros)?;
    }
    Ok(())
}

fn flush(disk: &dyn BlockDevice, when: &'static str) -> Result<(), ImageError> {
    disk.flush().map_err(|source| ImageError::Flush { disk: disk.name().to_string(), when, source })
}

/// Blanks the disk after a failure and says so in the error.
pub fn blank_after(error: ImageError, disk: &dyn BlockDevice) -> ImageError {
    let (name, source) = (disk.name().to_string(), Box::new(error));
    match blank_ends(disk) {
        Ok(()) => ImageError::AfterWrite { disk: name, source },
        Err(e) => ImageError::NotBlanked { disk: name, blank: super::error::chain(&e), source },
    }
}

/// Makes the disk complete: the body is written and its digest was right.
///
/// # Errors
/// Those of the device, a partition table that does not fit, a read-back that differs; a cancellation while the body is read
/// back, which takes as long as the disk is large.
pub fn complete(
    request: &WriteRequest,
    target: &Target,
    body: Body,
    prepare: Duration,
    (progress, cancel): (&ProgressCell, &CancelFlag),
) -> Result<WriteReport, ImageError> {
    let started = Instant::now();
    let disk = target.disk.as_ref();
    flush(disk, "after the body")?;
    let mut verified = Verified::default();
    if let (range, Some(sum)) = target.body() {
        let found = Sum::over(target.size());
        let body = range.start..range.end.min(body.virtual_size);
        verified.add(progress, || compare_all(disk, body, (sum, &found), (progress, cancel)))?;
        progress.stage("finishing");
    }
    let (mut head, mut tail, tail_start) = target.held();
    let extra = beside_the_image(request, disk, &mut head)?;
    for (at, bytes) in &extra {
        overlay(&mut tail, tail_start, at.0, bytes);
    }
    // The last moment at which the disk would not boot.
    if cancel.is_set() {
        return Err(ImageError::Cancelled);
    }
    write_in_order(disk, &head, (tail_start, &tail), &extra)?;
    verified.add(progress, || compare_ends(target, &head, (tail_start, &tail), &extra))?;
    let extra_bytes = extra.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let (written, zeroed, zeros_written) = target.counts();
    Ok(WriteReport {
        received: ByteCount(body.received),
        written: ByteCount(written + (head.len() + tail.len()) as u64 + extra_bytes),
        zeroed: ByteCount(zeroed),
        zeros_written: ByteCount(zeros_written),
        verified: ByteCount(verified.bytes),
        virtual_size: ByteCount(body.virtual_size),
        took: Took {
            prepare,
            body: body.took,
            finish: started.elapsed().saturating_sub(verified.took),
            verify: verified.took,
        },
        load: body.load,
        resumes: body.resumes,
    })
}

/// Bytes that were read back and were right, and how long that took.
#[derive(Default)]
struct Verified {
    bytes: u64,
    took: Duration,
}

impl Verified {
    fn add(
        &mut self,
        progress: &ProgressCell,
        check: impl FnOnce() -> Result<u64, ImageError>,
    ) -> Result<(), ImageError> {
        progress.stage("verifying");
        let began = Instant::now();
        self.bytes += check()?;
        self.took += began.elapsed();
        Ok(())
    }
}

/// Fits the table in the head to the disk. What else belongs on it: the backup table, the config drive.
fn beside_the_image(
    request: &WriteRequest,
    disk: &dyn BlockDevice,
    head: &mut [u8],
) -> Result<Vec<(DiskOffset, Vec<u8>)>, ImageError> {
    if request.image.require_partition_table {
        layout::check_table(head, disk.size(), disk.sector_size())?;
    }
    let drive = request.config_drive.as_deref();
    let own = drive.map(|drive| reuse::place(disk, head, drive)).transpose()?.flatten();
    let drive = drive.filter(|_| own.is_none());
    let mut extra = layout::plan(head, disk.size(), disk.sector_size(), drive)?;
    extra.extend(own);
    Ok(extra)
}

/// Writes what was held back so that a power cut between any two writes leaves either no partition table or a proven disk:
/// a table is last of all, and the primary one arrives in a single block.
fn write_in_order(
    disk: &dyn BlockDevice,
    head: &[u8],
    (tail_start, tail): (u64, &[u8]),
    extra: &[(DiskOffset, Vec<u8>)],
) -> Result<(), ImageError> {
    // What ends with the disk is a backup table, from which firmware may boot.
    let sector = u64::from(disk.sector_size().0.max(1));
    let end = disk.size().0 - disk.size().0 % sector;
    let is_late = |at: u64, bytes: &[u8]| at + bytes.len() as u64 == end;
    let late_from = extra.iter().find(|(at, bytes)| is_late(at.0, bytes)).map_or(u64::MAX, |(at, _)| at.0);
    let cut = late_from.saturating_sub(tail_start).min(tail.len() as u64) as usize;
    let (early, late) = tail.split_at_checked(cut).unwrap_or((tail, &[]));
    write(disk, tail_start, early)?;
    for (at, bytes) in extra.iter().filter(|(at, bytes)| !is_late(at.0, bytes)) {
        write(disk, at.0, bytes)?;
    }
    flush(disk, "before the backup table is written")?;
    write(disk, tail_start + early.len() as u64, late)?;
    for (at, bytes) in extra.iter().filter(|(at, bytes)| is_late(at.0, bytes)) {
        write(disk, at.0, bytes)?;
    }
    flush(disk, "before the head is written")?;
    let first = disk.alignment().min(head.len());
    let (first, rest) = head.split_at_checked(first).unwrap_or((head, &[]));
    write(disk, first.len() as u64, rest)?;
    flush(disk, "before the first block is written")?;
    write(disk, 0, first)?;
    flush(disk, "after the head was written")
}

/// Copies the part of `bytes` (which lie at `at`) that falls into `held` (which lies at `held_at`).
fn overlay(held: &mut [u8], held_at: u64, at: u64, bytes: &[u8]) {
    let start = at.max(held_at);
    let end = (at + bytes.len() as u64).min(held_at + held.len() as u64);
    if start < end {
        let from = bytes.get((start - at) as usize..(end - at) as usize).unwrap_or_default();
        if let Some(to) = held.get_mut((start - held_at) as usize..(end - held_at) as usize) {
            to.copy_from_slice(from);
        }
    }
}

fn write(disk: &dyn BlockDevice, at: u64, bytes: &[u8]) -> Result<(), ImageError> {
    aligned::write(disk, DiskOffset(at), bytes).map_err(|e| ImageError::device("writing", disk.name(), at, e))
}

fn compare(disk: &dyn BlockDevice, at: u64, expected: &[u8]) -> Result<u64, ImageError> {
    let length = expected.len() as u64;
    let found = aligned::read(disk, DiskOffset(at), ByteCount(length))
        .map_err(|e| ImageError::device("reading back", disk.name(), at, e))?;
    if found == expected {
        Ok(length)
    } else {
        Err(ImageError::ReadBack { disk: disk.name().to_string(), at: DiskOffset(at) })
    }
}

/// Reads the whole body back, before anything makes the disk bootable.
fn compare_all(
    disk: &dyn BlockDevice,
    range: Range<u64>,
    (expected, found): (&Sum, &Sum),
    (progress, cancel): (&ProgressCell, &CancelFlag),
) -> Result<u64, ImageError> {
    let mut at = range.start;
    let end = range.end - range.end % super::sum::UNIT as u64;
    while at < end {
        if cancel.is_set() {
            return Err(ImageError::Cancelled);
        }
        let length = (end - at).min(HELD);
        let bytes = aligned::read(disk, DiskOffset(at), ByteCount(length))
            .map_err(|e| ImageError::device("reading back", disk.name(), at, e))?;
        found.add(at, &bytes);
        at += length;
        progress.note(&format!("{} MiB read back", (at - range.start) >> 20));
    }
    match found.first_difference(expected) {
        None => Ok(end.saturating_sub(range.start)),
        Some(at) => {
            Err(ImageError::ReadBack { disk: disk.name().to_string(), at: DiskOffset(at.max(range.start)) })
        }
    }
}

/// Reads back what was held, what was added, and samples of the rest.
fn compare_ends(
    target: &Target,
    head: &[u8],
    (tail_start, tail): (u64, &[u8]),
    extra: &[(DiskOffset, Vec<u8>)],
) -> Result<u64, ImageError> {
    let disk = target.disk.as_ref();
    let mut verified = compare(disk, 0, head)? + compare(disk, tail_start, tail)?;
    for (at, bytes) in extra {
        verified += compare(disk, at.0, bytes)?;
    }
    Ok(verified + compare_samples(target, extra)?)
}

fn compare_samples(target: &Target, extra: &[(DiskOffset, Vec<u8>)]) -> Result<u64, ImageError> {
    let disk = target.disk.as_ref();
    let mut verified = 0;
    for sample in target.samples() {
        let covered = extra
            .iter()
            .any(|(at, bytes)| at.0 < sample.at + sample.length && sample.at < at.0 + bytes.len() as u64);
        if covered {
            continue;
        }
        let found = aligned::read(disk, DiskOffset(sample.at), ByteCount(sample.length))
            .map_err(|e| ImageError::device("reading back", disk.name(), sample.at, e))?;
        if Sha256::digest(&found).as_slice() != sample.digest {
            return Err(ImageError::ReadBack { disk: disk.name().to_string(), at: DiskOffset(sample.at) });
        }
        verified += sample.length;
    }
    Ok(verified)
}
