//! The whole step on machines in memory: what is chosen, what is done, what the result and the errors say.

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

type Step = fn(&dyn Machine, &Value, &dyn Watch) -> Result<Value, EraseError>;
/// All that erase disks.
const STEPS: [Step; 3] =
    [erase_devices, erase_devices_express, |machine, node, _| wipe::erase_devices_metadata(machine, node)];

/// A device of this name that is the given disk.
fn path(machine: FakeMachine, name: &str, disk: &Arc<MemDisk>, wwn: &str) -> FakeMachine {
    let mut facts = facts(name, SIZE, "SN1");
    facts.wwns = vec![wwn.into()];
    let disk = Arc::clone(disk);
    machine.with_disk(facts, move || Ok(Arc::clone(&disk) as Arc<dyn BlockDevice>))
}

#[test]
fn a_disk_with_several_paths_is_erased_once() {
    let (disk, other) = (disk("/dev/sda"), disk("/dev/sdc"));
    let mut machine = FakeMachine::new();
    for (name, on, wwn) in [("sda", &disk, "0x5000"), ("sdb", &disk, "0x5000"), ("sdc", &other, "0x6000")] {
        machine = path(machine, &format!("/dev/{name}"), on, wwn);
    }
    let result = erase(&machine, json!({"disk_erasure_concurrency": 3})).unwrap();
    assert!(is_blank(&disk) && is_blank(&other));
    assert_eq!(result["/dev/sdb"], json!({"left_alone": "it is another path to /dev/sda, which is erased"}));
    assert!(result["/dev/sda"]["method"].is_string() && result["/dev/sdc"]["method"].is_string());
    assert!(machine.calls().contains(&Call::Reread("/dev/sdb".into())));
}

#[test]
fn disks_that_share_a_name_are_each_erased() {
    let (first, second) = (disk("/dev/sda"), disk("/dev/sdb"));
    let machine = path(path(FakeMachine::new(), "/dev/sda", &first, "0x5000"), "/dev/sdb", &second, "0x5000");
    let result = erase(&machine, json!({})).unwrap();
    assert!(is_blank(&first) && is_blank(&second));
    assert!(result["/dev/sda"]["method"].is_string() && result["/dev/sdb"]["method"].is_string(), "{result}");
}

#[test]
fn a_path_to_a_disk_that_stays_is_left_alone() {
    let left = json!({"/dev/sdb": {"left_alone": "it is another path to /dev/sda, which is not erased"}});
    for (step, want) in STEPS.into_iter().zip([left, json!({}), Value::Null]) {
        let kept = Arc::new(MemDisk::new(SIZE).named("/dev/sda").holding(b"a volume of others"));
        let machine =
            path(path(FakeMachine::new(), "/dev/sda", &kept, "0x5000"), "/dev/sdb", &kept, "0x5000");
        let node = json!({"properties": {"skip_block_devices": [{"name": "/dev/sda"}]}});
        assert_eq!(step(&machine, &node, &Quiet::default()).unwrap(), want);
        assert!(kept.log().is_empty());
    }
}

#[test]
fn a_disk_with_the_names_of_one_that_stays_is_erased_or_a_failure() {
    for step in STEPS {
        let (kept, other) =
            (disk("/dev/sda"), Arc::new(MemDisk::new(SIZE).named("/dev/sdb").holding(b"tenant")));
        let machine =
            path(path(FakeMachine::new(), "/dev/sda", &kept, "0x5000"), "/dev/sdb", &other, "0x5000");
        let node = json!({"properties": {"skip_block_devices": [{"name": "/dev/sda"}]}});
        step(&machine, &node, &Quiet::default()).unwrap();
        assert!(kept.log().is_empty() && other.content().iter().take(MIB as usize).all(|byte| *byte == 0));
        let other = disk("/dev/sdb");
        let machine =
            path(path(FakeMachine::new(), "/dev/sda", &kept, "0x5000"), "/dev/sdb", &other, "0x5000");
        let error = step(&machine, &node, &Quiet::default()).unwrap_err().to_string();
        assert!(
            error.contains("\"/dev/sdb\": /dev/sdb cannot be told apart from /dev/sda, which stays"),
            "{error}"
        );
        assert!(kept.log().is_empty() && other.log().is_empty());
    }
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
fn leftover_arrays_are_taken_down_and_their_members_erased() {
    let (member, array) = (disk("/dev/vda"), disk("/dev/md127"));
    let machine = with(with(FakeMachine::new(), &member, |_| {}), &array, |_| {});
    let machine = machine.with_holder("/dev/vda", "/dev/md127", HolderKind::Array);
    let result = erase(&machine, json!({})).unwrap();
    assert_eq!(result.as_object().unwrap().keys().collect::<Vec<_>>(), ["/dev/vda"]);
    assert!(is_blank(&member) && !is_blank(&array));
}

#[test]
fn arrays_of_the_node_are_erased_as_disks_and_named_ones_stay() {
    let raid = json!({"logical_disks": [{"controller": "software", "raid_level": "1"}]});
    for (skip, array_erased, why) in [
        (json!([]), true, "it is a member of /dev/md127, which is erased as a disk"),
        (
            json!([{"volume_name": "data"}]),
            false,
            "it is a member of /dev/md127, which is in skip_block_devices",
        ),
    ] {
        let (member, array) = (disk("/dev/vda"), disk("/dev/md127"));
        let machine = with(with(FakeMachine::new(), &member, |_| {}), &array, |_| {});
        let mut machine = machine.with_holder("/dev/vda", "/dev/md127", HolderKind::Array);
        machine.arrays.insert("/dev/md127".into(), "data".into());
        let node = json!({"raid_config": raid, "properties": {"skip_block_devices": skip}});
        let result = erase_devices(&machine, &node, &Quiet::default()).unwrap();
        assert_eq!(result["/dev/vda"]["left_alone"], why);
        assert_eq!(is_blank(&array), array_erased);
        assert!(!is_blank(&member));
    }
}

#[test]
fn partitions_beside_a_kept_array_are_erased_and_named() {
    let names = ["/dev/vda", "/dev/vda1", "/dev/vda2", "/dev/md127"];
    let disks = names.map(disk);
    let mut machine = FakeMachine::new().with_partitions("/dev/vda", &["/dev/vda1", "/dev/vda2"]);
    for disk in &disks {
        machine = with(machine, disk, |_| {});
    }
    machine.set_disks(["/dev/vda", "/dev/md127"].map(|name| facts(name, SIZE, name)).into());
    let machine = machine.with_array(ArrayOrder {
        device: "/dev/md127".into(),
        name: "system".into(),
        level: "1",
        metadata: "1.2",
        members: vec!["/dev/vda1".into()],
    });
    let raid = json!({"raid_config": {"logical_disks": [{"controller": "software"}]}});
    let result = erase_devices(&machine, &raid, &Quiet::default()).unwrap();
    assert_eq!(disks.each_ref().map(|disk| is_blank(disk)), [false, false, true, true]);
    assert_eq!(
        result["/dev/vda"]["left_alone"],
        "it is a member of /dev/md127, which is erased as a disk; its other partitions are erased by themselves: /dev/vda2"
    );
    assert!(result["/dev/vda2"]["proof"].as_str().unwrap().ends_with("read as zeros"), "{result}");
    // What is shared with other machines may stand there, too.
    let shared = [b"\x01\x16\x19\x70\0\0\0\x01".as_slice(), &[0; 504]].concat();
    disks[2].write_at(DiskOffset(65_536), &shared).unwrap();
    let error = erase_devices(&machine, &raid, &Quiet::default()).unwrap_err().to_string();
    assert!(error.contains("located on device /dev/vda2. Nothing was erased"), "{error}");
}

#[test]
fn kept_arrays_run_first_also_when_disks_are_erased_whole() {
    let steps: [(Step, bool); 2] = [(erase_devices, true), (erase_devices_express, false)];
    for (step, is_whole) in steps {
        let (member, drive, array) = (disk("/dev/vda"), disk("/dev/nvme0n1"), disk("/dev/md127"));
        let mut machine =
            with(with(with(FakeMachine::new(), &member, |_| {}), &drive, |_| {}), &array, |_| {});
        machine.set_disks(["/dev/vda", "/dev/nvme0n1"].map(|name| facts(name, SIZE, name)).into());
        machine.nvme.insert("/dev/nvme0n1".into(), FakeNvme::wiping(filler(&drive, 0)));
        let order = ArrayOrder {
            device: "/dev/md127".into(),
            name: "system".into(),
            level: "1",
            metadata: "1.2",
            members: vec!["/dev/vda".into(), "/dev/nvme0n1".into()],
        };
        let machine = machine.with_sleeping_array(order, facts("/dev/md127", SIZE, "m"));
        let raid = json!({"logical_disks": [{"controller": "software", "raid_level": "1"}]});
        let result = step(&machine, &json!({"raid_config": raid}), &Quiet::default()).unwrap();
        assert!(
            drive.content().contains(&0xA5) && member.content().iter().all(|byte| *byte == 0xA5),
            "{result}"
        );
        assert!(array.content().iter().take(MIB as usize).all(|byte| *byte == 0));
        assert_eq!(is_blank(&array), is_whole);
    }
}

#[test]
fn a_kept_array_that_does_not_run_is_an_error_though_it_holds_its_members() {
    let member = disk("/dev/vda");
    let machine = with(FakeMachine::new(), &member, |_| {});
    let machine = machine.with_holder("/dev/vda", "/dev/md127", HolderKind::Array);
    let raid = json!({"raid_config": {"logical_disks": [{"controller": "software"}]}});
    let error = erase_devices(&machine, &raid, &Quiet::default()).unwrap_err().to_string();
    assert!(
        error
            .contains("/dev/vda is a member of /dev/md127 that the node keeps, and the array is not running"),
        "{error}"
    );
}

#[test]
fn a_member_of_an_array_that_does_not_run_is_an_honest_error_or_a_disk() {
    let member = || {
        let disk = disk("/dev/vda");
        disk.write_at(DiskOffset(4096), &[b"\xfc\x4e\x2b\xa9\x01".as_slice(), &[0; 507]].concat()).unwrap();
        disk
    };
    let kept = member();
    let raid = json!({"logical_disks": [{"controller": "software"}]});
    let machine = with(FakeMachine::new(), &kept, |_| {});
    let error = erase_devices(&machine, &json!({ "raid_config": raid }), &Quiet::default()).unwrap_err();
    assert!(error.to_string().contains("the array is not running"), "{error}");
    assert!(!is_blank(&kept));
    let leftover = member();
    erase(&with(FakeMachine::new(), &leftover, |_| {}), json!({})).unwrap();
    assert!(is_blank(&leftover));
}

#[test]
fn a_member_beside_a_kept_array_is_erased_if_its_array_lost_it() {
    let node = |volume: &str| {
        json!({"raid_config": {"logical_disks": [{"controller": "software"}]},
               "properties": {"skip_block_devices": [{"volume_name": volume}]}})
    };
    // `sda1` is in the array `system`, which runs; `sda2` is a member of the array of this number, which nobody holds.
    let run = |id: u8, volume: &str| {
        let (whole, first, second, array) =
            (disk("/dev/sda"), disk("/dev/sda1"), disk("/dev/sda2"), disk("/dev/md127"));
        for (member, id) in [(&first, 7), (&second, id)] {
            let mut block = vec![0; 512];
            block[..5].copy_from_slice(b"\xfc\x4e\x2b\xa9\x01");
            block[16..32].fill(id);
            block[32..41].copy_from_slice(b"host:data");
            member.write_at(DiskOffset(4096), &block).unwrap();
        }
        let mut machine = FakeMachine::new().with_partitions("/dev/sda", &["/dev/sda1", "/dev/sda2"]);
        for disk in [&whole, &first, &second, &array] {
            machine = with(machine, disk, |_| {});
        }
        machine.set_disks(vec![facts("/dev/sda", SIZE, "sda")]);
        let order = ArrayOrder {
            device: "/dev/md127".into(),
            name: "system".into(),
            level: "1",
            metadata: "1.2",
            members: vec!["/dev/sda1".into()],
        };
        let machine = machine.with_sleeping_array(order, facts("/dev/md127", SIZE, "m")).with_holder(
            "/dev/sda1",
            "/dev/md127",
            HolderKind::Array,
        );
        let result = erase_devices(&machine, &node(volume), &Quiet::default());
        (result.map_err(|error| error.to_string()), is_blank(&second), is_blank(&array))
    };
    let (result, is_gone, array_is_erased) = run(7, "other");
    assert!(result.is_ok() && is_gone && array_is_erased, "{result:?}");
    let (result, is_gone, _) = run(8, "data");
    let why = result.unwrap()["/dev/sda"]["left_alone"].to_string();
    assert!(why.contains("/dev/sda2 is left alone, it is a member of data, which is in skip_block"), "{why}");
    assert!(!is_gone);
    let (result, is_gone, _) = run(8, "other");
    assert!(
        result.unwrap_err().contains("/dev/sda2 is a member of a software RAID array that the node keeps")
    );
    assert!(!is_gone);
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
fn a_disk_with_several_paths_is_not_written_to_unless_it_can_be_erased() {
    let seen_twice = |names: [&str; 2]| {
        let disk = disk(names[0]);
        let machine = path(FakeMachine::new(), names[0], &disk, "0x5000");
        (path(machine, names[1], &disk, "0x5000"), disk)
    };
    let (machine, disk) = seen_twice(["/dev/sda", "/dev/sdb"]);
    let cancelled = Quiet { cancelled: true, ..Quiet::default() };
    let error = erase_devices(&machine, &json!({}), &cancelled).unwrap_err().to_string();
    assert!(error.contains("\"/dev/sda\": the step was cancelled"), "{error}");
    assert!(disk.log().is_empty());
    // A drive that does not say what it can do, and no fallback is allowed.
    let (machine, disk) = seen_twice(["/dev/nvme0n1", "/dev/nvme1n1"]);
    let error = erase(&machine, json!({})).unwrap_err();
    assert!(error.contains("fallback to shred is not enabled"), "{error}");
    assert!(disk.log().is_empty());
}

/// Overwrites `sda` and `sdb`, which seems to be a path to it, without a look at them before: places that are read for certain are
/// read then, too.
fn erase_with_path(first: &Arc<MemDisk>, second: &Arc<MemDisk>) -> Vec<(String, Result<Fate, String>)> {
    let machine = path(path(FakeMachine::new(), "/dev/sda", first, "0x5000"), "/dev/sdb", second, "0x5000");
    let settings = settings_of(&json!({}));
    let target = |name: &str, paths| Target {
        name: name.into(),
        is_disk: true,
        plan: plan::plan(&plan::Kind::Plain, &settings),
        paths,
    };
    let target = target("/dev/sda", vec![target("/dev/sdb", Vec::new())]);
    let quiet = Quiet::default();
    let board = Board::new(&quiet, ["/dev/sda".to_owned()].into_iter());
    let work = Work { machine: &machine, settings: &settings, board: &board, line: 0 };
    paths::erase(&work, &target)
}

#[test]
fn a_disk_with_several_paths_that_fails_is_told_once() {
    let bad = Arc::new(MemDisk::new(SIZE).named("/dev/sda").with_fault(Fault::Read(SIZE - 1)));
    let fates = erase_with_path(&bad, &bad);
    assert_eq!(fates.len(), 1, "{fates:?}");
    assert!(
        fates[0].0 == "/dev/sda" && fates[0].1.clone().unwrap_err().contains("medium error"),
        "{fates:?}"
    );
}

#[test]
fn what_cannot_be_told_apart_is_not_said_to_be_another_disk() {
    let (first, second) =
        (disk("/dev/sda"), Arc::new(MemDisk::new(SIZE).named("/dev/sdb").with_fault(Fault::Read(SIZE - 1))));
    let fates = erase_with_path(&first, &second);
    assert!(matches!(&fates[0], (name, Ok(Fate::Erased(_))) if name == "/dev/sda"), "{fates:?}");
    let why = fates[1].1.clone().unwrap_err();
    assert!(
        why.contains("(/dev/sdb could not be told apart from /dev/sda: reading a sample of /dev/sdb at byte"),
        "{why}"
    );
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
