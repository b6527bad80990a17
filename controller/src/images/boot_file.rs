//! Tells a kernel from a ramdisk from anything else, so that a mix-up is refused by name when it is registered and does
//! not end as a machine that hangs at boot.
//!
//! Reads the first 36 KiB of a file. Kernel: the x86 boot protocol (Documentation/arch/x86/boot.rst). Ramdisk: the archive and
//! compression formats that the kernel unpacks (init/initramfs.c, lib/decompress.c).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Enough for ISO 9660's descriptor at 32 KiB.
const HEAD: u64 = 36 << 10;

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An x86 kernel that boot loaders take (bzImage).
    Kernel,
    /// A newc archive, compressed or not; the word says how.
    Ramdisk(&'static str),
    /// An UEFI program that is no bzImage.
    EfiProgram,
    Arm64Kernel,
    Elf,
    Iso,
    Qcow2,
    /// A text page, as a web server answers for a file it does not have.
    TextPage,
    Empty,
    Other,
}

impl FileKind {
    /// Names a file's content.
    pub fn of(head: &[u8]) -> FileKind {
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|b| b.starts_with(magic));
        let ramdisks: [(&[u8], &str); 9] = [
            (b"070701", "cpio archive"),
            (b"070702", "cpio archive"),
            (&[0x1f, 0x8b], "gzip archive"),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz archive"),
            (&[0x28, 0xb5, 0x2f, 0xfd], "zstd archive"),
            (&[0x02, 0x21, 0x4c, 0x18], "lz4 archive"),
            (&[0x5d, 0, 0], "lzma archive"),
            (b"BZh", "bzip2 archive"),
            (&[0x89, b'L', b'Z', b'O'], "lzo archive"),
        ];
        if head.is_empty() {
            return FileKind::Empty;
        }
        if let Some((_, name)) = ramdisks.iter().find(|(magic, _)| at(0, magic)) {
            return FileKind::Ramdisk(name);
        }
        // Before the kernel: a hybrid ISO has a boot sector too.
        if at(0x8001, b"CD001") {
            return FileKind::Iso;
        }
        if at(0x1fe, &[0x55, 0xaa]) && at(0x202, b"HdrS") {
            return FileKind::Kernel;
        }
        let fixed: [(usize, &[u8], FileKind); 4] = [
            (0x38, b"ARM\x64", FileKind::Arm64Kernel),
            (0, b"MZ", FileKind::EfiProgram),
            (0, b"\x7fELF", FileKind::Elf),
            (0, b"QFI\xfb", FileKind::Qcow2),
        ];
        if let Some((_, _, kind)) = fixed.into_iter().find(|(offset, magic, _)| at(*offset, magic)) {
            return kind;
        }
        if is_text_page(head) { FileKind::TextPage } else { FileKind::Other }
    }

    /// In an operator's words, with its article.
    pub fn describe(self) -> &'static str {
        match self {
            FileKind::Kernel => "a Linux kernel (bzImage)",
            FileKind::Ramdisk("cpio archive") => "a ramdisk (cpio archive)",
            FileKind::Ramdisk("gzip archive") => "a ramdisk (gzip archive)",
            FileKind::Ramdisk("xz archive") => "a ramdisk (xz archive)",
            FileKind::Ramdisk("zstd archive") => "a ramdisk (zstd archive)",
            FileKind::Ramdisk(_) => "a ramdisk (compressed archive)",
            FileKind::EfiProgram => "an UEFI program without the Linux boot header",
            FileKind::Arm64Kernel => "an arm64 kernel, and only x86-64 is booted",
            FileKind::Elf => "an ELF program (for a kernel, take the bzImage, not vmlinux)",
            FileKind::Iso => "an ISO image (take the kernel and ramdisk out of it)",
            FileKind::Qcow2 => "a qcow2 disk image",
            FileKind::TextPage => "a text page, probably the error page of a web server",
            FileKind::Empty => "empty",
            FileKind::Other => "of no known kind",
        }
    }
}

/// Whether bytes begin like HTML or XML.
pub(crate) fn is_text_page(head: &[u8]) -> bool {
    let text = head.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(head);
    let text: Vec<u8> = text.iter().copied().skip_while(u8::is_ascii_whitespace).take(14).collect();
    let text = text.to_ascii_lowercase();
    [b"<!doctype".as_slice(), b"<html", b"<head", b"<?xml"].iter().any(|start| text.starts_with(start))
}

/// Why a file cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootFileError {
    #[error("reading the {role} {}: {reason}", path.display())]
    Read { role: &'static str, path: PathBuf, reason: io::Error },
    #[error("the {role} {} is not a regular file", path.display())]
    NotAFile { role: &'static str, path: PathBuf },
    #[error("{} is given as {role}, but it is {}{}", path.display(), found.describe(), swapped(role, *found))]
    Kind { role: &'static str, path: PathBuf, found: FileKind },
    #[error("the {role} {} has {length} bytes; that is cut short", path.display())]
    Short { role: &'static str, path: PathBuf, length: u64 },
}

fn swapped(role: &str, found: FileKind) -> &'static str {
    match (role, found) {
        ("kernel", FileKind::Ramdisk(_)) | ("ramdisk", FileKind::Kernel) => {
            "; kernel and ramdisk seem to be swapped"
        }
        _ => "",
    }
}

/// Checks that a file is a kernel that the boot services can start.
///
/// # Errors
/// [`BootFileError`] names what it is instead.
pub fn check_kernel(path: &Path) -> Result<(), BootFileError> {
    match look("kernel", path)? {
        (FileKind::Kernel, length) if length < 64 << 10 => {
            Err(BootFileError::Short { role: "kernel", path: path.to_owned(), length })
        }
        (FileKind::Kernel, _) => Ok(()),
        (found, _) => Err(BootFileError::Kind { role: "kernel", path: path.to_owned(), found }),
    }
}

/// Checks that a file is an archive that the kernel can unpack.
///
/// # Errors
/// [`BootFileError`] names what it is instead.
pub fn check_ramdisk(path: &Path) -> Result<(), BootFileError> {
    match look("ramdisk", path)? {
        (FileKind::Ramdisk(_), _) => Ok(()),
        (found, _) => Err(BootFileError::Kind { role: "ramdisk", path: path.to_owned(), found }),
    }
}

fn look(role: &'static str, path: &Path) -> Result<(FileKind, u64), BootFileError> {
    let failed = |reason| BootFileError::Read { role, path: path.to_owned(), reason };
    // Not opened before it is known to be a file: a pipe would block.
    let facts = std::fs::metadata(path).map_err(failed)?;
    if !facts.is_file() {
        return Err(BootFileError::NotAFile { role, path: path.to_owned() });
    }
    let mut head = Vec::new();
    File::open(path).and_then(|f| f.take(HEAD).read_to_end(&mut head)).map_err(failed)?;
    Ok((FileKind::of(&head), facts.len()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file that passes for a kernel.
    pub(crate) fn kernel(length: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; length];
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes
    }
    fn iso() -> Vec<u8> {
        let mut bytes = kernel(40_000);
        bytes[0x8001..0x8006].copy_from_slice(b"CD001");
        bytes
    }
    fn check(bytes: &[u8], as_kernel: Option<&str>, as_ramdisk: Option<&str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let path = file.path().display();
        for (role, result, expected) in [
            ("kernel", check_kernel(file.path()), as_kernel),
            ("ramdisk", check_ramdisk(file.path()), as_ramdisk),
        ] {
            let expected = expected.map(|e| format!("{path} is given as {role}, but it is {e}"));
            assert_eq!(result.err().map(|e| e.to_string()), expected);
        }
    }

    #[test]
    fn kernel_and_ramdisk_are_not_mixed_up() {
        check(&kernel(70_000), None, Some("a Linux kernel (bzImage); kernel and ramdisk seem to be swapped"));
        let swapped = |kind: &str| format!("a ramdisk ({kind}); kernel and ramdisk seem to be swapped");
        check(b"070701...", Some(&swapped("cpio archive")), None);
        check(&[0x1f, 0x8b, 8, 0], Some(&swapped("gzip archive")), None);
        check(b"\xfd7zXZ\0\0", Some(&swapped("xz archive")), None);
        check(&[0x28, 0xb5, 0x2f, 0xfd, 0], Some(&swapped("zstd archive")), None);
        check(&[0x02, 0x21, 0x4c, 0x18], Some(&swapped("compressed archive")), None);
        check(&[0x5d, 0, 0, 0x80], Some(&swapped("compressed archive")), None);
    }

    #[test]
    fn other_files_are_named() {
        let both = |bytes: &[u8], text: &str| check(bytes, Some(text), Some(text));
        both(b"", "empty");
        both(&iso(), "an ISO image (take the kernel and ramdisk out of it)");
        both(b"\x7fELF\x02", "an ELF program (for a kernel, take the bzImage, not vmlinux)");
        both(b"\n<!DOCTYPE html><title>404", "a text page, probably the error page of a web server");
        both(b"<HTML>", "a text page, probably the error page of a web server");
        both(b"QFI\xfb\0\0\0\x03", "a qcow2 disk image");
        both(b"MZ\0\0", "an UEFI program without the Linux boot header");
        both(&[7; 1000], "of no known kind");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = check_kernel(folder.path()).unwrap_err().to_string();
        assert!(text.ends_with("is not a regular file"), "{text}");
        let text = check_ramdisk(&folder.path().join("none")).unwrap_err().to_string();
        assert!(text.starts_with("reading the ramdisk /"), "{text}");
    }

    #[test]
    fn a_cut_kernel_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), kernel(1000)).unwrap();
        let text = check_kernel(file.path()).unwrap_err().to_string();
        assert!(text.ends_with("has 1000 bytes; that is cut short"), "{text}");
    }
}
