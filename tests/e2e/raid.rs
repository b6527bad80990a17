//! Software RAID, ordered by the real Ironic: mdadm on the host reads what our ramdisk made, the machine boots from it by UEFI,
//! and after the deletion nothing is left. Levels that need more disks are [`levels`]', our own controller is [`ours`]'.

use anyhow::{Context, Result, ensure};
use ferric_tests::arrays::{Mdadm, partitions};
use ferric_tests::ironic::lab::{Lab, LabDisk, NODE, OTHER, Plan, ROOT, WITHIN};
use ferric_tests::ironic::setup::IRONIC_39;
use ferric_tests::machine::Firmware;
use ferric_tests::{diskcheck, images};
use serde_json::{Value, json};

#[path = "raid/levels.rs"]
mod levels;
#[path = "raid/ours.rs"]
mod ours;

const GIB: u64 = 1 << 30;

#[test]
fn ironic_39_makes_arrays_boots_from_one_and_deletes_them() -> Result<()> {
    let probe = images::probe()?;
    let mdadm = Mdadm::obtain()?;
    let lab = Lab::open(&Plan {
        firmware: Firmware::Uefi,
        more: "[conductor]\nautomated_clean = false\n",
        ..Plan::new("raid", &IRONIC_39)
    })?;
    lab.explain(life(&lab, &probe, &mdadm))
}

fn life(lab: &Lab, probe: &images::Probe, mdadm: &Mdadm) -> Result<()> {
    lab.enrol(json!({"cpu_arch": "x86_64", "capabilities": "boot_mode:uefi"}))?;
    let wanted = wanted("0");
    lab.ironic.expect("PUT", &format!("/v1/nodes/{NODE}/states/raid"), Some(&wanted))?;
    let node = clean(lab, &["delete_configuration", "create_configuration"])?;
    ensure!(node["raid_config"]["logical_disks"] == wanted["logical_disks"], "{}", node["raid_config"]);
    for disk in [ROOT, OTHER] {
        examine(lab, disk, "raid0", mdadm)?;
    }

    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    deploy(lab, probe, mdadm)?;

    lab.ironic.bring(NODE, "deleted", json!({}), "available", WITHIN)?;
    lab.ironic.bring(NODE, "manage", json!({}), "manageable", WITHIN)?;
    let parts: Vec<_> =
        [ROOT, OTHER].iter().map(|disk| partitions(&lab.disk(*disk))).collect::<Result<_>>()?;
    let node = clean(lab, &["delete_configuration"])?;
    ensure!(node["raid_config"] == json!({}), "{}", node["raid_config"]);
    for (disk, (_, parts)) in [ROOT, OTHER].into_iter().zip(parts) {
        diskcheck::expect_blank_ends(&lab.disk(disk))?;
        parts.iter().try_for_each(|part| mdadm.expect_nothing(&lab.disk(disk), part))?;
    }
    Ok(())
}

/// What a node wants: the system on a mirror, and an array of `level` of the rest.
fn wanted(level: &str) -> Value {
    json!({"logical_disks": [
        {"size_gb": 2, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true},
        {"size_gb": "MAX", "raid_level": level, "controller": "software"},
    ]})
}

/// The tenant asks for other arrays than the machine was cleaned with; its system goes to one of those and boots.
fn deploy(lab: &Lab, probe: &images::Probe, mdadm: &Mdadm) -> Result<()> {
    lab.choose(&probe.raw, "raw")?;
    let from = lab.machine.console_text().len();
    let asked = wanted("1+0");
    let args = json!({"raid_config": asked, "delete_existing": true});
    let step = json!({"interface": "raid", "step": "apply_configuration", "args": args, "priority": 90});
    let node = lab.ironic.bring(NODE, "active", json!({"deploy_steps": [step]}), "active", WITHIN)?;
    ensure!(node["last_error"].is_null(), "{}", node["last_error"]);
    ensure!(node["raid_config"]["logical_disks"] == asked["logical_disks"], "{}", node["raid_config"]);
    lab.expect_console(images::PROBE_SAYS, from)?;
    for disk in [ROOT, OTHER] {
        examine(lab, disk, "raid10", mdadm)?;
        let (path, esp) = (lab.disk(disk), 2);
        let (_, parts) = partitions(&path)?;
        let told = mdadm.examine(&path, parts.get(esp).context("no system partition")?)?;
        told.expect(&[("Version", "1.0")])?;
        told.expect_name("esp")?;
    }
    Ok(())
}

fn clean(lab: &Lab, steps: &[&str]) -> Result<Value> {
    let steps: Vec<Value> = steps.iter().map(|step| json!({"interface": "raid", "step": step})).collect();
    lab.ironic.provision(NODE, "clean", json!({ "clean_steps": steps }))?;
    lab.ironic.wait_for(NODE, "manageable", WITHIN)
}

/// Two members of two arrays, the second of this level, and room for a system partition in front.
fn examine(lab: &Lab, disk: LabDisk, level: &str, mdadm: &Mdadm) -> Result<()> {
    let path = lab.disk(disk);
    let (_, parts) = partitions(&path)?;
    let places: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.start)).collect();
    ensure!(
        places.get(2).is_some_and(|(name, at)| name.starts_with("uefi-holder-") && *at == 1 << 20),
        "{places:?}"
    );
    ensure!(places.first().map(|place| place.1) == Some(551 << 20), "{places:?}");
    ensure!(places.get(1).map(|place| place.1) == Some(2 * GIB), "{places:?}");
    for (part, (level, name)) in parts.iter().zip([("raid1", "system"), (level, "md1")]) {
        let told = mdadm.examine(&path, part)?;
        told.expect(&[("Version", "1.2"), ("Raid Level", level), ("Raid Devices", "2")])?;
        told.expect_name(name)?;
    }
    Ok(())
}
