//! Power as clients ask for it, and what of it they see.

use crate::rig::{Answer, Rig};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

async fn ask(rig: &Rig, body: Value, version: &str) -> Answer {
    rig.call("PUT", "/v1/nodes/n1/states/power", version, body).await
}

/// Asks, waits for the end, and returns the node and what the BMC was told.
async fn ask_and_wait(rig: &Rig, body: Value) -> (Value, Vec<String>) {
    rig.bmc.log.lock().unwrap().clear();
    let answer = ask(rig, body, "1.115").await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let node = rig.until(|n| n["target_power_state"].is_null() && n["reservation"].is_null()).await;
    let told = rig.bmc.log.lock().unwrap().clone();
    (node, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_is_carried_out_as_ironic_does_it() {
    let rig = Rig::new();
    rig.available().await;
    for (target, told, power) in [
        ("power on", vec!["power On"], "power on"),
        ("power on", vec![], "power on"),
        ("rebooting", vec!["power Off", "power On"], "power on"),
        ("soft rebooting", vec!["power SoftOff", "power On"], "power on"),
        ("soft power off", vec!["power SoftOff"], "power off"),
        ("soft power off", vec![], "power off"),
        ("rebooting", vec!["power On"], "power on"),
        ("power off", vec!["power Off"], "power off"),
        ("soft rebooting", vec!["power On"], "power on"),
    ] {
        let (node, seen) = ask_and_wait(&rig, json!({"target": target})).await;
        assert_eq!(seen, told, "{target}");
        assert_eq!((&node["power_state"], &node["last_error"]), (&json!(power), &Value::Null), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operating_system_that_does_not_listen_is_never_cut_off_by_a_soft_action() {
    let rig = Rig::new();
    rig.available().await;
    ask_and_wait(&rig, json!({"target": "power on"})).await;
    rig.bmc.deaf_system.store(true, Ordering::SeqCst);
    for (target, shown) in [("soft rebooting", "power on"), ("soft power off", "power off")] {
        let (node, seen) = ask_and_wait(&rig, json!({"target": target, "timeout": 1})).await;
        assert_eq!(seen, ["power SoftOff"], "{target}");
        assert_eq!(node["power_state"], "power on");
        let error = node["last_error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("Failed to change power state to '{shown}' by '{target}': ")),
            "{error}"
        );
        assert!(error.contains("within 1 s") && error.contains("'rebooting'"), "{error}");
    }
    let (node, seen) = ask_and_wait(&rig, json!({"target": "rebooting"})).await;
    assert_eq!((seen, &node["last_error"]), (vec!["power Off".to_string(), "power On".into()], &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_must_not_lose_power_is_reset() {
    let rig = Rig::new();
    rig.available().await;
    ask_and_wait(&rig, json!({"target": "power on"})).await;
    rig.patch(json!([{"op": "add", "path": "/disable_power_off", "value": true}])).await;
    let (node, seen) = ask_and_wait(&rig, json!({"target": "rebooting"})).await;
    assert_eq!((seen, &node["power_state"]), (vec!["power Reset".to_string()], &json!("power on")));
    for (target, status, words) in [
        ("power off", 409, "disable_power_off"),
        ("soft power off", 409, "disable_power_off"),
        ("soft rebooting", 400, "does not support the power state, soft rebooting"),
    ] {
        let answer = ask(&rig, json!({"target": target}), "1.115").await;
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.text().contains(words), "{target}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_device_is_set_once_or_for_good_in_the_nodes_boot_mode() {
    let rig = Rig::new();
    rig.available().await;
    let path = "/v1/nodes/n1/management/boot_device";
    let supported = rig.get(&format!("{path}/supported")).await;
    assert_eq!(supported, json!({"supported_boot_devices": ["pxe", "disk", "cdrom", "bios", "safe"]}));
    for (mode, body, told, shown) in [
        ("bios", json!({"boot_device": "pxe"}), "boot Pxe Once Bios", json!(false)),
        ("uefi", json!({"boot_device": "disk", "persistent": true}), "boot Disk Always Uefi", json!(true)),
        (
            "uefi",
            json!({"boot_device": "cdrom", "persistent": "false"}),
            "boot Cdrom Once Uefi",
            json!(false),
        ),
    ] {
        let value = format!("boot_mode:{mode}");
        rig.patch(json!([{"op": "add", "path": "/properties/capabilities", "value": value}])).await;
        rig.bmc.log.lock().unwrap().clear();
        assert_eq!(rig.call("PUT", path, "1.115", body.clone()).await.status, 204, "{body}");
        assert_eq!(*rig.bmc.log.lock().unwrap(), [told]);
        let answer = json!({"boot_device": body["boot_device"], "persistent": shown});
        assert_eq!(rig.get(path).await, answer);
    }
    for body in [json!({}), json!({"boot_device": "floppy"}), json!({"boot_device": "pxe", "persistent": 3})]
    {
        assert_eq!(rig.call("PUT", path, "1.115", body.clone()).await.status, 400, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_and_timeouts_obey_the_version() {
    let rig = Rig::new();
    rig.available().await;
    for (body, version, status) in [
        (json!({"target": "power sideways"}), "1.115", 400),
        (json!({"target": "soft power off"}), "1.26", 406),
        (json!({"target": "soft rebooting"}), "1.26", 406),
        (json!({"target": "power on", "timeout": 5}), "1.26", 406),
        (json!({"target": "power on", "timeout": 0}), "1.27", 400),
        (json!({"target": "power on", "timeout": "soon"}), "1.27", 400),
        (json!({"target": "power on", "timeout": 604_801}), "1.27", 400),
        (json!({"target": "power on", "timeout": "5"}), "1.27", 202),
        (json!({"target": "power on"}), "1.26", 202),
    ] {
        let answer = ask(&rig, body.clone(), version).await;
        assert_eq!(answer.status, status, "{body} {version}");
        rig.until(|n| n["target_power_state"].is_null() && n["reservation"].is_null()).await;
    }
}
