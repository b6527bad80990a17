//! The controller dies at the worst moments of a deploy, driven by the stock client; the machine is deployed all the same.

use anyhow::{Context, Result, bail, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::bmc::{PASSWORD, USER};
use ferric_tests::httpd::Fault;
use ferric_tests::machine::Firmware;
use ferric_tests::process::{Background, tail};
use ferric_tests::scene::{BMC_PORT, MAC, NODE, ROOT_SERIAL, Scene, Script};
use ferric_tests::stock::{self, Baremetal};
use ferric_tests::{diskcheck, images, netns, wait};
use serde_json::Value;
use std::time::{Duration, Instant};

const HOSTNAME: &str = "survivor";
const STAGE: Duration = Duration::from_secs(240);
/// Lives of a controller that is killed at random, at most.
const LIVES: usize = 200;

/// A moment of a deploy at which the controller is killed.
struct Stage {
    name: &'static str,
    /// Stays true once it is, or holds for a second at least: the look at it comes every tenth of a second.
    reached: fn(&Scene, &Value) -> bool,
}

fn boots(scene: &Scene) -> u32 {
    scene.machine.state().map_or(0, |state| state.boots)
}

/// In the order in which a deploy passes them.
const STAGES: &[Stage] = &[
    Stage { name: "accepted", reached: |_, node| node["provision_state"] != "available" },
    Stage { name: "the firmware runs", reached: |scene, _| boots(scene) >= 1 },
    Stage { name: "the kernel runs", reached: |scene, _| scene.machine.console_text().contains("process 1") },
    Stage {
        name: "the agent was found",
        reached: |scene, _| scene.machine.console_text().contains("first heartbeat"),
    },
    Stage {
        name: WRITE,
        reached: |_, node| node["driver_internal_info"]["progress"]["bytes_done"].as_u64() > Some(0),
    },
    Stage {
        name: "the ramdisk is left",
        reached: |_, node| node["deploy_step"]["step"] == "tear_down_agent",
    },
    Stage { name: "the system is started", reached: |scene, _| boots(scene) >= 2 },
];

/// The stage that matters most.
const WRITE: &str = "the image is written";

#[test]
fn a_killed_controller_finishes_what_it_began() -> Result<()> {
    let (mut scene, baremetal) = open("kill", "")?;
    let told = deploy(&scene, &baremetal).and_then(|_client| kill_in_every_stage(&mut scene, &baremetal));
    scene.explain(told)
}

#[test]
#[ignore = "explores: CONTRIBUTING.md says how to run it"]
fn a_controller_killed_at_random_moments_finishes_what_it_began() -> Result<()> {
    // A machine whose firmware fell back to its disk is booted again after a third of this time.
    let (mut scene, baremetal) = open("kill-random", "[deploy]\ncallback_timeout = 120\n")?;
    let told = deploy(&scene, &baremetal).and_then(|_client| kill_at_random(&mut scene, &baremetal));
    scene.explain(told)
}

fn open(name: &str, tables: &str) -> Result<(Scene, Baremetal)> {
    let client = stock::install()?;
    let artifacts = Artifacts::obtain(Profile::Vm)?;
    images::probe()?;
    let mut script = Script::new(name, Firmware::Bios);
    script.tables = tables.to_owned();
    let scene = Scene::open(&artifacts, script)?;
    let baremetal = Baremetal::new(client, scene.operator());
    Ok((scene, baremetal))
}

/// Enrols the machine and has the client ask for its deployment; returns as soon as that is accepted, when the client may
/// not have heard it yet. Whether it ever does is not this test's affair: the first kill may take the answer with it.
fn deploy(scene: &Scene, baremetal: &Baremetal) -> Result<Background> {
    enrol(baremetal)?;
    let probe = images::probe()?;
    // Slow enough that the write is under way for some ten seconds: that stage must be met.
    let url = scene.images.offer("probe.qcow2", &probe.qcow2.path, Fault::Slow(1 << 20));
    let checksum = format!("image_checksum={}", probe.qcow2.sha256);
    let source = format!("image_source={url}");
    baremetal.run(&[
        "node",
        "set",
        NODE,
        "--instance-info",
        &source,
        "--instance-info",
        &checksum,
        "--instance-info",
        "image_disk_format=qcow2",
    ])?;
    let drive = format!(
        r#"{{"meta_data": {{"hostname": "{HOSTNAME}", "uuid": "5c0f4a61-4ad0-4bd5-9e40-6bf4b4a9e5c1"}}}}"#
    );
    let log = scene.folder.join("client.log");
    let mut client = baremetal.start(&["node", "deploy", NODE, "--config-drive", &drive], &log)?;
    let accepted = || {
        if let Some(status) = client.ended()?.filter(|status| !status.success()) {
            bail!("the client ended with {status}: {}", tail(&log, 10));
        }
        Ok((scene.operator().node(NODE)?["provision_state"] != "available").then_some(()))
    };
    wait::until("the deployment to be accepted", STAGE, accepted, || tail(&log, 10))?;
    Ok(client)
}

fn kill_in_every_stage(scene: &mut Scene, baremetal: &Baremetal) -> Result<()> {
    let mut killed = Vec::new();
    for stage in STAGES {
        if wait_for_stage(scene, stage)? {
            scene.controller.kill();
            killed.push(stage.name);
            scene.controller.restart()?;
        }
    }
    expect_deployed(scene, baremetal)?;
    ensure!(killed.contains(&WRITE), "the controller lived through the write: {killed:?}");
    ensure!(killed.len() >= 5, "the controller was killed in {} stages only: {killed:?}", killed.len());
    Ok(())
}

/// What must be true in the end, whatever happened to the controller on the way.
fn expect_deployed(scene: &Scene, baremetal: &Baremetal) -> Result<()> {
    let node = scene.operator().wait_for_state(NODE, &["active"], STAGE)?;
    ensure!(node["last_error"].is_null(), "deployed, but last_error is {}", node["last_error"]);
    scene.machine.wait_for_console(&format!("{}{HOSTNAME}", images::PROBE_SAYS), 0, STAGE)?;
    diskcheck::expect_untouched(&scene.other_disk())?;
    let shown = baremetal.json(&["node", "show", NODE, "--fields", "provision_state", "power_state"])?;
    ensure!(shown["provision_state"] == "active" && shown["power_state"] == "power on", "{shown}");
    let writes = scene.machine.console_text().matches("command deploy.execute_deploy_step").count();
    ensure!(writes == 1, "the image was written {writes} times, not once");
    Ok(())
}

/// Whether the stage was met; false if the deploy had gone past it before it could be seen.
fn wait_for_stage(scene: &Scene, stage: &Stage) -> Result<bool> {
    let mut shown = Value::Null;
    let met = wait::until(
        &format!("the stage '{}'", stage.name),
        STAGE,
        || {
            let Ok(node) = scene.operator().node(NODE) else { return Ok(None) };
            if node["provision_state"] == "deploy failed" {
                bail!("the deploy failed before '{}': {}", stage.name, node["last_error"]);
            }
            let reached = (stage.reached)(scene, &node);
            let over = node["provision_state"] == "active";
            shown = node;
            Ok(if reached { Some(true) } else { over.then_some(false) })
        },
        String::new,
    )?;
    println!("{}: '{}'", if met { "kill in" } else { "missed" }, stage.name);
    println!("  {} {} {}", shown["provision_state"], shown["deploy_step"]["step"], shown["power_state"]);
    Ok(met)
}

/// Lives of 0.3 to 3 s, one after the other, until the node is settled.
fn kill_at_random(scene: &mut Scene, baremetal: &Baremetal) -> Result<()> {
    let seed = match std::env::var("FERRIC_SEED") {
        Ok(text) => text.parse().context("FERRIC_SEED must be a number")?,
        Err(_) => u64::from(std::process::id()),
    };
    println!("FERRIC_SEED={seed}");
    let mut random = Random(seed);
    for life in 0..LIVES {
        let length = Duration::from_millis(300 + random.below(2700));
        if lives_to_the_end(scene, length)? {
            println!("killed {life} times");
            return expect_deployed(scene, baremetal);
        }
        scene.controller.kill();
        scene.controller.restart()?;
    }
    expect_deployed(scene, baremetal)
}

/// Whether the node is settled before the controller has lived this long.
fn lives_to_the_end(scene: &Scene, length: Duration) -> Result<bool> {
    let start = Instant::now();
    let settled = || {
        let node = scene.operator().node(NODE)?;
        if node["provision_state"] == "deploy failed" {
            bail!("the deploy failed: {}", node["last_error"]);
        }
        let active = node["provision_state"] == "active";
        Ok(if active { Some(true) } else { (start.elapsed() >= length).then_some(false) })
    };
    wait::until("the end of a life of the controller", STAGE, settled, String::new)
}

/// SplitMix64: the same kills for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn enrol(baremetal: &Baremetal) -> Result<()> {
    let (address, port) = (format!("ipmi_address={}", netns::BMC), format!("ipmi_port={BMC_PORT}"));
    let (user, password) = (format!("ipmi_username={USER}"), format!("ipmi_password={PASSWORD}"));
    let hint = format!(r#"root_device={{"serial": "{ROOT_SERIAL}"}}"#);
    baremetal.run(&[
        "node",
        "create",
        "--driver",
        "ipmi",
        "--name",
        NODE,
        "--driver-info",
        &address,
        "--driver-info",
        &port,
        "--driver-info",
        &user,
        "--driver-info",
        &password,
        "--property",
        &hint,
        "--property",
        "capabilities=boot_mode:bios",
        "--no-automated-clean",
    ])?;
    let node = baremetal.json(&["node", "show", NODE, "--fields", "uuid"])?;
    let uuid = node["uuid"].as_str().context("no uuid")?;
    baremetal.run(&["port", "create", MAC, "--node", uuid])?;
    baremetal.run(&["node", "manage", NODE, "--wait", "120"])?;
    baremetal.run(&["node", "provide", NODE, "--wait", "300"])?;
    baremetal.run(&["node", "validate", NODE]).map(drop)
}
