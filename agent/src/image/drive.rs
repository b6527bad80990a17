//! A config drive for the disk that it goes to: Linux mounts no file system from a disk whose sectors are larger than the blocks that
//! it was made of, which are 2048 bytes of ISO 9660 and mostly 512 of FAT. Such a drive becomes a FAT file system with the same
//! files, as in ironic-python-agent; and any that there is, where the operator wants all of them so.

use super::error::{DriveError, Rebuild};
use super::{ImageError, WriteRequest};
use crate::media::label;
use ferric_common::formats::{fat, gpt, iso9660, volume};
use ferric_common::limits;
use ferric_common::units::{ByteCount, SectorSize};

/// Bytes of a block of ISO 9660.
const BLOCK: u32 = 2048;
/// In capital letters, which is all that FAT has; readers of config drives take both.
const LABEL: &str = "CONFIG-2";

/// The order with another config drive, if the one that came cannot be mounted from a disk with such sectors, or is to be made
/// anew in any case.
///
/// # Errors
/// [`ImageError::Drive`]: it is not understood, or has names that FAT cannot hold.
pub fn fit(request: &WriteRequest, sector: SectorSize) -> Result<Option<WriteRequest>, ImageError> {
    let Some(drive) = request.config_drive.as_deref() else { return Ok(None) };
    let found = kind(drive);
    let Some(why) = reason(request, found, sector) else { return Ok(None) };
    let made = rebuilt(drive, found, sector).map_err(|source| ImageError::Drive { why, source })?;
    tracing::info!(
        "the config drive ({}) becomes FAT ({}) with sectors of {} bytes: {why}",
        ByteCount(drive.len() as u64),
        ByteCount(made.len() as u64),
        sector.0
    );
    let image = request.image.clone();
    Ok(Some(WriteRequest { image, config_drive: Some(made), rebuild_drive: false, verify: request.verify }))
}

/// A file system that can be read, with the smallest unit that it is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Iso,
    Fat(u32),
}

fn kind(drive: &[u8]) -> Option<Kind> {
    match label::read(drive)?.kind {
        "iso9660" => Some(Kind::Iso),
        _ => fat::read::sector_size(drive).map(Kind::Fat),
    }
}

fn reason(request: &WriteRequest, found: Option<Kind>, sector: SectorSize) -> Option<Rebuild> {
    let unit = match found {
        Some(Kind::Iso) => Some(BLOCK),
        Some(Kind::Fat(unit)) => Some(unit),
        // What nobody here knows is the business of whoever made it.
        None => None,
    };
    let is_unmountable = unit.is_some_and(|unit| unit < sector.0).then_some(Rebuild::Unmountable(sector));
    is_unmountable.or(request.rebuild_drive.then_some(Rebuild::Wanted))
}

fn rebuilt(drive: &[u8], found: Option<Kind>, sector: SectorSize) -> Result<Vec<u8>, DriveError> {
    let most = ByteCount(limits::CONFIG_DRIVE);
    let entries = match found {
        Some(Kind::Iso) => iso9660::read::read(drive, most)?,
        Some(Kind::Fat(_)) => fat::read::read(drive, most)?,
        None => return Err(DriveError::Unknown),
    };
    // The same drive gives the same bytes.
    let mut made = fat::build(LABEL, gpt::crc32(drive), sector, &entries)?;
    // A small one would leave the marks of what stood in its place, behind its own end, and be taken for two file systems.
    made.resize(made.len().max(volume::HEAD), 0);
    Ok(made)
}
