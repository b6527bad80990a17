//! Memory: what the kernel can use, from /proc/meminfo, and what is plugged in, from the SMBIOS tables (DSP0134, types 17
//! and 19), which the kernel shows as files.

use super::smbios::{self, Structure};
use super::text;
use ferric_common::wire::inventory::Memory;
use std::path::Path;

const DEVICE: u8 = 17;

pub fn read(sys: &Path, proc: &Path) -> Memory {
    Memory {
        total: text(&proc.join("meminfo")).and_then(|info| total(&info)),
        physical_mb: smbios::table(sys).map(|table| plugged(&table)),
    }
}

/// `MemTotal` in bytes.
fn total(info: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// MiB of all memory devices; 0 when the firmware names none.
fn plugged(table: &[u8]) -> u64 {
    smbios::structures(table)
        .filter(|one| one.kind == DEVICE)
        .filter_map(|device| device_size(&device))
        .fold(0, u64::saturating_add)
}

/// MiB of one device; `None` for an empty or unknown one.
fn device_size(device: &Structure<'_>) -> Option<u64> {
    match device.word(0x0c)? {
        0 | 0xffff => None,
        0x7fff => Some(u64::from(device.double(0x1c)? & 0x7fff_ffff)),
        kib if kib & 0x8000 != 0 => Some(u64::from(kib & 0x7fff) / 1024),
        mib => Some(mib.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;
    use proptest::prelude::*;

    fn structure(kind: u8, size: u16, extended: u32, strings: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0x28, 0, 0];
        out.resize(0x28, 0);
        out[0x0c..0x0e].copy_from_slice(&size.to_le_bytes());
        out[0x1c..0x20].copy_from_slice(&extended.to_le_bytes());
        out.extend_from_slice(strings);
        out.extend_from_slice(&[0, 0]);
        out
    }

    #[test]
    fn modules_are_summed_in_all_notations() {
        let table = [
            structure(17, 16_384, 0, b"DIMM A1\0Samsung"),
            structure(17, 0x7fff, 65_536, b""),
            structure(17, 0, 0, b"empty slot"),
            structure(17, 0xffff, 0, b""),
            structure(17, 0x8000 | 2048, 0, b""),
            structure(16, 999, 999, b""),
            structure(127, 0, 0, b""),
            structure(17, 5000, 0, b""),
        ]
        .concat();
        assert_eq!(plugged(&table), 16_384 + 65_536 + 2);
    }

    #[test]
    fn no_tables_are_null_and_empty_ones_zero() {
        let tree = Tree::new();
        tree.file("meminfo", "MemTotal:       16384256 kB\nMemFree: 1 kB\n");
        let found = read(tree.root(), tree.root());
        assert_eq!((found.total, found.physical_mb), (Some(16_384_256 * 1024), None));
        tree.file("firmware/dmi/tables/DMI", structure(1, 0, 0, b"x"));
        assert_eq!(read(tree.root(), tree.root()).physical_mb, Some(0));
    }

    proptest! {
        #[test]
        fn broken_tables_end(table in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = plugged(&table);
        }
    }
}
