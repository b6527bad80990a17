//! The recorded probes of the real API's ramdisk endpoints, against ours: the same statuses, the same words.
//!
//! Known differences, each on purpose: a heartbeat for a node that does not exist is answered like any wrong token (400 instead
//! of 404), so that a stranger cannot tell nodes apart; texts of 405 differ in form only.

use crate::rig::{Images, Rig, object, raw_call};
use ferric_common::wire::error::ironic_text;
use ferric_controller::conductor::Network;
use serde_json::{Value, json};

const TRACE: &str = include_str!("../../../tests/golden/traces/probe-ironic.jsonl");

fn header(exchange: &Value, name: &str) -> String {
    object(&exchange["req_headers"])
        .iter()
        .find(|(k, _)| k.eq_ignore_ascii_case(name))
        .and_then(|(_, v)| v.as_str())
        .unwrap_or_default()
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn ramdisk_endpoints_answer_as_recorded() {
    let rig = Rig::with(
        |s| {
            s.require_tls = false;
            s.networks.push(Network { address: [10, 78, 0, 0].into(), prefix: 16 });
        },
        Images::default(),
    );
    let exchanges: Vec<Value> = TRACE.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    // The recorded node, with the recorded UUID and MAC, brought to where it was probed: waiting for its cleaning.
    let mut node = exchanges[0]["req_body"].clone();
    let uuid = exchanges[0]["resp_body"]["uuid"].as_str().unwrap().to_string();
    node["uuid"] = json!(uuid);
    let created = rig.call("POST", "/v1/nodes", "1.96", node).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let (ours, theirs) = (object(&created.body), object(&exchanges[0]["resp_body"]));
    let missing: Vec<&String> = theirs.keys().filter(|k| !ours.contains_key(*k)).collect();
    assert!(missing.is_empty(), "fields that clients expect: {missing:?}");
    let surplus: Vec<&String> = ours.keys().filter(|k| !theirs.contains_key(*k)).collect();
    assert!(surplus.is_empty(), "fields newer than 1.96: {surplus:?}");
    let port = rig.call("POST", "/v1/ports", "1.96", exchanges[1]["req_body"].clone()).await;
    assert_eq!(port.status, 201, "{}", port.body);
    assert_eq!(
        object(&port.body).keys().collect::<Vec<_>>(),
        object(&exchanges[1]["resp_body"]).keys().collect::<Vec<_>>()
    );
    let path = format!("/v1/nodes/{uuid}/states/provision");
    for (verb, state) in [("manage", "manageable"), ("provide", "clean wait")] {
        assert_eq!(rig.call("PUT", &path, "1.96", json!({"target": verb})).await.status, 202);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while rig.get(&format!("/v1/nodes/{uuid}")).await["provision_state"] != state {
            assert!(std::time::Instant::now() < end, "never {state}");
        }
    }

    // So that heartbeats are recorded and no agent is called at the recorded address.
    let maintenance = format!("/v1/nodes/{uuid}/maintenance");
    assert_eq!(rig.call("PUT", &maintenance, "1.96", json!({"reason": "replay"})).await.status, 202);

    let old_token = exchanges[17]["resp_body"]["config"]["agent_token"].as_str().unwrap();
    let mut token = old_token.to_string();
    let mut replayed = 0;
    for exchange in exchanges.iter().skip(17) {
        let dir = exchange["dir"].as_str().unwrap();
        if !["agent->ironic", "probe->ironic"].contains(&dir) {
            continue;
        }
        let url = exchange["url"].as_str().unwrap();
        let body = match &exchange["req_body"] {
            Value::Null => String::new(),
            Value::String(raw) => raw.clone(),
            json => json.to_string(),
        };
        let headers = [
            ("X-OpenStack-Ironic-API-Version", header(exchange, "X-OpenStack-Ironic-API-Version")),
            ("content-type", "application/json".to_string()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let body = body.replace(old_token, &token).into_bytes();
        let answer =
            raw_call(rig.address, exchange["method"].as_str().unwrap(), url, &headers, body).await.unwrap();
        let what = format!("{url} ({})", exchange["note"]);
        let stranger = url.contains("00000000-0000") && url.contains("heartbeat");
        let status = if stranger { 400 } else { exchange["status"].as_u64().unwrap() };
        let now = rig.get(&format!("/v1/nodes/{uuid}")).await;
        assert_eq!(
            u64::from(answer.status),
            status,
            "{what}: {} in state {}: {}",
            answer.body,
            now["provision_state"],
            now["last_error"]
        );
        if status >= 400 && !stranger {
            assert_eq!(answer.text(), ironic_text(&exchange["resp_body"].to_string()), "{what}");
        }
        if url.contains("/v1/lookup") && status == 200 {
            let (ours, theirs) = (&answer.body, &exchange["resp_body"]);
            for part in ["config", "node"] {
                let keys = |v: &Value| object(&v[part]).keys().cloned().collect::<Vec<_>>();
                assert_eq!(keys(ours), keys(theirs), "{what}");
            }
            let given = ours["config"]["agent_token"].as_str().unwrap();
            if theirs["config"]["agent_token"] == "******" {
                assert_eq!(given, "******", "{what}");
            } else {
                token = given.to_string();
            }
        }
        replayed += 1;
    }
    assert!(replayed > 30, "{replayed}");
}
