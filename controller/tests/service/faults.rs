//! What goes wrong inside the service itself: a database that does not answer, work that panics.

use crate::rig::{MAC, Rig};
use ferric_controller::boot::{BootDirectory as _, NoPlan};

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
