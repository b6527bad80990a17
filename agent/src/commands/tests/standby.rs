//! Flushing and the end of the machine, and how results of commands are kept.

use super::*;

#[tokio::test]
async fn the_end_of_an_asynchronous_command_forces_a_heartbeat() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    lab.run("standby.sync", json!({})).await;
    let waiting = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(waiting, lab.ended.notified()).await.is_err(), "a synchronous one does not");
    lab.run("standby.power_off", json!({})).await;
    tokio::time::timeout(std::time::Duration::from_secs(10), lab.ended.notified()).await.unwrap();
    assert_eq!(lab.machine.done(), ["sync", "sync", "power off"]);
}

#[tokio::test]
async fn a_synchronous_failure_is_stored_with_its_long_name() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let result = lab.run("standby.sync", json!({"x": 1})).await;
    assert_eq!(result.command_name, "standby.sync");
    assert_eq!(failed(&result), ("CommandExecutionError", "standby.sync has no parameter 'x'"));
    assert_eq!(lab.executor.results(), [result]);
}
