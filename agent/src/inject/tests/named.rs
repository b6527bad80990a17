//! Partitions by name: real file systems in memory, blkid as judge of what they are called.

use super::*;
use crate::platform::fake::block::{Fault, MemDisk};
use crate::platform::fake::machine::facts;
use ferric_common::formats::gpt::{self, Gpt};
use ferric_common::units::SectorSize;
use std::sync::Arc;

/// What blkid says of a tag.
fn said(image: &Path, tag: &str) -> String {
    tool("blkid", &["-p", "-s", tag, "-o", "value", image.to_str().unwrap()]).trim().to_owned()
}

/// The disk with this beginning, and partitions with those contents.
fn with_contents(folder: &Path, head: &[u8], contents: [MemDisk; 3]) -> FakeMachine {
    let mut all = machine(folder);
    let disk = MemDisk::new(1 << 20).holding(head);
    for (name, disk) in [(DISK, disk)].into_iter().chain(PARTS.into_iter().zip(contents)) {
        let disk: Arc<MemDisk> = Arc::new(disk);
        all = all.with_disk(facts(name, 1 << 20, ""), move || Ok(disk.clone()));
    }
    all
}

fn made(folder: &Path, program: &str, args: &[&str]) -> (std::path::PathBuf, Vec<u8>) {
    let image = folder.join(program);
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    tool(program, &[args, &[image.to_str().unwrap()]].concat());
    let bytes = fs::read(&image).unwrap();
    (image, bytes)
}

fn table() -> Vec<u8> {
    let mut table = Gpt::new(2048, SectorSize(512), [7; 16]).unwrap();
    // Numbers are given in order, so the third stands for the partition 3 that the kernel does not show.
    for (number, name) in [(1, "boot"), (2, "root fs"), (3, "hidden")] {
        let mut guid = [0xab; 16];
        guid[15] = number as u8;
        let (first, last) = (u64::from(number) * 100, u64::from(number) * 100 + 9);
        let partition =
            gpt::Partition { number, type_guid: gpt::LINUX_DATA, guid, first, last, name: name.into() };
        table.add(&partition).unwrap();
    }
    let mut head = vec![0; 1 << 20];
    table.render_primary(&mut head);
    head
}

/// Puts a file to what is called so; the folder of the partition that has it then.
fn put(machine: &FakeMachine, folder: &Path, name: &str) -> Result<String, String> {
    inject(machine, json!([{"path": "/etc/by-name", "partition": name, "content": "eA=="}]))?;
    let all = ["nvme0n1p2", "nvme0n1p15"];
    let has = |part: &&&str| fs::remove_file(folder.join(part).join("etc/by-name")).is_ok();
    Ok(all.iter().filter(has).copied().collect::<Vec<_>>().join(" "))
}

#[test]
fn a_partition_is_found_by_what_its_tools_called_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ext, ext_bytes) = made(folder.path(), "mkfs.ext4", &["-q", "-F", "-L", "cloudimg rootfs"]);
    let (fat, fat_bytes) = made(folder.path(), "mkfs.vfat", &["-n", "UEFI"]);
    let head = |bytes: &[u8]| MemDisk::new(1 << 20).holding(&bytes[..1 << 20]);
    let blank = MemDisk::new(1 << 20);
    let all = with_contents(folder.path(), &table(), [blank, head(&fat_bytes), head(&ext_bytes)]);
    let upper = said(&ext, "UUID").to_uppercase();
    for (name, part) in [
        (format!("LABEL={}", said(&ext, "LABEL")), "nvme0n1p15"),
        (format!("LABEL=\"{}\"", said(&ext, "LABEL")), "nvme0n1p15"),
        (format!("UUID={}", said(&ext, "UUID")), "nvme0n1p15"),
        (format!("UUID={upper}"), "nvme0n1p15"),
        (format!("LABEL={}", said(&fat, "LABEL")), "nvme0n1p2"),
        (format!("UUID={}", said(&fat, "UUID")), "nvme0n1p2"),
        ("PARTLABEL=root fs".into(), "nvme0n1p2"),
        ("PARTUUID=ABABABAB-abab-abab-abab-ababababab02".into(), "nvme0n1p2"),
    ] {
        assert_eq!(put(&all, folder.path(), &name).as_deref(), Ok(part), "{name}");
    }
    let (ext_id, fat_id) = (said(&ext, "UUID"), said(&fat, "UUID"));
    for none in ["LABEL=uefi", "LABEL=hidden", "PARTLABEL=hidden", "UUID=cloudimg rootfs"] {
        assert_eq!(
            put(&all, folder.path(), none).unwrap_err(),
            format!(
                "No partition of {DISK} is {none}, it has: /dev/nvme0n1p1 (PARTLABEL=boot \
                 PARTUUID=abababab-abab-abab-abab-ababababab01), /dev/nvme0n1p2 (LABEL=UEFI UUID={fat_id} \
                 PARTLABEL=root fs PARTUUID=abababab-abab-abab-abab-ababababab02), /dev/nvme0n1p15 (LABEL=cloudimg \
                 rootfs UUID={ext_id})"
            )
        );
    }
}

#[test]
fn partitions_of_an_mbr_are_called_by_its_signature_and_two_of_a_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, ext) = made(folder.path(), "mkfs.ext4", &["-q", "-F", "-L", "twin\x1b[2J"]);
    let head = || MemDisk::new(1 << 20).holding(&ext[..1 << 20]);
    let mut mbr = vec![0; 512];
    mbr[440..444].copy_from_slice(&0xcafe_0001_u32.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let unreadable = MemDisk::new(1 << 20).with_fault(Fault::Read(0));
    let all = with_contents(folder.path(), &mbr, [unreadable, head(), head()]);
    assert_eq!(put(&all, folder.path(), "PARTUUID=CAFE0001-0f").as_deref(), Ok("nvme0n1p15"));
    let uuid = ferric_common::formats::volume::read(&ext).unwrap().uuid.unwrap();
    let refused = put(&all, folder.path(), &format!("UUID={uuid}")).unwrap_err();
    assert_eq!(
        refused,
        format!("UUID={uuid} is no one partition of {DISK}: /dev/nvme0n1p2, /dev/nvme0n1p15 are")
    );
    let refused = put(&all, folder.path(), "PARTUUID=cafe0001-05").unwrap_err();
    let (first, rest) = refused.split_once("it has: /dev/nvme0n1p1 (PARTUUID=cafe0001-01 ").unwrap();
    assert_eq!(first, format!("No partition of {DISK} is PARTUUID=cafe0001-05, "));
    assert!(!rest.starts_with(')'), "why the first is not readable: {rest}");
    assert!(rest.contains("LABEL=twin\\u{1b}[2J"), "nothing of an image reaches a console as it is: {rest}");
}
