//! The whole of it on a machine in memory: a disk's table, a partition's files, a firmware's variables.

use super::*;
use crate::disk::testing::{FileDisk, run};
use crate::platform::fake::efi::MemVariables;
use crate::platform::fake::machine::{Call, FakeMachine, facts};
use ferric_common::units::MIB;
use std::fs;
use std::sync::Arc;

const DISK: &str = "/dev/nvme0n1";
const SECTOR: SectorSize = SectorSize(512);

fn head(script: &str) -> Vec<u8> {
    let disk = FileDisk::new(64 * MIB, 512);
    run("sfdisk", &["--quiet"], disk.path(), script);
    disk.bytes(0, 1 << 20)
}

struct Lab {
    machine: FakeMachine,
    variables: Arc<MemVariables>,
    _folder: tempfile::TempDir,
}

fn lab(files: &[(&str, &[u8])], variables: MemVariables) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let variables = Arc::new(variables);
    let never = || Err(MachineError::Busy { what: DISK.into(), by: "a test".into() });
    let mut machine = FakeMachine::new()
        .with_disk(facts(DISK, 1 << 30, "S1"), never)
        .with_partitions(DISK, &["/dev/nvme0n1p1", "/dev/nvme0n1p2"]);
    machine.folders.insert("/dev/nvme0n1p2".into(), folder.path().to_owned());
    machine.efi = Some(variables.clone());
    Lab { machine, variables, _folder: folder }
}

const TWO: &str = "label: gpt\n1M 2M L\n4M 40M U\n";

#[test]
fn the_loader_of_the_image_is_booted_first_and_once() {
    let lab = lab(&[("EFI/BOOT/BOOTX64.EFI", b"loader")], MemVariables::default());
    lab.variables.write("Boot0000", &[1, 0, 0, 0, 0, 0, b'P', 0, b'X', 0, b'E', 0, 0, 0]).unwrap();
    lab.variables.write("BootOrder", &[0, 0]).unwrap();
    let entries = install(&lab.machine, DISK, &head(TWO), SECTOR).unwrap();
    assert_eq!(
        (entries[0].description.as_str(), entries[0].loader.as_str()),
        ("ironic1", "\\EFI\\BOOT\\BOOTX64.EFI")
    );
    assert_eq!(entries[0].place.number, 2);
    assert_eq!(
        lab.machine.calls(),
        [Call::Reread(DISK.into()), Call::Mounted("/dev/nvme0n1p2".into(), "vfat")]
    );
    let after = lab.variables.snapshot();
    assert_eq!(after["BootOrder"], [1, 0, 0, 0]);
    assert_eq!(after["Boot0001"], entries[0].encode());
    assert_eq!(after.len(), 3);
    install(&lab.machine, DISK, &head(TWO), SECTOR).unwrap();
    let again = lab.variables.snapshot();
    assert_eq!((again.len(), &again["BootOrder"]), (3, &vec![1, 0, 0, 0]), "a second time");
}

#[test]
fn what_is_missing_is_named_and_the_firmware_left_alone() {
    let loader: &[(&str, &[u8])] = &[("EFI/BOOT/BOOTX64.EFI", b"loader")];
    let refuse = |script: &str, change: &dyn Fn(&mut FakeMachine)| {
        let mut lab = lab(loader, MemVariables::default());
        change(&mut lab.machine);
        let error = install(&lab.machine, DISK, &head(script), SECTOR).unwrap_err();
        assert!(lab.variables.snapshot().is_empty());
        error.to_string()
    };
    let said = refuse("label: gpt\n1M 2M L\n", &|_| {});
    assert!(said.starts_with("No EFI partition could be detected on device /dev/nvme0n1 "), "{said}");
    let said = refuse(TWO, &|machine| machine.folders.clear());
    assert_eq!(said, "reading the EFI system partition");
    let empty = lab(&[("readme", b"x")], MemVariables::default());
    assert_eq!(install(&empty.machine, DISK, &head(TWO), SECTOR).unwrap(), []);
    assert!(empty.variables.snapshot().is_empty());
}

#[test]
fn a_firmware_that_refuses_or_forgets_is_told() {
    let loader: &[(&str, &[u8])] = &[("EFI/BOOT/BOOTX64.EFI", b"loader")];
    let mut variables = MemVariables::default();
    variables.refuses = Some("Boot0000".into());
    let full = lab(loader, variables);
    let error = install(&full.machine, DISK, &head(TWO), SECTOR).unwrap_err();
    assert_eq!(error.to_string(), "writing the firmware's variable Boot0000");
    let mut variables = MemVariables::default();
    variables.ignores = Some("BootOrder".into());
    let forgets = lab(loader, variables);
    let error = install(&forgets.machine, DISK, &head(TWO), SECTOR).unwrap_err();
    assert_eq!(error.to_string(), "the firmware's variable BootOrder reads back other than it was written");
}
