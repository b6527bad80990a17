//! What clean, deploy and service steps have in common: the published list, the version check, the echo.

use super::{Context, Failure, Job, Params, brought, failure};
use serde_json::{Map, Value, json};

/// Which family of steps; each has its own words on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Clean,
    Deploy,
    Service,
}

impl Family {
    fn word(self) -> &'static str {
        match self {
            Family::Clean => "clean",
            Family::Deploy => "deploy",
            Family::Service => "service",
        }
    }
}

/// The manager class under which the reference agent publishes; the conductor merges all keys, so one is enough.
const MANAGER: &str = "GenericHardwareManager";

/// The conductor keeps this object and sends it back with each step; it only ever compares it as a whole. The value is
/// that of the agent whose wire we speak.
pub fn hardware_manager_version() -> Value {
    json!({"generic_hardware_manager": "1.2"})
}

/// The steps that this agent has, as published. The priority of `inject_files` is the deployment's.
pub fn published(family: Family, inject_priority: u32) -> Value {
    let steps = match family {
        Family::Clean => super::clean::published(),
        Family::Deploy => json!([
            {"step": "erase_devices_metadata", "priority": 0, "interface": "deploy", "reboot_requested": false},
            {"step": "clean_uefi_nvram", "priority": 0, "interface": "deploy", "reboot_requested": false,
             "argsinfo": super::clean::nvram_arguments()},
            {"step": "apply_configuration", "priority": 0, "interface": "raid", "reboot_requested": false,
             "argsinfo": super::raid::arguments()},
            {"step": "write_image", "priority": 0, "interface": "deploy", "reboot_requested": false},
            super::inject::published(inject_priority),
        ]),
        // In a deployment the conductor's own step of that name brings the arguments. A service has none, and the conductor
        // refuses arguments that are not named.
        Family::Service => json!([
            {"step": "delete_configuration", "priority": 0, "interface": "raid", "reboot_requested": false,
             "abortable": true},
            {"step": "apply_configuration", "priority": 0, "interface": "raid", "reboot_requested": false,
             "argsinfo": super::raid::arguments()},
            {"step": "create_configuration", "priority": 0, "interface": "raid", "reboot_requested": false,
             "abortable": true},
            {"step": "write_image", "priority": 0, "interface": "deploy", "reboot_requested": false,
             "argsinfo": super::deploy::image_arguments()},
            super::inject::published(inject_priority),
        ]),
    };
    json!({
        format!("{}_steps", family.word()): {MANAGER: steps},
        "hardware_manager_version": hardware_manager_version(),
    })
}

/// Names that a step from outside must not have.
pub fn own_names() -> Vec<String> {
    let mut names = vec!["prepare_instance_boot".to_owned()];
    for family in [Family::Clean, Family::Deploy, Family::Service] {
        let list = published(family, 0);
        let steps = list.pointer(&format!("/{}_steps/{MANAGER}", family.word())).and_then(Value::as_array);
        let name = |step: &Value| step.get("step").and_then(Value::as_str).map(str::to_owned);
        names.extend(steps.into_iter().flatten().filter_map(name));
    }
    names
}

/// Takes the node over and answers with the published steps.
pub fn list(family: Family, context: &Context, params: &Params) -> Result<Value, Failure> {
    cache(context, params);
    context.shelf.tell();
    let mut answer = published(family, context.rules.inject_priority);
    let word = family.word();
    let list = answer.pointer_mut(&format!("/{word}_steps/{MANAGER}")).and_then(Value::as_array_mut);
    if let Some(list) = list {
        list.extend(context.shelf.of(word).map(|step| step.published(word)));
    }
    Ok(answer)
}

fn cache(context: &Context, params: &Params) {
    if let Some(node @ Value::Object(_)) = params.get("node") {
        context.cache_node(node);
    }
}

/// Runs one step: version check, name, the step itself, echo.
///
/// Only `interface`, `step` and `priority` are echoed: the conductor compares the first two, and arguments may hold
/// credentials and config drives, which would then stay in every list answer.
pub fn execute(
    family: Family,
    context: &Context,
    params: &Params,
    job: &Job,
    run: impl FnOnce(&str, &Map<String, Value>) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let word = family.word();
    cache(context, params);
    check_version(params.get(&format!("{word}_version")))?;
    let none = Map::new();
    let step = params.get("step").and_then(Value::as_object).unwrap_or(&none);
    let Some(name) = step.get("step").and_then(Value::as_str) else {
        let shown: Map<String, Value> =
            step.iter().filter(|(key, _)| *key != "args").map(|(k, v)| (k.clone(), v.clone())).collect();
        let shown = Value::Object(shown);
        return Err(
            failure::COMMAND_EXECUTION.with(format!("Malformed {word}_step, no \"step\" key: {shown}"))
        );
    };
    let args = step.get("args").and_then(Value::as_object).unwrap_or(&none);
    let result = match context.shelf.find(word, name) {
        Some((manifest, program)) => brought::run(word, manifest, program, context, params, args, job)?,
        None => run(name, args)?,
    };
    let echo: Map<String, Value> = ["interface", "step", "priority"]
        .into_iter()
        .filter_map(|key| step.get(key).map(|value| (key.to_string(), value.clone())))
        .collect();
    Ok(json!({format!("{word}_result"): result, format!("{word}_step"): echo}))
}

fn check_version(theirs: Option<&Value>) -> Result<(), Failure> {
    let ours = hardware_manager_version();
    match theirs {
        None | Some(Value::Null) => Ok(()),
        Some(theirs) if *theirs == ours => Ok(()),
        Some(theirs) => Err(failure::VERSION_MISMATCH
            .with(format!("Current versions: {ours}, versions used by ironic: {theirs}"))),
    }
}

/// The failure for a step that is not there.
pub fn unknown(name: &str) -> Failure {
    failure::METHOD_NOT_FOUND.with(format!("Could not find method: {name}"))
}
