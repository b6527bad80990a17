//! Devices are made with the real tools; blkid and wipefs say whether anything is left.

use super::*;
use crate::disk::testing::{FileDisk, ok, run};
use crate::platform::drive::{ArrayOrder, HolderKind};
use crate::platform::fake::machine::{Call, FakeMachine, facts};
use ferric_common::formats::mbr;
use ferric_common::units::{GIB, SectorSize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

#[track_caller]
fn assert_blank(disk: &FileDisk) {
    let (code, text) = run("blkid", &["-p"], disk.path(), "");
    assert_eq!((code, text.as_str()), (2, ""), "blkid sees something");
    assert_eq!(ok("wipefs", &["--noheadings"], disk.path(), ""), "");
}

#[track_caller]
fn check(disk: &FileDisk, want: &[&str]) {
    let report = metadata(disk).unwrap();
    for what in want {
        assert!(report.found.contains(what), "{what} not in {:?}", report.found);
    }
    assert_blank(disk);
    assert_eq!(metadata(disk).unwrap().found, Vec::<&str>::new());
}

#[test]
fn what_real_tools_make_is_found_and_gone() {
    for (program, args, input, size, want) in [
        ("mkfs.ext4", &["-q", "-F"][..], "", 64 * MIB, "ext2/3/4"),
        ("mkfs.vfat", &["-F", "32"], "", 64 * MIB, "vfat"),
        ("mkfs.vfat", &["-F", "16"], "", 32 * MIB, "vfat"),
        ("mkswap", &["-p", "4096"], "", 10 * MIB, "swap"),
        ("sfdisk", &[], "label: gpt\n,10M\n", 64 * MIB, "GPT"),
        ("sfdisk", &[], "label: dos\n,10M\n", 64 * MIB, "MBR"),
    ] {
        for odd in [0, 512] {
            let disk = FileDisk::new(size + odd, 512);
            ok(program, args, disk.path(), input);
            let middle = 5 * MIB + 7;
            disk.put(middle, b"content");
            check(&disk, &[want]);
            assert_eq!(disk.bytes(middle, 7), b"content", "what lies between the ends is not metadata");
        }
    }
}

#[test]
fn every_known_signature_is_found_and_gone_wherever_it_stands() {
    // Sparse: the far copies of btrfs lie at 256 GiB.
    for size in [8 * MIB, 257 * GIB, 1_500_160, 8192] {
        for spot in signatures::spots(size) {
            if spot.what == "ZFS" && spot.at % (128 << 10) != 0 {
                continue;
            }
            let disk = FileDisk::new(size, 512);
            disk.put(spot.at, spot.magic);
            assert!(names(&scan(&disk).unwrap()).contains(&spot.what), "{spot:?}");
            metadata(&disk).unwrap();
            assert_eq!(disk.bytes(spot.at, spot.magic.len()), vec![0; spot.magic.len()], "{spot:?}");
        }
    }
}

#[test]
fn hand_made_superblocks_that_blkid_knows_are_gone() {
    let luks = |disk: &FileDisk| {
        for (at, magic) in [(0, b"LUKS\xba\xbe"), (0x40_0000, b"SKUL\xba\xbe")] {
            disk.put(at, magic);
            disk.put(at + 6, &[0, 2]);
            disk.put(at + 256, &at.to_be_bytes());
        }
    };
    let btrfs = |disk: &FileDisk| disk.put(64 * 1024 + 64, b"_BHRfS_M");
    let lvm = |disk: &FileDisk| {
        disk.put(512, b"LABELONE\x01");
        disk.put(512 + 20, b"\x20\0\0\0LVM2 001");
    };
    let raid = |disk: &FileDisk| disk.put(4096, b"\xfc\x4e\x2b\xa9\x01");
    type Make<'a> = &'a dyn Fn(&FileDisk);
    let fill: [(Make<'_>, &str); 4] =
        [(&luks, "LUKS"), (&btrfs, "btrfs"), (&lvm, "LVM2 physical volume"), (&raid, "md 1.2")];
    for (make, what) in fill {
        let disk = FileDisk::new(64 * MIB, 512);
        make(&disk);
        check(&disk, &[what]);
    }
}

/// Takes writes and keeps nothing, or fails at a byte.
struct BadDisk {
    inner: FileDisk,
    fail_at: Option<u64>,
}

impl BlockDevice for BadDisk {
    fn name(&self) -> &str {
        "/dev/bad"
    }
    fn size(&self) -> ByteCount {
        self.inner.size()
    }
    fn sector_size(&self) -> SectorSize {
        self.inner.sector_size()
    }
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(at, buffer)
    }
    fn write_at(&self, at: DiskOffset, _: &[u8]) -> io::Result<()> {
        match self.fail_at {
            Some(bad) if at.0 >= bad => Err(io::Error::other("medium error")),
            _ => Ok(()),
        }
    }
    fn zero(&self, _: DiskOffset, _: ByteCount) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_device_that_lies_or_fails_is_named() {
    let bad = |fail_at| {
        let inner = FileDisk::new(8 * MIB, 512);
        inner.put(510, &[0x55, 0xaa]);
        let error = metadata(&BadDisk { inner, fail_at }).unwrap_err();
        chain(&error)
    };
    assert_eq!(
        bad(None),
        "/dev/bad took the zeros, but an old byte still reads back at byte 510: the device does not keep what is written"
    );
    assert_eq!(bad(Some(MIB)), "blanking /dev/bad at byte 7340032: medium error");
}

/// A machine of files: `sda` with partitions, `sdb` without.
struct Bench {
    disks: Vec<(&'static str, Arc<FileDisk>)>,
    read_only: &'static str,
    inserted: &'static str,
}

impl Bench {
    fn new() -> Bench {
        let disks = ["/dev/sda", "/dev/sda1", "/dev/sda2", "/dev/sdb"]
            .map(|name| (name, Arc::new(FileDisk::new(16 * MIB, 512))));
        Bench { disks: disks.into(), read_only: "", inserted: "" }
    }

    fn disk(&self, name: &str) -> &FileDisk {
        &self.disks.iter().find(|(n, _)| *n == name).unwrap().1
    }

    fn mark(&self) {
        for (_, disk) in &self.disks {
            disk.put(510, &[0x55, 0xaa]);
        }
    }

    /// Runs the step; returns its outcome, which devices are blank, and the calls.
    fn run(&self, node: Value) -> (Result<Value, EraseError>, Vec<&'static str>, Vec<Call>) {
        let mut machine = FakeMachine::new().with_partitions("/dev/sda", &["/dev/sda1", "/dev/sda2"]);
        let mut whole = Vec::new();
        for (name, disk) in &self.disks {
            let mut facts = facts(name, 16 * MIB, &name[5..]);
            facts.read_only = *name == self.read_only;
            if *name == self.inserted {
                (facts.disk.tran, facts.disk.model) = (Some("usb".into()), Some("ATEN Virtual Media".into()));
            }
            if !name.ends_with(['1', '2']) {
                whole.push(facts.clone());
            }
            let disk = Arc::clone(disk);
            machine = machine.with_disk(facts, move || Ok(Arc::clone(&disk) as Arc<dyn BlockDevice>));
        }
        machine.set_disks(whole);
        let result = erase_devices_metadata(&machine, &node);
        let is_blank = |disk: &FileDisk| disk.bytes(0, 1 << 20).iter().all(|&b| b == 0);
        let blank = self.disks.iter().filter(|(_, disk)| is_blank(disk)).map(|(name, _)| *name).collect();
        (result, blank, machine.calls())
    }
}

#[test]
fn partitions_go_before_their_disk_and_the_kernel_reads_again() {
    let bench = Bench::new();
    bench.mark();
    let (result, blank, calls) = bench.run(json!({}));
    assert_eq!(result.unwrap(), Value::Null);
    assert_eq!(blank.len(), 4);
    let opened = |name: &str| Call::Opened(name.into());
    let wiped: Vec<_> = calls[4..].to_vec();
    let want = [
        opened("/dev/sdb"),
        Call::Reread("/dev/sdb".into()),
        opened("/dev/sda2"),
        opened("/dev/sda1"),
        opened("/dev/sda"),
        Call::Reread("/dev/sda".into()),
    ];
    assert_eq!(wiped, want);
}

#[test]
fn skipped_read_only_and_raid_members_are_left_alone() {
    let mut bench = Bench::new();
    bench.mark();
    let skip = json!({"properties": {"skip_block_devices": [{"serial": "sda"}]}});
    assert_eq!(bench.run(skip).1, ["/dev/sdb"], "the partitions of a skipped disk stay too");
    bench.mark();
    bench.read_only = "/dev/sdb";
    bench.disk("/dev/sda1").put(4096, b"\xfc\x4e\x2b\xa9\x01");
    let raid = json!({"logical_disks": [{"controller": "software", "raid_level": "1"}]});
    let (result, blank, _) = bench.run(json!({"properties": {}, "raid_config": raid}));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("/dev/sda1 is a member of a software RAID array that the node keeps"), "{error}");
    assert_eq!(blank, ["/dev/sda2"], "the table of a disk is what its members are found by");
    let (result, blank, _) = bench.run(json!({"properties": {}}));
    assert!(result.is_ok());
    assert_eq!(
        blank,
        ["/dev/sda", "/dev/sda1", "/dev/sda2"],
        "an array that the node does not have is a leftover"
    );
    // The conductor's medium is a small disk; whoever names a partition so does not keep it.
    let bench = Bench::new();
    bench.mark();
    for name in ["/dev/sda2", "/dev/sdb"] {
        bench.disk(name).put(54, b"FAT12   ");
        bench.disk(name).put(43, b"IR-VFD-DEV ");
    }
    assert_eq!(bench.run(json!({})).1, ["/dev/sda", "/dev/sda1", "/dev/sda2"]);
    let (result, ..) = bench.run(json!({"properties": {"skip_block_devices": [{"sise": 1}]}}));
    assert!(matches!(result, Err(EraseError::SkipList(_))));
}

#[test]
fn what_a_bmc_inserted_is_not_wiped() {
    let bench = Bench { inserted: "/dev/sda", ..Bench::new() };
    bench.mark();
    assert_eq!(bench.run(json!({})).1, ["/dev/sdb"]);
}

#[test]
fn mappings_go_first_and_members_of_a_kept_array_stay() {
    let held = |keeps: bool| {
        let disk = Arc::new(FileDisk::new(16 * MIB, 512));
        disk.put(510, &[0x55, 0xaa]);
        let (opened, holder) = (Arc::clone(&disk), Arc::new(FileDisk::new(16 * MIB, 512)));
        let machine = FakeMachine::new()
            .with_disk(facts("/dev/sda", 16 * MIB, "a"), move || {
                Ok(Arc::clone(&opened) as Arc<dyn BlockDevice>)
            })
            .with_disk(facts("/dev/md0", 16 * MIB, "m"), move || {
                Ok(Arc::clone(&holder) as Arc<dyn BlockDevice>)
            })
            .with_holder("/dev/sda", "/dev/md0", HolderKind::Array);
        let raid = if keeps { json!({"logical_disks": [{"controller": "software"}]}) } else { json!({}) };
        erase_devices_metadata(&machine, &json!({ "raid_config": raid })).unwrap();
        disk.bytes(510, 2)
    };
    assert_eq!(held(false), [0, 0]);
    assert_eq!(held(true), [0x55, 0xaa]);
}

type Disks = BTreeMap<&'static str, Arc<FileDisk>>;

/// `sda1` and all of `sdb` are the array `data`, which nobody has run yet; `sda2` is beside it.
fn with_sleeping_array() -> (Disks, FakeMachine) {
    let mut machine = FakeMachine::new().with_partitions("/dev/sda", &["/dev/sda1", "/dev/sda2"]);
    let mut disks = BTreeMap::new();
    for name in ["/dev/md127", "/dev/sda", "/dev/sda1", "/dev/sda2", "/dev/sdb"] {
        let disk = Arc::new(FileDisk::new(16 * MIB, 512));
        disk.put(510, &[0x55, 0xaa]);
        disks.insert(name, Arc::clone(&disk));
        machine = machine
            .with_disk(facts(name, 16 * MIB, name), move || Ok(Arc::clone(&disk) as Arc<dyn BlockDevice>));
    }
    machine.set_disks(["/dev/sda", "/dev/sdb"].map(|name| facts(name, 16 * MIB, name)).into());
    let order = ArrayOrder {
        device: "/dev/md127".into(),
        name: "data".into(),
        level: "1",
        metadata: "1.2",
        members: vec!["/dev/sda1".into(), "/dev/sdb".into()],
    };
    (disks, machine.with_sleeping_array(order, facts("/dev/md127", 16 * MIB, "m")))
}

#[test]
fn kept_arrays_run_before_anything_is_erased_and_the_disks_under_them_keep_their_tables() {
    let raid = json!({"logical_disks": [{"controller": "software", "raid_level": "1"}]});
    let named = json!({"skip_block_devices": [{"volume_name": "data"}]});
    let others = json!({"skip_block_devices": [{"volume_name": "other"}]});
    for (node, want) in [
        (json!({"raid_config": raid}), vec!["/dev/md127", "/dev/sda2"]),
        (json!({"raid_config": raid, "properties": named}), vec!["/dev/sda2"]),
        (json!({"properties": named}), vec!["/dev/sda2"]),
        (json!({"properties": others}), vec!["/dev/md127", "/dev/sda2"]),
        // A wish says nothing about what is there.
        (json!({"target_raid_config": raid}), vec!["/dev/sda", "/dev/sda1", "/dev/sda2", "/dev/sdb"]),
        (json!({}), vec!["/dev/sda", "/dev/sda1", "/dev/sda2", "/dev/sdb"]),
    ] {
        let (disks, machine) = with_sleeping_array();
        erase_devices_metadata(&machine, &node).unwrap();
        let is_blank = |disk: &FileDisk| disk.bytes(510, 2) == [0, 0];
        let blank: Vec<_> = disks.iter().filter(|(_, disk)| is_blank(disk)).map(|(name, _)| *name).collect();
        assert_eq!(blank, want, "{node}");
        // What lies in the array shows when it is read again.
        let woken = [Call::Assembled, Call::Reread("/dev/md127".into())];
        assert_eq!(machine.calls().starts_with(&woken), blank.len() < 3, "{node}");
    }
}

#[test]
fn a_kept_array_that_does_not_run_is_a_failure_and_a_member_that_a_running_one_lost_is_not() {
    let raid = json!({"logical_disks": [{"controller": "software", "raid_level": "1"}]});
    let named = json!({"skip_block_devices": [{"volume_name": "data"}]});
    let failure = |node: Value, change: &dyn Fn(&Disks)| {
        let (disks, machine) = with_sleeping_array();
        // A third disk, of an array that nobody runs.
        let disk = Arc::new(FileDisk::new(16 * MIB, 512));
        let opened = Arc::clone(&disk);
        let machine = machine.with_disk(facts("/dev/sdc", 16 * MIB, "c"), move || {
            Ok(Arc::clone(&opened) as Arc<dyn BlockDevice>)
        });
        let mut disks = disks;
        disks.insert("/dev/sdc", disk);
        change(&disks);
        let before = disks["/dev/sdc"].bytes(0, 1 << 20);
        let result = erase_devices_metadata(&machine, &node);
        assert_eq!(disks["/dev/sdc"].bytes(0, 1 << 20), before);
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let member = |disk: &FileDisk, id: u8, name: &[u8]| {
        disk.put(4096, b"\xfc\x4e\x2b\xa9\x01");
        disk.put(4096 + 16, &[id; 16]);
        disk.put(4096 + 32, name);
    };
    let kept = json!({ "raid_config": raid });
    let lost = |id: u8| {
        move |disks: &Disks| {
            member(&disks["/dev/sdb"], 7, b"host:data");
            member(&disks["/dev/sdc"], id, b"host:data");
        }
    };
    assert_eq!(failure(kept.clone(), &lost(7)), "");
    let error = failure(kept.clone(), &lost(8));
    assert!(
        error.contains("\"/dev/sdc\": /dev/sdc is a member of a software RAID array that the node keeps"),
        "{error}"
    );
    // One of the skip list is not the cleaning's to judge.
    assert_eq!(failure(json!({"raid_config": raid, "properties": named}), &lost(8)), "");

    let member = Arc::new(FileDisk::new(16 * MIB, 512));
    let machine = FakeMachine::new()
        .with_disk(facts("/dev/sda", 16 * MIB, "a"), move || Ok(Arc::clone(&member) as Arc<dyn BlockDevice>))
        .with_holder("/dev/sda", "/dev/md0", HolderKind::Array);
    let error = erase_devices_metadata(&machine, &kept).unwrap_err().to_string();
    assert!(
        error.contains("/dev/sda is a member of /dev/md0 that the node keeps, and the array is not"),
        "{error}"
    );
}

#[test]
fn the_chain_of_logical_partitions_beside_a_kept_array_stays() {
    let node = json!({"raid_config": {"logical_disks": [{"controller": "software"}]}});
    for (kind, stays) in [(0x05, true), (0x0f, true), (0x83, false)] {
        let (disks, machine) = with_sleeping_array();
        let mut head = vec![0; 512];
        mbr::sign(&mut head);
        mbr::add(&mut head, &mbr::Entry { number: 2, kind, first: 2048, count: 2048 });
        disks["/dev/sda"].put(0, &head);
        erase_devices_metadata(&machine, &node).unwrap();
        assert_eq!(disks["/dev/sda2"].bytes(510, 2) == [0x55, 0xaa], stays, "{kind:#x}");
        // Nobody holds the member: `sda2` is a logical partition then, and `sda1` leads to it.
        let bench = Bench::new();
        bench.mark();
        head.truncate(440);
        head.resize(512, 0);
        mbr::sign(&mut head);
        mbr::add(&mut head, &mbr::Entry { number: 1, kind, first: 2048, count: 2048 });
        bench.disk("/dev/sda").put(0, &head);
        bench.disk("/dev/sda2").put(4096, b"\xfc\x4e\x2b\xa9\x01");
        let (result, blank, _) = bench.run(node.clone());
        assert!(result.is_err());
        assert_eq!(blank.contains(&"/dev/sda1"), !stays, "{blank:?}");
        assert!(!blank.contains(&"/dev/sda") && blank.contains(&"/dev/sdb"), "{blank:?}");
    }
}

#[test]
fn nothing_is_erased_where_kept_arrays_cannot_be_looked_for() {
    let (disks, mut machine) = with_sleeping_array();
    machine.no_mdadm = true;
    let node = json!({"properties": {"skip_block_devices": [{"volume_name": "data"}]}});
    let error = chain(&erase_devices_metadata(&machine, &node).unwrap_err());
    assert!(error.contains("keeps its software RAID arrays, and they could not be looked for"), "{error}");
    assert!(disks.values().all(|disk| disk.bytes(510, 2) == [0x55, 0xaa]));
}

#[test]
fn a_disk_stays_if_what_is_on_it_may_be_a_member_of_a_kept_array() {
    let raid = json!({"raid_config": {"logical_disks": [{"controller": "software"}]}});
    // A superblock at the end of a disk, behind its partitions: it is the disk's own.
    let bench = Bench::new();
    bench.mark();
    bench.disk("/dev/sda").put(16 * MIB - 64 * 1024, b"\xfc\x4e\x2b\xa9");
    assert_eq!(bench.run(raid.clone()).1, ["/dev/sda1", "/dev/sda2", "/dev/sdb"]);
    // A partition that cannot be opened.
    let bench = Bench {
        disks: Bench::new().disks.into_iter().filter(|d| d.0 != "/dev/sda2").collect(),
        ..Bench::new()
    };
    bench.mark();
    let (result, blank, _) = bench.run(raid);
    assert!(result.unwrap_err().to_string().contains("/dev/sda2"));
    assert_eq!(blank, ["/dev/sda1", "/dev/sdb"]);
}

#[test]
fn a_protected_file_system_stops_everything_before_anything() {
    type Make = fn(&Bench);
    let makes: [(&str, &str, Make); 5] = [
        ("Global File System 2 (GFS2)", "/dev/sda1", |b| {
            b.disk("/dev/sda1").put(65_536, b"\x01\x16\x19\x70\0\0\0\x01")
        }),
        ("VMware file system (VMFS)", "/dev/sdb", |b| b.disk("/dev/sdb").put(MIB, b"\x0d\xd0\x01\xc0")),
        ("VMware file system (VMFS)", "/dev/sda", |b| {
            ok("sfdisk", &[], b.disk("/dev/sda").path(), "label: dos\n,4M,fb\n");
        }),
        ("VMware file system (VMFS)", "/dev/sda", |b| {
            let table = "label: gpt\n,4M,AA31E02A-400F-11DB-9590-000C2911D1B8\n";
            ok("sfdisk", &[], b.disk("/dev/sda").path(), table);
        }),
        ("General Parallel File System (GPFS)", "/dev/sda", |b| {
            let table = "label: gpt\n,4M,37affc90-ef7d-4e96-91c3-2d7ae055b174\n";
            ok("sfdisk", &[], b.disk("/dev/sda").path(), table);
        }),
    ];
    for (what, device, make) in makes {
        let bench = Bench::new();
        bench.mark();
        make(&bench);
        for node in [json!({}), json!({"driver_internal_info": {"wipe_special_filesystems": false}})] {
            let (result, blank, _) = bench.run(node);
            let text = result.unwrap_err().to_string();
            assert!(
                text.starts_with(&format!(
                    "Protected {what} located on device {device}. Nothing was erased."
                )),
                "{text}"
            );
            assert!(blank.is_empty());
        }
        let (result, blank, _) =
            bench.run(json!({"driver_internal_info": {"wipe_special_filesystems": true}}));
        assert!(result.is_ok());
        assert_eq!(blank.len(), 4);
    }
}

#[test]
fn one_failure_does_not_keep_the_others_from_being_erased() {
    let disk = Arc::new(FileDisk::new(16 * MIB, 512));
    disk.put(510, &[0x55, 0xaa]);
    let good = Arc::clone(&disk);
    let machine = FakeMachine::new()
        .with_disk(facts("/dev/sdz", 16 * MIB, "z"), || {
            Err(MachineError::Busy { what: "/dev/sdz".into(), by: "md127".into() })
        })
        .with_disk(facts("/dev/sda", 16 * MIB, "a"), move || Ok(Arc::clone(&good) as Arc<dyn BlockDevice>));
    let error = erase_devices_metadata(&machine, &json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Failed to erase the metadata on the device(s): \"/dev/sdz\": /dev/sdz is in use: md127"
    );
    assert_blank(&disk);
}
