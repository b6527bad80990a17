//! The image and the disk must be two things: what is written onto itself is lost, and it may be the only copy.

use crate::platform::linux::loops::{self, is_same};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Looks at the files before any is opened for writing; what is not there is left to those who open it. `sys` is where sysfs is
/// mounted.
///
/// # Errors
/// In an operator's words: a source that is the disk, by whatever name, or lies under it; a file disk that is in use as a loop
/// device. (The kernel itself refuses a block device that is mounted or held.)
pub fn check<'a>(sys: &Path, sources: impl Iterator<Item = &'a Path>, disk: &Path) -> Result<(), String> {
    let Ok(target) = fs::metadata(disk) else { return Ok(()) };
    let below = loops::below(sys, &target).filter(|_| target.file_type().is_block_device());
    let below = below.and_then(|path| fs::metadata(path).ok());
    for source in sources {
        let Ok(found) = fs::metadata(source) else { continue };
        let (source, disk) = (source.display(), disk.display());
        if is_one(&found, &target) {
            return Err(format!(
                "{source} is the disk {disk} itself, and would be lost; nothing was written"
            ));
        }
        if below.as_ref().is_some_and(|below| is_same(below, &found)) {
            return Err(format!("{source} is the file under {disk}, and would be lost; nothing was written"));
        }
    }
    match loops::above(sys, &target).filter(|_| target.is_file()) {
        Some(device) => Err(format!(
            "{} is in use as {device}: write to that, or detach it (losetup -d {device}); nothing was written",
            disk.display()
        )),
        None => Ok(()),
    }
}

/// One file, or one device by two names.
fn is_one(one: &Metadata, other: &Metadata) -> bool {
    let devices = one.file_type().is_block_device() && other.file_type().is_block_device();
    is_same(one, other) || (devices && one.rdev() == other.rdev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_told_from_its_image_and_from_a_device_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["image", "disk", "used"] {
            fs::write(at(name), name).unwrap();
        }
        fs::hard_link(at("image"), at("hard")).unwrap();
        std::os::unix::fs::symlink(at("image"), at("soft")).unwrap();
        fs::create_dir_all(at("sys/block/loop3/loop")).unwrap();
        fs::write(at("sys/block/loop3/loop/backing_file"), format!("{}\n", at("used").display())).unwrap();
        let check = |image: &str, disk: &str| {
            let verdict = check(&at("sys"), [at(image)].iter().map(AsRef::as_ref), &at(disk));
            verdict.err().unwrap_or_default().replace(&format!("{}/", folder.path().display()), "")
        };
        for fine in [("image", "disk"), ("missing", "disk"), ("image", "missing")] {
            assert_eq!(check(fine.0, fine.1), "", "{fine:?}");
        }
        for name in ["image", "hard", "soft"] {
            let words = format!("image is the disk {name} itself, and would be lost; nothing was written");
            assert_eq!(check("image", name), words);
        }
        let words = "used is in use as /dev/loop3: write to that, or detach it (losetup -d /dev/loop3); nothing was written";
        assert_eq!(check("image", "used"), words);
    }
}
