//! What goes wrong inside the service itself: a database that does not answer, work that panics.

use crate::machine::{Behaviour, Machine};
use crate::rig::{MAC, Rig};
use ferric_controller::boot::{BootDirectory as _, NoPlan};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_is_not_an_answer_about_a_machine() {
    let rig = Rig::new();
    let uuid = rig.enrol().await.parse().unwrap();
    let conductor = rig.conductor().clone();
    let mac = MAC.parse().unwrap();
    assert_eq!(conductor.knows(mac).await, Ok(true));
    let table = |from: &str, to: &str| {
        let database = rusqlite::Connection::open(rig.settings.state_dir.join("db")).unwrap();
        database.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), []).unwrap();
    };
    let words = "the database did not do it";
    let unknown = |plan: NoPlan| matches!(plan, NoPlan::Unknown(why) if why.contains(words));
    table("ports", "ports_away");
    assert!(conductor.knows(mac).await.unwrap_err().contains(words), "neither enrolled nor a stranger");
    assert!(unknown(conductor.plan_for_mac(mac).await.unwrap_err()));
    table("ports_away", "ports");
    table("nodes", "nodes_away");
    assert!(unknown(conductor.plan_for_mac(mac).await.unwrap_err()));
    assert!(unknown(conductor.plan_for_node(uuid).await.unwrap_err()));
    table("nodes_away", "nodes");
    let plan = conductor.plan_for_mac(mac).await.unwrap_err();
    assert!(matches!(&plan, NoPlan::Nothing(reason) if reason.contains("'enroll'")), "{plan:?}");
}

/// What must be so after a panic: the node is free, its error says what happened and nothing of the panic's own words.
fn is_let_go(node: &Value) {
    assert_eq!(node["reservation"], Value::Null);
    let text = node["last_error"].as_str().unwrap();
    assert!(text.contains("a fault in the controller itself") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_the_flow_and_lets_the_node_go() {
    let rig = Rig::new();
    rig.available().await;
    let _machine = Machine::new(&rig, Behaviour::default());
    rig.bmc.panics.store(1, Ordering::SeqCst);
    rig.begin("active").await;
    let failed = rig.until(|n| n["provision_state"] == "deploy failed" && n["reservation"].is_null()).await;
    is_let_go(&failed);
    assert_eq!(failed["target_provision_state"], "active");
    rig.begin("active").await;
    rig.until(|n| n["provision_state"] == "active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_verifying_leads_back_to_enroll() {
    let rig = Rig::new();
    rig.enrol().await;
    rig.bmc.panics.store(1, Ordering::SeqCst);
    rig.begin("manage").await;
    is_let_go(&rig.until(|n| n["provision_state"] == "enroll" && !n["last_error"].is_null()).await);
    rig.begin("manage").await;
    rig.until(|n| n["provision_state"] == "manageable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_a_power_action() {
    let rig = Rig::new();
    rig.available().await;
    rig.bmc.panics.store(1, Ordering::SeqCst);
    let on = json!({"target": "power on"});
    let answer = rig.call("PUT", "/v1/nodes/n1/states/power", "1.115", on.clone()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let node = rig.until(|n| n["target_power_state"].is_null() && !n["last_error"].is_null()).await;
    is_let_go(&node);
    assert_eq!(node["provision_state"], "available");
    assert_eq!(rig.call("PUT", "/v1/nodes/n1/states/power", "1.115", on).await.status, 202);
    rig.until(|n| n["power_state"] == "power on" && n["reservation"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_over_a_failed_machine_is_not_repeated_for_ever() {
    let rig = Rig::new();
    rig.available().await;
    // The flow, and then the power-off after its failure.
    rig.bmc.panics.store(2, Ordering::SeqCst);
    rig.begin("active").await;
    let failed =
        rig.until(|n| n["last_error"].as_str().is_some_and(|e| e.contains("may still have power"))).await;
    is_let_go(&failed);
    assert_eq!(failed["provision_state"], "deploy failed");
    let uuid = failed["uuid"].as_str().unwrap();
    let talks = rig.bmc.talks(uuid);
    rig.begin("deleted").await;
    rig.until(|n| n["provision_state"] == "available" && n["reservation"].is_null()).await;
    assert!(rig.bmc.talks(uuid) > talks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_the_database_kept_is_taken_away_later() {
    let rig = Rig::new();
    rig.available().await;
    // Whoever had it last writes once more when it lets go.
    rig.until(|n| n["reservation"].is_null()).await;
    // As after work whose end the database did not take.
    let database = rusqlite::Connection::open(rig.settings.state_dir.join("db")).unwrap();
    database.execute("UPDATE nodes SET reservation = 'test-conductor'", []).unwrap();
    assert_eq!(rig.node().await["reservation"], "test-conductor");
    let reason = json!({"reason": "looked at"});
    assert_eq!(rig.call("PUT", "/v1/nodes/n1/maintenance", "1.115", reason).await.status, 202);
    rig.until(|n| n["reservation"].is_null()).await;
}
