//! Loop devices by sysfs: the file under one, and the one over a file.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const FILE: &str = "loop/backing_file";

/// The file that a loop device, or a partition of one, stands on. `sys` is where sysfs is mounted.
pub fn below(sys: &Path, device: &Metadata) -> Option<PathBuf> {
    let number = format!("dev/block/{}:{}", libc::major(device.rdev()), libc::minor(device.rdev()));
    let folder = fs::canonicalize(sys.join(number)).ok()?;
    let whole = folder.parent().map(Path::to_path_buf).unwrap_or_default();
    [folder, whole].iter().find_map(|folder| backing(folder))
}

/// The name of a loop device that stands on a file.
pub fn above(sys: &Path, file: &Metadata) -> Option<String> {
    let devices = fs::read_dir(sys.join("block")).ok()?;
    let on_it = |folder: &Path| {
        let under = backing(folder).and_then(|path| fs::metadata(path).ok());
        under.is_some_and(|under| is_same(&under, file))
    };
    devices
        .flatten()
        .find(|entry| on_it(&entry.path()))
        .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()))
}

/// Whether two files are one.
pub fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn backing(folder: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(folder.join(FILE)).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_the_loop_device_over_it_find_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, file) = (folder.path().join("sys"), folder.path().join("a file"));
        fs::write(&file, "x").unwrap();
        // Any device will do; its number is what is looked for.
        let device = fs::metadata("/dev/null").unwrap();
        let null = format!("{}:{}", libc::major(device.rdev()), libc::minor(device.rdev()));
        fs::create_dir_all(sys.join("block/loop7/loop")).unwrap();
        fs::create_dir_all(sys.join("block/loop7/loop7p1")).unwrap();
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        fs::write(sys.join("block/loop7/loop/backing_file"), format!("{}\n", file.display())).unwrap();
        for name in ["loop7", "loop7/loop7p1"] {
            let link = sys.join("dev/block").join(&null);
            std::os::unix::fs::symlink(sys.join("block").join(name), &link).unwrap();
            assert_eq!(below(&sys, &device), Some(file.clone()), "{name}");
            fs::remove_file(link).unwrap();
        }
        assert_eq!(below(&sys, &device), None);
        assert_eq!(above(&sys, &fs::metadata(&file).unwrap()).as_deref(), Some("/dev/loop7"));
        assert_eq!(above(&sys, &device), None);
    }
}
