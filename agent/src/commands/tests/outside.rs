//! Steps that an operator added.

use super::*;

#[tokio::test]
async fn a_step_from_outside_stands_in_the_list_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({"name": "tune", "kinds": ["deploy", "clean", "service"], "priority": 30, "interface": "bios",
                          "args": {"profile": {"description": "which", "required": true}}});
    let script = r#"printf '{"result": '; cat; echo '}'"#;
    crate::outside::tests::put(folder.path(), "tune", &manifest, script);
    let own = crate::commands::steps::own_names();
    assert!(own.contains(&"erase_devices".into()) && own.contains(&"write_image".into()), "{own:?}");
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
    let context = Context {
        shelf: crate::outside::Shelf::read(folder.path(), &own),
        ..context(machine, ScriptedWriter::new(Act::Succeed))
    };
    let executor = Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
    let run = async |name: &str, params: Value| {
        executor.run(name, params.as_object().cloned().unwrap(), true).await.unwrap()
    };
    for kind in ["deploy", "clean", "service"] {
        let asked = run(&format!("{kind}.get_{kind}_steps"), json!({"node": {}, "ports": []})).await;
        let list = &asked.command_result.unwrap()[format!("{kind}_steps")]["GenericHardwareManager"];
        let step = list.as_array().unwrap().iter().find(|step| step["step"] == "tune").unwrap();
        assert_eq!((&step["priority"], &step["interface"]), (&json!(30), &json!("bios")));
        assert_eq!(step["argsinfo"]["profile"]["required"], json!(true));
    }
    let params = |args: Value| {
        let step = json!({"interface": "bios", "step": "tune", "priority": 30, "args": args});
        json!({"step": step, "node": {"uuid": "n", "driver_info": {"x": 1}}, "ports": []})
    };
    let result = run("deploy.execute_deploy_step", params(json!({"profile": "fast"}))).await;
    let result = result.command_result.unwrap();
    assert_eq!(result["deploy_step"], json!({"interface": "bios", "step": "tune", "priority": 30}));
    let order = &result["deploy_result"];
    assert_eq!((&order["kind"], &order["args"]), (&json!("deploy"), &json!({"profile": "fast"})));
    assert_eq!((&order["root_disk"], &order["disks"][0]["name"]), (&json!("/dev/sda"), &json!("/dev/sda")));
    assert_eq!(order["node"], json!({"uuid": "n"}));
    let result = run("clean.execute_clean_step", params(json!({}))).await;
    let error = result.command_error.unwrap();
    assert_eq!(
        (error.kind.as_str(), error.details.as_str()),
        ("InvalidCommandParamsError", "the step tune needs the argument 'profile'")
    );
}

#[tokio::test]
async fn a_step_from_outside_fails_with_the_class_of_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({"name": "tune", "kinds": ["clean", "deploy", "service"]});
    crate::outside::tests::put(folder.path(), "tune", &manifest, "echo 'no such profile' >&2; exit 3");
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
    let context = Context {
        shelf: crate::outside::Shelf::read(folder.path(), &[]),
        ..context(machine, ScriptedWriter::new(Act::Succeed))
    };
    let executor = Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
    for (kind, class) in
        [("clean", "CleaningError"), ("deploy", "DeploymentError"), ("service", "ServicingError")]
    {
        let params = json!({"step": {"interface": "deploy", "step": "tune"}, "node": {}, "ports": []});
        let params = params.as_object().cloned().unwrap();
        let result = executor.run(&format!("{kind}.execute_{kind}_step"), params, true).await.unwrap();
        let (kind, details) = failed(&result);
        assert_eq!(kind, class);
        assert!(details.ends_with("tune ended with code 3; its last words: no such profile"), "{details}");
    }
}
