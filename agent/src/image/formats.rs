//! Is the content what it was declared to be? Nothing is guessed: a mismatch is refused before the first write.

use super::{ImageError, ImageFormat, Packing};

/// Containers and compressions by their magic: name, offset, bytes, and what to tell the operator.
const KNOWN: &[(&str, usize, &[u8], &str)] = &[
    ("qcow2", 0, b"QFI\xfb", "; set image_disk_format (--format) to qcow2"),
    ("VMDK", 0, b"KDMV", CONVERT),
    ("VMDK", 0, b"COWD", CONVERT),
    ("a VMDK descriptor", 0, b"# Disk DescriptorFile", CONVERT),
    ("VHD", 0, b"conectix", CONVERT),
    ("VHDX", 0, b"vhdxfile", CONVERT),
    ("VDI", 0x40, b"\x7f\x10\xda\xbe", CONVERT),
    ("QED", 0, b"QED\0", CONVERT),
    ("LUKS (encrypted)", 0, b"LUKS\xba\xbe", "; give the decrypted image"),
    ("gzip", 0, b"\x1f\x8b", "; declare it raw.gz, or let its name end in .gz"),
    ("xz", 0, b"\xfd7zXZ\0", "; declare it raw.xz, or let its name end in .xz"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd", "; declare it raw.zst, or let its name end in .zst"),
    ("bzip2", 0, b"BZh", "; declare it raw.bz2, or let its name end in .bz2"),
    ("a text or web page", 0, b"<", PAGE),
    ("a text or web page", 0, b"{", PAGE),
];
const CONVERT: &str = "; convert it with qemu-img convert -O qcow2";
const PAGE: &str = "; the server sent a page instead of the image, check the URL";

fn none(packing: Packing) -> &'static str {
    match packing {
        Packing::Gz => "no gzip",
        Packing::Xz => "no xz",
        Packing::Zst => "no zstd",
        Packing::Bz2 => "no bzip2",
    }
}

/// Compares the start of the file with the declared format.
///
/// # Errors
/// [`ImageError::WrongFormat`], naming what was found.
pub fn check(declared: ImageFormat, start: &[u8]) -> Result<(), ImageError> {
    // zstd may begin with frames to skip: 0x184d2a50 to 0x184d2a5f.
    let is_skippable =
        start.first().is_some_and(|byte| byte >> 4 == 5) && start.get(1..4) == Some(b"\x2a\x4d\x18");
    let found = KNOWN.iter().find(|(name, at, magic, _)| {
        start.get(*at..at + magic.len()) == Some(magic) || is_skippable && *name == "zstd"
    });
    match (declared, found) {
        (ImageFormat::Qcow2, Some(("qcow2", ..))) | (ImageFormat::Raw, None) => Ok(()),
        (ImageFormat::Packed(packing), Some((found, ..))) if packing.name() == *found => Ok(()),
        (ImageFormat::Packed(packing), None) => {
            let hint = "; declare it raw if it is not compressed, and let its name say so";
            Err(ImageError::WrongFormat { declared, found: none(packing), hint })
        }
        (_, Some((found, _, _, hint))) => Err(ImageError::WrongFormat { declared, found, hint }),
        (ImageFormat::Qcow2, None) => {
            let hint = "; set image_disk_format (--format) to raw if it is a raw disk image";
            Err(ImageError::WrongFormat { declared, found: "no qcow2", hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(declared: ImageFormat, start: &[u8]) -> String {
        check(declared, start).map_or_else(|e| e.to_string(), |()| "fits".into())
    }

    #[test]
    fn a_raw_image_that_is_really_qcow2_is_called_that() {
        let text = check_text(ImageFormat::Raw, b"QFI\xfb\0\0\0\x03");
        assert_eq!(
            text,
            "the image is declared raw, but its content is qcow2; set image_disk_format (--format) to qcow2"
        );
    }

    #[test]
    fn declared_and_found_must_agree() {
        assert_eq!(check_text(ImageFormat::Raw, &[0; 512]), "fits");
        assert_eq!(check_text(ImageFormat::Qcow2, b"QFI\xfb"), "fits");
        assert!(check_text(ImageFormat::Qcow2, &[0; 512]).contains("no qcow2"));
        assert!(check_text(ImageFormat::Raw, b"<!DOCTYPE html>").contains("page"));
        assert!(check_text(ImageFormat::Qcow2, b"\x1f\x8b\x08").contains("gzip"));
        assert_eq!(check_text(ImageFormat::Packed(Packing::Gz), b"\x1f\x8b\x08"), "fits");
        assert_eq!(check_text(ImageFormat::Packed(Packing::Zst), b"\x5f\x2a\x4d\x18"), "fits");
        assert_eq!(check_text(ImageFormat::Raw, b"\x60\x2a\x4d\x18"), "fits");
        assert_eq!(
            check_text(ImageFormat::Raw, b"\x1f\x8b\x08"),
            "the image is declared raw, but its content is gzip; declare it raw.gz, or let its name end in .gz"
        );
        assert_eq!(
            check_text(ImageFormat::Packed(Packing::Xz), &[0; 512]),
            "the image is declared raw.xz, but its content is no xz; declare it raw if it is not compressed, and let its \
             name say so"
        );
    }
}
