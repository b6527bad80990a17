//! Mutated qcow2 images: whatever the agent calls complete must be what qemu-img reads, where qemu-img reads it at all; and
//! no image makes it crash, hang, or leave a disk that is neither old, nor blank, nor right.
//!
//! Image number N is the same on every machine; `cargo xtask mutants --seed N --count 1` makes it again.

mod classes;
mod make;

use self::classes::Classes;
use crate::process::die_with_us;
use crate::write::{Disk, Left, MIB, Order, Writer, scratch, sha256};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The agent's disk, and the largest disk that qemu-img is asked about.
const DISK: u64 = 2 * MIB;
const LARGEST: u64 = 64 * MIB;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub count: u64,
    /// Written by the agent, and of these: equal to what qemu-img reads; refused by qemu-img.
    pub complete: u64,
    pub equal: u64,
    pub only_ours: u64,
    /// Refused by the agent, and of these: refused by qemu-img too; read by it; too large to ask it.
    pub refused: u64,
    pub refused_by_both: u64,
    pub only_qemu: u64,
    pub not_asked: u64,
    /// Why qemu-img refuses what we complete, and why we refuse what it reads: in the words of who refuses.
    pub refusals_by_qemu: Classes,
    pub refusals_by_us: Classes,
    pub peak_kib: u64,
    pub took: Duration,
    /// What must not be, each with the image's number.
    pub faults: Vec<String>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} mutated images: {} complete ({} equal to qemu-img, {} that qemu-img refuses), {} refused ({} by qemu-img \
             too, {} that it reads, {} not asked), {} faults; peak {} MiB; {} s",
            self.count,
            self.complete,
            self.equal,
            self.only_ours,
            self.refused,
            self.refused_by_both,
            self.only_qemu,
            self.not_asked,
            self.faults.len(),
            self.peak_kib >> 10,
            self.took.as_secs()
        )
    }
}

/// Runs images `first` to `first + count` on two workers. Images at fault are kept in `keep`.
pub fn run(writer: &Writer, first: u64, count: u64, keep: &Path) -> Result<Summary> {
    let started = Instant::now();
    let bases = make::bases()?;
    let (next, summary) = (AtomicU64::new(first), Mutex::new(Summary { count, ..Summary::default() }));
    let work = || -> Result<()> {
        let folder = scratch("mutants")?;
        let disk = Disk::new(folder.path().join("disk"), DISK)?;
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first.saturating_add(count) {
                return Ok(());
            }
            let image = make::mutant(&bases, seed);
            let found =
                judge(writer, &image, folder.path(), &disk).with_context(|| format!("image {seed}"))?;
            if let Some(fault) = &found.fault {
                fs::create_dir_all(keep)?;
                fs::write(keep.join(format!("{seed}.qcow2")), &image)?;
                eprintln!("image {seed}: {fault}");
            }
            let mut summary = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            summary.add(seed, found);
            let done = summary.complete + summary.refused;
            if done.is_multiple_of(10_000) {
                eprintln!(
                    "{done} of {count}, {} faults, {} s",
                    summary.faults.len(),
                    started.elapsed().as_secs()
                );
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mine = work();
        mine.and(other.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    let mut summary = summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary.took = started.elapsed();
    Ok(summary)
}

/// What one image came to.
struct Found {
    /// Why the agent refused it; `None`: it did not.
    refusal: Option<String>,
    qemu: Qemu,
    peak_kib: u64,
    fault: Option<String>,
}

/// What qemu-img did with an image.
enum Qemu {
    NotAsked,
    /// The disk that it read.
    Read(Vec<u8>),
    /// In its words.
    Refused(String),
}

impl Summary {
    /// Both tables of refusals, for a reader.
    pub fn classes(&self) -> String {
        format!(
            "complete, and qemu-img refuses it:\n{}refused by us, and qemu-img reads it:\n{}",
            self.refusals_by_qemu, self.refusals_by_us
        )
    }

    fn add(&mut self, seed: u64, found: Found) {
        self.peak_kib = self.peak_kib.max(found.peak_kib);
        match found.refusal {
            None => self.complete += 1,
            Some(_) => self.refused += 1,
        }
        match (found.refusal, found.qemu) {
            (_, Qemu::NotAsked) => self.not_asked += 1,
            (None, Qemu::Read(_)) => self.equal += u64::from(found.fault.is_none()),
            (None, Qemu::Refused(words)) => {
                self.only_ours += 1;
                self.refusals_by_qemu.add(&words, seed);
            }
            (Some(words), Qemu::Read(_)) => {
                self.only_qemu += 1;
                self.refusals_by_us.add(&words, seed);
            }
            (Some(_), Qemu::Refused(_)) => self.refused_by_both += 1,
        }
        self.faults.extend(found.fault.map(|fault| format!("image {seed}: {fault}")));
    }
}

fn judge(writer: &Writer, image: &[u8], folder: &Path, disk: &Disk) -> Result<Found> {
    let file = folder.join("image");
    fs::write(&file, image)?;
    disk.fill()?;
    let digest = sha256(image);
    let name = file.display().to_string();
    let order =
        Order { image: &name, format: "qcow2", sha256: &digest, disk: &disk.path, more: &["--no-table"] };
    let ended = writer.write(&order)?;
    let mut found = Found { refusal: None, qemu: Qemu::NotAsked, peak_kib: ended.peak_kib, fault: None };
    if ended.code != 0 {
        found.fault = ended.expect_refused().err().map(|error| error.to_string());
        if disk.left()? == Left::Other {
            found.fault = Some(format!("refused ({}), but the disk may boot", ended.words.trim()));
        }
        found.refusal = Some(ended.words);
    }
    if make::word(image, 24).unwrap_or(0) <= LARGEST {
        found.qemu = by_qemu(folder)?;
    }
    if let (None, Qemu::Read(expected)) = (&found.refusal, &found.qemu) {
        found.fault = disk.expect_start(expected).err().map(|error| error.to_string());
    }
    Ok(found)
}

fn by_qemu(folder: &Path) -> Result<Qemu> {
    let mut command = Command::new("timeout");
    command
        .args(["20", "qemu-img", "convert", "-f", "qcow2", "-O", "raw", "image", "out"])
        .current_dir(folder);
    let output = die_with_us(&mut command).stdin(Stdio::null()).output();
    let output = output.context("starting qemu-img (Debian package qemu-utils)")?;
    Ok(match output.status.code() {
        Some(0) => Qemu::Read(fs::read(folder.join("out"))?),
        Some(124) => Qemu::Refused("it was not done after 20 s".into()),
        _ => Qemu::Refused(String::from_utf8_lossy(&output.stderr).into_owned()),
    })
}

/// Where images at fault are kept.
pub fn keep_folder() -> Result<PathBuf> {
    Ok(crate::artifacts::target()?.join("runs/mutants"))
}
