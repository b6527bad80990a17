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
    assert_eq!(lab.machine.done(), ["sync", "battery clock", "sync", "power off"]);
}

#[tokio::test]
async fn a_clock_that_stays_wrong_keeps_a_machine_on_only_where_it_must_be_right() {
    let silent = "the clock was not set by ntp1";
    let no_battery = "refused to set no battery clock";
    for (asked, has_battery, required, says) in [
        (Ok(()), true, true, None),
        (Ok(()), false, false, None),
        (Ok(()), false, true, Some(no_battery)),
        (Err(silent), true, true, Some(silent)),
    ] {
        let machine =
            Arc::new(SmallMachine { has_no_battery_clock: !has_battery, ..SmallMachine::default() });
        let context = Context {
            rules: Rules { clock_required: required, ..Rules::default() },
            set_clock: Box::new(move || asked.map_err(str::to_owned)),
            ..context(machine.clone(), ScriptedWriter::new(Act::Succeed))
        };
        let result = Lab::of(context).run("standby.power_off", json!({})).await;
        match says {
            None => assert_eq!(machine.done().last(), Some(&"power off"), "{result:?}"),
            Some(why) => {
                let (kind, details) = failed(&result);
                assert_eq!(kind, "ClockSyncError");
                assert!(details.starts_with(&format!("Failed to sync hardware clock: {why}")), "{details}");
                assert!(!machine.done().contains(&"power off"), "{:?}", machine.done());
            }
        }
    }
}

#[tokio::test]
async fn a_synchronous_failure_is_stored_with_its_long_name() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let result = lab.run("standby.sync", json!({"x": 1})).await;
    assert_eq!(result.command_name, "standby.sync");
    assert_eq!(failed(&result), ("CommandExecutionError", "standby.sync has no parameter 'x'"));
    assert_eq!(lab.executor.results(), [result]);
}
