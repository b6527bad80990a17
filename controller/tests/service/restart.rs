//! Killing the service at any moment and starting it again ends in the same deployed machine, with the image written once.

use crate::machine::{Behaviour, Machine};
use crate::rig::{Images, Rig};
use ferric_controller::drivers::PowerState;
use ferric_controller::store::{Changes, Store};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A name, and how the stage is recognised from outside.
type Stage = (&'static str, fn(&Value) -> bool);

/// Stages of a deployment.
const STAGES: &[Stage] = &[
    ("accepted", |n| n["provision_state"] == "deploying" || n["provision_state"] == "wait call-back"),
    ("the ramdisk boots", |n| n["provision_state"] == "wait call-back"),
    ("the token is out", |n| n["driver_internal_info"]["agent_secret_token"] == "******"),
    ("the agent is known", |n| !n["driver_internal_info"]["agent_url"].is_null()),
    ("the steps are known", |n| !n["driver_internal_info"]["hardware_manager_version"].is_null()),
    ("the image is being written", |n| !n["driver_internal_info"]["progress"].is_null()),
    ("the write was sent", |n| n["deploy_step"]["step"] == "write_image"),
    ("boot is prepared", |n| {
        n["deploy_step"]["step"] == "prepare_instance_boot" || n["deploy_step"]["step"] == "tear_down_agent"
    }),
    ("the agent is torn down", |n| n["deploy_step"]["step"] == "tear_down_agent"),
    ("the disk boots", |n| n["deploy_step"]["step"] == "boot_instance" || n["provision_state"] == "active"),
];

async fn check_the_end(rig: &Rig, machine: &Machine, stage: &str) {
    let done =
        rig.until(|n| n["provision_state"] == "active" || n["provision_state"] == "deploy failed").await;
    assert_eq!(done["provision_state"], "active", "{stage}: {}", done["last_error"]);
    assert_eq!(done["last_error"], Value::Null, "{stage}");
    assert_eq!(machine.story.count("deploy.execute_deploy_step"), 1, "{stage}: the image is written once");
    assert_eq!(machine.story.locked_out.load(Ordering::SeqCst), 0, "{stage}: no boot lost its token");
    assert_eq!(rig.bmc.power_now(), PowerState::On, "{stage}");
    rig.until(|_| machine.story.boots_from_disk.load(Ordering::SeqCst) >= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_any_stage_changes_nothing_in_the_end() {
    for (stage, reached) in STAGES {
        let mut rig = Rig::new();
        rig.available().await;
        let machine =
            Machine::new(&rig, Behaviour { write_time: Duration::from_millis(300), ..Behaviour::default() });
        assert_eq!(rig.provision("active").await.status, 202);
        rig.until(reached).await;
        rig.kill();
        rig.start();
        check_the_end(&rig, &machine, stage).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_again_and_again_still_gets_there() {
    for first in [7u64, 23, 41] {
        let mut rig = Rig::new();
        rig.available().await;
        let machine = Machine::new(&rig, Behaviour::default());
        assert_eq!(rig.provision("active").await.status, 202);
        // Lives of growing length, so that the kills fall into different places.
        for life in (0..14).map(|i| first + i * 17) {
            tokio::time::sleep(Duration::from_millis(life)).await;
            rig.kill();
            rig.start();
        }
        check_the_end(&rig, &machine, &format!("kills from {first} ms on")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_write_ended_while_the_service_was_down_is_not_written_again() {
    let mut rig = Rig::new();
    rig.available().await;
    let machine =
        Machine::new(&rig, Behaviour { write_time: Duration::from_millis(150), ..Behaviour::default() });
    rig.begin("active").await;
    rig.until(|_| machine.story.count("deploy.execute_deploy_step") == 1).await;
    rig.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.start();
    check_the_end(&rig, &machine, "down while writing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_entry_that_was_asked_for_is_not_asked_for_again() {
    let mut rig = Rig::new();
    rig.available().await;
    let mode =
        [serde_json::json!({"op": "add", "path": "/properties/capabilities", "value": "boot_mode:uefi"})];
    rig.patch(serde_json::json!(mode)).await;
    let machine = Machine::new(&rig, Behaviour::default());
    rig.begin("active").await;
    rig.until(|_| machine.story.count("image.install_bootloader") == 1).await;
    rig.kill();
    rig.start();
    check_the_end(&rig, &machine, "while the boot entry is written").await;
    assert_eq!(machine.story.count("image.install_bootloader"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_outlives_an_absence_that_is_longer_than_its_deadline() {
    let mut rig = Rig::new();
    rig.available().await;
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "wait call-back").await;
    rig.kill();
    // As if it had been away for an hour.
    let store = Store::open(&rig.settings.state_dir.join("db")).unwrap();
    let mut node = store.node_by_name("n1").await.unwrap().unwrap();
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let wait = node.wait.as_mut().unwrap();
    (wait.since, wait.deadline) = (hour_ago, hour_ago + SignedDuration::from_mins(1));
    store.save(&mut node, Changes::default()).await.unwrap();
    drop(store);
    rig.start();
    let now = || Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let shown = rig.until(|n| n["driver_internal_info"]["wait"]["deadline"].as_str() > Some(&now())).await;
    assert!(shown["driver_internal_info"]["wait"]["since"].as_str() < Some(&now()), "{shown}");
    let machine = Machine::new(&rig, Behaviour::default());
    check_the_end(&rig, &machine, "away for an hour").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_network_boot_found_no_controller_is_booted_again() {
    let mut rig = Rig::with(|s| s.deadlines.deploy = Duration::from_secs(6), Images::default());
    rig.available().await;
    let machine = Machine::new(&rig, Behaviour { missed_boots: 1, ..Behaviour::default() });
    rig.begin("active").await;
    rig.until(|_| machine.story.boots_from_network.load(Ordering::SeqCst) == 1).await;
    rig.kill();
    rig.start();
    check_the_end(&rig, &machine, "nobody there to boot from").await;
    assert_eq!(machine.story.boots_from_network.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_could_not_be_fetched_while_the_service_was_down_is_fetched_again() {
    let mut rig = Rig::new();
    rig.available().await;
    let error =
        serde_json::json!({"type": "ImageDownloadError", "code": 500, "message": "m", "details": "d"});
    let behaviour = Behaviour { write_error: Some(error), bad_writes: 1, ..Behaviour::default() };
    let machine = Machine::new(&rig, behaviour);
    rig.begin("active").await;
    rig.until(|_| machine.story.count("deploy.execute_deploy_step") == 1).await;
    rig.kill();
    rig.start();
    let ended = |n: &Value| n["provision_state"] == "active" || n["provision_state"] == "deploy failed";
    let done = rig.until(ended).await;
    assert_eq!((&done["provision_state"], &done["last_error"]), (&"active".into(), &Value::Null));
    assert_eq!(machine.story.count("deploy.execute_deploy_step"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_verifying_and_a_failed_machine_are_taken_up_too() {
    let mut rig = Rig::new();
    rig.enrol().await;
    let machine = Machine::new(&rig, Behaviour::default());
    rig.begin("manage").await;
    rig.kill();
    rig.start();
    rig.until(|n| n["provision_state"] == "manageable").await;
    rig.begin("provide").await;
    rig.until(|n| n["provision_state"] == "clean wait").await;
    rig.kill();
    rig.start();
    rig.until(|n| n["provision_state"] == "available").await;
    assert_eq!(machine.story.count("clean.execute_clean_step"), 1);
    drop(machine);

    let error = serde_json::json!({"type": "X", "code": 500, "message": "m", "details": "d"});
    let _machine = Machine::new(&rig, Behaviour { write_error: Some(error), ..Behaviour::default() });
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "deploy failed").await;
    rig.kill();
    rig.start();
    rig.until(|n| n["power_state"] == "power off" && n["reservation"].is_null()).await;
    assert_eq!(rig.bmc.power_now(), PowerState::Off);
}
