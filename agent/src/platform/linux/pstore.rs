//! What the kernel kept of crashes in the firmware's memory, one file a record (Linux, `Documentation/admin-guide/pstore-blk.rst`).

use super::process::{self, Mount};
use std::fs;
use std::io;
use std::path::Path;

pub const MOUNT: Mount = Mount { kind: "pstore", on: "/sys/fs/pstore", options: "", trusted: false };

/// Removes every record; the names of what was there. A kernel without such a place has none.
///
/// # Errors
/// As readdir(3) and unlink(2), after all records were tried.
pub fn clear() -> io::Result<Vec<String>> {
    match process::mount_one(&MOUNT) {
        Ok(()) => clear_folder(Path::new(MOUNT.on)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EPERM)) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn clear_folder(folder: &Path) -> io::Result<Vec<String>> {
    let mut gone = Vec::new();
    let mut failure = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match fs::remove_file(&path) {
            Ok(()) => gone.extend(path.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(error) => {
                failure = Some(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            }
        }
    }
    match failure {
        None => {
            gone.sort();
            Ok(gone)
        }
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_goes_and_one_that_stays_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["dmesg-efi-2", "dmesg-efi-1"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(clear_folder(folder.path()).unwrap(), ["dmesg-efi-1", "dmesg-efi-2"]);
        assert!(clear_folder(folder.path()).unwrap().is_empty());
        fs::create_dir(folder.path().join("stays")).unwrap();
        fs::write(folder.path().join("goes"), "x").unwrap();
        assert!(clear_folder(folder.path()).unwrap_err().to_string().contains("stays"));
        assert!(!folder.path().join("goes").exists());
    }
}
