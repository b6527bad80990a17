//! Disks under software RAID arrays, kept and left over.

use super::*;

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
