//! The controller dies at the worst moments of a deploy, driven by the stock client; the machine is deployed all the same.

use anyhow::{Context, Result, bail, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::bmc::{PASSWORD, USER};
use ferric_tests::httpd::Fault;
use ferric_tests::machine::Firmware;
use ferric_tests::scene::{BMC_PORT, MAC, NODE, ROOT_SERIAL, Scene, Script};
use ferric_tests::stock::{self, Baremetal};
use ferric_tests::{diskcheck, images, netns, wait};
use serde_json::Value;
use std::time::Duration;

const HOSTNAME: &str = "survivor";
const STAGE: Duration = Duration::from_secs(240);

/// A moment of a deploy at which the controller is killed.
struct Stage {
    name: &'static str,
    reached: fn(&Scene, &Value) -> bool,
}

fn step_is(node: &Value, step: &str) -> bool {
    node["deploy_step"]["step"] == step
}

/// In the order in which a deploy passes them.
const STAGES: &[Stage] = &[
    Stage { name: "accepted", reached: |_, node| node["provision_state"] == "deploying" },
    Stage { name: "the firmware runs", reached: |scene, _| scene.machine.state().is_ok_and(|s| s.on) },
    Stage { name: "the kernel runs", reached: |scene, _| scene.machine.console_text().contains("process 1") },
    Stage {
        name: "the agent was found",
        reached: |scene, _| scene.machine.console_text().contains("first heartbeat"),
    },
    Stage {
        name: "the image is written",
        reached: |_, node| step_is(node, "write_image") && node["provision_state"] == "wait call-back",
    },
    Stage { name: "the ramdisk is left", reached: |_, node| step_is(node, "tear_down_agent") },
    Stage {
        name: "the system is started",
        reached: |_, node| step_is(node, "boot_instance") || node["provision_state"] == "active",
    },
];

#[test]
fn a_killed_controller_finishes_what_it_began() -> Result<()> {
    let client = stock::install()?;
    let artifacts = Artifacts::obtain(Profile::Vm)?;
    let probe = images::probe()?;
    let mut scene = Scene::open(&artifacts, Script::new("kill", Firmware::Bios))?;
    let baremetal = Baremetal::new(client, scene.operator());
    enrol(&baremetal)?;
    // Slow enough that the write is under way for some ten seconds: the stage that matters most must be met.
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
    baremetal.run(&["node", "deploy", NODE, "--config-drive", &drive])?;

    let mut killed = Vec::new();
    for stage in STAGES {
        if wait_for_stage(&scene, stage)? {
            scene.controller.kill();
            println!("killed: {}", stage.name);
            killed.push(stage.name);
            scene.controller.restart()?;
        }
    }
    let node = scene.operator().wait_for_state(NODE, &["active"], STAGE)?;
    ensure!(killed.contains(&"the image is written"), "the controller lived through the write: {killed:?}");
    ensure!(killed.len() >= 5, "the controller was killed in {} stages only: {killed:?}", killed.len());
    ensure!(node["last_error"].is_null(), "{node}");
    scene.machine.wait_for_console(&format!("{}{HOSTNAME}", images::PROBE_SAYS), 0, STAGE)?;
    diskcheck::expect_untouched(&scene.other_disk())?;
    let shown = baremetal.json(&["node", "show", NODE, "--fields", "provision_state", "power_state"])?;
    ensure!(shown["provision_state"] == "active" && shown["power_state"] == "power on", "{shown}");
    // An image is written once, however often the controller dies.
    let fetched = scene.images.requests().iter().filter(|r| r.starts_with("GET /probe.qcow2")).count();
    println!("the image was asked for {fetched} times");
    Ok(())
}

/// Whether the stage was met; false if the deploy had gone past it before it could be seen.
fn wait_for_stage(scene: &Scene, stage: &Stage) -> Result<bool> {
    let mut shown = Value::Null;
    wait::until(
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
    )
    .with_context(|| format!("{} {}", shown["provision_state"], shown["deploy_step"]))
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
