//! Direct writes and zeroing of a block device. Its content is lost.

use crate::meter::{Aligned, MIB, RUNS, Whose, part};
use anyhow::{Context, Result};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Written in one run, from the start of the device.
const TOTAL: usize = 1024 * MIB;
const KIB: usize = 1 << 10;
/// "Several at once": writes in flight, by as many threads.
const SEVERAL: usize = 4;
/// For scattered writes, which gain most from company.
const MANY: usize = 16;

#[derive(Clone, Copy)]
enum Order {
    Forward,
    /// A walk that meets every place once, far from the last one.
    Scattered,
}

pub fn measure(device: &Path) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(device)
        .with_context(|| format!("opening {}", device.display()))?;
    for (name, size) in [("64 KiB", 64 * KIB), ("1 MiB", MIB), ("4 MiB", 4 * MIB)] {
        for depth in [1, SEVERAL] {
            let data = Aligned::filled(size, 0xa5);
            let name = format!("write {name}, {depth} at once");
            disk(&name, || Ok(()), || write(&file, &data, depth, Order::Forward))?;
        }
    }
    let data = Aligned::filled(64 * KIB, 0xa5);
    for depth in [1, MANY] {
        let name = format!("write 64 KiB scattered, {depth} at once");
        disk(&name, || Ok(()), || write(&file, &data, depth, Order::Scattered))?;
    }
    let zeros = Aligned::filled(MIB, 0);
    let old = Aligned::filled(4 * MIB, 0xa5);
    let refill = || write(&file, &old, 1, Order::Forward);
    disk("zeros written, 1 MiB", refill, || write(&file, &zeros, 1, Order::Forward))?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let punch = || fallocate(&file, flags, 0, TOTAL as i64).context("the disk does not zero by itself");
    if let Err(error) = disk("zeroed by the disk", refill, punch) {
        eprintln!("ferric-parts: {error:#}");
    }
    Ok(())
}

/// A part that works on all of it.
fn disk(name: &str, before: impl FnMut() -> Result<()>, work: impl FnMut() -> Result<()>) -> Result<()> {
    part(name, TOTAL, RUNS, Whose::Everybodys, before, work)
}

/// Writes `data` again and again until `TOTAL` bytes are on the disk and flushed.
fn write(file: &File, data: &Aligned, depth: usize, order: Order) -> Result<()> {
    let bytes = data.bytes();
    let count = TOTAL / bytes.len();
    let next = AtomicUsize::new(0);
    let one = || -> Result<()> {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= count {
                return Ok(());
            }
            let place = match order {
                Order::Forward => nth,
                // Odd, so that with a power of two of places each is met once.
                Order::Scattered => nth * 7919 % count,
            };
            file.write_all_at(bytes, (place * bytes.len()) as u64)?;
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..depth).map(|_| scope.spawn(one)).collect();
        running.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    file.sync_all().context("flushing the disk")
}
