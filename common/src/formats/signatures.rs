//! Where tables, file systems and volume managers leave the bytes by which they are recognised.
//!
//! A list of places for a device of a given size; reading and blanking them is the agent's. It is for erasing: better
//! one place too many than one too few, so no superblock is looked at beyond its magic. Sources: the on-disk formats
//! of each project, offsets as in util-linux' libblkid and the Linux kernel.

use crate::units::{GIB, MIB};
use alloc::vec::Vec;

/// What a signature says about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Table,
    /// A file system, or a volume manager's or encryption's header.
    Content,
    /// A member of a Linux software RAID array.
    RaidMember,
    /// Shared between machines, or easily taken for empty: not erased unless the operator insists.
    Protected,
}

/// A place where `magic` may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub what: &'static str,
    pub kind: Kind,
    /// Bytes from the start of the device.
    pub at: u64,
    pub magic: &'static [u8],
}

const KIB: u64 = 1024;
const RAID: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
const GPT: &[u8] = b"EFI PART";
const LUKS_SECONDARY: &[u8] = b"SKUL\xba\xbe";
const GFS2: &str = "Global File System 2 (GFS2)";
const VMFS: &str = "VMware file system (VMFS)";

use Kind::{Content, Protected, RaidMember, Table};

/// Places that do not depend on the device's size.
const FIXED: &[(&str, Kind, u64, &[u8])] = &[
    ("MBR", Table, 510, &[0x55, 0xaa]),
    ("GPT", Table, 512, GPT),
    ("GPT", Table, 4096, GPT),
    ("ext2/3/4", Content, 0x438, &[0x53, 0xef]),
    ("XFS", Content, 0, b"XFSB"),
    ("btrfs", Content, 64 * KIB + 64, b"_BHRfS_M"),
    ("btrfs", Content, 64 * MIB + 64, b"_BHRfS_M"),
    ("btrfs", Content, 256 * GIB + 64, b"_BHRfS_M"),
    ("vfat", Content, 54, b"FAT12   "),
    ("vfat", Content, 54, b"FAT16   "),
    ("vfat", Content, 82, b"FAT32   "),
    ("exFAT", Content, 3, b"EXFAT   "),
    ("NTFS", Content, 3, b"NTFS    "),
    ("BitLocker", Content, 3, b"-FVE-FS-"),
    ("ISO 9660", Content, 32_769, b"CD001"),
    ("UDF", Content, 32_769, b"BEA01"),
    ("F2FS", Content, 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    ("EROFS", Content, 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("HFS+", Content, 1024, b"H+"),
    ("squashfs", Content, 0, b"hsqs"),
    ("JFS", Content, 32_768, b"JFS1"),
    ("ReiserFS", Content, 64 * KIB + 52, b"ReIsEr"),
    ("APFS", Content, 32, b"NXSB"),
    ("OCFS2", Content, 1024, b"OCFSV2"),
    ("OCFS2", Content, 2048, b"OCFSV2"),
    ("OCFS2", Content, 4096, b"OCFSV2"),
    ("OCFS2", Content, 8192, b"OCFSV2"),
    ("Ceph BlueStore", Content, 0, b"bluestore block device"),
    ("LUKS", Content, 0, b"LUKS\xba\xbe"),
    ("LVM2 physical volume", Content, 0, b"LABELONE"),
    ("LVM2 physical volume", Content, 512, b"LABELONE"),
    ("LVM2 physical volume", Content, 1024, b"LABELONE"),
    ("LVM2 physical volume", Content, 1536, b"LABELONE"),
    (
        "bcache",
        Content,
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
    ),
    (
        "bcachefs",
        Content,
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef],
    ),
    ("md 1.1", RaidMember, 0, RAID),
    ("md 1.2", RaidMember, 4096, RAID),
    (GFS2, Protected, 64 * KIB, &[0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1]),
    (VMFS, Protected, MIB, &[0x0d, 0xd0, 0x01, 0xc0]),
    (VMFS, Protected, 2 * MIB, &[0x5e, 0xf1, 0xab, 0x2f]),
];

/// Every place on a device of `size` bytes, all of them inside it.
pub fn spots(size: u64) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut add = |what, kind, at: Option<u64>, magic: &'static [u8]| {
        let fits = |at: &u64| at.checked_add(magic.len() as u64).is_some_and(|end| end <= size);
        spots.extend(at.filter(fits).map(|at| Spot { what, kind, at, magic }));
    };
    for &(what, kind, at, magic) in FIXED {
        add(what, kind, Some(at), magic);
    }
    for page in [4096, 8192, 16_384, 32_768, 65_536] {
        add("swap", Content, Some(page - 10), b"SWAPSPACE2");
        add("swap", Content, Some(page - 10), b"SWAP-SPACE");
    }
    for doubling in 0..9 {
        add("LUKS", Content, Some((16 * KIB) << doubling), LUKS_SECONDARY);
    }
    add("GPT", Table, size.checked_sub(512), GPT);
    add("GPT", Table, size.checked_sub(4096), GPT);
    let old_raid = (size & !(64 * KIB - 1)).checked_sub(64 * KIB);
    add("md 0.90", RaidMember, old_raid, RAID);
    add("md 0.90", RaidMember, old_raid, &[0xa9, 0x2b, 0x4e, 0xfc]);
    add("md 1.0", RaidMember, (size / 512).checked_sub(16).map(|sector| (sector & !7) * 512), RAID);
    add("Intel RAID", Content, size.checked_sub(1024), b"Intel Raid ISM Cfg Sig. ");
    add("DDF RAID", Content, size.checked_sub(512), &[0xde, 0x11, 0xde, 0x11]);
    // ZFS: four labels, two at each end; in each a ring of 128 uberblocks of which any may be the one.
    let zfs_end = size & !(256 * KIB - 1);
    for label in [Some(0), Some(256 * KIB), zfs_end.checked_sub(512 * KIB), zfs_end.checked_sub(256 * KIB)] {
        for block in 0..128 {
            let at = label.map(|label| label + 128 * KIB + block * KIB);
            add("ZFS", Content, at, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]);
            add("ZFS", Content, at, &[0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]);
        }
    }
    spots
}

/// Says which of the protected kinds a partition's type stands for. `type_guid` is in on-disk byte order.
pub fn protected_gpt_type(type_guid: &[u8; 16]) -> Option<&'static str> {
    // The first three fields of a GUID are little-endian on disk.
    match *type_guid {
        // 37AFFC90-EF7D-4E96-91C3-2D7AE055B174
        [0x90, 0xfc, 0xaf, 0x37, 0x7d, 0xef, 0x96, 0x4e, 0x91, 0xc3, 0x2d, 0x7a, 0xe0, 0x55, 0xb1, 0x74] => {
            Some("General Parallel File System (GPFS)")
        }
        // AA31E02A-400F-11DB-9590-000C2911D1B8
        [0x2a, 0xe0, 0x31, 0xaa, 0x0f, 0x40, 0xdb, 0x11, 0x95, 0x90, 0x00, 0x0c, 0x29, 0x11, 0xd1, 0xb8] => {
            Some(VMFS)
        }
        _ => None,
    }
}

/// As [`protected_gpt_type`], for an MBR's type byte.
pub fn protected_mbr_type(kind: u8) -> Option<&'static str> {
    (kind == 0xfb).then_some(VMFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spot_lies_inside_the_device() {
        for size in [0, 1, 511, 512, 4096, 65_536, MIB, 10 * MIB + 512, 300 * GIB, u64::MAX] {
            for spot in spots(size) {
                assert!(spot.at + spot.magic.len() as u64 <= size, "{spot:?} on {size}");
            }
        }
        assert!(spots(0).is_empty());
    }

    #[test]
    fn places_that_depend_on_the_size_are_where_the_formats_put_them() {
        let at = |what: &str, size: u64| {
            let mut at: Vec<_> = spots(size).into_iter().filter(|s| s.what == what).map(|s| s.at).collect();
            at.dedup();
            at
        };
        assert_eq!(at("md 0.90", 10 * MIB + 512), [10 * MIB - 64 * KIB]);
        assert_eq!(at("md 1.0", 10 * MIB + 512), [10 * MIB - 8 * KIB]);
        assert_eq!(at("GPT", 10 * MIB), [512, 4096, 10 * MIB - 512, 10 * MIB - 4096]);
        assert_eq!(at("btrfs", MIB), [64 * KIB + 64]);
        assert_eq!(at("btrfs", 65 * MIB).len(), 2);
        assert_eq!(at("LUKS", 10 * MIB).last(), Some(&(4 * MIB)));
    }
}
