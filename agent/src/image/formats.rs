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

/// What the image is written as: what it was declared, if its start agrees; else what its start shows, if that is permitted.
/// (A declaration is held to what is permitted when it comes in.) `name` is its URL or path.
///
/// # Errors
/// [`ImageError::WrongFormat`], [`ImageError::NoFormat`], [`ImageError::NotPermitted`].
pub fn decide(
    declared: Option<ImageFormat>,
    permitted: &[String],
    name: &str,
    start: &[u8],
) -> Result<ImageFormat, ImageError> {
    if let Some(declared) = declared {
        let format = declared.named(name);
        return check(format, start).map(|()| format);
    }
    let is_qcow2 = check(ImageFormat::Qcow2, start).is_ok();
    let format = if is_qcow2 { ImageFormat::Qcow2 } else { ImageFormat::Raw.named(name) };
    check(format, start).map_err(|error| match error {
        ImageError::WrongFormat { found, hint, .. } => ImageError::NoFormat { found, hint },
        other => other,
    })?;
    // A raw image with a partition table is `gpt` there, whichever table it is.
    let found = match format {
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Raw if start.get(510..512) == Some(b"\x55\xaa") => "gpt",
        ImageFormat::Raw | ImageFormat::Packed(_) => "raw",
    };
    permit(found, permitted)?;
    Ok(format)
}

/// Whether a format may be written; an empty list permits all.
///
/// # Errors
/// [`ImageError::NotPermitted`].
pub fn permit(found: &str, permitted: &[String]) -> Result<(), ImageError> {
    // What is compressed is raw, once it is unpacked.
    let plain = found.split('.').next().unwrap_or_default();
    if permitted.is_empty() || permitted.iter().any(|name| name == plain) {
        return Ok(());
    }
    Err(ImageError::NotPermitted { found: found.to_string(), permitted: permitted.join(", ") })
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

    fn decided(permitted: &str, name: &str, start: &[u8]) -> String {
        let permitted = permitted.split(',').filter(|n| !n.is_empty()).map(String::from).collect::<Vec<_>>();
        decide(None, &permitted, name, start).map_or_else(|e| e.to_string(), |format| format.to_string())
    }

    #[test]
    fn what_was_not_declared_is_what_its_start_shows_if_that_is_permitted() {
        let mut table = [0; 512];
        table[510..].copy_from_slice(b"\x55\xaa");
        let all = "raw,gpt,qcow2";
        assert_eq!(decided(all, "http://h/a.gz", b"QFI\xfb"), "qcow2");
        assert_eq!(decided("", "http://h/a", b"QFI\xfb"), "qcow2");
        assert_eq!(decided(all, "http://h/a.gz", b"\x1f\x8b\x08"), "raw.gz");
        assert_eq!(decided("raw", "http://h/a", &[0; 512]), "raw");
        assert_eq!(decided("gpt", "http://h/a", &table), "raw");
        let security = |found: &str, allowed: &str| {
            format!("Security: Detected image format was {found}, but only {allowed} are allowed")
        };
        assert_eq!(decided("raw,gpt", "http://h/a", b"QFI\xfb"), security("qcow2", "raw, gpt"));
        assert_eq!(decided("raw,qcow2", "http://h/a", &table), security("gpt", "raw, qcow2"));
        assert_eq!(decided("gpt", "http://h/a.gz", b"\x1f\x8b\x08"), security("raw", "gpt"));
        let not = "the image's format is not declared, and its content is ";
        let vmdk = decided(all, "http://h/a", b"KDMV");
        assert_eq!(vmdk, format!("{not}VMDK; convert it with qemu-img convert -O qcow2"));
        let gz = decided(all, "http://h/a", b"\x1f\x8b\x08");
        assert_eq!(gz, format!("{not}gzip; declare it raw.gz, or let its name end in .gz"));
    }

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
