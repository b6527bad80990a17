//! RAID configurations: what clients may ask for, which steps a node may run, what a finished step means for the node. Pure.
//!
//! Rules of the request are those of Ironic's schema; what the RAID interface `agent` can really make of it is checked by the
//! agent. Source: Ironic 39, `states/raid` and the RAID interface `agent`.

use super::node::{Node, Object, stamp};
use super::state::ProvisionState as S;
use ferric_common::steps::Step;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const LEVELS: &[&str] = &["JBOD", "0", "1", "2", "5", "6", "1+0", "5+0", "6+0"];

/// What a property of a logical disk may be.
enum Kind {
    OneOf(&'static [&'static str]),
    /// GiB, or `MAX`.
    Size,
    Text,
    Flag,
    /// 1 or more.
    Count,
    /// Names of disks, or at least two objects of device hints.
    Disks,
}

const PROPERTIES: &[(&str, Kind)] = &[
    ("raid_level", Kind::OneOf(LEVELS)),
    ("size_gb", Kind::Size),
    ("volume_name", Kind::Text),
    ("is_root_volume", Kind::Flag),
    ("share_physical_disks", Kind::Flag),
    ("disk_type", Kind::OneOf(&["hdd", "ssd"])),
    ("interface_type", Kind::OneOf(&["sata", "scsi", "sas"])),
    ("number_of_physical_disks", Kind::Count),
    ("controller", Kind::Text),
    ("physical_disks", Kind::Disks),
];
const REQUIRED: [&str; 2] = ["raid_level", "size_gb"];

impl Kind {
    /// What is wrong with the value.
    fn refuses(&self, value: &Value) -> Option<String> {
        let fits = match self {
            Kind::OneOf(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Kind::Size => value.as_u64().is_some() || value.as_str() == Some("MAX"),
            Kind::Text => value.is_string(),
            Kind::Flag => value.is_boolean(),
            Kind::Count => value.as_u64().is_some_and(|count| count > 0),
            Kind::Disks => value.as_array().is_some_and(|list| {
                list.iter().all(Value::is_string) || (list.len() >= 2 && list.iter().all(Value::is_object))
            }),
        };
        let wanted = match self {
            _ if fits => return None,
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Size => "a whole number of GiB or 'MAX'".to_string(),
            Kind::Text => "a text".to_string(),
            Kind::Flag => "true or false".to_string(),
            Kind::Count => "a whole number above 0".to_string(),
            Kind::Disks => "a list of names, or of at least two objects with device hints".to_string(),
        };
        let shown: String = value.to_string().chars().take(64).collect();
        Some(format!("is {shown}, it must be {wanted}"))
    }
}

/// Checks a configuration that a client wants. An empty one takes back what was wanted.
///
/// # Errors
/// The first rule that it breaks, with the place.
pub fn check(config: &Object) -> Result<(), String> {
    if config.is_empty() {
        return Ok(());
    }
    let bad = |why: String| Err(format!("RAID config validation error: {why}"));
    if let Some(other) = config.keys().find(|key| *key != "logical_disks") {
        return bad(format!("'{other}' is not known; only logical_disks is"));
    }
    let disks = match config.get("logical_disks") {
        Some(Value::Array(disks)) if !disks.is_empty() => disks,
        _ => return bad("logical_disks must be a list of at least one logical disk".to_string()),
    };
    for (nth, disk) in disks.iter().enumerate() {
        if let Some(why) = disk_refused(disk) {
            return bad(format!("logical disk {}: {why}", nth.saturating_add(1)));
        }
    }
    match disks.iter().filter(|disk| is_root(disk)).count() {
        0 | 1 => Ok(()),
        roots => bad(format!("one logical disk at most may be the root volume, {roots} are")),
    }
}

fn disk_refused(disk: &Value) -> Option<String> {
    let Some(disk) = disk.as_object() else { return Some("it must be an object".to_string()) };
    for (name, value) in disk {
        let Some((_, kind)) = PROPERTIES.iter().find(|(known, _)| known == name) else {
            let known: Vec<&str> = PROPERTIES.iter().map(|(known, _)| *known).collect();
            let name: String = name.chars().take(64).collect();
            return Some(format!("'{name}' is not known; there are {}", known.join(", ")));
        };
        if let Some(why) = kind.refuses(value) {
            return Some(format!("{name} {why}"));
        }
    }
    if let Some(name) = REQUIRED.iter().find(|name| !disk.contains_key(**name)) {
        return Some(format!("'{name}' is a required property"));
    }
    let lonely = disk.contains_key("physical_disks") && !disk.contains_key("controller");
    lonely.then(|| "physical_disks needs 'controller' beside it ('software' for software RAID)".to_string())
}

fn is_root(disk: &Value) -> bool {
    disk.get("is_root_volume") == Some(&Value::Bool(true))
}

/// Whether the node may run these clean steps, as far as RAID goes.
///
/// # Errors
/// What the node lacks and how it gets it.
pub fn permits(node: &Node, steps: &[Step]) -> Result<(), String> {
    for step in steps.iter().filter(|step| step.interface == "raid") {
        if node.interface("raid") == "no-raid" {
            return Err(format!(
                "The clean step {} is not possible on node {}: its RAID interface is 'no-raid'; set raid_interface to 'agent'",
                step.full_name(),
                node.uuid
            ));
        }
        if step.step == "create_configuration" && node.target_raid_config.is_empty() {
            return Err(format!(
                "Node {} has no target RAID configuration, which the clean step {} makes: set one first",
                node.uuid,
                step.full_name()
            ));
        }
    }
    Ok(())
}

/// What a step that the agent ended well means for the node. `result` is that of the command. Doing it again changes nothing.
///
/// # Errors
/// The step should have made volumes, and its result says nothing of any.
pub fn after_step(
    node: &mut Node,
    step: &Step,
    result: Option<&Value>,
    now: Timestamp,
) -> Result<(), String> {
    match (step.interface.as_str(), step.step.as_str()) {
        ("raid", "create_configuration" | "apply_configuration") => {
            let cleans = matches!(node.provision_state, S::Cleaning | S::CleanWait);
            let key = if cleans { "clean_result" } else { "deploy_result" };
            let made =
                result.and_then(|r| r.get(key)).and_then(Value::as_object).filter(|made| !made.is_empty());
            let made = made.cloned().ok_or_else(|| {
                format!(
                    "The step {} on node {} ended, but the agent names no volumes that it made. Software RAID is made of logical disks with 'controller': 'software' in target_raid_config",
                    step.full_name(),
                    node.uuid
                )
            })?;
            record(node, made, now);
        }
        ("raid", "delete_configuration") => {
            node.raid_config.clear();
            // It pointed to a volume, if RAID set it.
            node.properties.remove("root_device");
        }
        _ => {}
    }
    Ok(())
}

/// The volumes that the node has now, and what deployments read of the root volume.
fn record(node: &mut Node, mut made: Map<String, Value>, now: Timestamp) {
    let root =
        made.get("logical_disks").and_then(Value::as_array).and_then(|l| l.iter().find(|d| is_root(d)));
    if let Some(root) = root {
        if let Some(size) = root.get("size_gb").and_then(Value::as_u64) {
            node.properties.insert("local_gb".into(), json!(size));
        }
        if let Some(hint @ Value::Object(_)) = root.get("root_device_hint") {
            node.properties.insert("root_device".into(), hint.clone());
        }
        if let Some(level) = root.get("raid_level").and_then(Value::as_str) {
            let old = node.properties.get("capabilities").and_then(Value::as_str).unwrap_or_default();
            let new = with_capability(old, "raid_level", level);
            node.properties.insert("capabilities".into(), Value::String(new));
        }
    }
    made.insert("last_updated".into(), Value::String(stamp(now)));
    node.raid_config = made;
}

/// `name:value,…` with this one new or replaced.
fn with_capability(capabilities: &str, name: &str, value: &str) -> String {
    let is_other = |entry: &&str| !entry.is_empty() && entry.split(':').next().map(str::trim) != Some(name);
    let mut entries: Vec<&str> = capabilities.split(',').filter(is_other).collect();
    let own = format!("{name}:{value}");
    entries.push(&own);
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: Value) -> String {
        check(config.as_object().unwrap()).err().unwrap_or_default()
    }

    fn disk(more: Value) -> Value {
        let mut disk = json!({"raid_level": "1", "size_gb": "MAX"});
        disk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"logical_disks": [disk]})
    }

    #[test]
    fn what_ironic_takes_is_taken() {
        for good in [
            json!({}),
            disk(json!({})),
            disk(json!({"size_gb": 0, "raid_level": "JBOD"})),
            disk(json!({"controller": "software", "physical_disks": [{"size": "> 1"}, {"size": "> 1"}]})),
            disk(json!({"controller": "RAID.1", "physical_disks": ["a"], "share_physical_disks": true,
                        "disk_type": "ssd", "interface_type": "sas", "number_of_physical_disks": 1,
                        "volume_name": "v", "is_root_volume": true})),
        ] {
            assert_eq!(refused(good.clone()), "", "{good}");
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        let two_roots = json!({"logical_disks": [
            {"raid_level": "1", "size_gb": 1, "is_root_volume": true}, {"raid_level": "1", "size_gb": 1, "is_root_volume": true}]});
        for (bad, words) in [
            (json!({"logical_disks": []}), "at least one logical disk"),
            (json!({"disks": [1]}), "'disks' is not known"),
            (json!({"logical_disks": [1]}), "logical disk 1: it must be an object"),
            (json!({"logical_disks": [{"size_gb": 1}]}), "'raid_level' is a required property"),
            (json!({"logical_disks": [{"raid_level": "1"}]}), "'size_gb' is a required property"),
            (disk(json!({"raid_level": "7"})), "raid_level is \"7\", it must be one of JBOD, 0, 1,"),
            (disk(json!({"raid_level": 1})), "raid_level is 1,"),
            (disk(json!({"size_gb": -1})), "a whole number of GiB or 'MAX'"),
            (disk(json!({"size_gb": "10"})), "a whole number of GiB or 'MAX'"),
            (disk(json!({"number_of_physical_disks": 0})), "a whole number above 0"),
            (disk(json!({"is_root_volume": "yes"})), "is_root_volume is \"yes\", it must be true or false"),
            (disk(json!({"physical_disks": ["a"]})), "physical_disks needs 'controller'"),
            (
                disk(json!({"controller": "software", "physical_disks": [{"size": 1}]})),
                "at least two objects",
            ),
            (disk(json!({"colour": "red"})), "'colour' is not known"),
            (two_roots, "2 are"),
        ] {
            let text = refused(bad.clone());
            assert!(
                text.starts_with("RAID config validation error: ") && text.contains(words),
                "{bad}: {text}"
            );
        }
    }

    fn step(interface: &str, name: &str) -> Step {
        Step { interface: interface.into(), step: name.into(), ..Step::default() }
    }

    #[test]
    fn steps_need_the_interface_and_something_to_make() {
        let mut node = Node::default();
        let create = [step("deploy", "erase_devices"), step("raid", "create_configuration")];
        node.interfaces.insert("raid".into(), "no-raid".into());
        assert!(permits(&node, &create).unwrap_err().contains("set raid_interface to 'agent'"));
        assert_eq!(permits(&node, &create[..1]), Ok(()), "no RAID step");
        node.interfaces.insert("raid".into(), "agent".into());
        assert!(permits(&node, &create).unwrap_err().contains("has no target RAID configuration"));
        assert_eq!(permits(&node, &[step("raid", "delete_configuration")]), Ok(()));
        node.target_raid_config = disk(json!({})).as_object().unwrap().clone();
        assert_eq!(permits(&node, &create), Ok(()));
    }

    #[test]
    fn what_was_made_is_recorded_and_forgotten_when_it_is_deleted() {
        let now = Timestamp::UNIX_EPOCH;
        let mut node = Node { provision_state: S::CleanWait, ..Node::default() };
        node.properties = json!({"capabilities": "boot_mode:uefi,raid_level:5,x:y", "local_gb": 9})
            .as_object()
            .unwrap()
            .clone();
        let volumes = json!([{"raid_level": "1+0", "size_gb": 40, "is_root_volume": true,
                              "root_device_hint": {"wwn": "0x1"}}, {"raid_level": "0", "size_gb": "MAX"}]);
        let result = json!({"clean_result": {"logical_disks": volumes}, "clean_step": {}});
        let create = step("raid", "create_configuration");
        for _ in 0..2 {
            after_step(&mut node, &create, Some(&result), now).unwrap();
            assert_eq!(
                Value::Object(node.raid_config.clone()),
                json!({"logical_disks": volumes, "last_updated": "1970-01-01T00:00:00.000000+00:00"})
            );
            assert_eq!(
                Value::Object(node.properties.clone()),
                json!({"capabilities": "boot_mode:uefi,x:y,raid_level:1+0", "local_gb": 40, "root_device": {"wwn": "0x1"}})
            );
        }
        after_step(&mut node, &step("deploy", "erase_devices"), None, now).unwrap();
        assert!(!node.raid_config.is_empty());
        after_step(&mut node, &step("raid", "delete_configuration"), None, now).unwrap();
        assert!(node.raid_config.is_empty() && !node.properties.contains_key("root_device"));
    }

    #[test]
    fn a_step_that_made_nothing_is_a_failure() {
        let create = step("raid", "create_configuration");
        let made = json!({"logical_disks": []});
        for (state, result) in [
            (S::CleanWait, None),
            (S::CleanWait, Some(json!({"clean_result": {}}))),
            (S::CleanWait, Some(json!({"clean_result": null}))),
            (S::CleanWait, Some(json!({"deploy_result": made}))),
            (S::DeployWait, Some(json!({"clean_result": made}))),
        ] {
            let mut node = Node { provision_state: state, ..Node::default() };
            let error = after_step(&mut node, &create, result.as_ref(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(error.contains("names no volumes"), "{error}");
            assert!(node.raid_config.is_empty());
        }
    }
}
