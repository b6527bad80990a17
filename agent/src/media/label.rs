//! What a boot medium calls itself: the volume names of ISO 9660 and FAT. Pure.

/// Bytes from the start of a device that are needed.
pub const HEAD: usize = 32_768 + 2048;

/// A file system and its names, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The kernel's name of the file system.
    pub kind: &'static str,
    pub label: String,
    /// Of ISO 9660 only.
    pub publisher: Option<String>,
}

impl Volume {
    /// Labels are compared without case, as FAT has none.
    pub fn is_called(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.label.eq_ignore_ascii_case(name))
    }
}

/// Reads the first [`HEAD`] bytes of a device.
pub fn read(head: &[u8]) -> Option<Volume> {
    iso9660(head).or_else(|| fat(head))
}

/// The primary volume descriptor (ECMA-119, 8.4).
fn iso9660(head: &[u8]) -> Option<Volume> {
    let descriptor = head.get(32_768..).filter(|bytes| bytes.starts_with(b"\x01CD001"))?;
    Some(Volume {
        kind: "iso9660",
        label: text(descriptor.get(40..72)?),
        publisher: Some(text(descriptor.get(318..446)?)),
    })
}

/// The boot sector (FAT specification 1.03, section 3.1 to 3.3).
fn fat(head: &[u8]) -> Option<Volume> {
    let sector = head.get(..512).filter(|bytes| bytes.ends_with(&[0x55, 0xaa]))?;
    let label = match (sector.get(54..57)?, sector.get(82..87)?) {
        (_, b"FAT32") => sector.get(71..82)?,
        (b"FAT", _) => sector.get(43..54)?,
        _ => return None,
    };
    Some(Volume { kind: "vfat", label: text(label), publisher: None })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_both_kinds_are_read() {
        let mut iso = vec![0u8; HEAD];
        iso[32_768..32_774].copy_from_slice(b"\x01CD001");
        iso[32_768 + 40..32_768 + 72].copy_from_slice(&[b"config-2".as_slice(), &[b' '; 24]].concat());
        iso[32_768 + 318..32_768 + 321].copy_from_slice(b"pub");
        let found = read(&iso).unwrap();
        assert_eq!(
            (found.kind, found.label.as_str(), found.publisher.as_deref()),
            ("iso9660", "config-2", Some("pub"))
        );
        assert!(found.is_called(&["x", "CONFIG-2"]) && !found.is_called(&["config"]));
        for (at, label, kind) in [(54, 43, &b"FAT12   "[..]), (82, 71, b"FAT32   ")] {
            let mut fat = vec![0u8; 512];
            fat[label..label + 11].copy_from_slice(b"IR-VFD-DEV ");
            fat[at..at + 8].copy_from_slice(kind);
            assert_eq!(read(&fat), None);
            fat[510..].copy_from_slice(&[0x55, 0xaa]);
            assert!(read(&fat).unwrap().is_called(&["ir-vfd-dev"]), "{kind:?}");
        }
        assert_eq!(read(&[]), None);
    }
}
