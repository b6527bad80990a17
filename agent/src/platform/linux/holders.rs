//! What stands on a disk: software RAID arrays and device mapper's mappings, by sysfs, and taken down by ioctl.
#![allow(unsafe_code)]

use crate::inventory::disks;
use crate::platform::drive::{Holder, HolderKind};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAPPER: &str = "/dev/mapper/control";

/// `struct dm_ioctl` (linux/dm-ioctl.h).
#[repr(C)]
pub struct DmRequest {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

mod raw {
    // linux/raid/md_u.h: #define STOP_ARRAY _IO(MD_MAJOR, 0x32), MD_MAJOR 9
    nix::ioctl_none!(stop_array, 9, 0x32);
    // linux/dm-ioctl.h: #define DM_DEV_REMOVE _IOWR(0xfd, 4, struct dm_ioctl)
    nix::ioctl_readwrite!(dm_remove, 0xfd, 4, super::DmRequest);
}

/// What holds a device or one of its partitions.
pub fn of(sys: &Path, device: &str) -> Vec<Holder> {
    disks::holders(sys, device)
        .into_iter()
        .map(|name| Holder { kind: kind(sys, &name), name: disks::device(&name) })
        .collect()
}

fn kind(sys: &Path, name: &str) -> HolderKind {
    let folder = sys.join("block").join(name);
    let uuid = fs::read_to_string(folder.join("dm/uuid")).ok();
    match uuid {
        Some(uuid) if uuid.starts_with("mpath-") => HolderKind::Multipath,
        Some(_) => HolderKind::Mapping,
        None if folder.join("md").is_dir() => HolderKind::Array,
        None => HolderKind::Other,
    }
}

/// # Errors
/// As ioctl(2) STOP_ARRAY; `EBUSY` while the array is in use.
pub fn stop_array(device: &Path) -> io::Result<()> {
    let file = File::open(device)?;
    // SAFETY: the descriptor is open for the whole call and the request takes no argument.
    unsafe { raw::stop_array(file.as_raw_fd()) }?;
    Ok(())
}

/// Removes a mapping by its name (not that of its device).
///
/// # Errors
/// As ioctl(2) DM_DEV_REMOVE; `EBUSY` while it is in use, `InvalidInput` for a name that is too long.
pub fn remove_mapping(name: &str) -> io::Result<()> {
    let control = OpenOptions::new().read(true).write(true).open(MAPPER)?;
    let mut request = DmRequest {
        version: [4, 0, 0],
        data_size: size_of::<DmRequest>() as u32,
        data_start: 0,
        target_count: 0,
        open_count: 0,
        flags: 0,
        event: 0,
        padding: 0,
        device: 0,
        name: [0; 128],
        uuid: [0; 129],
        data: [0; 7],
    };
    // The last byte stays: the kernel wants the NUL.
    match request.name.get_mut(..127).and_then(|place| place.get_mut(..name.len())) {
        Some(place) => place.copy_from_slice(name.as_bytes()),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    }
    // SAFETY: `request` is laid out as the kernel's struct, lives until the call returns and is as long as `data_size` says.
    unsafe { raw::dm_remove(control.as_raw_fd(), &mut request) }?;
    Ok(())
}

/// A mapping's name, by its device's kernel name.
///
/// # Errors
/// It is no mapping.
pub fn mapping_name(sys: &Path, device: &str) -> io::Result<String> {
    Ok(fs::read_to_string(sys.join("block").join(device).join("dm/name"))?.trim_end().to_owned())
}

/// The name in the superblock of a running array's first member.
pub fn array_name(sys: &Path, array: &str) -> Option<String> {
    let slave = fs::read_dir(sys.join("block").join(array).join("slaves")).ok()?.flatten().next()?;
    let name = slave.file_name().to_string_lossy().replace('!', "/");
    let size: u64 = fs::read_to_string(slave.path().join("size")).ok()?.trim().parse().ok()?;
    let file = File::open(Path::new("/dev").join(name)).ok()?;
    // Version 1.2, 1.1 and 1.0 (8 KiB before the end, on 4 KiB).
    [4096, 0, size.checked_sub(16)? / 8 * 8 * 512].into_iter().find_map(|at| {
        let mut block = [0u8; 256];
        file.read_exact_at(&mut block, at).ok()?;
        name_in(&block)
    })
}

/// `set_name` of a superblock of version 1 (linux/raid/md_p.h, struct mdp_superblock_1), without the host's name.
fn name_in(block: &[u8]) -> Option<String> {
    let starts = block.get(..8)? == [0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0];
    let name = block.get(32..64)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name);
    let name = name.rsplit(':').next()?;
    (starts && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::golden::Tree;

    #[test]
    fn holders_are_told_apart() {
        let tree = Tree::new();
        for (name, holder) in [("sda", "md127"), ("sdb", "dm-0"), ("sdc", "dm-1"), ("sdd", "bcache0")] {
            tree.file(&format!("block/{name}/size"), "9").folder(&format!("block/{name}/holders/{holder}"));
        }
        tree.folder("block/md127/md")
            .file("block/dm-0/dm/uuid", "LVM-abc\n")
            .file("block/dm-0/dm/name", "vg-lv\n");
        tree.file("block/dm-1/dm/uuid", "mpath-360\n");
        for (disk, name, kind) in [
            ("sda", "/dev/md127", HolderKind::Array),
            ("sdb", "/dev/dm-0", HolderKind::Mapping),
            ("sdc", "/dev/dm-1", HolderKind::Multipath),
            ("sdd", "/dev/bcache0", HolderKind::Other),
        ] {
            assert_eq!(of(tree.root(), disk), [Holder { name: name.into(), kind }]);
        }
        assert_eq!(mapping_name(tree.root(), "dm-0").unwrap(), "vg-lv");
        assert!(mapping_name(tree.root(), "md127").is_err());
    }

    #[test]
    fn an_array_is_called_as_its_superblock_says() {
        let mut block = [0u8; 256];
        block[..8].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
        assert_eq!(name_in(&block), None);
        for (text, name) in [("rescue:data", "data"), ("data", "data")] {
            block[32..64].fill(0);
            block[32..32 + text.len()].copy_from_slice(text.as_bytes());
            assert_eq!(name_in(&block).as_deref(), Some(name));
        }
        block[0] = 0;
        assert_eq!(name_in(&block), None);
    }

    #[test]
    fn requests_are_as_long_as_the_kernel_says() {
        assert_eq!(size_of::<DmRequest>(), 312);
        let long = remove_mapping(&"x".repeat(128)).unwrap_err();
        assert!(matches!(
            long.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        ));
        assert!(stop_array(Path::new("/dev/null")).is_err());
    }
}
