//! A disk that can be written: the narrow door between the image pipeline and the kernel.

use ferric_common::units::{ByteCount, DiskOffset, SectorSize};
use std::io;

/// A block device (or a regular file standing for one), opened exclusively for writing.
///
/// Offsets, lengths and buffer addresses given to `read_at` and `write_at` are multiples of [`BlockDevice::alignment`];
/// the real device is opened for direct I/O. All methods may be called from several threads at once.
pub trait BlockDevice: Send + Sync {
    /// The name an operator knows: `/dev/sda`.
    fn name(&self) -> &str;
    fn size(&self) -> ByteCount;
    fn sector_size(&self) -> SectorSize;
    /// Alignment in bytes of offsets, lengths and memory for direct I/O.
    fn alignment(&self) -> usize {
        4096
    }
    /// Reads exactly `buffer.len()` bytes.
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`; returning does not mean it is on the disk, see [`BlockDevice::flush`].
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()>;
    /// Makes a range read as zeros by an offload that guarantees it (`fallocate` PUNCH_HOLE), never by writing.
    ///
    /// # Errors
    /// `ErrorKind::Unsupported` if the device guarantees nothing: the caller then writes zeros.
    fn zero(&self, at: DiskOffset, length: ByteCount) -> io::Result<()>;
    /// Tells the device that a range holds nothing any more (BLKDISCARD). Proves nothing: what is read there afterwards may
    /// be zeros, old data or anything else, so whoever needs zeros reads them back.
    ///
    /// # Errors
    /// `ErrorKind::Unsupported` if the device cannot, or if reading back would cost more than writing (spinning disks).
    fn discard(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        let _ = (at, length);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// As [`BlockDevice::discard`], with the device's word that no copy stays either (BLKSECDISCARD).
    ///
    /// # Errors
    /// `ErrorKind::Unsupported` on nearly all devices.
    fn secure_discard(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        let _ = (at, length);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Returns when all that was written is on stable storage. An error is final: a second flush does not clear it.
    fn flush(&self) -> io::Result<()>;
}
