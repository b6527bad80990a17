//! The periodic look at every machine's power: a BMC that refuses the login or is silent, and what operators see of it.

use crate::rig::{Images, Rig};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A service that reads all power states at once after the last read.
fn eager() -> Rig {
    Rig::with(|s| s.patience.power_sync = Duration::from_millis(10), Images::default())
}

async fn set_password(rig: &Rig, password: &str) {
    rig.patch(json!([{"op": "add", "path": "/driver_info/password", "value": password}])).await;
}

/// A second node, whose reads show that rounds of the sync have passed.
async fn add_clock(rig: &Rig) -> String {
    let answer =
        rig.call("POST", "/v1/nodes", "1.115", json!({"driver": "fake-hardware", "name": "clock"})).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let manage = json!({"target": "manage"});
    assert_eq!(rig.call("PUT", "/v1/nodes/clock/states/provision", "1.115", manage).await.status, 202);
    answer.body["uuid"].as_str().unwrap().to_string()
}

/// Waits until this many rounds of the sync have passed.
async fn rounds(rig: &Rig, clock: &str, count: usize) {
    let (end, from) = (Instant::now() + Duration::from_secs(20), rig.bmc.talks(clock));
    while rig.bmc.talks(clock) < from + count {
        assert!(Instant::now() < end, "the sync does not run");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_asked_once_and_told_in_the_node() {
    let mut rig = eager();
    let uuid = rig.available().await;
    set_password(&rig, "right").await;
    let clock = add_clock(&rig).await;
    rounds(&rig, &clock, 3).await;
    *rig.bmc.password.lock().unwrap() = "changed".into();
    let node = rig.until(|n| n["fault"] == "power failure").await;
    let error = node["last_error"].as_str().unwrap();
    assert!(error.contains("wrong user name or password. It is not asked again"), "{error}");
    assert_eq!((&node["power_state"], &node["maintenance"]), (&Value::Null, &json!(true)));
    assert_eq!(node["maintenance_reason"], node["last_error"]);

    let asked = rig.bmc.talks(&uuid);
    rounds(&rig, &clock, 12).await;
    assert_eq!(rig.bmc.talks(&uuid), asked, "the sync asked again");
    rig.kill();
    rig.start();
    rounds(&rig, &clock, 12).await;
    let answer = rig.call("GET", "/v1/nodes/n1/management/boot_device", "1.115", Value::Null).await;
    assert!(answer.status == 500 && answer.text().contains("not asked again"), "{}", answer.body);
    let verdict = rig.get("/v1/nodes/n1/validate").await;
    assert_eq!(verdict["power"]["result"], false, "{verdict}");
    assert_eq!(rig.bmc.talks(&uuid), asked, "asked again after a restart, or by somebody who only looks");

    let target = json!({"target": "power on"});
    assert_eq!(rig.call("PUT", "/v1/nodes/n1/states/power", "1.115", target).await.status, 202);
    let node = rig.until(|n| n["target_power_state"].is_null() && n["reservation"].is_null()).await;
    assert!(node["last_error"].as_str().unwrap().contains("wrong user name or password"), "{node}");
    rounds(&rig, &clock, 12).await;
    assert_eq!(rig.bmc.talks(&uuid), asked + 1, "an operator's power action is one try");

    set_password(&rig, "changed").await;
    let node = rig.until(|n| n["fault"].is_null()).await;
    assert_eq!((&node["power_state"], &node["maintenance"]), (&json!("power off"), &json!(false)));
    assert_eq!(node["maintenance_reason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_maintenance_is_a_new_try_and_so_is_manage() {
    let rig = eager();
    let uuid = rig.available().await;
    set_password(&rig, "right").await;
    let clock = add_clock(&rig).await;
    *rig.bmc.password.lock().unwrap() = "changed".into();
    rig.until(|n| n["fault"] == "power failure").await;
    let asked = rig.bmc.talks(&uuid);
    assert_eq!(rig.call("DELETE", "/v1/nodes/n1/maintenance", "1.115", Value::Null).await.status, 202);
    rig.until(|n| n["fault"] == "power failure").await;
    rounds(&rig, &clock, 12).await;
    assert_eq!(rig.bmc.talks(&uuid), asked + 1);
    *rig.bmc.password.lock().unwrap() = "right".into();
    rounds(&rig, &clock, 12).await;
    assert_eq!(rig.bmc.talks(&uuid), asked + 1);
    rig.begin("manage").await;
    rig.until(|n| n["fault"].is_null() && n["power_state"] == "power off").await;
}

/// What the service logs in this process, whichever test it serves.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Logged;

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen_to_the_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let level = tracing::Level::INFO;
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(|| Logged).init();
    });
}

/// Lines of the log about a node that hold these words.
fn lines(node: &str, words: &str) -> usize {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(log).unwrap().lines().filter(|line| line.contains(node) && line.contains(words)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bmc_is_logged_once_and_once_more_when_it_answers() {
    listen_to_the_log();
    let rig = eager();
    let uuid = rig.available().await;
    rig.until(|n| n["power_state"] == "power off").await;
    rig.bmc.silent.store(true, Ordering::SeqCst);
    // Said of a node that was read four times in vain.
    rig.until(|n| n["fault"] == "power failure").await;
    let unread = "the power of a node cannot be read";
    assert_eq!(lines(&uuid, unread), 1);
    rig.bmc.silent.store(false, Ordering::SeqCst);
    rig.until(|n| n["fault"].is_null()).await;
    assert_eq!((lines(&uuid, unread), lines(&uuid, "can be read again")), (1, 1));
    rig.bmc.silent.store(true, Ordering::SeqCst);
    rig.until(|n| n["fault"] == "power failure").await;
    assert_eq!(lines(&uuid, unread), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bmc_becomes_a_fault_that_passes_by_itself() {
    let rig = eager();
    rig.available().await;
    rig.until(|n| n["power_state"] == "power off").await;
    rig.bmc.silent.store(true, Ordering::SeqCst);
    let node = rig.until(|n| n["fault"] == "power failure").await;
    let error = node["last_error"].as_str().unwrap();
    assert!(
        error.contains("4 times in a row") && error.contains("no answer from the BMC at 192.0.2.9"),
        "{error}"
    );
    rig.bmc.silent.store(false, Ordering::SeqCst);
    let node = rig.until(|n| n["fault"].is_null()).await;
    assert_eq!((&node["power_state"], &node["last_error"]), (&json!("power off"), &Value::Null));
    assert_eq!((&node["maintenance"], &node["maintenance_reason"]), (&json!(false), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flow_repeats_a_login_that_was_refused() {
    let rig = Rig::new();
    let uuid = rig.available().await;
    set_password(&rig, "right").await;
    *rig.bmc.password.lock().unwrap() = "changed".into();
    let asked = rig.bmc.talks(&uuid);
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "deploy failed").await;
    // The clean-up after the failure would like to power the machine off.
    let cleaned =
        |n: &Value| n["last_error"].as_str().is_some_and(|e| e.contains("could not be powered off"));
    let node = rig.until(cleaned).await;
    assert!(node["last_error"].as_str().unwrap().contains("wrong user name or password"), "{node}");
    assert_eq!(rig.bmc.talks(&uuid), asked + 1, "the clean-up after the failure asked again");
    let answer = rig.provision("active").await;
    assert!(answer.status == 400 && answer.text().contains("not asked again"), "{}", answer.body);
    set_password(&rig, "changed").await;
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "wait call-back").await;
}
