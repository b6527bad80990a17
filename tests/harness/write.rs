//! `ferric-agent write` as an operator runs it: a built program, a file that stands for a disk, an exit status and words.

use crate::artifacts::{self, MUSL, target};
use crate::debian::hex;
use crate::process::die_with_us;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const MIB: u64 = 1 << 20;
/// What was on the disk before.
pub const OLD: u8 = 0xa5;
/// No write in these tests takes as long; one that does hangs.
const SECONDS: &str = "60";

/// The built agent and the program that measures it: copies, so that a build beside a long run does not change them.
#[derive(Debug)]
pub struct Writer {
    agent: PathBuf,
    peak: PathBuf,
    _folder: tempfile::TempDir,
}

/// One write.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Path or URL.
    pub image: &'a str,
    /// Value of `--format`.
    pub format: &'a str,
    pub sha256: &'a str,
    pub disk: &'a Path,
    pub more: &'a [&'a str],
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// -1 after a signal.
    pub code: i32,
    /// 0 without one.
    pub signal: i32,
    pub peak_kib: u64,
    /// Standard error.
    pub words: String,
}

impl Writer {
    /// Builds what is not built.
    pub fn obtain() -> Result<Self> {
        artifacts::agent()?;
        let folder = scratch("writer")?;
        let (agent, peak) = (folder.path().join("ferric-agent"), folder.path().join("ferric-peak"));
        fs::copy(target()?.join(MUSL).join("release/ferric-agent"), &agent).context("copying the agent")?;
        fs::copy(artifacts::peak()?, &peak).context("copying ferric-peak")?;
        Ok(Self { agent, peak, _folder: folder })
    }

    pub fn write(&self, order: &Order) -> Result<Ended> {
        let mut command = Command::new(&self.peak);
        command.arg(SECONDS).arg(&self.agent).args([
            "write",
            "--image",
            order.image,
            "--format",
            order.format,
        ]);
        command.args(["--sha256", order.sha256, "--disk"]).arg(order.disk).args(order.more);
        let output =
            die_with_us(&mut command).stdin(Stdio::null()).output().context("starting ferric-peak")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let number = |name: &str| -> Option<i64> {
            let last = said.lines().last()?.strip_prefix("ended ")?;
            last.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let missing = || format!("ferric-peak said '{said}', '{words}'");
        Ok(Ended {
            code: number("code").with_context(missing)? as i32,
            signal: number("signal").with_context(missing)? as i32,
            peak_kib: number("peak_kib").with_context(missing)? as u64,
            words,
        })
    }
}

impl Ended {
    /// Status 0.
    pub fn expect_complete(&self) -> Result<()> {
        ensure!(self.code == 0, "exit status {}, signal {}: {}", self.code, self.signal, self.words.trim());
        Ok(())
    }

    /// An ordinary refusal: a status, a sentence, and no sign of a panic.
    pub fn expect_refused(&self) -> Result<()> {
        let words = self.words.trim();
        ensure!(self.code != 0, "it was written: {words}");
        ensure!(self.signal == 0, "signal {}: {words}", self.signal);
        ensure!(self.code == 1, "exit status {}: {words}", self.code);
        ensure!(!words.contains("panicked") && !words.contains("RUST_BACKTRACE"), "a panic: {words}");
        ensure!(words.len() > 30 && words.contains(' '), "these are no words for an operator: '{words}'");
        Ok(())
    }
}

/// A regular file that stands for a disk.
#[derive(Debug)]
pub struct Disk {
    pub path: PathBuf,
    size: u64,
}

/// What a disk may be after a write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Every byte is old.
    Untouched,
    /// The first and the last MiB are zeros: nothing boots.
    Blank,
    /// Neither: old or new bytes that might boot.
    Other,
}

impl Disk {
    /// A disk full of old data.
    pub fn new(path: PathBuf, size: u64) -> Result<Self> {
        let disk = Self { path, size };
        disk.fill()?;
        Ok(disk)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts the old data back.
    pub fn fill(&self) -> Result<()> {
        fs::write(&self.path, vec![OLD; usize::try_from(self.size)?])
            .with_context(|| format!("filling {}", self.path.display()))
    }

    pub fn content(&self) -> Result<Vec<u8>> {
        let content = fs::read(&self.path)?;
        ensure!(content.len() as u64 == self.size, "the disk has changed its size to {}", content.len());
        Ok(content)
    }

    pub fn left(&self) -> Result<Left> {
        let content = self.content()?;
        let end = content.len().min(MIB as usize);
        let is_blank = |bytes: &[u8]| bytes == vec![0; bytes.len()];
        Ok(match content == vec![OLD; content.len()] {
            true => Left::Untouched,
            false if is_blank(&content[..end]) && is_blank(&content[content.len() - end..]) => Left::Blank,
            false => Left::Other,
        })
    }

    /// The disk begins with `image`.
    pub fn expect_start(&self, image: &[u8]) -> Result<()> {
        let content = self.content()?;
        let start = content.get(..image.len()).context("the image is larger than the disk")?;
        same("the disk", start, image)
    }

    /// The disk is `image`; behind it the old data stands, but for the first and the last MiB of the disk.
    pub fn expect(&self, image: &[u8]) -> Result<()> {
        let mut expected = vec![OLD; usize::try_from(self.size)?];
        let last = expected.len() - MIB as usize;
        expected[..MIB as usize].fill(0);
        expected[last..].fill(0);
        expected.get_mut(..image.len()).context("the image is larger than the disk")?.copy_from_slice(image);
        same("the disk", &self.content()?, &expected)
    }
}

/// Two runs of bytes are equal; else the first place where they are not.
pub fn same(name: &str, found: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{name} has {} bytes, expected {}", found.len(), expected.len());
    // Block by block: byte by byte takes long in a debug build.
    let mut blocks = found.chunks(4096).zip(expected.chunks(4096)).zip(0..);
    let Some(((a, b), nth)) = blocks.find(|((a, b), _)| a != b) else { return Ok(()) };
    let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(0);
    bail!("byte {} of {name} is {:#x}, expected {:#x}", nth * 4096 + at, a[at], b[at]);
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A folder in memory where there is one; it goes with its handle.
pub fn scratch(name: &str) -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix(&format!("ferric-{name}-")).tempdir_in(place).context("making a folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_disk_is_told_apart() -> Result<()> {
        let folder = scratch("left")?;
        let disk = Disk::new(folder.path().join("disk"), 3 * MIB)?;
        assert_eq!(disk.left()?, Left::Untouched);
        let mut content = disk.content()?;
        content[5] = 0;
        fs::write(&disk.path, &content)?;
        assert_eq!(disk.left()?, Left::Other);
        content[..MIB as usize].fill(0);
        fs::write(&disk.path, &content)?;
        assert_eq!(disk.left()?, Left::Other);
        content[2 * MIB as usize..].fill(0);
        fs::write(&disk.path, &content)?;
        assert_eq!(disk.left()?, Left::Blank);
        assert!(disk.expect(&[]).is_ok());
        let words = |image: &[u8]| disk.expect(image).unwrap_err().to_string();
        assert_eq!(words(&[0, 0, 1]), "byte 2 of the disk is 0x0, expected 0x1");
        content[MIB as usize] = 7;
        fs::write(&disk.path, &content)?;
        assert_eq!(words(&[0, 0]), "byte 1048576 of the disk is 0x7, expected 0xa5");
        Ok(())
    }
}
