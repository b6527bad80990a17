//! Looks at a machine's disk from outside: blank, blank at both ends, all zeros, or an image.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// No byte was ever written: the file takes no space.
pub fn expect_untouched(disk: &Path) -> Result<()> {
    let blocks = File::open(disk)?.metadata()?.blocks();
    ensure!(
        blocks == 0,
        "{} takes {} bytes; it should never have been written to",
        disk.display(),
        blocks * 512
    );
    Ok(())
}

/// The first and the last MiB are zeros: nothing can take the disk for bootable.
pub fn expect_blank_ends(disk: &Path) -> Result<()> {
    let file = File::open(disk)?;
    let size = file.metadata()?.len();
    for (name, at) in [("first", 0), ("last", size - MIB)] {
        let mut bytes = vec![0; usize::try_from(MIB)?];
        file.read_exact_at(&mut bytes, at).with_context(|| format!("reading the {name} MiB"))?;
        let written = bytes.iter().position(|b| *b != 0);
        ensure!(written.is_none(), "the {name} MiB of {} is not blank: byte {written:?}", disk.display());
    }
    Ok(())
}

/// Every byte is zero: whatever was there is gone.
pub fn expect_zeros(disk: &Path) -> Result<()> {
    let mut file = File::open(disk)?;
    let (mut buffer, mut at) = (vec![0; usize::try_from(MIB)?], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let place = buffer.iter().take(read).position(|byte| *byte != 0);
        if let Some(place) = place {
            bail!("{} still has something at byte {}", disk.display(), at + place);
        }
        at += read;
    }
}

/// The disk holds the raw image `image` byte for byte, but for the ranges in `except` (start, end).
///
/// A partition table moves its second copy to the disk's end, so the first two sectors and the image's last ones differ.
pub fn expect_image(disk: &Path, image: &Path, except: &[(u64, u64)]) -> Result<()> {
    let (disk_file, image_file) = (File::open(disk)?, File::open(image)?);
    let size = image_file.metadata()?.len();
    let mut at = 0;
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    while at < size {
        let length = usize::try_from((size - at).min(MIB))?;
        let (a, b) = (a.get_mut(..length).context("length")?, b.get_mut(..length).context("length")?);
        disk_file.read_exact_at(a, at)?;
        image_file.read_exact_at(b, at)?;
        if a != b {
            for (offset, (x, y)) in a.iter().zip(b.iter()).enumerate() {
                let place = at + offset as u64;
                let excused = except.iter().any(|(start, end)| (*start..*end).contains(&place));
                ensure!(x == y || excused, "byte {place} of {} differs from the image", disk.display());
            }
        }
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_byte_is_found_where_it_is() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(3 * MIB + 512).unwrap();
        expect_zeros(disk.path()).unwrap();
        disk.as_file().write_all_at(&[1], 3 * MIB + 511).unwrap();
        let told = expect_zeros(disk.path()).unwrap_err().to_string();
        assert!(told.ends_with("still has something at byte 3146239"), "{told}");
    }
}
