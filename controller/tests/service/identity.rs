//! Who may speak for a node: tokens, addresses, certificates.

use crate::machine::{Behaviour, Machine};
use crate::rig::{Images, MAC, Rig};
use ferric_controller::conductor::Network;
use serde_json::{Value, json};
use std::net::IpAddr;

async fn waiting() -> (Rig, String) {
    let rig = Rig::with(
        |s| {
            s.networks.push(Network { address: [10, 0, 0, 0].into(), prefix: 8 });
            s.api_url = "http://10.0.0.1:6385".into();
        },
        Images::default(),
    );
    let uuid = rig.available().await;
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "wait call-back").await;
    (rig, uuid)
}

async fn lookup(rig: &Rig) -> Value {
    let answer = rig.call("GET", &format!("/v1/lookup?addresses={MAC}"), "1.62", Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn pem() -> String {
    rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap().cert.pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_given_once_and_ends_with_the_boot() {
    let (rig, uuid) = waiting().await;
    let first = lookup(&rig).await;
    let token = first["config"]["agent_token"].as_str().unwrap().to_string();
    assert_eq!(token.len(), 43);
    assert_eq!(lookup(&rig).await["config"]["agent_token"], "******");
    assert!(!rig.node().await.to_string().contains(&token));
    let database = std::fs::read(rig.settings.state_dir.join("db-wal")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&database).contains(&token), "sealed in the store");

    rig.call("PUT", "/v1/nodes/n1/states/provision", "1.115", json!({"target": "abort"})).await;
    rig.until(|n| n["provision_state"] == "deploy failed" && n["reservation"].is_null()).await;
    let beat = json!({"callback_url": "https://127.0.0.1:9999", "agent_token": token, "agent_version": "1", "agent_verify_ca": pem()});
    let answer = rig.call("POST", &format!("/v1/heartbeat/{uuid}"), "1.68", beat).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, "Invalid or missing agent token received."));
    let miss = rig.call("GET", &format!("/v1/lookup?addresses={MAC}"), "1.62", Value::Null).await;
    assert_eq!(miss.status, 404, "no lookup in a state that boots nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_nothing_from_a_heartbeat() {
    let (rig, uuid) = waiting().await;
    lookup(&rig).await;
    let other = "11111111-2222-4333-8444-555555555555";
    for node in [uuid.as_str(), other, "no-uuid", "n1"] {
        for token in ["wrong", "******", ""] {
            let beat = json!({"callback_url": "ftp://x", "agent_token": token, "agent_version": "1"});
            let answer = rig.call("POST", &format!("/v1/heartbeat/{node}"), "1.68", beat).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (400, "Invalid or missing agent token received."),
                "{node}"
            );
        }
    }
    assert!(rig.node().await["driver_internal_info"].get("agent_url").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_heartbeat_fixes_address_and_certificate() {
    let (rig, uuid) = waiting().await;
    let token = lookup(&rig).await["config"]["agent_token"].clone();
    let path = format!("/v1/heartbeat/{uuid}");
    let pem = pem();
    let beat = |url: &str, ca: &str| json!({"callback_url": url, "agent_token": token, "agent_version": "1", "agent_verify_ca": ca});
    for (url, words) in [
        ("ftp://127.0.0.1:9999", "callback_url"),
        ("http://127.0.0.1:9999", "TLS is required by configuration"),
        ("https://agent.example:9999", "must be an IP address"),
        ("https://127.0.0.1", "name the port"),
        ("https://user@127.0.0.1:9999", "only scheme, address and port"),
        ("https://127.0.0.1:9999/path", "only scheme, address and port"),
        ("https://127.0.0.1:9999?x=1", "only scheme, address and port"),
        ("https://169.254.169.254:9999", "cannot be called"),
        ("https://224.0.0.1:9999", "cannot be called"),
        ("https://127.0.0.2:9999", "cannot be called"),
        ("https://10.0.0.1:9999", "own address"),
        ("https://192.0.2.7:9999", "neither the sender's"),
    ] {
        let answer = rig.call("POST", &path, "1.68", beat(url, &pem)).await;
        assert_eq!(answer.status, 400, "{url}");
        assert!(answer.text().contains(words), "{url}: {}", answer.text());
    }
    let answer = rig.call("POST", &path, "1.68", beat("https://127.0.0.1:9999", "junk")).await;
    assert!(answer.text().contains("agent_verify_ca"), "{}", answer.text());
    let mut bare = beat("https://127.0.0.1:9999", &pem);
    bare.as_object_mut().unwrap().remove("agent_verify_ca");
    assert!(rig.call("POST", &path, "1.68", bare).await.text().contains("needs agent_verify_ca"));

    assert_eq!(rig.call("POST", &path, "1.68", beat("https://127.0.0.1:9999", &pem)).await.status, 202);
    let moved = rig.call("POST", &path, "1.68", beat("https://127.0.0.1:9998", &pem)).await;
    assert_eq!(moved.text(), "Detected change in ramdisk provided \"callback_url\"");
    let other = rig.call("POST", &path, "1.68", beat("https://127.0.0.1:9999", &self::pem())).await;
    assert_eq!((other.status, other.text().contains("certificate")), (400, true));
    assert_eq!(rig.call("POST", &path, "1.68", beat("https://127.0.0.1:9999", &pem)).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_stops_the_deployment_before_the_disk_is_written() {
    let (rig, _) = waiting().await;
    lookup(&rig).await;
    let conductor = rig.conductor().clone();
    let rogue: IpAddr = [10, 0, 0, 66].into();
    let started = std::time::Instant::now();
    // Through the conductor, since a test has one address only.
    let runtime = tokio::runtime::Handle::current();
    let answer = runtime
        .spawn(async move { conductor.lookup(vec![MAC.parse().unwrap()], None, 62, rogue).await })
        .await
        .unwrap()
        .unwrap();
    assert!(answer.token.is_none());
    let failed = rig.until(|n| n["provision_state"] == "deploy failed").await;
    assert!(started.elapsed().as_secs() < 5);
    let text = failed["last_error"].as_str().unwrap();
    assert!(text.contains("second machine at 10.0.0.66") && text.contains("127.0.0.1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_another_certificate_is_not_spoken_to() {
    let rig = Rig::new();
    rig.available().await;
    let machine = Machine::new(&rig, Behaviour { other_certificate: true, ..Behaviour::default() });
    rig.begin("active").await;
    let failed = rig.until(|n| n["provision_state"] == "deploy failed").await;
    assert!(
        failed["last_error"].as_str().unwrap().contains("another certificate"),
        "{}",
        failed["last_error"]
    );
    assert!(machine.story.commands.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_never_used_is_replaced_after_a_restart_only() {
    let (mut rig, uuid) = waiting().await;
    let lost = lookup(&rig).await["config"]["agent_token"].clone();
    rig.kill();
    rig.start();
    rig.until(|n| n["provision_state"] == "wait call-back").await;
    let second = lookup(&rig).await["config"]["agent_token"].clone();
    assert!(second != lost && second != "******");
    assert_eq!(lookup(&rig).await["config"]["agent_token"], "******");
    let beat = |token: &Value| json!({"callback_url": "https://127.0.0.1:9999", "agent_token": token, "agent_version": "1", "agent_verify_ca": pem()});
    let path = format!("/v1/heartbeat/{uuid}");
    assert_eq!(rig.call("POST", &path, "1.68", beat(&lost)).await.status, 400);
    assert_eq!(rig.call("POST", &path, "1.68", beat(&second)).await.status, 202);
    rig.kill();
    rig.start();
    rig.until(|n| n["provision_state"] == "wait call-back").await;
    assert_eq!(lookup(&rig).await["config"]["agent_token"], "******", "proven: never again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_leads_to_no_single_node_is_a_bare_404() {
    let (rig, _) = waiting().await;
    let other = json!({"driver": "fake-hardware", "name": "n2"});
    let uuid = rig.call("POST", "/v1/nodes", "1.115", other).await.body["uuid"].clone();
    let port = json!({"node_uuid": uuid, "address": "52:54:00:00:00:02"});
    assert_eq!(rig.call("POST", "/v1/ports", "1.115", port).await.status, 201);
    for query in [
        "addresses=52:54:00:00:00:99",
        "addresses=52:54:00:00:00:01,52:54:00:00:00:02",
        "addresses=52:54:00:00:00:02",
    ] {
        let answer = rig.call("GET", &format!("/v1/lookup?{query}"), "1.62", Value::Null).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, "Resource could not be found."), "{query}");
    }
    let many = ["52:54:00:00:00:01"; 65].join(",");
    let path = format!("/v1/lookup?addresses={many}");
    assert_eq!(rig.call("GET", &path, "1.62", Value::Null).await.status, 400);
}
