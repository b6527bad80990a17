//! What a boot medium or a config drive calls itself. Pure.

pub use ferric_common::formats::volume::{HEAD, Volume};

/// Reads the first [`HEAD`] bytes of a device. Only the file systems that media have count: ISO 9660 and FAT.
pub fn read(head: &[u8]) -> Option<Volume> {
    ferric_common::formats::volume::read(head).filter(|volume| matches!(volume.kind, "iso9660" | "vfat"))
}
