//! RAID configurations by `states/raid`, and the clean steps that make and delete volumes.

use crate::machine::{Behaviour, Machine};
use crate::rig::{Answer, Rig};
use serde_json::{Value, json};

const PATH: &str = "/v1/nodes/n1/states/raid";

/// Enrolled, manageable, with the RAID interface `agent`.
async fn manageable(rig: &Rig) {
    rig.enrol().await;
    rig.patch(json!([{"op": "add", "path": "/raid_interface", "value": "agent"}])).await;
    rig.begin("manage").await;
    rig.until(|n| n["provision_state"] == "manageable").await;
}

fn wanted() -> Value {
    json!({"logical_disks": [
        {"raid_level": "1", "size_gb": 20, "controller": "software", "is_root_volume": true, "volume_name": "system"},
        {"raid_level": "0", "size_gb": "MAX", "controller": "software"}]})
}

async fn clean(rig: &Rig, steps: &[&str]) -> Answer {
    let steps: Vec<Value> = steps.iter().map(|step| json!({"interface": "raid", "step": step})).collect();
    let body = json!({"target": "clean", "clean_steps": steps});
    rig.call("PUT", "/v1/nodes/n1/states/provision", "1.115", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_set_shown_and_taken_back() {
    let rig = Rig::new();
    manageable(&rig).await;
    assert_eq!(rig.node().await["target_raid_config"], json!({}));
    for version in ["1.12", "1.115"] {
        let answer = rig.call("PUT", PATH, version, wanted()).await;
        assert_eq!((answer.status, &answer.body), (204, &Value::Null), "{version}");
    }
    assert_eq!(rig.node().await["target_raid_config"], wanted());
    let states = rig.get("/v1/nodes/n1/states").await;
    assert_eq!((&states["target_raid_config"], &states["raid_config"]), (&wanted(), &json!({})));
    assert_eq!(rig.get("/v1/nodes/n1/validate").await["raid"], json!({"result": true}));
    for (version, body, status, words) in [
        ("1.11", wanted(), 406, "not acceptable"),
        ("1.115", json!([1]), 400, "must be a JSON object"),
        ("1.115", Value::Null, 400, "no body"),
        ("1.115", json!({"logical_disks": [{"raid_level": "9", "size_gb": 1}]}), 400, "raid_level is"),
    ] {
        let answer = rig.call("PUT", PATH, version, body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    assert_eq!(rig.call("GET", PATH, "1.115", Value::Null).await.status, 405);
    assert_eq!(rig.node().await["target_raid_config"], wanted(), "as it was");
    assert_eq!(rig.call("PUT", PATH, "1.115", json!({})).await.status, 204);
    assert_eq!(rig.node().await["target_raid_config"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_raid_has_no_such_thing() {
    let rig = Rig::new();
    manageable(&rig).await;
    rig.patch(json!([{"op": "add", "path": "/raid_interface", "value": "no-raid"}])).await;
    let answer = rig.call("PUT", PATH, "1.115", wanted()).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("does not support raid"), "{}", answer.text());
    assert_eq!(
        rig.call("PUT", PATH, "1.115", json!({})).await.status,
        204,
        "taking it back is always possible"
    );
    let answer = clean(&rig, &["delete_configuration"]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("set raid_interface to 'agent'"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_make_and_delete_the_volumes_and_the_node_says_so() {
    let rig = Rig::new();
    manageable(&rig).await;
    let answer = clean(&rig, &["create_configuration"]).await;
    assert_eq!(answer.status, 400, "before the machine is powered on");
    assert!(answer.text().contains("no target RAID configuration"), "{}", answer.text());

    assert_eq!(rig.call("PUT", PATH, "1.115", wanted()).await.status, 204);
    let machine = Machine::new(&rig, Behaviour::default());
    assert_eq!(clean(&rig, &["delete_configuration", "create_configuration"]).await.status, 202);
    let node = rig.until(|n| n["provision_state"] == "manageable" && n["reservation"].is_null()).await;
    assert_eq!(node["last_error"], Value::Null);
    assert_eq!(node["raid_config"]["logical_disks"], wanted()["logical_disks"]);
    assert!(node["raid_config"]["last_updated"].is_string());
    assert_eq!(
        (&node["properties"]["local_gb"], &node["properties"]["capabilities"]),
        (&json!(20), &json!("raid_level:1"))
    );
    assert_eq!(machine.story.count("clean.execute_clean_step"), 2);

    assert_eq!(clean(&rig, &["delete_configuration"]).await.status, 202);
    let node = rig.until(|n| n["provision_state"] == "manageable" && n["reservation"].is_null()).await;
    assert_eq!((&node["raid_config"], &node["target_raid_config"]), (&json!({}), &wanted()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_which_the_agent_makes_nothing_fails_the_cleaning() {
    let rig = Rig::new();
    manageable(&rig).await;
    let _machine = Machine::new(&rig, Behaviour::default());
    let wanted = json!({"logical_disks": [{"raid_level": "1", "size_gb": 20}]});
    assert_eq!(rig.call("PUT", PATH, "1.115", wanted).await.status, 204);
    assert_eq!(clean(&rig, &["create_configuration"]).await.status, 202);
    let node = rig.until(|n| n["provision_state"] == "clean failed").await;
    let text = node["last_error"].as_str().unwrap();
    assert!(text.contains("names no volumes") && text.contains("'controller': 'software'"), "{text}");
    assert_eq!(node["raid_config"], json!({}));
}
