//! Software RAID by our own controller, asked for in the words of the stock client.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::arrays::{Mdadm, Part, partitions};
use ferric_tests::artifacts::Artifacts;
use ferric_tests::httpd::Fault;
use ferric_tests::machine::{Bus, Firmware};
use ferric_tests::scene::{DiskScript, NODE, Scene, Script, borrowed};
use ferric_tests::stock::{self, Baremetal};
use ferric_tests::{diskcheck, images};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// How long the clients wait for a change of state, in seconds.
const WAIT: &str = "600";
const BOOT: Duration = Duration::from_secs(120);
const DISKS: [(&str, &str); 2] = [("one", "RAID-0001"), ("two", "RAID-0002")];

/// What the stock client asks for is made by our controller's steps and recorded, nothing is written from where a BIOS could not
/// boot it, and all is taken away again.
#[test]
fn arrays_that_the_stock_client_asks_for_are_made_and_deleted() -> Result<()> {
    let stage = Stage::open("raid-ours", Firmware::Bios, 2048 * MIB)?;
    stage.scene.explain(made_and_deleted(&stage))
}

fn made_and_deleted(stage: &Stage) -> Result<()> {
    let Stage { baremetal, mdadm, .. } = stage;
    let node = stage.make_arrays()?;
    let told = &node["properties"];
    ensure!(told["local_gb"] == 1 && told["capabilities"].to_string().contains("raid_level:1"), "{told}");
    let members = stage.members("dos", 2)?;
    expect_refusal(stage, &members)?;

    baremetal.run(&["node", "unset", NODE, "--target-raid-config"])?;
    let node = stage.clean(&["delete_configuration"])?;
    for name in ["raid_config", "target_raid_config"] {
        ensure!(node[name] == json!({}), "{name} is {}", node[name]);
    }
    for (disk, parts) in members {
        diskcheck::expect_blank_ends(&disk)?;
        parts.iter().try_for_each(|part| mdadm.expect_nothing(&disk, part))?;
    }
    Ok(())
}

/// A BIOS machine is not deployed to: the operator reads why, and the array for the system is as blank as it was made.
fn expect_refusal(stage: &Stage, members: &[(PathBuf, Vec<Part>)]) -> Result<()> {
    let Stage { scene, baremetal, mdadm, probe } = stage;
    baremetal.run(&["node", "provide", NODE, "--wait", WAIT])?;
    let deploy = scene.deploy(&probe.raw, "raw", Fault::None, "refused", Some(600));
    let told = scene.operator().ferric(&borrowed(&deploy)).err().context("the deployment went well")?;
    let node = scene.operator().node(NODE)?;
    ensure!(node["provision_state"] == "deploy failed", "{node}");
    for told in [format!("{told:#}"), node["last_error"].to_string()] {
        ensure!(told.contains(", from which a BIOS cannot boot, "), "{told}");
    }
    for (disk, parts) in members {
        let system = parts.first().context("no member of the array for the system")?;
        let mut start = vec![0xff; usize::try_from(MIB)?];
        let at = system.start + mdadm.examine(disk, system)?.data_offset()?;
        File::open(disk)?.read_exact_at(&mut start, at)?;
        ensure!(start.iter().all(|byte| *byte == 0), "something was written to {}", disk.display());
    }
    baremetal.run(&["node", "undeploy", NODE, "--wait", WAIT])?;
    baremetal.run(&["node", "manage", NODE, "--wait", WAIT]).map(drop)
}

/// The image goes to the array for the system, and the machine boots from it by UEFI; what the firmware reads is on both disks.
#[test]
fn our_controller_deploys_to_an_array_and_the_machine_boots_from_it() -> Result<()> {
    let stage = Stage::open("raid-ours-uefi", Firmware::Uefi, 3072 * MIB)?;
    stage.scene.explain(deployed(&stage))
}

fn deployed(stage: &Stage) -> Result<()> {
    let Stage { scene, baremetal, mdadm, probe } = stage;
    stage.make_arrays()?;
    stage.members("gpt", 3)?;
    baremetal.run(&["node", "provide", NODE, "--wait", WAIT])?;
    let from = scene.machine.console_text().len();
    scene.operator().ferric(&borrowed(&scene.deploy(
        &probe.raw,
        "raw",
        Fault::None,
        "on-arrays",
        Some(600),
    )))?;
    scene.machine.wait_for_console(images::PROBE_SAYS, from, BOOT)?;
    for (disk, parts) in stage.members("gpt", 3)? {
        let told = mdadm.examine(&disk, parts.get(2).context("no system partition")?)?;
        told.expect(&[("Version", "1.0"), ("Raid Level", "raid1"), ("Raid Devices", "2")])?;
        told.expect_name("esp")?;
    }
    Ok(())
}

/// A machine with two disks, and who looks at it.
struct Stage {
    scene: Scene,
    baremetal: Baremetal,
    mdadm: Mdadm,
    probe: images::Probe,
}

impl Stage {
    fn open(name: &str, firmware: Firmware, bytes: u64) -> Result<Self> {
        let (client, mdadm, probe) = (stock::install()?, Mdadm::obtain()?, images::probe()?);
        let mut script = Script::new(name, firmware);
        let disk = |(name, serial)| DiskScript { name, serial, bus: Bus::Virtio, bytes };
        script.disks = DISKS.map(disk).to_vec();
        let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script)?;
        let baremetal = Baremetal::new(client, scene.operator());
        Ok(Self { scene, baremetal, mdadm, probe })
    }

    /// Enrols the machine and has the arrays made; the node afterwards.
    fn make_arrays(&self) -> Result<Value> {
        let Stage { scene, baremetal, .. } = self;
        scene.operator().ferric(&borrowed(&scene.create()))?;
        scene.operator().ferric(&["node", "manage", NODE, "--wait", WAIT])?;
        let wanted = json!({"logical_disks": [
            {"size_gb": 1, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true},
            {"size_gb": "MAX", "raid_level": "0", "controller": "software", "volume_name": "data"},
        ]});
        let file = scene.folder.join("raid.json");
        fs::write(&file, wanted.to_string())?;
        baremetal.run(&["node", "set", NODE, "--raid-interface", "agent", "--no-automated-clean"])?;
        baremetal.run(&["node", "set", NODE, "--target-raid-config", &file.display().to_string()])?;
        let node = scene.operator().node(NODE)?;
        ensure!(node["target_raid_config"] == wanted, "{node}");
        let node = self.clean(&["delete_configuration", "create_configuration"])?;
        ensure!(node["raid_config"]["logical_disks"] == wanted["logical_disks"], "{}", node["raid_config"]);
        Ok(node)
    }

    /// Runs these steps of the RAID interface; the node afterwards.
    fn clean(&self, names: &[&str]) -> Result<Value> {
        let steps: Vec<Value> = names.iter().map(|step| json!({"interface": "raid", "step": step})).collect();
        let steps = json!(steps).to_string();
        self.baremetal.run(&["node", "clean", NODE, "--clean-steps", &steps, "--wait", WAIT])?;
        let node = self.scene.operator().node(NODE)?;
        ensure!(node["provision_state"] == "manageable" && node["last_error"].is_null(), "{node}");
        Ok(node)
    }

    /// The partitions of both disks, `count` on each; those of both arrays come first and are what mdadm says they must be.
    fn members(&self, table: &str, count: usize) -> Result<Vec<(PathBuf, Vec<Part>)>> {
        let mut members = Vec::new();
        for (nth, (name, _)) in DISKS.iter().enumerate() {
            let disk = self.scene.folder.join(name);
            let (kind, parts) = partitions(&disk)?;
            ensure!(kind == table && parts.len() == count, "{kind}: {parts:?}");
            for (part, (level, name)) in parts.iter().zip([("raid1", "system"), ("raid0", "data")]) {
                let told = self.mdadm.examine(&disk, part)?;
                let role = format!("Active device {nth}");
                told.expect(&[("Raid Level", level), ("Raid Devices", "2"), ("Device Role", &role)])?;
                told.expect_name(name)?;
            }
            members.push((disk, parts));
        }
        Ok(members)
    }
}
