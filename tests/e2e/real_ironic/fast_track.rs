//! Fast track: a machine is started for its inspection and stays on as `manageable` and `available`; its agent beats all the while,
//! and the same boot of it is cleaned and deployed to.

use super::{Drive, Stages, deploy, expect_converted, properties, scribble};
use anyhow::{Result, ensure};
use ferric_tests::ironic::lab::{Lab, NODE, OTHER, Plan, WITHIN};
use ferric_tests::ironic::setup::IRONIC_39;
use ferric_tests::{diskcheck, images, wait};
use serde_json::{Value, json};

/// Beats come often, so that some are seen; how old the last may be stays Ironic's default, 300 s.
const OFTEN: &str = "[deploy]\nfast_track = true\n[api]\nramdisk_heartbeat_timeout = 30\n";
/// What our process 1 says once per boot.
const BOOTED: &str = "process 1 started";

#[test]
fn ironic_39_deploys_to_a_machine_that_stayed_on() -> Result<()> {
    let probe = images::probe()?;
    let lab = Lab::open(&Plan { more: OFTEN, ..Plan::new("real-ironic-fast-track", &IRONIC_39) })?;
    lab.explain(stays_on(&lab, &probe))
}

fn stays_on(lab: &Lab, probe: &images::Probe) -> Result<()> {
    let stages = Stages::default();
    lab.enrol(properties("bios"))?;
    scribble(&lab.disk(OTHER))?;
    lab.ironic.bring(NODE, "inspect", json!({}), "manageable", WITHIN)?;
    expect_beats(lab)?;
    stages.end("inspection, and two heartbeats");
    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    diskcheck::expect_blank_ends(&lab.disk(OTHER))?;
    expect_beats(lab)?;
    expect_power_ons(lab, 1)?;
    stages.end("automated cleaning, and two heartbeats");
    deploy(lab, &probe.qcow2, "qcow2", "active", None)?;
    expect_converted(lab, &probe.qcow2, Drive::None)?;
    // The second is for the system on the disk.
    expect_power_ons(lab, 2)?;
    let boots = lab.machine.console_text().matches(BOOTED).count();
    ensure!(boots == 1, "the ramdisk was booted {boots} times");
    stages.end("deploy");
    Ok(())
}

/// Two more heartbeats are taken in the state that the node is in.
fn expect_beats(lab: &Lab) -> Result<()> {
    let last = || -> Result<Value> {
        Ok(lab.ironic.node(NODE)?["driver_internal_info"]["agent_last_heartbeat"].clone())
    };
    for _ in 0..2 {
        let before = last()?;
        let is_new = || Ok((last()? != before).then_some(()));
        wait::until("another heartbeat", WITHIN, is_new, || format!("the last was {before}"))?;
    }
    Ok(())
}

/// The BMC switched the machine on so often, and never reset it.
fn expect_power_ons(lab: &Lab, expected: usize) -> Result<()> {
    let orders = lab.bmc.orders();
    let count = |words: &str| orders.iter().filter(|order| order.starts_with(words)).count();
    ensure!(count("set power 1") == expected && count("set reset") == 0, "{orders:?}");
    Ok(())
}
