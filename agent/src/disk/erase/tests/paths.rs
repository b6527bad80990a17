//! Disks with several paths, and disks that only share their names.

use super::*;

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
    super::super::paths::erase(&work, &target)
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
