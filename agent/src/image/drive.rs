//! A config drive for the disk that it goes to: ISO 9660 has blocks of 2048 bytes, which Linux mounts from no disk whose sectors are
//! larger. Such a drive becomes a FAT file system with the same files, as in ironic-python-agent.

use super::error::DriveError;
use super::{ImageError, WriteRequest};
use crate::media::label;
use ferric_common::formats::{fat, gpt, iso9660, volume};
use ferric_common::limits;
use ferric_common::units::{ByteCount, SectorSize};

/// Bytes of a block of ISO 9660.
const BLOCK: u32 = 2048;
/// In capital letters, which is all that FAT has; readers of config drives take both.
const LABEL: &str = "CONFIG-2";

/// The order with another config drive, if the one that came cannot be mounted from a disk with such sectors.
///
/// # Errors
/// [`ImageError::Drive`]: it is ISO 9660 but not understood, or has names that FAT cannot hold.
pub fn fit(request: &WriteRequest, sector: SectorSize) -> Result<Option<WriteRequest>, ImageError> {
    let Some(drive) = request.config_drive.as_deref().filter(|drive| needs(drive, sector)) else {
        return Ok(None);
    };
    let made = rebuilt(drive, sector).map_err(|source| ImageError::Drive { sector, source })?;
    tracing::info!(
        "the config drive (ISO 9660, {}) becomes FAT ({}): the disk has sectors of {} bytes",
        ByteCount(drive.len() as u64),
        ByteCount(made.len() as u64),
        sector.0
    );
    Ok(Some(WriteRequest { image: request.image.clone(), config_drive: Some(made), verify: request.verify }))
}

fn needs(drive: &[u8], sector: SectorSize) -> bool {
    sector.0 > BLOCK && label::read(drive).is_some_and(|volume| volume.kind == "iso9660")
}

fn rebuilt(drive: &[u8], sector: SectorSize) -> Result<Vec<u8>, DriveError> {
    let entries = iso9660::read::read(drive, ByteCount(limits::CONFIG_DRIVE))?;
    // The same drive gives the same bytes.
    let mut made = fat::build(LABEL, gpt::crc32(drive), sector, &entries)?;
    // A small one would leave the marks of what stood in its place, behind its own end, and be taken for two file systems.
    made.resize(made.len().max(volume::HEAD), 0);
    Ok(made)
}
