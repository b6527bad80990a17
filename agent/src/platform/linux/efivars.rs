//! The firmware's variables as the kernel's efivarfs shows them: one file each, four bytes of attributes in front (Linux,
//! `Documentation/filesystems/efivarfs.rst`).

use super::ioctl;
use super::process::Mount;
use crate::platform::efi::EfiVariables;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where it is mounted; the folder exists on UEFI machines only.
pub const MOUNT: Mount =
    Mount { kind: "efivarfs", on: "/sys/firmware/efi/efivars", options: "", trusted: false };

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, with access at boot and at run time.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
/// Bytes of a variable that are read. Firmware's own limits are lower.
const LONGEST: u64 = 64 << 10;

/// A mounted efivarfs.
pub struct EfiVars {
    folder: PathBuf,
}

impl EfiVars {
    pub fn at(folder: &Path) -> EfiVars {
        EfiVars { folder: folder.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{GLOBAL}"))
    }

    /// The kernel guards variables against `rm -r` by this flag; those of booting seldom have it.
    fn unlock(&self, name: &str) -> io::Result<()> {
        match File::open(self.path(name)) {
            Ok(file) => ioctl::set_mutable(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl EfiVariables for EfiVars {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(GLOBAL)).map(str::to_owned));
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        match bytes.split_at_checked(ATTRIBUTES.len()) {
            Some((_, content)) => Ok(Some(content.to_owned())),
            None => Err(io::Error::other("it is shorter than its attributes")),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.unlock(name)?;
        // One call to write(2) is one change; truncating first would be another.
        let whole = [&ATTRIBUTES, bytes].concat();
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(self.path(name))?;
        match file.write(&whole)? {
            written if written == whole.len() => Ok(()),
            written => Err(io::Error::other(format!("{written} of {} bytes were taken", whole.len()))),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.unlock(name)?;
        fs::remove_file(self.path(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_files_with_their_attributes_in_front() {
        let folder = tempfile::tempdir().unwrap();
        let vars = EfiVars::at(folder.path());
        assert_eq!(vars.read("BootOrder").unwrap(), None);
        vars.write("BootOrder", &[1, 0]).unwrap();
        let file = folder.path().join("BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(fs::read(&file).unwrap(), [7, 0, 0, 0, 1, 0]);
        assert_eq!(vars.read("BootOrder").unwrap(), Some(vec![1, 0]));
        fs::write(folder.path().join("Setup-12345678-0000-0000-0000-000000000000"), [7, 0, 0, 0]).unwrap();
        assert_eq!(vars.names().unwrap(), ["BootOrder"], "others' variables are not ours");
        fs::write(&file, [7, 0]).unwrap();
        assert!(vars.read("BootOrder").unwrap_err().to_string().contains("shorter"));
        vars.remove("BootOrder").unwrap();
        assert!(vars.names().unwrap().is_empty());
        assert_eq!(vars.remove("BootOrder").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
