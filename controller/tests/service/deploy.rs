//! Deployments and cleanings as a whole, and how they fail.

use crate::machine::{Behaviour, Machine};
use crate::rig::{IMAGE, Images, Rig};
use base64::Engine as _;
use ferric_controller::conductor::LogRoom;
use ferric_controller::domain::validate::ImageFacts;
use ferric_controller::drivers::PowerState;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_cleaned_and_deployed_over_tls() {
    let rig = Rig::new();
    let uuid = rig.enrol().await;
    let machine =
        Machine::new(&rig, Behaviour { write_time: Duration::from_millis(400), ..Behaviour::default() });
    rig.begin("manage").await;
    rig.until(|n| n["provision_state"] == "manageable").await;
    rig.begin("provide").await;
    rig.until(|n| n["provision_state"] == "available").await;
    assert_eq!(
        *machine.story.commands.lock().unwrap(),
        ["clean.get_clean_steps", "clean.execute_clean_step"]
    );
    assert_eq!(rig.bmc.power_now(), PowerState::Off);

    machine.story.commands.lock().unwrap().clear();
    rig.bmc.log.lock().unwrap().clear();
    let drive = json!({"target": "active", "configdrive": {"meta_data": {"hostname": "web-1"}, "user_data": "#!/bin/sh"}});
    let answer = rig.call("PUT", "/v1/nodes/n1/states/provision", "1.115", drive).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let writing = rig.until(|n| !n["driver_internal_info"]["progress"].is_null()).await;
    let info = &writing["driver_internal_info"];
    assert_eq!(writing["provision_state"], "wait call-back");
    assert_eq!(writing["target_provision_state"], "active");
    assert_eq!(writing["deploy_step"]["step"], "write_image");
    assert_eq!(info["progress"]["bytes_done"], 500);
    assert_eq!(info["agent_secret_token"], "******");
    assert!(info["wait"]["reason"].as_str().unwrap().contains("deploy.write_image"), "{}", info["wait"]);
    let done = rig.until(|n| n["provision_state"] == "active").await;
    assert_eq!((&done["last_error"], &done["target_provision_state"]), (&Value::Null, &Value::Null));
    assert_eq!(done["power_state"], "power on");
    assert_eq!(done["driver_internal_info"]["root_uuid_or_disk_id"], "0x1234abcd");
    let report = &done["driver_internal_info"]["image_write"];
    assert_eq!((&report["bytes_received"], &report["limit"]), (&json!(400 << 20), &json!("decompression")));
    let line = report["summary"].as_str().unwrap();
    assert!(line.starts_with("400 MiB received at 200 MiB/s, 1234 MiB written, "), "{line}");
    assert!(report.get("more").is_none(), "only what is known is kept: {report}");
    for gone in ["agent_url", "agent_secret_token", "progress", "wait"] {
        assert!(done["driver_internal_info"].get(gone).is_none(), "{gone}");
    }
    assert_eq!(
        *machine.story.commands.lock().unwrap(),
        [
            "deploy.get_deploy_steps",
            "deploy.execute_deploy_step",
            "standby.get_partition_uuids",
            "standby.power_off"
        ]
    );
    assert_eq!(
        *rig.bmc.log.lock().unwrap(),
        [
            "boot Pxe Once Bios",
            "power On",
            "boot Disk Always Bios",
            "the machine powered itself off",
            "power On"
        ]
    );
    let writes = machine.story.writes.lock().unwrap().clone();
    let info = &writes[0]["image_info"];
    assert_eq!(info["urls"], json!([IMAGE]));
    assert_eq!((&info["os_hash_algo"], &info["disk_format"]), (&json!("sha256"), &json!("qcow2")));
    assert_eq!(info["node_uuid"], json!(uuid));
    let packed = writes[0]["configdrive"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
    assert_eq!(bytes[..2], [0x1f, 0x8b], "gzip");
    rig.until(|_| machine.story.boots_from_disk.load(Ordering::SeqCst) == 1).await;

    rig.begin("deleted").await;
    let clean = rig.until(|n| n["provision_state"] == "available").await;
    assert_eq!(clean["instance_info"], json!({}));
    assert!(clean["driver_internal_info"].get("image_write").is_none());
    assert_eq!(rig.bmc.power_now(), PowerState::Off);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_ends_in_words_with_logs_kept_and_power_off() {
    let rig = Rig::with(|s| s.logs = LogRoom { number: 2, bytes: 1 << 20 }, Images::default());
    rig.available().await;
    let error = json!({"type": "ImageChecksumError", "code": 500, "message": "Error verifying image checksum",
                       "details": "image digest is sha256:11, expected sha256:22"});
    let _machine = Machine::new(&rig, Behaviour { write_error: Some(error), ..Behaviour::default() });
    rig.begin("active").await;
    let failed = rig.until(|n| n["provision_state"] == "deploy failed").await;
    let text = failed["last_error"].as_str().unwrap();
    assert!(text.starts_with("Deploy step deploy.write_image failed on node "), "{text}");
    assert!(text.ends_with("image digest is sha256:11, expected sha256:22"), "{text}");
    assert_eq!(failed["target_provision_state"], "active");
    let after = rig.until(|n| n["power_state"] == "power off" && n["reservation"].is_null()).await;
    assert!(after["driver_internal_info"].get("agent_secret_token").is_none());
    assert_eq!(after["last_error"], failed["last_error"]);
    let logs = || {
        let folder = std::fs::read_dir(rig.settings.state_dir.join("logs")).unwrap();
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let first = logs();
    assert_eq!(first.len(), 1);
    let mut before = first.clone();
    for number in [2, 2, 2] {
        rig.begin("active").await;
        rig.until(|n| n["provision_state"] == "deploy failed" && logs() != before).await;
        rig.until(|n| n["power_state"] == "power off" && n["reservation"].is_null()).await;
        before = logs();
        assert_eq!(before.len(), number, "the oldest have to go: {before:?}");
    }
    assert!(before.is_disjoint(&first));
}

async fn uefi(rig: &Rig) {
    let mode = json!([{"op": "add", "path": "/properties/capabilities", "value": "boot_mode:uefi"}]);
    rig.patch(mode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uefi_machine_gets_a_boot_entry_before_its_boot_device_is_set() {
    let rig = Rig::new();
    rig.available().await;
    uefi(&rig).await;
    let machine = Machine::new(&rig, Behaviour::default());
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "active").await;
    assert_eq!(
        machine.story.commands.lock().unwrap()[2..],
        ["standby.get_partition_uuids", "image.install_bootloader", "standby.power_off"]
    );
    let log = rig.bmc.log.lock().unwrap().clone();
    assert!(log.contains(&"boot Disk Always Uefi".to_string()), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_entry_that_cannot_be_written_fails_the_deployment_in_words() {
    let rig = Rig::new();
    let uuid = rig.available().await;
    uefi(&rig).await;
    let error = json!({"type": "DeviceNotFound", "code": 404, "message": "m",
                       "details": "No EFI partition could be detected on device /dev/sda"});
    let _machine = Machine::new(&rig, Behaviour { boot_error: Some(error), ..Behaviour::default() });
    rig.begin("active").await;
    let failed = rig.until(|n| n["provision_state"] == "deploy failed").await;
    assert_eq!(
        failed["last_error"],
        format!(
            "Failed to install a bootloader when deploying node {uuid}: No EFI partition could be detected on device /dev/sda"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_never_calls_back_fails_with_what_to_check() {
    let rig = Rig::with(|s| s.deadlines.deploy = Duration::from_millis(700), Images::default());
    let uuid = rig.available().await;
    let _machine = Machine::new(&rig, Behaviour { dead: true, ..Behaviour::default() });
    rig.begin("active").await;
    let waiting = rig.until(|n| n["provision_state"] == "wait call-back").await;
    let wait = &waiting["driver_internal_info"]["wait"];
    assert!(wait["reason"].as_str().unwrap().contains("boot the ramdisk"), "{wait}");
    assert!(wait["deadline"].as_str().unwrap() > wait["since"].as_str().unwrap());
    use ferric_controller::boot::BootDirectory as _;
    let mac = crate::rig::MAC.parse().unwrap();
    let conductor = rig.conductor().clone();
    let plan = conductor.plan_for_mac(mac).await.unwrap();
    assert_eq!(plan.kernel_parameters, "console=ttyS0 ipa-api-url=http://127.0.0.1:6385");
    conductor.seen(Some(mac), None, "fetched the kernel".into()).await;
    let seen = rig.node().await;
    assert!(
        seen["driver_internal_info"]["wait"]["reason"]
            .as_str()
            .unwrap()
            .ends_with("last seen: fetched the kernel")
    );
    let failed = rig.until(|n| n["provision_state"] == "deploy failed").await;
    let text = failed["last_error"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("Timeout reached while waiting for callback for node {uuid}")),
        "{text}"
    );
    assert!(
        text.contains("Last seen: fetched the kernel.") && text.contains("the ramdisk was not"),
        "{text}"
    );
    rig.until(|n| n["power_state"] == "power off").await;
    use ferric_controller::boot::NoPlan;
    for (mac, words) in [(mac, "deploy failed"), ("52:54:00:00:00:99".parse().unwrap(), "no port")] {
        let refused = conductor.plan_for_mac(mac).await.unwrap_err();
        assert!(matches!(&refused, NoPlan::Nothing(reason) if reason.contains(words)), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_power_on() {
    let too_large = ImageFacts { virtual_size: Some(11 << 30), format: Some("qcow2".into()), length: None };
    for (images, patch, words) in [
        (Images(Ok(too_large)), json!([]), "11811160064 bytes"),
        (Images(Err("image http://x: connecting to 192.0.2.1:80: refused".into())), json!([]), "refused"),
        (
            Images::default(),
            json!([{"op": "remove", "path": "/instance_info/image_source"}]),
            "no image_source",
        ),
        (
            Images::default(),
            json!([{"op": "remove", "path": "/instance_info/image_os_hash_value"}]),
            "no checksum",
        ),
        (
            Images::default(),
            json!([{"op": "add", "path": "/driver_info", "value": {"deploy_kernel": "/x"}}]),
            "belong together",
        ),
    ] {
        let rig = Rig::with(|_| {}, images);
        let uuid = rig.available().await;
        if patch != json!([]) {
            rig.patch(patch).await;
        }
        let answer = rig.provision("active").await;
        let text = answer.text();
        assert_eq!(answer.status, 400, "{text}");
        assert!(
            text.starts_with(&format!("Failed to validate deploy or power info for node {uuid}: ")),
            "{text}"
        );
        assert!(text.contains(words), "{text}");
        assert_eq!(rig.node().await["provision_state"], "available");
        assert!(!rig.bmc.log.lock().unwrap().contains(&"power On".to_string()));
        let verdict = rig.get("/v1/nodes/n1/validate").await;
        let bad = [&verdict["deploy"]["result"], &verdict["boot"]["result"]];
        assert!(bad.contains(&&json!(false)), "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_drive_without_room_is_refused_before_power_on() {
    let full = ImageFacts { virtual_size: Some(10 << 30), format: Some("qcow2".into()), length: None };
    let rig = Rig::with(|_| {}, Images(Ok(full)));
    rig.available().await;
    let deploy = |drive: Value| json!({"target": "active", "configdrive": drive});
    let path = "/v1/nodes/n1/states/provision";
    for (drive, words) in [
        (json!({"user_data": "x"}), "the config drive needs 1.0 MiB (1048576 bytes)"),
        (json!("bm90IGd6aXA="), "cannot be unpacked with gzip"),
    ] {
        let answer = rig.call("PUT", path, "1.115", deploy(drive)).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    assert!(rig.bmc.log.lock().unwrap().is_empty(), "nothing was done to the machine");
    rig.patch(json!([{"op": "add", "path": "/properties/local_gb", "value": 11}])).await;
    let answer = rig.call("PUT", path, "1.115", deploy(json!({"user_data": "x"}))).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_needed_to_boot_from_the_network() {
    let rig = Rig::new();
    rig.available().await;
    let port = rig.get("/v1/ports").await["ports"][0]["uuid"].as_str().unwrap().to_string();
    assert_eq!(rig.call("DELETE", &format!("/v1/ports/{port}"), "1.115", Value::Null).await.status, 204);
    assert!(rig.provision("active").await.text().contains("no port that may boot"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_writes_the_image_again_with_the_config_drive_of_before() {
    let rig = Rig::new();
    rig.available().await;
    let machine = Machine::new(&rig, Behaviour::default());
    let path = "/v1/nodes/n1/states/provision";
    let first = json!({"target": "active", "configdrive": {"user_data": "first"}});
    assert_eq!(rig.call("PUT", path, "1.115", first).await.status, 202);
    rig.until(|n| n["provision_state"] == "active").await;
    assert_eq!(rig.provision("active").await.status, 400, "rebuild is the verb for an active node");
    for drive in [Value::Null, json!({"user_data": "second"})] {
        let writes = machine.story.writes.lock().unwrap().len();
        let body = json!({"target": "rebuild", "configdrive": drive});
        assert_eq!(rig.call("PUT", path, "1.115", body).await.status, 202);
        rig.until(|n| {
            n["provision_state"] == "active" && machine.story.writes.lock().unwrap().len() > writes
        })
        .await;
    }
    let drives: Vec<Value> =
        machine.story.writes.lock().unwrap().iter().map(|write| write["configdrive"].clone()).collect();
    assert_eq!(drives.len(), 3);
    assert!(drives[0].is_string() && drives[1] == drives[0] && drives[2] != drives[0], "{drives:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn abort_and_delete_end_a_wait() {
    let rig = Rig::new();
    rig.available().await;
    let machine =
        Machine::new(&rig, Behaviour { write_time: Duration::from_secs(60), ..Behaviour::default() });
    rig.begin("active").await;
    rig.until(|n| !n["driver_internal_info"]["progress"].is_null()).await;
    let answer = rig.call("PUT", "/v1/nodes/n1/states/provision", "1.109", json!({"target": "abort"})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let aborted = rig.until(|n| n["provision_state"] == "deploy failed").await;
    assert!(aborted["last_error"].as_str().unwrap().contains("abort"));
    rig.until(|n| n["power_state"] == "power off" && n["reservation"].is_null()).await;
    assert!(rig.node().await["driver_internal_info"].get("progress").is_none());

    assert_eq!(rig.provision("active").await.status, 202, "again after a failure");
    rig.until(|n| !n["driver_internal_info"]["progress"].is_null()).await;
    assert_eq!(rig.provision("undeploy").await.status, 202);
    rig.until(|n| n["provision_state"] == "available").await;
    assert_eq!(rig.bmc.power_now(), PowerState::Off);
    assert_eq!(machine.story.count("deploy.execute_deploy_step"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_its_command_gets_it_once_more() {
    let rig = Rig::new();
    rig.available().await;
    let machine = Machine::new(&rig, Behaviour { forget_once: true, ..Behaviour::default() });
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "active").await;
    assert_eq!(machine.story.count("deploy.execute_deploy_step"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_holds_the_steps_until_it_is_taken_back() {
    let rig = Rig::new();
    rig.available().await;
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "wait call-back").await;
    assert_eq!(
        rig.call("PUT", "/v1/nodes/n1/maintenance", "1.115", json!({"reason": "look"})).await.status,
        202
    );
    let machine = Machine::new(&rig, Behaviour::default());
    rig.until(|n| !n["driver_internal_info"]["agent_url"].is_null()).await;
    assert_eq!(machine.story.count("deploy.get_deploy_steps"), 0);
    assert_eq!(rig.call("DELETE", "/v1/nodes/n1/maintenance", "1.115", Value::Null).await.status, 202);
    rig.until(|n| n["provision_state"] == "active").await;
}
