//! One line a case: hints, disks, and the disk that wins (or the text that explains why none does).

use super::*;
use serde_json::json;

/// `sda 10.9GiB serial=X model=Y rot` and more of them behind commas; `-` as a value is null, `_` stands for a space.
fn disks(text: &str) -> Vec<Candidate> {
    text.split(", ").filter(|t| !t.is_empty()).map(disk).collect()
}

fn disk(text: &str) -> Candidate {
    let mut words = text.split(' ');
    let name = format!("/dev/{}", words.next().unwrap());
    let gib: f64 = words.next().unwrap().trim_end_matches("GiB").parse().unwrap();
    let mut c = Candidate {
        disk: Disk { name, size: (gib * GIB as f64) as u64, ..Disk::default() },
        ..Default::default()
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let some = || (value != "-").then(|| value.replace('_', " "));
        match key {
            "rot" => c.disk.rotational = true,
            "model" => c.disk.model = some(),
            "vendor" => c.disk.vendor = some(),
            "wwn" => c.disk.wwn = some(),
            "wwn2" => c.wwns.extend(some()),
            "serial" => c.disk.serial = some(),
            "serial2" => c.serials.extend(some()),
            "wwnx" => c.disk.wwn_with_extension = some(),
            "wwnv" => c.disk.wwn_vendor_extension = some(),
            "hctl" => c.disk.hctl = some(),
            "path" => c.disk.by_path = some(),
            "tran" => c.disk.tran = some(),
            other => panic!("no such key: {other}"),
        }
    }
    c
}

fn outcome(hints: Value, on: &str) -> String {
    let disks = disks(on);
    match Hints::parse(&hints) {
        Err(e) => e.to_string(),
        Ok(None) => "no hints".into(),
        Ok(Some(hints)) => match choose(&hints, &disks) {
            Ok(place) => disks[place].disk.name.trim_start_matches("/dev/").into(),
            Err(_) => "none".into(),
        },
    }
}

#[track_caller]
fn check(hints: Value, on: &str, want: &str) {
    assert_eq!(outcome(hints.clone(), on), want, "{hints} on {on}");
}

#[test]
fn no_hints_are_no_hints() {
    check(json!(null), "", "no hints");
    check(json!({}), "", "no hints");
}

#[test]
fn size_is_gib_exact_and_positive() {
    let two = "sda 10.9GiB, sdb 10GiB";
    check(json!({"size": "== 10"}), two, "sdb");
    check(json!({"size": 10}), two, "sdb");
    check(json!({"size": "10"}), two, "sdb");
    check(json!({"size": 465}), "sda 465.76GiB", "none");
    check(json!({"size": ">= 400"}), "sda 465.76GiB", "sda");
    check(json!({"size": "= 400"}), "sda 465.76GiB", "sda");
    check(json!({"size": "=400"}), "sda 465.76GiB", "sda");
    check(json!({"size": "> 10"}), two, "sda");
    check(json!({"size": "< 11"}), two, "sda");
    check(json!({"size": "<= 10"}), two, "sdb");
    check(json!({"size": "!= 10"}), two, "sda");
    check(json!({"size": "<or> 10 <or> 20"}), two, "none");
    check(json!({"size": "s== 10"}), two, "none");
    check(json!({"size": "s!= 10"}), two, "sda");
    let bad = |value: Value, text: &str| check(json!({"size": value}), two, text);
    bad(json!("x"), "Root device hint \"size\" is not an integer value. Current value: x");
    bad(json!(10.5), "Root device hint \"size\" is not an integer value. Current value: 10.5");
    bad(json!("10 20"), "Root device hint \"size\" is not an integer value. Current value: 10 20");
    bad(json!(null), "Root device hint \"size\" is not an integer value. Current value: None");
    bad(json!(true), "Root device hint \"size\" is not an integer value. Current value: True");
    bad(
        json!("<range-in> [ 10 20 ]"),
        "Root device hint \"size\" is not an integer value. Current value: <range-in> [ 10 20 ]",
    );
    bad(json!(0), "Root device hint \"size\" should be a positive integer. Current value: 0");
    bad(json!("> -5"), "Root device hint \"size\" should be a positive integer. Current value: > -5");
    bad(json!(""), "Root device hint size expression is empty");
    bad(json!("<in> 10"), "root device hint \"size\": <in> 10: <in> does not work on a number");
    bad(json!("s< 10"), "root device hint \"size\": s< 10: s< does not work on a number");
    bad(json!("<all-in> 10"), "root device hint \"size\": <all-in> 10: <all-in> does not work on a number");
    bad(json!(">="), "root device hint \"size\" cannot be read: >=: an operator needs a value behind it");
}

#[test]
fn texts_are_compared_trimmed_without_case_and_encoded() {
    let on = "sda 10GiB model=ABC, sdb 10GiB model=Big_Disk_9000";
    check(json!({"model": "big disk 9000"}), on, "sdb");
    check(json!({"model": "  BIG disk 9000 "}), on, "sdb");
    check(json!({"model": "s== Big Disk 9000"}), on, "sdb");
    check(json!({"model": "big%20disk%209000"}), on, "none");
    check(json!({"model": "a%20b"}), "sda 1GiB model=a_b, sdb 1GiB model=a%20b", "sdb");
    check(json!({"model": "<in> disk"}), on, "sdb");
    check(json!({"model": "<in> k 9"}), on, "sdb");
    check(json!({"model": "s!= abc"}), on, "sdb");
    check(json!({"model": "s> abc"}), on, "sdb");
    check(json!({"model": "s>= abc"}), on, "sda");
    check(json!({"model": "s< b"}), on, "sda");
    check(json!({"model": "s<= abc"}), on, "sda");
    check(json!({"model": "<or> xyz <or> Big Disk 9000"}), on, "sdb");
    check(json!({"model": "<or> big disk <or> abc"}), on, "sda");
    check(
        json!({"by_path": "/dev/disk/by-path/pci-0000:00:1f.2"}),
        "sda 1GiB path=/dev/disk/by-path/pci-0000:00:1f.2",
        "sda",
    );
    check(json!({"hctl": "1:0:0:0"}), "sda 1GiB hctl=0:0:0:0, sdb 1GiB hctl=1:0:0:0", "sdb");
    check(json!({"name": "/dev/SDB"}), "sda 1GiB, sdb 1GiB", "sdb");
    check(json!({"tran": "nvme"}), "sda 1GiB tran=sata, nvme0n1 1GiB tran=nvme", "nvme0n1");
    check(json!({"vendor": "ä b"}), "sda 1GiB vendor=Ä_B", "sda");
    check(
        json!({"wwn_with_extension": "0x1", "wwn_vendor_extension": "0x2"}),
        "sda 1GiB wwnx=0x1, sdb 1GiB wwnx=0x1 wwnv=0x2",
        "sdb",
    );
}

#[test]
fn numbers_in_texts_are_compared_as_numbers_when_asked() {
    check(json!({"serial": ">= 100"}), "sda 1GiB serial=99, sdb 1GiB serial=1E3", "sdb");
    check(json!({"serial": "== 5"}), "sda 1GiB serial=A5, sdb 1GiB serial=5.0", "sdb");
    check(
        json!({"serial": "== A5"}),
        "sda 1GiB serial=A5",
        "root device hint \"serial\": == A5: this operator compares numbers, the value is none (texts: s== s!= <in> <or>)",
    );
}

#[test]
fn null_is_none_and_empty_never_matches() {
    check(json!({"model": "none"}), "sda 1GiB model=x, sdb 1GiB model=-", "sdb");
    check(json!({"model": "s!= x"}), "sda 1GiB", "sda");
    check(json!({"model": "s!= x"}), "sda 1GiB model=", "none");
    check(json!({"model": "<in> o"}), "sda 1GiB", "sda");
}

#[test]
fn of_several_serials_one_is_enough() {
    check(json!({"serial": "LONG_X".replace('_', " ")}), "sda 1GiB serial=X serial2=LONG_X", "sda");
    check(json!({"serial": "s!= x"}), "sda 1GiB serial=X serial2=LONG_X", "sda");
    check(json!({"serial": "s!= x"}), "sda 1GiB serial=X", "none");
    check(json!({"serial": "s!= x"}), "sda 1GiB", "none");
    check(json!({"serial": "none"}), "sda 1GiB", "none");
    check(json!({"wwn": "0xB"}), "sda 1GiB wwn=0xA wwn2=0xb", "sda");
}

#[test]
fn rotational_takes_the_usual_words() {
    let on = "sda 1GiB rot, nvme0n1 1GiB";
    for (value, want) in [
        (json!(true), "sda"),
        (json!("Yes"), "sda"),
        (json!("on"), "sda"),
        (json!(1), "sda"),
        (json!("t"), "sda"),
        (json!(" y "), "sda"),
        (json!(false), "nvme0n1"),
        (json!("OFF"), "nvme0n1"),
        (json!("0"), "nvme0n1"),
        (json!("no"), "nvme0n1"),
        (json!("maybe"), "Root device hint \"rotational\" is not a Boolean value. Current value: maybe"),
        (json!(2), "Root device hint \"rotational\" is not a Boolean value. Current value: 2"),
        (json!(null), "Root device hint \"rotational\" is not a Boolean value. Current value: None"),
    ] {
        check(json!({"rotational": value}), on, want);
    }
}

#[test]
fn bad_hints_are_refused_in_upstreams_words() {
    let bad = |hints: Value, text: &str| check(hints, "sda 1GiB", text);
    bad(
        json!({"colour": "red", "shape": 1, "size": 1}),
        "The hints \"colour, shape\" are invalid. Valid hints are: \"size, model, wwn, serial, vendor, wwn_with_extension, \
         wwn_vendor_extension, name, rotational, hctl, by_path, tran\"",
    );
    bad(json!({"model": 5}), "Root device hint \"model\" is not a string value. Hint expression: 5");
    bad(json!({"model": null}), "Root device hint \"model\" is not a string value. Hint expression: None");
    bad(json!({"model": "  "}), "Root device hint model expression is empty");
    bad(
        json!({"model": "s=="}),
        "root device hint \"model\" cannot be read: s==: an operator needs a value behind it",
    );
    bad(
        json!({"model": "<all-in> a b"}),
        "root device hint \"model\": <all-in> a b: <all-in> does not work on a text",
    );
    bad(
        json!({"model": "<range-in> [ 1 2 ]"}),
        "root device hint \"model\": <range-in> [ 1 2 ]: <range-in> does not work on a text",
    );
    bad(json!("sda"), "root device hints are \"sda\", not an object such as {\"serial\": \"s== X\"}");
    bad(json!([]), "root device hints are [], not an object such as {\"serial\": \"s== X\"}");
}

#[test]
fn all_hints_must_hold_and_the_first_disk_in_kernel_order_wins() {
    let on = "sdb 20GiB rot serial=B, sda 20GiB rot serial=A, sdc 40GiB serial=C";
    check(json!({"size": 20, "rotational": true}), on, "sdb");
    check(json!({"size": 20, "serial": "a"}), on, "sda");
    check(json!({"size": 20, "serial": "c"}), on, "none");
    check(json!({"size": "> 30", "rotational": false}), on, "sdc");
}

#[test]
fn when_nothing_fits_every_disk_is_named_with_the_clause_that_refused_it() {
    let hints =
        Hints::parse(&json!({"serial": "s== Y", "size": ">= 5", "rotational": "false"})).unwrap().unwrap();
    let disks = disks("sda 10GiB serial=X serial2=Z, sdb 2.5GiB, sdc 10GiB, sdd 10GiB serial=Y rot");
    assert_eq!(
        choose(&hints, &disks).unwrap_err().to_string(),
        "No suitable device was found for deployment using these hints {'rotational': 'false', 'serial': 's== Y', 'size': \
         '>= 5'}: /dev/sda (10.0 GiB, serial X): serial is 'X' or 'Z', wanted s== 'Y'; /dev/sdb (2.5 GiB, no serial): size \
         is 2.5 GiB (2684354560 bytes), wanted >= 5 GiB; /dev/sdc (10.0 GiB, no serial): serial is not known, wanted s== \
         'Y'; /dev/sdd (10.0 GiB, serial Y): rotational is true, wanted false"
    );
    let one = Hints::parse(&json!({"model": "Y", "size": 3})).unwrap().unwrap();
    let text = choose(&one, &[]).unwrap_err().to_string();
    assert!(
        text.ends_with("using these hints {'model': 'Y', 'size': 3}: the machine shows no disk at all"),
        "{text}"
    );
}

#[test]
fn without_hints_the_smallest_disk_of_four_gib_wins() {
    for (on, want) in [("sda 100GiB, sdb 4GiB, sdc 3.9GiB", "sdb"), ("sdb 8GiB, sda 8GiB", "sda")] {
        let disks = disks(on);
        assert_eq!(disks[smallest(&disks).unwrap()].disk.name, format!("/dev/{want}"));
    }
    for on in ["", "sda 3.99GiB"] {
        assert_eq!(
            smallest(&disks(on)).unwrap_err().to_string(),
            "No suitable device was found for deployment - root device hints were not provided and all found block devices \
             are smaller than 4294967296B."
        );
    }
}

#[test]
fn skipped_disks_are_found_by_hints_and_arrays_by_name() {
    let parse = |list: Value| SkipList::parse(json!({"skip_block_devices": list}).as_object().unwrap());
    let list = parse(json!([{"volume_name": "data"}, {"serial": "keep"}, {"size": "> 100"}, {}])).unwrap();
    assert_eq!(list.volume_names, ["data"]);
    let skipped = |on: &str| list.skips(&disk(on));
    assert!(skipped("sda 10GiB serial=x serial2=KEEP") && skipped("sdb 200GiB"));
    assert!(!skipped("sdc 10GiB"));
    assert_eq!(SkipList::parse(&Map::new()).unwrap(), SkipList::default());
    assert_eq!(parse(json!(null)).unwrap(), SkipList::default());
    assert_eq!(
        parse(json!("sda")).unwrap_err().to_string(),
        "skip_block_devices is \"sda\", not a list of hint objects"
    );
    assert!(parse(json!([{"volume_name": 5}])).unwrap_err().to_string().contains("not a string value"));
    assert!(parse(json!([{"sise": 5}])).is_err(), "a misspelt entry must not end in an erased disk");
}

proptest::proptest! {
    #[test]
    fn no_expression_and_no_device_value_panics(hint in "\\PC{0,40}", op in "(s?[<>=!]{1,2}|<or>|<in>|<all-in>|)", value in "\\PC{0,40}") {
        for name in ["size", "serial", "model", "rotational"] {
            if let Ok(Some(hints)) = Hints::parse(&json!({name: format!("{op} {hint}")})) {
                let mut c = disk("sda 10GiB");
                c.disk.model = Some(value.clone());
                c.disk.serial = Some(value.clone());
                let _ = choose(&hints, &[c]).map_err(|e| e.to_string());
            }
        }
    }
}
