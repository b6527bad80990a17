//! Reads what a mounted EFI system partition holds: the names of its files, and the few that are hints.

use super::loader;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Folders within folders that are looked into; entries in all; bytes of a hint.
const DEPTH: usize = 8;
const ENTRIES: usize = 4096;
const HINT: u64 = 16 << 10;

/// Paths with slashes, from the partition's root, in the order of a walk: files before folders.
#[derive(Clone, Debug, Default)]
pub struct Esp {
    pub files: Vec<String>,
    /// Hints and their content.
    pub hints: Vec<(String, Vec<u8>)>,
}

/// Walks the folder.
///
/// # Errors
/// As readdir(3) and open(2); a partition with more entries than a system has is refused.
pub fn read(root: &Path) -> io::Result<Esp> {
    let mut esp = Esp::default();
    let mut left = ENTRIES;
    walk(root, "", DEPTH, &mut left, &mut esp)?;
    Ok(esp)
}

fn walk(folder: &Path, prefix: &str, depth: usize, left: &mut usize, esp: &mut Esp) -> io::Result<()> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        *left = left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other(format!("the partition has more than {ENTRIES} files")))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type()? {
            kind if kind.is_file() => files.push(name),
            kind if kind.is_dir() => folders.push(name),
            _ => {}
        }
    }
    files.sort();
    folders.sort();
    for name in files {
        let path = format!("{prefix}{name}");
        if loader::is_hint(&path) {
            let mut bytes = Vec::new();
            fs::File::open(folder.join(&name))?.take(HINT).read_to_end(&mut bytes)?;
            esp.hints.push((path.clone(), bytes));
        }
        esp.files.push(path);
    }
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    for name in folders {
        walk(&folder.join(&name), &format!("{prefix}{name}/"), depth, left, esp)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_folders_and_hints_with_their_content() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("EFI/debian/BOOTX64.CSV", "hint"),
            ("EFI/debian/shimx64.efi", "shim"),
            ("EFI/BOOT/BOOTX64.EFI", "loader"),
            ("startup.nsh", ""),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let esp = read(root.path()).unwrap();
        assert_eq!(
            esp.files,
            ["startup.nsh", "EFI/BOOT/BOOTX64.EFI", "EFI/debian/BOOTX64.CSV", "EFI/debian/shimx64.efi"]
        );
        assert_eq!(esp.hints, [("EFI/debian/BOOTX64.CSV".to_string(), b"hint".to_vec())]);
    }

    #[test]
    fn a_partition_without_end_is_not_walked_to_its_end() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/".repeat(20));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("bootx64.efi"), "").unwrap();
        assert!(read(root.path()).unwrap().files.is_empty());
        fs::write(root.path().join("BOOT.CSV"), vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read(root.path()).unwrap().hints[0].1.len(), 16 << 10);
        for number in 0..ENTRIES {
            fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        assert!(read(root.path()).unwrap_err().to_string().contains("more than 4096"));
    }
}
