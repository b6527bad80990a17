//! qcow2 images, versions 2 and 3: which bytes of the file become which bytes of the disk.
//!
//! [`Header::parse`] checks everything that the header says before a byte of the disk is touched; [`Planner`] walks the
//! active L1 table and its L2 tables and hands out [`Extent`]s in the order of the disk. Neither reads a file nor
//! decompresses: whoever drives them reads the bytes asked for, copies plain extents and inflates compressed ones.
//! What is not handed out reads as zeros and must be made zeros, so that old content never shows through.
//!
//! Left aside: refcounts and bitmaps. Reading the active content needs neither, so they are never read; only the places
//! the header gives for them are checked. Nor does it need snapshots: [`Snapshots`] only looks over their table.
//! Specification: QEMU's `docs/interop/qcow2`.

mod entry;
mod error;
mod header;
mod planner;
mod snapshots;

pub use error::Qcow2Error;
pub use header::{Compression, Header};
pub use planner::{Extent, ExtentKind, Planner, Step};
pub use snapshots::Snapshots;

/// The big-endian number of four bytes at `at`, or `None` past the end.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// The big-endian number of eight bytes at `at`, or `None` past the end.
fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_be_bytes(*b))
}
