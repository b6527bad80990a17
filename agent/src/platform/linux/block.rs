//! Disks by direct I/O: block devices, and regular files that stand for one.
//!
//! Buffered writes to a block device cost ten times the time and fill the page cache, so a block device is always
//! opened with `O_DIRECT`. `O_EXCL` on a block device makes the kernel refuse one that is mounted or held.

use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset, SectorSize};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// An open disk.
#[derive(Debug)]
pub struct LinuxBlock {
    name: String,
    file: File,
    size: u64,
    sector: u32,
    alignment: usize,
    /// Whether a discard is worth a try: a block device that reads quickly.
    discards: bool,
}

/// The sector of a regular file that stands for a disk, in bytes.
const FILE_SECTOR: u64 = 512;

/// Opens `path` exclusively for reading and writing. Nothing is written.
///
/// # Errors
/// Those of `open`; `InvalidInput` if it is neither a block device nor a regular file, or its size cannot be a disk's.
pub fn open(path: &Path) -> io::Result<LinuxBlock> {
    open_for(path, true)
}

/// Opens `path` to be read alone, also while others use it.
///
/// # Errors
/// As [`open`].
pub fn peek(path: &Path) -> io::Result<LinuxBlock> {
    open_for(path, false)
}

fn open_for(path: &Path, writing: bool) -> io::Result<LinuxBlock> {
    let kind = std::fs::metadata(path)?.file_type();
    let flags = match (kind.is_block_device(), kind.is_file()) {
        (true, _) if writing => OFlag::O_DIRECT | OFlag::O_EXCL | OFlag::O_CLOEXEC,
        (true, _) | (_, true) => OFlag::O_DIRECT | OFlag::O_CLOEXEC,
        _ => return Err(invalid(path, "is neither a block device nor a regular file")),
    };
    let with =
        |flags: OFlag| OpenOptions::new().read(true).write(writing).custom_flags(flags.bits()).open(path);
    // Some file systems (older tmpfs) have no direct I/O: a regular file there is written through the cache.
    let mut file = match with(flags) {
        Err(e) if kind.is_file() && e.raw_os_error() == Some(libc::EINVAL) => with(OFlag::O_CLOEXEC)?,
        other => other?,
    };
    let size = file.seek(SeekFrom::End(0))?;
    if size == 0 {
        return Err(invalid(path, "has size 0"));
    }
    let mut alignment = 4096;
    if kind.is_file() {
        whole(path, size, FILE_SECTOR)?;
        match direct_unit(&file) {
            Some(0) => file = with(OFlag::O_CLOEXEC)?,
            Some(unit) => {
                whole(path, size, unit.into())?;
                alignment = alignment.max(unit as usize);
            }
            None => {}
        }
    }
    let sector = if kind.is_block_device() { sector_size(&file)? } else { 512 };
    if kind.is_block_device() {
        alignment = sector as usize;
    }
    let discards = kind.is_block_device() && !is_rotational(&file);
    Ok(LinuxBlock { name: path.display().to_string(), file, size, sector, alignment, discards })
}

/// # Errors
/// `InvalidInput` for a size that is no multiple of `unit`, with those that are.
fn whole(path: &Path, size: u64, unit: u64) -> io::Result<()> {
    if size.is_multiple_of(unit) {
        return Ok(());
    }
    let (less, more) = (size - size % unit, size.next_multiple_of(unit));
    let fits = if less == 0 { format!("{more} would fit") } else { format!("{less} or {more} would fit") };
    Err(invalid(
        path,
        &format!("has a size of {size} bytes, not a multiple of {unit} as a disk's is here; {fits}"),
    ))
}

/// The unit of direct I/O on a file, in bytes, where the kernel (6.1 and later) and the file system say it: 0 is no direct I/O.
#[allow(unsafe_code)]
fn direct_unit(file: &File) -> Option<u32> {
    // SAFETY: statx is numbers alone, for which zeros are values.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the empty path, which AT_EMPTY_PATH allows, and the answer's place live until the call returns.
    let answer = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut found)
    };
    (answer == 0 && found.stx_mask & libc::STATX_DIOALIGN != 0).then_some(found.stx_dio_offset_align)
}

fn invalid(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} {why}", path.display()))
}

nix::ioctl_read_bad!(blksszget, libc::BLKSSZGET, libc::c_int);
// linux/fs.h: #define BLKDISCARD _IO(0x12,119), takes offset and length.
nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
// linux/fs.h: #define BLKSECDISCARD _IO(0x12,125), takes offset and length.
nix::ioctl_write_ptr_bad!(blksecdiscard, nix::request_code_none!(0x12, 125), [u64; 2]);
// linux/fs.h: #define BLKROTATIONAL _IO(0x12,126), gives an unsigned short.
nix::ioctl_read_bad!(blkrotational, nix::request_code_none!(0x12, 126), libc::c_ushort);

#[allow(unsafe_code)]
fn is_rotational(file: &File) -> bool {
    let mut rotational: libc::c_ushort = 1;
    // SAFETY: BLKROTATIONAL writes one unsigned short through the pointer, which lives until the call returns.
    let asked = unsafe { blkrotational(file.as_raw_fd(), &mut rotational) };
    asked.is_err() || rotational != 0
}

#[allow(unsafe_code)]
fn sector_size(file: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int through the pointer, which lives until the call returns.
    unsafe { blksszget(file.as_raw_fd(), &mut size) }?;
    match u32::try_from(size) {
        Ok(size @ (512 | 1024 | 2048 | 4096)) => Ok(size),
        _ => Err(io::Error::other(format!("the kernel reports a sector size of {size} bytes"))),
    }
}

/// A device that cannot discard says so in several ways.
fn done(answer: nix::Result<libc::c_int>) -> io::Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOTTY | nix::errno::Errno::EINVAL) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(other) => Err(other.into()),
    }
}

impl BlockDevice for LinuxBlock {
    fn name(&self) -> &str {
        &self.name
    }
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }
    fn sector_size(&self) -> SectorSize {
        SectorSize(self.sector)
    }
    fn alignment(&self) -> usize {
        self.alignment
    }
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at.0)
    }
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
        // A regular file must not grow: its size is the disk's.
        if at.0.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write past the end of the disk"));
        }
        self.file.write_all_at(bytes, at.0)
    }
    /// PUNCH_HOLE zeroes by offload or fails with EOPNOTSUPP; unlike BLKZEROOUT it never falls back to slow writes and
    /// never makes the kernel switch the offload off for everybody.
    fn zero(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        let (Ok(at), Ok(length)) = (i64::try_from(at.0), i64::try_from(length.0)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, flags, at, length) {
            Ok(()) => Ok(()),
            Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENODEV | nix::errno::Errno::ENOSYS) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(other) => Err(other.into()),
        }
    }
    #[allow(unsafe_code)]
    fn discard(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        if !self.discards {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = [at.0, length.0];
        // SAFETY: BLKDISCARD reads two 64-bit numbers through the pointer, which lives until the call returns.
        done(unsafe { blkdiscard(self.file.as_raw_fd(), &range) })
    }
    #[allow(unsafe_code)]
    fn secure_discard(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        if !self.discards {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = [at.0, length.0];
        // SAFETY: BLKSECDISCARD reads two 64-bit numbers through the pointer, which lives until the call returns.
        done(unsafe { blksecdiscard(self.file.as_raw_fd(), &range) })
    }
    fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_opened_to_be_read_is_not_written() {
        let file = sized(1 << 20);
        let disk = peek(file.path()).unwrap();
        crate::disk::aligned::write(&disk, DiskOffset(0), b"new").unwrap_err();
        let bytes = crate::disk::aligned::read(&disk, DiskOffset(0), ByteCount(3)).unwrap();
        assert_eq!((disk.size(), bytes), (ByteCount(1 << 20), vec![0; 3]));
    }

    #[test]
    fn a_file_that_is_no_whole_number_of_sectors_is_refused_with_sizes_that_fit() {
        for (size, fits) in [
            (
                (4 << 20) + 1,
                "a size of 4194305 bytes, not a multiple of 512 as a disk's is here; 4194304 or 4194816 would fit",
            ),
            (511, "a size of 511 bytes, not a multiple of 512 as a disk's is here; 512 would fit"),
            (0, "has size 0"),
        ] {
            let file = sized(size);
            let error = open(file.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with(fits), "{error}");
        }
    }

    #[test]
    fn a_file_whose_last_block_is_short_is_written_to_its_end() {
        let file = sized((4 << 20) + 512);
        let disk = open(file.path()).unwrap();
        let blocks = vec![7u8; 3 * 4096];
        let shift = blocks.as_ptr().align_offset(4096);
        disk.write_at(DiskOffset(4 << 20), &blocks[shift..shift + 512]).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap()[4 << 20..], [7; 512]);
    }
}
