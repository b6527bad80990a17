//! A partition for the config drive that the image brings along: the drive goes there, and no second one is made.
//!
//! It is told by the label of its file system, as ironic-python-agent does, so it is looked for once the body is on the disk.

use super::ImageError;
use crate::disk::aligned;
use crate::disk::layout::{self, LayoutError};
use crate::media::label;
use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset};

/// Without regard to case: FAT knows capital letters alone.
const LABEL: &str = "config-2";

/// What is to be written where, if a partition of the image in `head` is labelled for it; whole sectors.
///
/// # Errors
/// Those of the device; two such partitions; one that is too small.
pub fn place(
    disk: &dyn BlockDevice,
    head: &[u8],
    drive: &[u8],
) -> Result<Option<(DiskOffset, Vec<u8>)>, ImageError> {
    let mut labelled = Vec::new();
    for (at, length) in layout::partitions(head, disk.sector_size()) {
        if is_labelled(disk, at, length)? {
            labelled.push((at, length));
        }
    }
    match labelled.as_slice() {
        [] => Ok(None),
        [(at, room)] => {
            let bytes = layout::pad(drive, disk.sector_size());
            if bytes.len() as u64 > room.0 {
                let need = ByteCount(bytes.len() as u64);
                return Err(LayoutError::TooSmall { need, room: *room }.into());
            }
            Ok(Some((*at, bytes)))
        }
        many => Err(LayoutError::SeveralConfigDrives(many.len()).into()),
    }
}

fn is_labelled(disk: &dyn BlockDevice, at: DiskOffset, length: ByteCount) -> Result<bool, ImageError> {
    let wanted = (label::HEAD as u64).min(length.0);
    // A table that names more than there is: the kernel would not show such a partition either.
    if at.0.checked_add(length.0).is_none_or(|end| end > disk.size().0) {
        return Ok(false);
    }
    let start = aligned::read(disk, at, ByteCount(wanted))
        .map_err(|e| ImageError::device("looking for a config drive", disk.name(), at.0, e))?;
    Ok(label::read(&start).is_some_and(|volume| volume.is_called(&[LABEL])))
}
