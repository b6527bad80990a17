//! The whole step on machines in memory: what is chosen, what is done, what the result and the errors say.

mod arrays;
mod paths;

use super::*;
use crate::platform::block::BlockDevice;
use crate::platform::drive::{ArrayOrder, HolderKind};
use crate::platform::fake::block::{Discard, Fault, MemDisk};
use crate::platform::fake::drive::{FakeAta, FakeNvme, Wipe};
use crate::platform::fake::machine::{Call, FakeMachine, facts};
use crate::platform::machine::DiskFacts;
use ferric_common::events::Progress;
use ferric_common::units::{DiskOffset, MIB};
use std::sync::Arc;

const SIZE: u64 = 8 * MIB;

type Step = fn(&dyn Machine, &Value, &dyn Watch) -> Result<Value, EraseError>;

#[derive(Default)]
struct Quiet {
    heard: Mutex<Vec<Progress>>,
    cancelled: bool,
}

impl Watch for Quiet {
    fn is_cancelled(&self) -> bool {
        self.cancelled
    }
    fn report(&self, progress: Progress) {
        self.heard.lock().unwrap().push(progress);
    }
}

fn with(machine: FakeMachine, disk: &Arc<MemDisk>, change: impl FnOnce(&mut DiskFacts)) -> FakeMachine {
    let mut facts = facts(disk.name(), SIZE, &disk.name()[5..]);
    change(&mut facts);
    let disk = Arc::clone(disk);
    machine.with_disk(facts, move || Ok(Arc::clone(&disk) as Arc<dyn BlockDevice>))
}

fn disk(name: &str) -> Arc<MemDisk> {
    Arc::new(MemDisk::new(SIZE).named(name))
}

/// Makes a disk what a drive's own erase leaves: all of this byte.
fn filler(disk: &Arc<MemDisk>, byte: u8) -> Wipe {
    let disk = Arc::clone(disk);
    Arc::new(move || disk.write_at(DiskOffset(0), &vec![byte; SIZE as usize]).unwrap())
}

fn sata(facts: &mut DiskFacts) {
    facts.disk.tran = Some("sata".into());
}

fn erase(machine: &FakeMachine, info: Value) -> Result<Value, String> {
    erase_devices(machine, &json!({ "driver_internal_info": info }), &Quiet::default()).map_err(|e| chain(&e))
}

fn is_blank(disk: &MemDisk) -> bool {
    disk.content().iter().all(|byte| *byte == 0)
}

#[test]
fn a_disk_without_commands_of_its_own_is_overwritten_to_the_last_byte() {
    let (a, b) = (disk("/dev/vda"), disk("/dev/vdb"));
    let machine = with(with(FakeMachine::new(), &a, |_| {}), &b, |_| {});
    let quiet = Quiet::default();
    let node = json!({"driver_internal_info": {"disk_erasure_concurrency": 2}});
    let result = erase_devices(&machine, &node, &quiet).unwrap();
    assert!(is_blank(&a) && is_blank(&b));
    for name in ["/dev/vda", "/dev/vdb"] {
        assert_eq!(result[name]["method"], "overwriting (1 random passes, zeros last)");
        assert!(result[name]["proof"].as_str().unwrap().ends_with("read as zeros"), "{result}");
        assert!(result[name]["seconds"].is_number());
    }
    let heard = quiet.heard.into_inner().unwrap();
    assert!(heard.iter().any(|p| p.note.contains("/dev/vda: overwriting with zeros, pass 2 of 2, ")));
}

#[test]
fn an_nvme_drive_formats_itself() {
    let disk = disk("/dev/nvme0n1");
    let drive = FakeNvme::wiping(filler(&disk, 0));
    let mut machine = with(FakeMachine::new(), &disk, |_| {});
    machine.nvme.insert("/dev/nvme0n1".into(), drive.clone());
    let result = erase(&machine, json!({})).unwrap();
    assert_eq!(result["/dev/nvme0n1"]["method"], "NVMe format (user data erase)");
    assert_eq!(drive.orders(), ["format 0x200"]);
    assert!(is_blank(&disk));
}

#[test]
fn a_drive_that_says_it_erased_and_did_not_is_found_out() {
    let disk = disk("/dev/nvme0n1");
    let mut machine = with(FakeMachine::new(), &disk, |_| {});
    machine.nvme.insert("/dev/nvme0n1".into(), FakeNvme::new());
    let error = erase(&machine, json!({})).unwrap_err();
    assert!(
        error.starts_with(
            "Failed to erase the device(s): \"/dev/nvme0n1\": Failed to invoke secure erase, fallback to shred is not \
             enabled: NVMe format (user data erase): /dev/nvme0n1 still reads back at byte 0 what was there before"
        ),
        "{error}"
    );
    let result = erase(&machine, json!({"agent_continue_if_secure_erase_failed": true})).unwrap();
    assert_eq!(result["/dev/nvme0n1"]["method"], "overwriting (1 random passes, zeros last)");
    assert!(result["/dev/nvme0n1"]["failed_before"][0].as_str().unwrap().contains("it did not erase"));
    assert!(is_blank(&disk));
}

#[test]
fn a_drive_that_refuses_to_format_sanitizes() {
    let disk = disk("/dev/nvme0n1");
    let drive = FakeNvme::wiping(filler(&disk, 0x77)).saying(328, 2).failing();
    let mut machine = with(FakeMachine::new(), &disk, |_| {});
    machine.nvme.insert("/dev/nvme0n1".into(), drive.clone());
    let result = erase(&machine, json!({})).unwrap();
    assert_eq!(result["/dev/nvme0n1"]["method"], "NVMe sanitize (block erase)");
    assert!(result["/dev/nvme0n1"]["proof"].as_str().unwrap().contains("no longer hold"), "{result}");
    assert_eq!(drive.orders(), ["format 0x200", "sanitize 0x2"]);
}

#[test]
fn a_drive_that_refuses_identify_is_overwritten_where_that_is_allowed() {
    let disk = disk("/dev/nvme0n1");
    // No commands at all: whatever is asked of it fails.
    let machine = with(FakeMachine::new(), &disk, |_| {});
    let error = erase(&machine, json!({})).unwrap_err();
    assert!(
        error.contains(
            "Failed to invoke secure erase, fallback to shred is not enabled: Failed to fetch NVMe capabilities for device \
             /dev/nvme0n1"
        ),
        "{error}"
    );
    assert!(!is_blank(&disk));
    let result = erase(&machine, json!({"agent_continue_if_secure_erase_failed": true})).unwrap();
    assert_eq!(result["/dev/nvme0n1"]["method"], "overwriting (1 random passes, zeros last)");
    assert!(result["/dev/nvme0n1"]["failed_before"][0].as_str().unwrap().starts_with("Failed to fetch NVMe"));
    assert!(is_blank(&disk));
}

#[test]
fn a_sata_drive_erases_itself_and_a_locked_one_is_opened_before_it_is_read() {
    let disk = disk("/dev/sda");
    let drive = FakeAta::wiping(filler(&disk, 0xff));
    drive.lock(b"");
    let mut machine = with(FakeMachine::new(), &disk, sata);
    machine.ata.insert("/dev/sda".into(), drive.clone());
    let result = erase(&machine, json!({})).unwrap();
    assert_eq!(result["/dev/sda"]["method"], "ATA security erase (enhanced)");
    assert_eq!(drive.commands(), ["Unlock", "ErasePrepare", "EraseUnit"]);
    assert!(disk.content().iter().all(|byte| *byte == 0xff));
}

#[test]
fn a_frozen_drive_is_an_error_unless_a_fallback_is_allowed() {
    for (info, method) in [
        (json!({}), None),
        (json!({"agent_enable_discard_erase": true}), Some("discard")),
        (
            json!({"agent_continue_if_ata_erase_failed": true}),
            Some("overwriting (1 random passes, zeros last)"),
        ),
        (json!({"agent_enable_ata_secure_erase": false}), Some("overwriting (1 random passes, zeros last)")),
    ] {
        let disk = Arc::new(MemDisk::new(SIZE).named("/dev/sda").with_discard(Discard::Zeros));
        let drive = FakeAta::new();
        drive.change(|d| d.frozen = true);
        let mut machine = with(FakeMachine::new(), &disk, sata);
        machine.ata.insert("/dev/sda".into(), drive);
        match (erase(&machine, info), method) {
            (Ok(result), Some(method)) => {
                assert_eq!(result["/dev/sda"]["method"], method);
                assert!(is_blank(&disk));
            }
            (Err(error), None) => assert!(error.contains("is frozen and cannot be erased"), "{error}"),
            (other, method) => panic!("{other:?} instead of {method:?}"),
        }
    }
}

#[test]
fn a_discard_that_keeps_the_data_is_no_erase() {
    let disk = Arc::new(MemDisk::new(SIZE).named("/dev/sda").with_discard(Discard::Keeps));
    let drive = FakeAta::new();
    drive.change(|d| d.frozen = true);
    let mut machine = with(FakeMachine::new(), &disk, sata);
    machine.ata.insert("/dev/sda".into(), drive);
    let error = erase(&machine, json!({"agent_enable_discard_erase": true})).unwrap_err();
    assert!(error.contains("discard: /dev/sda still reads back"), "{error}");
}

#[test]
fn disks_that_are_no_ata_drives_or_lack_the_feature_are_overwritten() {
    type Change = fn(&mut crate::platform::fake::drive::AtaDrive);
    let changes: [Change; 2] = [|d| d.mute = true, |d| d.supported = false];
    for change in changes {
        let disk = disk("/dev/sda");
        let drive = FakeAta::new();
        drive.change(change);
        let mut machine = with(FakeMachine::new(), &disk, sata);
        machine.ata.insert("/dev/sda".into(), drive.clone());
        erase(&machine, json!({})).unwrap();
        assert!(is_blank(&disk) && drive.commands().is_empty());
    }
}

#[test]
fn what_is_left_alone_is_named_with_its_reason() {
    let (skipped, read_only, good) = (disk("/dev/vda"), disk("/dev/vdb"), disk("/dev/vdc"));
    let machine = || {
        let machine = with(FakeMachine::new(), &skipped, |_| {});
        with(with(machine, &read_only, |facts| facts.read_only = true), &good, |_| {})
    };
    let node = |info: Value| json!({"properties": {"skip_block_devices": [{"serial": "vda"}]}, "driver_internal_info": info});
    let error = erase_devices(&machine(), &node(json!({})), &Quiet::default()).unwrap_err().to_string();
    assert!(error.contains(
        "\"/dev/vdb\": Failed to invoke erase of device /dev/vdb as the device is flagged read-only"
    ));
    assert!(is_blank(&good), "one that fails does not keep the others");
    let allowed = node(json!({"agent_erase_skip_read_only": true}));
    let result = erase_devices(&machine(), &allowed, &Quiet::default()).unwrap();
    assert_eq!(result["/dev/vdb"], json!({"left_alone": "it is read-only"}));
    assert!(result.get("/dev/vda").is_none() && result["/dev/vdc"].is_object());
    assert!(!is_blank(&skipped) && !is_blank(&read_only));
}

#[test]
fn a_shared_file_system_stops_everything_before_anything() {
    let (shared, other) = (disk("/dev/vdb"), disk("/dev/vda"));
    shared
        .write_at(DiskOffset(65_536), &[b"\x01\x16\x19\x70\0\0\0\x01".as_slice(), &[0; 504]].concat())
        .unwrap();
    let machine = with(with(FakeMachine::new(), &other, |_| {}), &shared, |_| {});
    for step in [erase_devices, erase_devices_express] {
        let error = step(&machine, &json!({}), &Quiet::default()).unwrap_err();
        assert!(
            error.to_string().contains("(GFS2) located on device /dev/vdb. Nothing was erased"),
            "{error}"
        );
        assert!(!is_blank(&other) && other.log().is_empty());
    }
    erase(&machine, json!({"wipe_special_filesystems": true})).unwrap();
    assert!(is_blank(&shared) && is_blank(&other));
}

#[test]
fn virtual_media_of_a_bmc_are_left_alone_and_other_usb_disks_are_not() {
    let (inserted, stick, inside) = (disk("/dev/sda"), disk("/dev/sdb"), disk("/dev/sdc"));
    let model = |tran: &str, model: &str| {
        let (tran, model) = (tran.to_owned(), model.to_owned());
        move |facts: &mut DiskFacts| (facts.disk.tran, facts.disk.model) = (Some(tran), Some(model))
    };
    let machine = with(FakeMachine::new(), &inserted, model("usb", "AMI Virtual Floppy0"));
    let machine = with(machine, &stick, model("usb", "Cruzer Blade"));
    let machine = with(machine, &inside, model("sas", "Virtual Media"));
    for disk in [&inserted, &stick, &inside] {
        disk.write_at(DiskOffset(0), &vec![7; SIZE as usize]).unwrap();
    }
    let result = erase(&machine, json!({})).unwrap();
    assert_eq!(result["/dev/sda"], json!({"left_alone": "it is virtual media of the BMC"}));
    assert!(!is_blank(&inserted) && is_blank(&stick) && is_blank(&inside));
}

#[test]
fn a_neighbour_namespace_in_the_skip_list_is_not_taken_along() {
    let (first, second) = (disk("/dev/nvme0n1"), disk("/dev/nvme0n2"));
    let drive = FakeNvme::wiping(filler(&first, 0)).saying(524, 3);
    let mut machine = with(with(FakeMachine::new(), &first, |_| {}), &second, |_| {});
    machine.nvme.insert("/dev/nvme0n1".into(), drive.clone());
    let node = json!({"properties": {"skip_block_devices": [{"serial": "nvme0n2"}]}});
    let error = erase_devices(&machine, &node, &Quiet::default()).unwrap_err().to_string();
    assert!(error.contains("take all namespaces of the drive"), "{error}");
    assert!(drive.orders().is_empty() && !is_blank(&second));
}

#[test]
fn a_cancelled_step_and_a_bad_disk_are_told() {
    let bad = Arc::new(MemDisk::new(SIZE).named("/dev/vda").with_fault(Fault::Write(5 * MIB)));
    let machine = with(FakeMachine::new(), &bad, |_| {});
    let error = erase(&machine, json!({})).unwrap_err();
    assert!(error.contains("Unable to erase block device /dev/vda: overwriting: "), "{error}");
    assert!(error.contains("medium error"), "{error}");
    let good = disk("/dev/vda");
    let cancelled = Quiet { cancelled: true, ..Quiet::default() };
    let error = erase_devices(&with(FakeMachine::new(), &good, |_| {}), &json!({}), &cancelled).unwrap_err();
    assert!(error.to_string().contains("the step was cancelled"), "{error}");
}

#[test]
fn the_express_way_formats_nvme_and_blanks_the_rest() {
    let (nvme, refusing, other) = (disk("/dev/nvme0n1"), disk("/dev/nvme1n1"), disk("/dev/vda"));
    let mut machine = FakeMachine::new();
    for disk in [&nvme, &refusing, &other] {
        machine = with(machine, disk, |_| {});
    }
    machine.nvme.insert("/dev/nvme0n1".into(), FakeNvme::wiping(filler(&nvme, 0)));
    machine.nvme.insert("/dev/nvme1n1".into(), FakeNvme::new().failing());
    let result = erase_devices_express(&machine, &json!({}), &Quiet::default()).unwrap();
    assert_eq!(result.as_object().unwrap().keys().collect::<Vec<_>>(), ["/dev/nvme0n1"]);
    assert!(is_blank(&nvme));
    for disk in [refusing, other] {
        let content = disk.content();
        let (head, rest) = content.split_at(MIB as usize);
        assert!(head.iter().all(|b| *b == 0) && rest.contains(&0xA5), "{}", disk.name());
    }
}
