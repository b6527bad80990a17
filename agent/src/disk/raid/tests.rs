//! From configurations to tables and arrays, on disks that are files and a machine in memory; sfdisk and fdisk read the tables.

use super::plan::{Table, lay_out};
use super::wanted::{Level, Size, parse};
use super::*;
use crate::disk::testing::{FileDisk, ok};
use crate::platform::block::BlockDevice;
use crate::platform::drive::{ArrayOrder, HolderKind};
use crate::platform::fake::machine::{Call, FakeMachine, facts};
use crate::platform::machine::DiskFacts;
use ferric_common::units::{GIB, MIB};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

fn software(level: &str, size: Value) -> Value {
    json!({"controller": "software", "raid_level": level, "size_gb": size})
}

fn with(disk: &Value, more: Value) -> Value {
    let mut disk = disk.clone();
    disk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    disk
}

fn faults(config: Value) -> String {
    parse(&config, false).map(|_| ()).unwrap_err().join("; ")
}

#[test]
fn a_configuration_that_breaks_a_rule_is_told_each_rule() {
    let one = software("1", json!(10));
    let two = |second: Value| json!({ "logical_disks": [one, second] });
    for (config, words) in [
        (json!({"logical_disks": [], "x": 1}), "RAID config contains no logical disks"),
        (
            two(json!({"raid_level": "1", "size_gb": 1})),
            "requires all logical disks to have 'controller'='software'",
        ),
        (json!({"logical_disks": [software("0", json!(10))]}), "requires RAID-1 for the first logical disk"),
        (two(software("4", json!(10))), "does not support RAID level '4'"),
        (two(software("5", json!(0))), "size_gb is 0, it must be a number of GiB above 0 or 'MAX'"),
        (two(software("5", json!("much"))), "size_gb is 'much'"),
        (json!({"logical_disks": [one, one, one]}), "requires one or two logical disks"),
        (
            json!({"logical_disks": [software("1", json!("MAX")), software("0", json!("MAX"))]}),
            "only one RAID device with size 'MAX'",
        ),
        (
            two(with(&one, json!({"physical_disks": [{"serial": "A"}]}))),
            "must be a list with at least 2 items",
        ),
        (two(with(&one, json!({"physical_disks": ["A", {}]}))), "physical_disks"),
        (
            two(with(&one, json!({"physical_disks": [{"sise": 1}, {"serial": "B"}]}))),
            "The hints \"sise\" are invalid",
        ),
        (two(with(&one, json!({"volume_name": "--help"}))), "volume_name is '--help'"),
        (two(with(&one, json!({"volume_name": "a b"}))), "volume_name is 'a b'"),
        (two(with(&one, json!({"volume_name": "x".repeat(33)}))), "volume_name is"),
        (
            two(with(&one, json!({"volume_name": "esp"}))),
            "volume_name 'esp' is that of the EFI system partitions",
        ),
    ] {
        let said = faults(config.clone());
        assert!(said.contains(words), "{config}: {said}");
    }
    let named = with(&one, json!({"volume_name": "a", "is_root_volume": true}));
    let said = faults(json!({ "logical_disks": [named, named] }));
    assert!(said.contains("allows only one logical disk to be marked as is_root_volume"), "{said}");
    assert!(said.contains("Duplicate software RAID device name a detected"), "{said}");
    let unnamed = parse(&json!({ "logical_disks": [one] }), true).unwrap_err();
    assert!(unnamed[0].starts_with("All logical disks are required to have a volume name"), "{unnamed:?}");
}

#[test]
fn other_controllers_are_not_ours_and_the_one_that_takes_the_rest_comes_last() {
    for config in [json!({}), json!(null), json!({"logical_disks": [{"raid_level": "5", "size_gb": 1}]})] {
        assert!(parse(&config, false).unwrap().is_none(), "{config}");
    }
    let config = json!({"logical_disks": [software("1", json!("MAX")), software("1+0", json!("20"))]});
    let volumes = parse(&config, false).unwrap().unwrap();
    let seen: Vec<_> = volumes.iter().map(|volume| (volume.level, volume.size)).collect();
    assert_eq!(seen, [(Level::Ten, Size::Gib(20)), (Level::One, Size::Rest)]);
    assert_eq!(Level::Ten.number(), "10");
}

fn three_disks() -> Vec<DiskFacts> {
    vec![
        facts("/dev/sda", 100 * GIB, "A"),
        facts("/dev/sdb", 100 * GIB + 5, "B"),
        facts("/dev/nvme0n1", 200 * GIB, "C"),
    ]
}

#[test]
fn sizes_are_where_partitions_end() {
    let config = json!({"logical_disks": [software("1", json!(20)), software("5", json!("MAX"))]});
    let volumes = parse(&config, false).unwrap().unwrap();
    for (table, start) in
        [(Table::Gpt { uefi: true }, 551 * MIB), (Table::Gpt { uefi: false }, 8 * MIB), (Table::Mbr, MIB)]
    {
        let layout = lay_out(&volumes, &three_disks(), table).unwrap();
        let ends = [100 * GIB - MIB, 100 * GIB - MIB, 200 * GIB - MIB];
        for (plan, end) in layout.disks.iter().zip(ends) {
            assert_eq!(plan.partitions, [(start, 20 * GIB), (20 * GIB, end)], "{}", plan.disk);
        }
        assert_eq!(layout.arrays[1].level, "5");
        assert_eq!(layout.arrays[1].name, "md1");
        assert_eq!(layout.arrays[1].members[2], ("/dev/nvme0n1".to_owned(), 1));
    }
    // What an MBR cannot name is not used.
    let large = [facts("/dev/sda", 4 << 40, "A"), facts("/dev/sdb", 4 << 40, "B")];
    let rest = parse(&json!({"logical_disks": [software("1", json!("MAX"))]}), false).unwrap().unwrap();
    let end = lay_out(&rest, &large, Table::Mbr).unwrap().disks[0].partitions[0].1;
    assert_eq!(end, (2u64 << 40) - MIB);
}

#[test]
fn each_hint_gets_a_disk_of_its_own() {
    let choose = |hints: Value| {
        let config =
            json!({"logical_disks": [with(&software("1", json!(20)), json!({ "physical_disks": hints }))]});
        lay_out(&parse(&config, false).unwrap().unwrap(), &three_disks(), Table::Mbr)
            .map(|layout| layout.disks.into_iter().map(|plan| plan.disk).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    assert_eq!(choose(json!([{"size": "> 150"}, {"size": "> 50"}])).unwrap(), ["/dev/nvme0n1", "/dev/sda"]);
    let said = choose(json!([{"serial": "A"}, {"serial": "a"}])).unwrap_err();
    assert!(said.contains("/dev/sda is chosen already") && said.contains("/dev/sdb"), "{said}");
    let said = choose(json!([{"serial": "A"}, {"serial": "Z"}])).unwrap_err();
    assert!(said.starts_with("No candidates for physical disk"), "{said}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |config: Value, table| {
        let volumes = parse(&json!({ "logical_disks": config }), false).unwrap().unwrap();
        lay_out(&volumes, &three_disks(), table).unwrap_err().to_string()
    };
    let said = refused(json!([software("1", json!(100))]), Table::Mbr);
    assert!(said.starts_with("volume md0 does not fit onto /dev/sda: "), "{said}");
    let said = refused(json!([software("1", json!(10)), software("6", json!(10))]), Table::Mbr);
    assert!(said.contains("RAID 6 needs 4 disks, 3 are there"), "{said}");
    let huge = json!([software("1", json!(u64::MAX / GIB)), software("0", json!(u64::MAX / GIB))]);
    assert!(refused(huge, Table::Mbr).contains("does not fit"));
}

/// Two disks and their partitions as files.
struct Bench {
    files: BTreeMap<&'static str, Arc<FileDisk>>,
}

const NAMES: [&str; 8] =
    ["/dev/sda", "/dev/sda1", "/dev/sda2", "/dev/sda3", "/dev/sdb", "/dev/sdb1", "/dev/sdb2", "/dev/sdb3"];

impl Bench {
    fn new() -> Bench {
        let size = |name: &str| if name.len() == 8 { 6 * GIB } else { 64 * MIB };
        Bench { files: NAMES.map(|name| (name, Arc::new(FileDisk::new(size(name), 512)))).into() }
    }

    fn machine(&self) -> FakeMachine {
        let mut machine = FakeMachine::new();
        for (name, file) in &self.files {
            let file = Arc::clone(file);
            machine = machine.with_disk(facts(name, file.size().0, name), move || {
                Ok(Arc::clone(&file) as Arc<dyn BlockDevice>)
            });
        }
        let disks = ["/dev/sda", "/dev/sdb"].map(|name| facts(name, 6 * GIB, name));
        machine.set_disks(disks.into());
        machine
    }

    /// A superblock of version 1.2, as far as it is looked for.
    fn put_superblock(&self, name: &str) {
        self.files[name].put(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    }
    fn has_superblock(&self, name: &str) -> bool {
        self.files[name].bytes(4096, 4) == [0xfc, 0x4e, 0x2b, 0xa9]
    }
}

fn node<'a>(fields: &'a Value, uefi: bool) -> Node<'a> {
    Node { uuid: "n1", fields, uefi }
}

fn wanted() -> Value {
    json!({"logical_disks": [
        with(&software("1", json!(2)), json!({"volume_name": "system", "is_root_volume": true})),
        software("0", json!("MAX")),
    ]})
}

#[test]
fn disks_are_partitioned_as_fdisk_reads_it_and_arrays_are_ordered() {
    for (uefi, capabilities, label, start) in
        [(true, "", "gpt", 551 * 2048), (false, "disk_label:gpt", "gpt", 8 * 2048), (false, "", "dos", 2048)]
    {
        let bench = Bench::new();
        ["/dev/sda1", "/dev/sdb2"].into_iter().for_each(|name| bench.put_superblock(name));
        let shown = |names: [&'static str; 3]| if uefi { names.to_vec() } else { names[..2].to_vec() };
        let machine = bench
            .machine()
            .with_partitions_later("/dev/sda", &shown(["/dev/sda1", "/dev/sda2", "/dev/sda3"]))
            .with_partitions_later("/dev/sdb", &shown(["/dev/sdb1", "/dev/sdb2", "/dev/sdb3"]));
        let fields = json!({"properties": {"capabilities": capabilities}});
        let answer = create(&machine, &node(&fields, uefi), &wanted()).unwrap();
        assert_eq!(answer, wanted());
        let file = bench.files["/dev/sdb"].path();
        let table: Value = serde_json::from_str(&ok("sfdisk", &["--json"], file, "")).unwrap();
        let table = &table["partitiontable"];
        assert_eq!(table["label"], label);
        let places: Vec<_> = table["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["start"].clone(), p["size"].clone()))
            .collect();
        let second = 2 * 2048 * 1024;
        assert_eq!(places[0], (json!(start), json!(second - start)));
        assert_eq!(places[1], (json!(second), json!(6 * 2048 * 1024 - second - 2048)));
        let system =
            table["partitions"].get(2).map(|p| (p["start"].clone(), p["size"].clone(), p["name"].clone()));
        let expected = (json!(2048), json!(550 * 2048), json!("uefi-holder-1"));
        assert_eq!(system, uefi.then_some(expected));
        assert!(ok("sfdisk", &["--verify"], file, "").contains("No errors detected"));
        assert!(!bench.has_superblock("/dev/sda1") && !bench.has_superblock("/dev/sdb2"));
        let made: Vec<ArrayOrder> = machine
            .calls()
            .into_iter()
            .filter_map(|call| if let Call::Made(o) = call { Some(o) } else { None })
            .collect();
        let order = |device: &str, name: &str, level, members: [&str; 2]| ArrayOrder {
            device: device.into(),
            name: name.into(),
            level,
            metadata: "1.2",
            members: members.map(str::to_owned).into(),
        };
        assert_eq!(
            made,
            [
                order("/dev/md0", "system", "1", ["/dev/sda1", "/dev/sdb1"]),
                order("/dev/md1", "md1", "0", ["/dev/sda2", "/dev/sdb2"]),
            ]
        );
    }
}

#[test]
fn disks_that_hold_something_are_left_alone() {
    let bench = Bench::new();
    let fields = json!({});
    let said = |machine: FakeMachine| {
        let error = create(&machine, &node(&fields, true), &wanted()).unwrap_err().to_string();
        assert!(
            !machine.calls().iter().any(|call| matches!(call, Call::Made(_) | Call::Opened(_))),
            "{error}"
        );
        error
    };
    let error = said(bench.machine().with_partitions("/dev/sdb", &["/dev/sdb1"]));
    assert!(error.starts_with("Partitions detected on devices /dev/sdb during RAID config"), "{error}");
    let error = said(bench.machine().with_holder("/dev/sda", "/dev/md127", HolderKind::Array));
    assert!(error.starts_with("/dev/sda is in use by /dev/md127"), "{error}");
}

#[test]
fn no_software_raid_is_nothing_to_do() {
    let (machine, fields) = (FakeMachine::new(), json!({}));
    assert_eq!(create(&machine, &node(&fields, true), &json!({})).unwrap(), json!({}));
    assert!(machine.calls().is_empty());
}

fn array(device: &str, name: &str, members: &[&str]) -> ArrayOrder {
    let members = members.iter().map(|member| (*member).to_owned()).collect();
    ArrayOrder { device: device.into(), name: name.into(), level: "1", metadata: "1.2", members }
}

/// Two arrays on the first partitions and on the second ones.
fn with_arrays(bench: &Bench) -> FakeMachine {
    ["/dev/sda1", "/dev/sda2", "/dev/sdb1", "/dev/sdb2"]
        .into_iter()
        .for_each(|name| bench.put_superblock(name));
    for name in ["/dev/sda", "/dev/sdb"] {
        ok("sfdisk", &["-q"], bench.files[name].path(), "label: gpt\n,1G\n,1G\n");
    }
    bench
        .machine()
        .with_partitions("/dev/sda", &["/dev/sda1", "/dev/sda2"])
        .with_partitions("/dev/sdb", &["/dev/sdb1", "/dev/sdb2"])
        .with_array(array("/dev/md126", "data", &["/dev/sda2", "/dev/sdb2"]))
        .with_array(array("/dev/md127", "system", &["/dev/sda1", "/dev/sdb1"]))
}

#[test]
fn deleting_stops_arrays_and_blanks_members_and_tables() {
    let bench = Bench::new();
    let machine = with_arrays(&bench);
    let fields = json!({});
    delete(&machine, &node(&fields, true)).unwrap();
    assert!(machine.arrays().is_empty());
    assert!(NAMES.iter().all(|name| !bench.has_superblock(name)));
    for name in ["/dev/sda", "/dev/sdb"] {
        assert!(bench.files[name].bytes(0, 1024).iter().all(|byte| *byte == 0));
        assert!(machine.calls().contains(&Call::Reread(name.into())));
    }
    assert_eq!(machine.calls().first(), Some(&Call::Assembled));
}

#[test]
fn an_array_of_the_skip_list_stays_and_so_do_the_tables_under_it() {
    let bench = Bench::new();
    let machine = with_arrays(&bench);
    let fields = json!({"properties": {"skip_block_devices": [{"volume_name": "data"}]}});
    delete(&machine, &node(&fields, true)).unwrap();
    assert_eq!(machine.arrays(), ["/dev/md126", "/dev/md127"]);
    assert!(["/dev/sda2", "/dev/sdb2"].iter().all(|name| bench.has_superblock(name)));
    assert!(bench.files["/dev/sda"].bytes(512, 8) == b"EFI PART");
}

#[test]
fn an_array_on_a_disk_of_the_skip_list_stays_whole() {
    let bench = Bench::new();
    let machine = with_arrays(&bench);
    let fields = json!({"properties": {"skip_block_devices": [{"serial": "/dev/sdb"}]}});
    delete(&machine, &node(&fields, true)).unwrap();
    assert_eq!(machine.arrays().len(), 2);
    assert!(
        ["/dev/sda1", "/dev/sda2", "/dev/sdb1", "/dev/sdb2"].iter().all(|name| bench.has_superblock(name))
    );
    assert!(!machine.calls().iter().any(|call| matches!(call, Call::Released(_))));
}

#[test]
fn a_superblock_that_no_array_has_goes_too() {
    let bench = Bench::new();
    bench.put_superblock("/dev/sdb1");
    let machine = bench.machine().with_partitions("/dev/sdb", &["/dev/sdb1"]);
    let fields = json!({});
    delete(&machine, &node(&fields, true)).unwrap();
    assert!(!bench.has_superblock("/dev/sdb1"));
    assert!(machine.calls().contains(&Call::Reread("/dev/sdb".into())));
    assert!(!machine.calls().contains(&Call::Reread("/dev/sda".into())));
}

#[test]
fn an_array_that_does_not_go_is_named_with_its_reason() {
    let bench = Bench::new();
    let machine = with_arrays(&bench).with_holder("/dev/md127", "/dev/dm-3", HolderKind::Multipath);
    let fields = json!({});
    let error = delete(&machine, &node(&fields, true)).unwrap_err().to_string();
    assert!(error.starts_with("Unable to clean all softraid correctly. Remaining /dev/md127: "), "{error}");
    assert!(bench.has_superblock("/dev/sda1"));
}

#[test]
fn apply_checks_first_and_deletes_unless_told_not_to() {
    let bench = Bench::new();
    let machine = with_arrays(&bench);
    let fields = json!({});
    let broken = json!({"logical_disks": [software("5", json!(1))]});
    apply(&machine, &node(&fields, true), &broken, true).unwrap_err();
    let large = json!({"logical_disks": [software("1", json!(100))]});
    let error = apply(&machine, &node(&fields, true), &large, true).unwrap_err().to_string();
    assert!(error.starts_with("volume md0 does not fit onto /dev/sda"), "{error}");
    assert_eq!(machine.arrays().len(), 2);
    let error = apply(&machine, &node(&fields, true), &wanted(), false).unwrap_err().to_string();
    assert!(error.starts_with("/dev/sda is in use by /dev/md126: run delete_configuration"), "{error}");
    assert_eq!(machine.arrays().len(), 2);
}

#[test]
fn the_marked_volume_is_found_by_its_name() {
    let machine = FakeMachine::new().with_array(array("/dev/md126", "data", &[])).with_array(array(
        "/dev/md127",
        "system",
        &[],
    ));
    let find = |config: Value| root_volume(&machine, config.as_object().unwrap()).unwrap();
    assert_eq!(find(wanted()).as_deref(), Some("/dev/md127"));
    assert_eq!(find(json!({"logical_disks": [{"controller": "PERC", "is_root_volume": true}]})), None);
    assert_eq!(find(json!({"logical_disks": [software("1", json!(1))]})), None);
    assert_eq!(find(json!({})), None);
    assert_eq!(machine.calls(), [Call::Assembled, Call::Assembled]);
    let lost = FakeMachine::new().with_array(array("/dev/md126", "data", &[]));
    let error = root_volume(&lost, wanted().as_object().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("the array 'system', which the node's raid_config marks"), "{error}");
    assert!(error.contains("Arrays of this machine: /dev/md126 (data)."), "{error}");
}
