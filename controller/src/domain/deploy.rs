//! The steps of a deployment (interface `direct`, whole-disk images) and what an agent is told with them.

use super::fields;
use super::names;
use super::node::{Node, Object, Port};
use ferric_common::report::WriteReport;
use ferric_common::steps::Step;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Steps of the controller itself, by priority. Source: Ironic's `direct` deploy interface.
const CORE: &[(&str, u32)] = &[
    ("deploy", 100),               // boot the ramdisk
    ("write_image", 80),           // done by the agent
    ("prepare_instance_boot", 60), // boot device: disk
    ("tear_down_agent", 40),       // power off
    ("switch_to_tenant_network", 30),
    ("boot_instance", 20), // power on
];

/// Order of interfaces where priorities are equal.
const TIES: &[&str] = &["vendor", "power", "management", "firmware", "deploy", "bios", "raid"];

/// The step's name if it is one of the controller's own.
pub fn core_step(step: &Step) -> Option<&'static str> {
    CORE.iter().find(|(name, _)| step.interface == "deploy" && step.step == *name).map(|(name, _)| *name)
}

/// What an agent said of the image that it wrote, in `driver_internal_info`.
pub const IMAGE_WRITE: &str = "image_write";

/// Keeps the account that the result of a `write_image` holds. Agents of other makes give none.
pub fn keep_report(node: &mut Node, step: &Step, result: Option<&Value>) {
    if core_step(step) != Some("write_image") {
        return;
    }
    if let Some(report) = result.and_then(|r| WriteReport::read(r.pointer("/deploy_result/report")?)) {
        node.internal.insert(IMAGE_WRITE.into(), report.shown());
    }
}

/// The steps of a deployment. Before the agent is known these are the core steps; then its own steps with a
/// priority above 0 join in.
pub fn steps(agent_steps: &[Step]) -> Vec<Step> {
    let mut all: Vec<Step> = CORE
        .iter()
        .map(|(name, priority)| Step {
            step: (*name).to_string(),
            interface: "deploy".to_string(),
            priority: *priority,
            abortable: Some(true),
            ..Step::default()
        })
        .collect();
    all.extend(agent_steps.iter().filter(|s| s.priority > 0 && core_step(s).is_none()).cloned());
    sort(&mut all);
    all
}

/// Highest priority first; equal ones by interface, then name.
pub fn sort(steps: &mut [Step]) {
    let tie = |s: &Step| TIES.iter().position(|t| *t == s.interface).unwrap_or(TIES.len());
    steps.sort_by(|a, b| (b.priority, tie(a), &a.step).cmp(&(a.priority, tie(b), &b.step)));
}

/// Reads the answer to `get_deploy_steps` or `get_clean_steps`: the steps of all hardware managers, and the version that the agent
/// wants back with each step.
///
/// # Errors
/// What the answer lacks.
pub fn parse_agent_steps(answer: &Value, key: &str) -> Result<(Vec<Step>, Value), String> {
    let by_manager = answer
        .get(key)
        .and_then(Value::as_object)
        .ok_or_else(|| format!("the agent's answer has no object '{key}'"))?;
    let version = answer
        .get("hardware_manager_version")
        .cloned()
        .ok_or("the agent's answer has no 'hardware_manager_version'")?;
    let mut found: BTreeMap<(String, String), Step> = BTreeMap::new();
    for (manager, list) in by_manager {
        for raw in list.as_array().map(Vec::as_slice).unwrap_or_default() {
            let complete = ["interface", "step", "priority"].iter().all(|k| raw.get(*k).is_some());
            let step: Step = serde_json::from_value(raw.clone())
                .ok()
                .filter(|_| complete)
                .ok_or_else(|| format!("a step of {manager} lacks interface, step or priority"))?;
            let slot =
                found.entry((step.interface.clone(), step.step.clone())).or_insert_with(|| step.clone());
            if slot.priority < step.priority {
                *slot = step;
            }
        }
    }
    Ok((found.into_values().collect(), version))
}

/// The node as an agent sees it: secrets masked.
pub fn agent_node(node: &Node) -> Value {
    let mut out = Object::new();
    for field in fields::FIELDS {
        let value = fields::value(node, field.name);
        let value = match field.name {
            "driver_info" | "instance_info" | "driver_internal_info" => names::mask(&value),
            _ => value,
        };
        out.insert(field.name.to_string(), value);
    }
    Value::Object(out)
}

/// The ports as an agent sees them.
pub fn agent_ports(ports: &[Port]) -> Value {
    Value::Array(
        ports
            .iter()
            .map(|p| {
                json!({"uuid": p.uuid.to_string(), "address": p.address.to_string(), "pxe_enabled": p.pxe_enabled,
                       "extra": p.extra, "local_link_connection": p.local_link_connection,
                       "physical_network": p.physical_network, "node_uuid": p.node_uuid.to_string()})
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(interface: &str, step: &str, priority: u32) -> Step {
        Step { interface: interface.into(), step: step.into(), priority, ..Step::default() }
    }

    #[test]
    fn agent_steps_with_a_priority_join_in_order() {
        let names: Vec<String> = steps(&[
            named("deploy", "write_image", 0),
            named("deploy", "inject_files", 70),
            named("raid", "apply_configuration", 60),
            named("deploy", "erase_devices_metadata", 0),
        ])
        .iter()
        .map(Step::full_name)
        .collect();
        assert_eq!(
            names,
            [
                "deploy.deploy",
                "deploy.write_image",
                "deploy.inject_files",
                "deploy.prepare_instance_boot",
                "raid.apply_configuration",
                "deploy.tear_down_agent",
                "deploy.switch_to_tenant_network",
                "deploy.boot_instance",
            ]
        );
    }

    #[test]
    fn an_answer_that_lacks_something_says_what() {
        let version = json!({"generic": "1"});
        for (answer, words) in [
            (json!({}), "deploy_steps"),
            (json!({"deploy_steps": {}}), "hardware_manager_version"),
            (
                json!({"deploy_steps": {"M": [{"step": "x"}]}, "hardware_manager_version": version}),
                "a step of M",
            ),
        ] {
            assert!(parse_agent_steps(&answer, "deploy_steps").unwrap_err().contains(words), "{answer}");
        }
        let (found, back) = parse_agent_steps(
            &json!({"deploy_steps": {"A": [{"step": "x", "interface": "deploy", "priority": 1}],
                    "B": [{"step": "x", "interface": "deploy", "priority": 5}]}, "hardware_manager_version": version}),
            "deploy_steps",
        )
        .unwrap();
        assert_eq!((found.len(), found[0].priority, back), (1, 5, version));
    }

    #[test]
    fn the_agent_never_sees_a_password() {
        let mut node = Node::default();
        node.driver_info.insert("ipmi_password".into(), json!("hunter2"));
        assert!(!agent_node(&node).to_string().contains("hunter2"));
    }
}
