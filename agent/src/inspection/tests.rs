//! Whole inspections of a machine in memory: what is posted, and what is answered.

use super::post::Post;
use super::*;
use crate::fetch::{Answer, FetchError};
use crate::inventory::bmc::Bmc;
use crate::platform::fake::machine::{FakeMachine, facts};
use crate::platform::machine::LogFile;
use bytes::Bytes;
use ferric_common::wire::inventory::{Interface, Inventory};
use serde_json::json;
use std::sync::Mutex;
use url::Url;

const UNIT: &[u8] = &[0x02, 0x07, 4, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x04, 0x02, 5, 0x31, 0, 0, 0, 0];

/// Takes everything, and keeps the body.
#[derive(Default)]
struct Controller(Mutex<Option<Value>>);

impl Post for Controller {
    async fn post(&self, _: &Url, body: Bytes) -> Result<Answer, FetchError> {
        *self.0.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
        let body = r#"{"uuid": "785cae8c-ebc6-4405-b5ac-92e4d182220f"}"#;
        Ok(Answer { status: 202, headers: http::HeaderMap::new(), body: body.into() })
    }
}

fn machine() -> FakeMachine {
    let busy = || Err(crate::platform::machine::MachineError::Busy { what: "x".into(), by: "a test".into() });
    let nic = |name: &str| Interface {
        name: name.into(),
        mac_address: "52:54:00:ab:cd:01".into(),
        driver: Some("i40e".into()),
        pci_address: Some(format!("pci of {name}")),
        ..Interface::default()
    };
    let mut machine = FakeMachine::new()
        .with_disk(facts("/dev/sda", 20 << 30, "LARGE"), busy)
        .with_disk(facts("/dev/sdb", 10 << 30, "SMALL"), busy);
    machine.inventory = Inventory { interfaces: vec![nic("eno1"), nic("eno2")], ..machine.inventory };
    machine.bmc = Bmc { address: Some("10.0.0.5".into()), v6address: Some("::/0".into()), mac: None };
    machine.lldp = [("eno1".to_owned(), UNIT.to_vec())].into();
    machine.logs = vec![LogFile { name: "dmesg".into(), bytes: b"hello".to_vec() }];
    machine
}

async fn inspect(collectors: &str, collect_lldp: bool) -> (Result<Option<String>, InspectionError>, Value) {
    let machine: Arc<dyn Machine> = Arc::new(machine());
    let settings = Inspection {
        urls: vec![Url::parse("http://192.0.2.1/v1/continue_inspection").unwrap()],
        collectors: collectors.split(',').map(str::to_owned).collect(),
        collect_lldp,
        lldp_timeout: Duration::from_secs(30),
        dhcp_wait: Duration::from_secs(60),
        dhcp_all: false,
    };
    let nowhere = tempfile::tempdir().unwrap();
    let roots = Roots { sys: nowhere.path().into(), proc: nowhere.path().into() };
    let managers = json!({"generic_hardware_manager": "1.2"});
    let controller = Controller::default();
    let result =
        Inspector { machine: &machine, settings: &settings, roots, managers }.inspect(&controller).await;
    (result, controller.0.into_inner().unwrap().unwrap())
}

#[tokio::test]
async fn the_default_collectors_fill_what_ironic_reads() {
    let (result, body) = inspect("default,logs", false).await;
    assert_eq!(result.unwrap().as_deref(), Some("785cae8c-ebc6-4405-b5ac-92e4d182220f"));
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["boot_interface", "configuration", "error", "inventory", "logs", "root_disk"]);
    assert_eq!(body["error"], Value::Null);
    assert_eq!(body["root_disk"]["serial"], "SMALL");
    assert_eq!(
        body["configuration"],
        json!({"collectors": ["default", "logs"], "managers": [{"name": "generic_hardware_manager", "version": "1.2"}]})
    );
    assert_eq!(body["inventory"]["bmc_address"], "10.0.0.5");
    assert_eq!(body["inventory"]["interfaces"][0]["lldp"], Value::Null);
    assert!(body["inventory"].get("bmc_mac").is_none());
    // gzip's magic in base64.
    assert!(body["logs"].as_str().unwrap().starts_with("H4sI"));
}

#[tokio::test]
async fn lldp_is_raw_by_interface_and_in_the_inventory_if_asked_for() {
    let heard = json!([[1, "04aabbccddeeff"], [2, "0531"], [0, ""]]);
    let (_, body) = inspect("default,lldp", false).await;
    assert_eq!(body["lldp_raw"], json!({"eno1": heard, "eno2": []}));
    assert_eq!(body["inventory"]["interfaces"][0]["lldp"], Value::Null);
    let (_, body) = inspect("default", true).await;
    assert_eq!(body.get("lldp_raw"), None);
    assert_eq!(body["inventory"]["interfaces"][0]["lldp"], heard);
    assert_eq!(body["inventory"]["interfaces"][1]["lldp"], json!([]));
}

#[tokio::test]
async fn a_collector_that_fails_is_told_and_the_others_are_posted() {
    let (result, body) = inspect("pci-devices,dmi-decode,extra-hardware,usb-devices", false).await;
    let words = result.unwrap_err().to_string();
    assert_eq!(body["error"], words.as_str());
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(lines[0], "The following errors were encountered:");
    assert!(lines[1].starts_with("* listing the PCI devices: "), "{words}");
    assert_eq!(lines[2], "* this machine has no SMBIOS tables for the collector dmi-decode");
    assert!(lines[3].starts_with("* the collector extra-hardware is not in this agent"), "{words}");
    assert_eq!((lines.len(), &body["usb_devices"]), (4, &json!([])));
}

#[tokio::test]
async fn an_unknown_collector_is_refused_in_words_before_anything_is_collected() {
    let (result, body) = inspect("default,tea-leaves", false).await;
    let words = result.unwrap_err().to_string();
    assert!(
        words.contains("* there is no inspection collector 'tea-leaves'; this agent has default, logs, "),
        "{words}"
    );
    assert_eq!(body, json!({"error": words}));
}
