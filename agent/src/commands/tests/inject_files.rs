//! Files into the deployed system: the checks before it.

use super::*;

#[tokio::test]
async fn files_of_the_node_and_of_the_step_are_checked_before_anything_is_touched() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    let run = |properties: Value, args: Value| {
        let step = json!({"interface": "deploy", "step": "inject_files", "args": args});
        let node = json!({"uuid": "n", "properties": properties});
        lab.run("service.execute_service_step", json!({"step": step, "node": node, "ports": []}))
    };
    let result = run(json!({"inject_files": [{"path": "/etc/a"}]}), json!({})).await;
    assert_eq!(
        failed(&result),
        (
            "InvalidCommandParamsError",
            "Validation of files failed: file 1 ('/etc/a'): it needs content, a text, or deleted"
        )
    );
    let file = json!([{"path": "/etc/a", "content": ""}]);
    let result = run(json!({}), json!({"files": file, "verify_ca": "/ca"})).await;
    assert_eq!(failed(&result), ("InvalidCommandParamsError", "verify_ca must be true or false"));
    let result = run(json!({"inject_files": null}), json!({"files": []})).await;
    assert_eq!(result.command_result.unwrap()["service_result"], Value::Null, "nothing to do is no failure");
}
