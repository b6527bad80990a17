//! Where the EFI system partition is, by the partition table that was written. Pure.

use super::entry::{Place, Signature};
use ferric_common::formats::gpt::{Gpt, GptError, SYSTEM_PARTITION};
use ferric_common::formats::mbr;
use ferric_common::units::SectorSize;

/// An EFI system partition in an MBR.
const SYSTEM_PARTITION_MBR: u8 = 0xef;
/// Where an MBR has the disk's signature.
const DISK_SIGNATURE: usize = 440;

/// The first EFI system partition of the table in `head`; `None` if there is none.
///
/// # Errors
/// A GPT that cannot be read.
pub fn system_partition(head: &[u8], sector: SectorSize) -> Result<Option<Place>, GptError> {
    if mbr::is_protective(head) {
        let gpt = Gpt::parse(head, sector)?;
        let found = gpt.partitions().find(|partition| partition.type_guid == SYSTEM_PARTITION);
        return Ok(found.map(|partition| Place {
            number: partition.number,
            first: partition.first,
            sectors: partition.last.saturating_sub(partition.first).saturating_add(1),
            signature: Signature::Gpt(partition.guid),
        }));
    }
    let mut entries = mbr::parse(head).into_iter().flatten();
    let Some(entry) = entries.find(|entry| entry.kind == SYSTEM_PARTITION_MBR) else { return Ok(None) };
    let signature = head.get(DISK_SIGNATURE..).and_then(|rest| rest.first_chunk()).copied();
    Ok(signature.map(|signature| Place {
        number: u32::from(entry.number),
        first: u64::from(entry.first),
        sectors: u64::from(entry.count),
        signature: Signature::Mbr(signature),
    }))
}

/// The kernel's name of a partition: `/dev/sda1`, `/dev/nvme0n1p1`.
pub fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{FileDisk, run};
    use ferric_common::units::MIB;

    /// What sfdisk writes for this script.
    fn head(script: &str) -> Vec<u8> {
        let disk = FileDisk::new(64 * MIB, 512);
        let (_, said) = run("sfdisk", &["--quiet"], disk.path(), script);
        disk.bytes(0, 1 << 20).iter().any(|byte| *byte != 0).then_some(()).expect(&said);
        disk.bytes(0, 1 << 20)
    }

    #[test]
    fn the_system_partition_is_found_by_its_type() {
        let guid = "11223344-5566-7788-99AA-BBCCDDEEFF00";
        let gpt = format!(
            "label: gpt\nstart=1MiB, size=2MiB, type=L\nstart=4MiB, size=40MiB, type=U, uuid={guid}\n"
        );
        let place = system_partition(&head(&gpt), SectorSize(512)).unwrap().unwrap();
        let expected = Place {
            number: 2,
            first: 8192,
            sectors: 81_920,
            signature: Signature::Gpt([
                0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0x88, 0x77, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0,
            ]),
        };
        assert_eq!(place, expected);
        let mbr = "label: dos\nlabel-id: 0x1234abcd\n1M 2M L\n4M 40M U\n";
        let place = system_partition(&head(mbr), SectorSize(512)).unwrap().unwrap();
        let signature = Signature::Mbr([0xcd, 0xab, 0x34, 0x12]);
        assert_eq!(place, Place { number: 2, first: 8192, sectors: 81_920, signature });
    }

    #[test]
    fn a_table_without_one_is_told_from_a_broken_table() {
        for script in ["label: gpt\n1M 2M L\n", "label: dos\n1M 2M L\n"] {
            assert_eq!(system_partition(&head(script), SectorSize(512)), Ok(None), "{script}");
        }
        assert_eq!(system_partition(&[], SectorSize(512)), Ok(None));
        let mut torn = head("label: gpt\n1M 2M U\n");
        torn[1024] ^= 1;
        assert!(matches!(system_partition(&torn, SectorSize(512)), Err(GptError::ArrayCrc { .. })));
    }

    #[test]
    fn partitions_have_the_kernels_names() {
        for (disk, number, name) in [
            ("/dev/sda", 1, "/dev/sda1"),
            ("/dev/nvme0n1", 15, "/dev/nvme0n1p15"),
            ("/dev/vdb", 2, "/dev/vdb2"),
            ("/dev/mmcblk0", 1, "/dev/mmcblk0p1"),
        ] {
            assert_eq!(partition_name(disk, number), name);
        }
    }
}
