//! Commands against a small machine and a scripted writer, and the executor's rules that HTTP does not show.

mod clean;
mod inject_files;
mod install_bootloader;
mod outside;
mod rescue;
mod servers;
mod service;
mod standby;
mod write_image;

use super::*;
use crate::executor::Executor;
use crate::testing::{Act, ScriptedWriter, SmallMachine, context, image_info};
use ferric_common::wire::command::{CommandResult, CommandStatus};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

struct Lab {
    executor: Arc<Executor>,
    machine: Arc<SmallMachine>,
    ended: Arc<Notify>,
    orders: Arc<std::sync::Mutex<Vec<(image_info::Image, usize)>>>,
}

fn lab(machine: SmallMachine, act: Act) -> Lab {
    let (machine, writer) = (Arc::new(machine), ScriptedWriter::new(act));
    let (orders, ended) = (writer.orders.clone(), Arc::new(Notify::new()));
    let context = Arc::new(context(machine.clone(), writer));
    Lab {
        executor: Arc::new(Executor::new(context, Vec::new(), None, ended.clone())),
        machine,
        ended,
        orders,
    }
}

impl Lab {
    /// On a context of the test's own; what was written and asked of the machine is not kept.
    fn of(context: Context) -> Lab {
        let ended = Arc::new(Notify::new());
        Lab {
            executor: Arc::new(Executor::new(Arc::new(context), Vec::new(), None, ended.clone())),
            machine: Arc::default(),
            ended,
            orders: Arc::default(),
        }
    }
    async fn run(&self, name: &str, params: Value) -> CommandResult {
        let params = params.as_object().cloned().unwrap();
        self.executor.run(name, params, true).await.unwrap()
    }
    async fn write(&self, args: Value) -> CommandResult {
        let step = json!({"interface": "deploy", "step": "write_image", "args": args});
        let node = json!({"uuid": "n", "instance_info": {}, "properties": {}});
        self.run("deploy.execute_deploy_step", json!({"step": step, "node": node, "ports": []})).await
    }
}

fn failed(result: &CommandResult) -> (&str, &str) {
    assert_eq!(result.command_status, CommandStatus::Failed, "{result:?}");
    let error = result.command_error.as_ref().unwrap();
    (&error.kind, &error.details)
}

#[tokio::test]
async fn a_step_for_another_version_is_a_mismatch_and_null_is_none() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let with = |version: Value| json!({"step": {"step": "prepare_instance_boot", "interface": "deploy"}, "node": {}, "ports": [], "deploy_version": version});
    let result = lab.run("deploy.execute_deploy_step", with(json!({"generic_hardware_manager": "0"}))).await;
    assert_eq!(result.command_status, CommandStatus::VersionMismatch);
    assert_eq!(result.command_error.unwrap().kind, "VersionMismatch");
    for version in [Value::Null, steps::hardware_manager_version()] {
        let result = lab.run("deploy.execute_deploy_step", with(version)).await;
        assert_eq!(result.command_status, CommandStatus::Succeeded);
    }
}

#[test]
fn a_missing_namespace_is_told_from_a_missing_command() {
    assert!(find("standby", "sync").is_ok());
    assert_eq!(find("standby", "nosuch").err(), Some(Unknown::Command));
    assert_eq!(find("flow", "start_flow").err(), Some(Unknown::Extension));
}

#[test]
fn parameters_are_checked_by_name() {
    let check = |extension, name, params: Value| {
        let params = params.as_object().cloned().unwrap();
        find(extension, name).unwrap().check_names(&params).map_err(|f| f.details)
    };
    assert_eq!(check("standby", "sync", json!({})), Ok(()));
    assert_eq!(check("standby", "sync", json!({"x": 1})), Err("standby.sync has no parameter 'x'".into()));
    assert_eq!(
        check("clean", "get_clean_steps", json!({"node": {}})),
        Err("clean.get_clean_steps needs the parameter 'ports'".into())
    );
    assert_eq!(
        check("deploy", "execute_deploy_step", json!({"step": {}, "node": {}, "ports": [], "new": 1})),
        Ok(())
    );
}
