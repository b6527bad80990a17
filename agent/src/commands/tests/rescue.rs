//! A rescue and a lockdown, after which the agent leaves.

use super::*;

#[tokio::test]
async fn a_rescue_and_a_lockdown_are_answered_and_then_the_agent_leaves() {
    for (name, params, done) in [
        ("rescue.finalize_rescue", json!({"rescue_password": "secret"}), "rescue by a sha512 hash"),
        ("system.lockdown", json!({}), "lockdown"),
    ] {
        let (machine, writer) = (Arc::new(SmallMachine::default()), ScriptedWriter::new(Act::Succeed));
        let context = Arc::new(context(machine.clone(), writer));
        let ended = Arc::new(Notify::new());
        let executor = Arc::new(Executor::new(context.clone(), Vec::new(), None, ended));
        let bad = json!({"rescue_password": "", "x": 1});
        executor.run(name, bad.as_object().cloned().unwrap(), false).await.unwrap();
        let waiting = std::time::Duration::from_millis(50);
        let left = tokio::time::timeout(waiting, context.leave.notified()).await;
        assert!(left.is_err() && machine.done().is_empty(), "a refused command ends nothing");

        let params = params.as_object().cloned().unwrap();
        let result = executor.run(name, params, false).await.unwrap();
        assert_eq!((result.command_status, &result.command_result), (CommandStatus::Succeeded, &None));
        assert_eq!(result.command_name, name.split_once('.').unwrap().1);
        tokio::time::timeout(std::time::Duration::from_secs(10), context.leave.notified()).await.unwrap();
        assert_eq!(machine.done(), [done]);
    }
}

#[tokio::test]
async fn a_rescue_with_a_bad_password_says_what_is_wrong() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let params = json!({"rescue_password": "x", "hashed": true}).as_object().cloned().unwrap();
    let refused = lab.executor.run("rescue.finalize_rescue", params, false).await.unwrap_err().to_string();
    assert!(refused.starts_with("Invalid command parameters: ") && refused.contains("crypt(5)"), "{refused}");
    assert!(lab.machine.done().is_empty());
}
