//! Which file system begins here, and what it calls itself: label and identifier, as libblkid tells them.
//!
//! The superblocks of those that a deployed system, a boot medium or a config drive has. Sources: the on-disk formats of each
//! project, ECMA-119 (8.4), FAT specification 1.03 (3.1 to 3.3).

use super::gpt::le32;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use uuid::Uuid;

/// Bytes from the start of a device that are needed: btrfs' superblock is the last.
pub const HEAD: usize = BTRFS + 4096;

const EXT: usize = 1024;
const ISO: usize = 32_768;
const BTRFS: usize = 65_536;

/// A file system and its names, without padding. A label may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The kernel's name of the driver.
    pub kind: &'static str,
    pub label: String,
    /// In lower case with hyphens, of FAT as `ABCD-1234`; none for ISO 9660.
    pub uuid: Option<String>,
    /// Of ISO 9660 only.
    pub publisher: Option<String>,
}

impl Volume {
    /// Labels are compared without case, as FAT has none.
    pub fn is_called(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.label.eq_ignore_ascii_case(name))
    }
}

/// Reads the first [`HEAD`] bytes of a device, fewer of a small one. Where two file systems left their marks, the one that does not
/// leave room for the other's counts: ext4, XFS and btrfs before ISO 9660 and FAT.
pub fn read(head: &[u8]) -> Option<Volume> {
    ext(head).or_else(|| xfs(head)).or_else(|| btrfs(head)).or_else(|| iso9660(head)).or_else(|| fat(head))
}

/// ext2 to ext4. The magic is of two bytes only, so revision and block size must make sense, too.
fn ext(head: &[u8]) -> Option<Volume> {
    let block = head.get(EXT..EXT + 1024)?;
    let is_sane = block.get(0x38..0x3a)? == [0x53, 0xef] && le32(block, 0x18) <= 6 && le32(block, 0x4c) <= 1;
    is_sane.then(|| named("ext4", block.get(0x78..0x88), block.get(0x68..0x78)))
}

fn xfs(head: &[u8]) -> Option<Volume> {
    let block = head.get(..512).filter(|block| block.starts_with(b"XFSB"))?;
    Some(named("xfs", block.get(108..120), block.get(32..48)))
}

fn btrfs(head: &[u8]) -> Option<Volume> {
    let block = head.get(BTRFS..HEAD)?;
    (block.get(64..72)? == b"_BHRfS_M").then(|| named("btrfs", block.get(299..555), block.get(32..48)))
}

fn named(kind: &'static str, label: Option<&[u8]>, uuid: Option<&[u8]>) -> Volume {
    let label = label.unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let uuid = uuid.and_then(|bytes| Uuid::from_slice(bytes).ok()).filter(|uuid| !uuid.is_nil());
    let label = String::from_utf8_lossy(label).into_owned();
    Volume { kind, label, uuid: uuid.map(|uuid| uuid.to_string()), publisher: None }
}

/// The primary volume descriptor.
fn iso9660(head: &[u8]) -> Option<Volume> {
    let descriptor = head.get(ISO..).filter(|bytes| bytes.starts_with(b"\x01CD001"))?;
    Some(Volume {
        kind: "iso9660",
        label: text(descriptor.get(40..72)?),
        uuid: None,
        publisher: Some(text(descriptor.get(318..446)?)),
    })
}

/// The boot sector. Its label is the one that tools write beside that of the root directory.
fn fat(head: &[u8]) -> Option<Volume> {
    let sector = head.get(..512).filter(|bytes| bytes.ends_with(&[0x55, 0xaa]))?;
    let (label, serial) = match (sector.get(54..57)?, sector.get(82..87)?) {
        (_, b"FAT32") => (sector.get(71..82)?, le32(sector, 67)),
        (b"FAT", _) => (sector.get(43..54)?, le32(sector, 39)),
        _ => return None,
    };
    let label = if label == b"NO NAME    " { String::new() } else { text(label) };
    let uuid = Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    Some(Volume { kind: "vfat", label, uuid, publisher: None })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_names_of_optical_and_fat_media_are_read() {
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
        for (at, label, serial, kind) in [(54, 43, 39, &b"FAT12   "[..]), (82, 71, 67, b"FAT32   ")] {
            let mut fat = vec![0u8; 512];
            fat[label..label + 11].copy_from_slice(b"IR-VFD-DEV ");
            fat[serial..serial + 4].copy_from_slice(&[0x34, 0x12, 0xcd, 0x0b]);
            fat[at..at + 8].copy_from_slice(kind);
            assert_eq!(read(&fat), None);
            fat[510..].copy_from_slice(&[0x55, 0xaa]);
            let found = read(&fat).unwrap();
            assert_eq!((found.label.as_str(), found.uuid.as_deref()), ("IR-VFD-DEV", Some("0BCD-1234")));
            fat[label..label + 11].copy_from_slice(b"NO NAME    ");
            assert_eq!(read(&fat).unwrap().label, "");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn xfs_and_btrfs_are_read_as_their_tools_write_them() {
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let id = Uuid::parse_str(uuid).unwrap().into_bytes();
        // The beginning of a superblock of mkfs.xfs 6.1, and what stands around the label.
        let mut xfs = vec![0u8; HEAD];
        xfs[..16].copy_from_slice(b"XFSB\0\0\x10\0\0\0\0\0\0\x01\x40\0");
        xfs[32..48].copy_from_slice(&id);
        xfs[96..128].copy_from_slice(
            b"\0\0\x40\0\xb4\xa5\x02\0\x02\0\0\x08ferricxfs\0\0\0\x0c\x09\x09\x03\x0f\0\0\x19",
        );
        let found = read(&xfs).unwrap();
        assert_eq!(
            (found.kind, found.label.as_str(), found.uuid.as_deref()),
            ("xfs", "ferricxfs", Some(uuid))
        );
        // The same of mkfs.btrfs 6.2.
        let mut btrfs = vec![0u8; HEAD];
        btrfs[BTRFS + 32..BTRFS + 48].copy_from_slice(&id);
        btrfs[BTRFS + 64..BTRFS + 73].copy_from_slice(b"_BHRfS_M\x06");
        btrfs[BTRFS + 288..BTRFS + 317]
            .copy_from_slice(b"\xab\xcd\xef\x01#Eg\x89\xab\xcd\xefferric btrfs label");
        let found = read(&btrfs).unwrap();
        assert_eq!((found.kind, found.label.as_str()), ("btrfs", "ferric btrfs label"));
        assert_eq!((found.uuid.as_deref(), read(&btrfs[..HEAD - 1])), (Some(uuid), None));
    }

    #[test]
    fn what_two_file_systems_left_is_the_one_that_covers_the_other() {
        let mut head = vec![0u8; HEAD];
        head[32_768..32_774].copy_from_slice(b"\x01CD001");
        head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        let mut other = head.clone();
        assert_eq!(read(&head).unwrap().kind, "ext4");
        assert_eq!(read(&head).unwrap().uuid, None, "an identifier of zeroes is none");
        other[1024 + 0x18] = 7;
        assert_eq!(read(&other).unwrap().kind, "iso9660", "two bytes alone are no superblock");
    }
}
