//! Software RAID by our own controller, asked for in the words of the stock client.

use anyhow::{Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::arrays::{Mdadm, Part, partitions};
use ferric_tests::artifacts::Artifacts;
use ferric_tests::diskcheck;
use ferric_tests::machine::{Bus, Firmware};
use ferric_tests::scene::{DiskScript, NODE, Scene, Script, borrowed};
use ferric_tests::stock::{self, Baremetal};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const CLEANING: Duration = Duration::from_secs(900);

/// What the stock client asks for is made by our controller's steps and recorded, and taken away again.
#[test]
fn arrays_that_the_stock_client_asks_for_are_made_and_deleted() -> Result<()> {
    let (client, mdadm) = (stock::install()?, Mdadm::obtain()?);
    let mut script = Script::new("clean-raid", Firmware::Bios);
    let disk = |(name, serial)| DiskScript { name, serial, bus: Bus::Virtio, bytes: 2048 * MIB };
    script.disks = [("one", "RAID-0001"), ("two", "RAID-0002")].map(disk).to_vec();
    let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script)?;
    let baremetal = Baremetal::new(client, scene.operator());
    scene.explain(arrays(&scene, &baremetal, &mdadm))
}

fn arrays(scene: &Scene, baremetal: &Baremetal, mdadm: &Mdadm) -> Result<()> {
    enrol(scene)?;
    let wanted = json!({"logical_disks": [
        {"size_gb": 1, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true},
        {"size_gb": "MAX", "raid_level": "0", "controller": "software", "volume_name": "data"},
    ]});
    let file = scene.folder.join("raid.json");
    fs::write(&file, wanted.to_string())?;
    baremetal.run(&["node", "set", NODE, "--raid-interface", "agent"])?;
    baremetal.run(&["node", "set", NODE, "--target-raid-config", &file.display().to_string()])?;
    let node = scene.operator().node(NODE)?;
    ensure!(node["target_raid_config"] == wanted, "{node}");

    let node = raid_steps(scene, baremetal, &["delete_configuration", "create_configuration"])?;
    ensure!(node["raid_config"]["logical_disks"] == wanted["logical_disks"], "{}", node["raid_config"]);
    let told = &node["properties"];
    ensure!(told["local_gb"] == 1 && told["capabilities"].to_string().contains("raid_level:1"), "{told}");
    let members = made(scene, mdadm)?;

    baremetal.run(&["node", "unset", NODE, "--target-raid-config"])?;
    let node = raid_steps(scene, baremetal, &["delete_configuration"])?;
    for name in ["raid_config", "target_raid_config"] {
        ensure!(node[name] == json!({}), "{name} is {}", node[name]);
    }
    for (disk, parts) in members {
        diskcheck::expect_blank_ends(&disk)?;
        parts.iter().try_for_each(|part| mdadm.expect_nothing(&disk, part))?;
    }
    Ok(())
}

fn enrol(scene: &Scene) -> Result<()> {
    scene.operator().ferric(&borrowed(&scene.create()))?;
    scene.operator().ferric(&["node", "manage", NODE, "--wait", "120"]).map(drop)
}

/// Runs these steps of the RAID interface; the node afterwards.
fn raid_steps(scene: &Scene, baremetal: &Baremetal, names: &[&str]) -> Result<Value> {
    let steps: Vec<Value> = names.iter().map(|step| json!({"interface": "raid", "step": step})).collect();
    let (steps, wait) = (json!(steps).to_string(), CLEANING.as_secs().to_string());
    baremetal.run(&["node", "clean", NODE, "--clean-steps", &steps, "--wait", &wait])?;
    let node = scene.operator().node(NODE)?;
    ensure!(node["provision_state"] == "manageable" && node["last_error"].is_null(), "{node}");
    Ok(node)
}

/// The members of both arrays, disk by disk, each what mdadm says it must be.
fn made(scene: &Scene, mdadm: &Mdadm) -> Result<Vec<(PathBuf, Vec<Part>)>> {
    let mut members = Vec::new();
    for (nth, name) in ["one", "two"].iter().enumerate() {
        let disk = scene.folder.join(name);
        let (table, parts) = partitions(&disk)?;
        ensure!(table == "dos" && parts.len() == 2, "{table}: {parts:?}");
        for (part, (level, name)) in parts.iter().zip([("raid1", "system"), ("raid0", "data")]) {
            let told = mdadm.examine(&disk, part)?;
            let role = format!("Active device {nth}");
            told.expect(&[("Raid Level", level), ("Raid Devices", "2"), ("Device Role", &role)])?;
            told.expect_name(name)?;
        }
        members.push((disk, parts));
    }
    Ok(members)
}
