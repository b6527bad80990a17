//! Software RAID, ordered by the real Ironic: mdadm on the host reads what our ramdisk made, the machine boots from it by UEFI,
//! and after the deletion nothing is left.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::build;
use ferric_tests::artifacts::cache_folder;
use ferric_tests::ironic::lab::{Lab, LabDisk, NODE, OTHER, Plan, ROOT, WITHIN};
use ferric_tests::ironic::setup::IRONIC_39;
use ferric_tests::machine::Firmware;
use ferric_tests::process::call;
use ferric_tests::{diskcheck, images};
use serde_json::{Value, json};
use std::path::PathBuf;

const SECTOR: u64 = 512;
const GIB: u64 = 1 << 30;

#[test]
fn ironic_39_makes_arrays_boots_from_one_and_deletes_them() -> Result<()> {
    let probe = images::probe()?;
    let mdadm = mdadm()?;
    let lab = Lab::open(&Plan {
        firmware: Firmware::Uefi,
        more: "[conductor]\nautomated_clean = false\n",
        ..Plan::new("raid", &IRONIC_39)
    })?;
    lab.explain(life(&lab, &probe, &mdadm))
}

fn life(lab: &Lab, probe: &images::Probe, mdadm: &str) -> Result<()> {
    lab.enrol(json!({"cpu_arch": "x86_64", "capabilities": "boot_mode:uefi"}))?;
    let wanted = json!({"logical_disks": [
        {"size_gb": 2, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true},
        {"size_gb": "MAX", "raid_level": "0", "controller": "software"},
    ]});
    lab.ironic.expect("PUT", &format!("/v1/nodes/{NODE}/states/raid"), Some(&wanted))?;
    let node = clean(lab, &["delete_configuration", "create_configuration"])?;
    ensure!(node["raid_config"]["logical_disks"] == wanted["logical_disks"], "{}", node["raid_config"]);
    for disk in [ROOT, OTHER] {
        examine(lab, disk, mdadm)?;
    }

    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    lab.choose(&probe.raw, "raw")?;
    let from = lab.machine.console_text().len();
    let node = lab.ironic.bring(NODE, "active", json!({}), "active", WITHIN)?;
    ensure!(node["last_error"].is_null(), "{}", node["last_error"]);
    lab.expect_console(images::PROBE_SAYS, from)?;
    for disk in [ROOT, OTHER] {
        let esp = partitions(lab, disk)?.into_iter().nth(2).context("no system partition")?;
        let told = examined(lab, disk, &esp, mdadm)?;
        ensure!(told.contains("Version : 1.0") && is_named(&told, "esp"), "{told}");
    }

    lab.ironic.bring(NODE, "deleted", json!({}), "available", WITHIN)?;
    lab.ironic.bring(NODE, "manage", json!({}), "manageable", WITHIN)?;
    let parts: Vec<_> = [ROOT, OTHER].iter().map(|disk| partitions(lab, *disk)).collect::<Result<_>>()?;
    let node = clean(lab, &["delete_configuration"])?;
    ensure!(node["raid_config"] == json!({}), "{}", node["raid_config"]);
    for (disk, parts) in [ROOT, OTHER].into_iter().zip(parts) {
        diskcheck::expect_blank_ends(&lab.disk(disk))?;
        for part in parts {
            let told = examined(lab, disk, &part, mdadm)?;
            ensure!(told.contains("No md superblock detected"), "{told}");
        }
    }
    Ok(())
}

fn clean(lab: &Lab, steps: &[&str]) -> Result<Value> {
    let steps: Vec<Value> = steps.iter().map(|step| json!({"interface": "raid", "step": step})).collect();
    lab.ironic.provision(NODE, "clean", json!({ "clean_steps": steps }))?;
    lab.ironic.wait_for(NODE, "manageable", WITHIN)
}

/// Two members of two arrays, and room for a system partition in front.
fn examine(lab: &Lab, disk: LabDisk, mdadm: &str) -> Result<()> {
    let parts = partitions(lab, disk)?;
    let places: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.first * SECTOR)).collect();
    ensure!(
        places.get(2).is_some_and(|(name, at)| name.starts_with("uefi-holder-") && *at == 1 << 20),
        "{places:?}"
    );
    ensure!(places.first().map(|place| place.1) == Some(551 << 20), "{places:?}");
    ensure!(places.get(1).map(|place| place.1) == Some(2 * GIB), "{places:?}");
    for (part, level, name) in [(0, "raid1", "system"), (1, "raid0", "md1")] {
        let told = examined(lab, disk, parts.get(part).context("no member")?, mdadm)?;
        for wanted in ["Version : 1.2", &format!("Raid Level : {level}"), "Raid Devices : 2", "- correct"] {
            ensure!(told.contains(wanted), "no '{wanted}' in {told}");
        }
        ensure!(is_named(&told, name), "not called {name}: {told}");
    }
    Ok(())
}

/// With or without the name of the host that made it: `Name : ferric:system  (local to host …)`.
fn is_named(told: &str, name: &str) -> bool {
    let line = told.lines().find_map(|line| line.trim().strip_prefix("Name : "));
    line.and_then(|line| line.split_whitespace().next()).and_then(|line| line.rsplit(':').next())
        == Some(name)
}

struct Part {
    name: String,
    first: u64,
    sectors: u64,
}

fn partitions(lab: &Lab, disk: LabDisk) -> Result<Vec<Part>> {
    let table: Value =
        serde_json::from_str(&call("sfdisk", &["--json", &lab.disk(disk).display().to_string()])?)?;
    let parts = table["partitiontable"]["partitions"].as_array().context("no partitions")?;
    let number = |part: &Value, key: &str| part[key].as_u64().with_context(|| format!("no {key}"));
    parts
        .iter()
        .map(|part| {
            Ok(Part {
                name: part["name"].as_str().unwrap_or_default().to_owned(),
                first: number(part, "start")?,
                sectors: number(part, "size")?,
            })
        })
        .collect()
}

/// What mdadm says of the superblock of a partition.
fn examined(lab: &Lab, disk: LabDisk, part: &Part, mdadm: &str) -> Result<String> {
    let (offset, size) = ((part.first * SECTOR).to_string(), (part.sectors * SECTOR).to_string());
    let file = lab.disk(disk).display().to_string();
    let words = ["--find", "--show", "--read-only", "--offset", &offset, "--sizelimit", &size, &file];
    let device = call("losetup", &words)?.trim().to_owned();
    // It ends with 1 where there is no superblock, and says so.
    let out = std::process::Command::new(mdadm).args(["--examine", &device]).env("LC_ALL", "C").output();
    call("losetup", &["--detach", &device])?;
    let out = out.context("running mdadm")?;
    Ok(format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// Debian's mdadm, unpacked: installing it would have this host look for arrays.
fn mdadm() -> Result<String> {
    let packages = build::unpack(&cache_folder()?, &["mdadm"])?;
    let program: PathBuf = packages.first().context("no mdadm")?.join("sbin/mdadm");
    ensure!(program.exists(), "{} is not in Debian's package", program.display());
    Ok(program.display().to_string())
}
