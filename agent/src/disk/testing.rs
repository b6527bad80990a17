//! For this room's tests: a file that stands for a disk, and the tools of util-linux as independent judges.

use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset, SectorSize};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A sparse temporary file as a disk. Refuses what the kernel refuses under direct I/O.
pub struct FileDisk {
    pub file: tempfile::NamedTempFile,
    name: String,
    size: u64,
    sector: u32,
}

impl FileDisk {
    pub fn new(size: u64, sector: u32) -> FileDisk {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let name = file.path().display().to_string();
        FileDisk { file, name, size, sector }
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.file().write_all_at(bytes, at).unwrap();
    }

    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn file(&self) -> &File {
        self.file.as_file()
    }

    fn check(&self, at: DiskOffset, memory: *const u8, length: usize) -> io::Result<()> {
        let align = self.alignment();
        let to_end = at.0 + length as u64 == self.size && length.is_multiple_of(self.sector as usize);
        let whole = length.is_multiple_of(align) || to_end;
        match at.0.is_multiple_of(align as u64) && whole && memory.align_offset(align) == 0 {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(22)),
        }
    }
}

impl BlockDevice for FileDisk {
    fn name(&self) -> &str {
        &self.name
    }
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }
    fn sector_size(&self) -> SectorSize {
        SectorSize(self.sector)
    }
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()> {
        self.check(at, buffer.as_ptr(), buffer.len())?;
        self.file().read_exact_at(buffer, at.0)
    }
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
        self.check(at, bytes.as_ptr(), bytes.len())?;
        self.file().write_all_at(bytes, at.0)
    }
    fn zero(&self, _: DiskOffset, _: ByteCount) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a tool with `input` and returns its exit code, and its two outputs in one.
#[track_caller]
pub fn run(program: &str, args: &[&str], path: &Path, input: &str) -> (i32, String) {
    let path_list = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new(program)
        .args(args)
        .arg(path)
        .env("PATH", path_list)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{program} (Debian packages fdisk, e2fsprogs, dosfstools, util-linux): {e}")
        });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    (out.status.code().unwrap_or(-1), text)
}

/// As [`run`], but the tool must succeed.
#[track_caller]
pub fn ok(program: &str, args: &[&str], path: &Path, input: &str) -> String {
    let (code, text) = run(program, args, path, input);
    assert_eq!(code, 0, "{program} {args:?}: {text}");
    text
}
