//! PATCH on a node or port: which changes are well formed, allowed, and possible now. RFC 6902 with Ironic's limits: only add,
//! replace and remove; paths of word characters and hyphens.

use super::fields::{self, Writable};
use super::node::{Node, Object};
use super::state::ProvisionState as S;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Add,
    Replace,
    Remove,
}

/// One operation of a patch.
#[derive(Clone, Debug)]
pub struct Operation {
    pub op: Op,
    pub path: Vec<String>,
    pub value: Value,
}

/// Why a patch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The request is wrong in itself (400).
    #[error("{0}")]
    Invalid(String),
    /// A field newer than the version asked for (406).
    #[error("Request not acceptable.")]
    NotAcceptable,
    /// Right, but not in this state (409).
    #[error("{0}")]
    Conflict(String),
}

fn invalid<T>(text: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Invalid(text.into()))
}

/// Reads the body of a PATCH.
pub fn parse(body: &Value) -> Result<Vec<Operation>, PatchError> {
    let Value::Array(list) = body else {
        return invalid("Schema error for patch: a list of operations is expected");
    };
    list.iter().map(parse_one).collect()
}

fn parse_one(item: &Value) -> Result<Operation, PatchError> {
    let Value::Object(map) = item else {
        return invalid("Schema error for patch: an operation is an object");
    };
    if let Some(other) = map.keys().find(|k| !["op", "path", "value"].contains(&k.as_str())) {
        return invalid(format!(
            "Schema error for patch: Additional properties are not allowed ('{other}' was unexpected)"
        ));
    }
    let op = match map.get("op").and_then(Value::as_str) {
        Some("add") => Op::Add,
        Some("replace") => Op::Replace,
        Some("remove") => Op::Remove,
        other => {
            return invalid(format!(
                "Schema error for patch: {other:?} is not one of ['add', 'replace', 'remove']"
            ));
        }
    };
    let path = map.get("path").and_then(Value::as_str).unwrap_or("");
    let segments: Vec<String> = path.split('/').skip(1).map(str::to_string).collect();
    let word = |s: &String| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if !path.starts_with('/') || !segments.iter().all(word) || segments.is_empty() {
        return invalid(format!("Schema error for patch: '{path}' does not match '^(/[\\\\w-]+)+$'"));
    }
    if op != Op::Remove && !map.contains_key("value") {
        return invalid("'add' and 'replace' operations need a value");
    }
    Ok(Operation { op, path: segments, value: map.get("value").cloned().unwrap_or(Value::Null) })
}

/// Applies one operation to a document whose top keys are the fields.
pub fn apply(document: &mut Object, operation: &Operation) -> Result<(), PatchError> {
    let failed = |why: String| {
        PatchError::Invalid(format!("Couldn't apply patch '/{}'. Reason: {why}", operation.path.join("/")))
    };
    let Some((last, parents)) = operation.path.split_last() else { return invalid("empty path") };
    let mut holder_value;
    let holder: &mut Value = match parents.split_first() {
        None => {
            holder_value = Value::Object(std::mem::take(document));
            let result = edit(&mut holder_value, last, operation).map_err(failed);
            if let Value::Object(map) = holder_value {
                *document = map;
            }
            return result;
        }
        Some((root, rest)) => {
            let mut at =
                document.get_mut(root.as_str()).ok_or_else(|| failed(format!("can't find '{root}'")))?;
            for segment in rest {
                at = match at {
                    Value::Object(map) => map.get_mut(segment.as_str()),
                    Value::Array(list) => segment.parse::<usize>().ok().and_then(|i| list.get_mut(i)),
                    _ => None,
                }
                .ok_or_else(|| failed(format!("can't find '{segment}'")))?;
            }
            at
        }
    };
    edit(holder, last, operation).map_err(failed)
}

fn edit(holder: &mut Value, key: &str, operation: &Operation) -> Result<(), String> {
    match holder {
        Value::Object(map) => match operation.op {
            Op::Remove => map
                .remove(key)
                .map(|_| ())
                .ok_or_else(|| format!("can't remove a non-existent object '{key}'")),
            Op::Replace if !map.contains_key(key) => {
                Err(format!("can't replace a non-existent object '{key}'"))
            }
            _ => {
                map.insert(key.to_string(), operation.value.clone());
                Ok(())
            }
        },
        Value::Array(list) => {
            let at = match key {
                "-" => list.len(),
                digits => digits.parse::<usize>().map_err(|_| format!("'{digits}' is not an index"))?,
            };
            match operation.op {
                Op::Add if at <= list.len() => list.insert(at, operation.value.clone()),
                Op::Replace if at < list.len() => {
                    if let Some(slot) = list.get_mut(at) {
                        *slot = operation.value.clone();
                    }
                }
                Op::Remove if at < list.len() => {
                    list.remove(at);
                }
                _ => return Err(format!("index {at} is out of range")),
            }
            Ok(())
        }
        _ => Err(format!("'{key}' is inside something that is neither object nor list")),
    }
}

/// Applies a whole patch to a node: all of it or, on error, nothing.
///
/// Order: shape, fields known and allowed by the version, the state of the node, then operation by operation.
pub fn patch_node(node: &Node, operations: &[Operation], version: u16) -> Result<Node, PatchError> {
    let mut roots: Vec<&str> = Vec::new();
    for operation in operations {
        let root = operation.path.first().map_or("", String::as_str);
        match fields::field(root) {
            Some(field) if field.since > version => return Err(PatchError::NotAcceptable),
            Some(field) if matches!(field.writable, Writable::Both | Writable::Patch) => {
                roots.push(field.name)
            }
            _ => {
                let allowed: Vec<&str> = fields::FIELDS
                    .iter()
                    .filter(|f| matches!(f.writable, Writable::Both | Writable::Patch) && f.since <= version)
                    .map(|f| f.name)
                    .collect();
                return invalid(format!(
                    "Cannot patch /{root}. Only the following can be updated: {}",
                    allowed.join(", ")
                ));
            }
        }
    }
    let release = node.maintenance
        && matches!(operations, [one] if one.op == Op::Remove && one.path == ["instance_uuid"]);
    let mut new = node.clone();
    for operation in operations {
        let root = operation.path.first().map_or("", String::as_str);
        if operation.path.len() == 1 && operation.op == Op::Remove {
            set(&mut new, root, Value::Null)?;
            continue;
        }
        if let (1, Some(_)) = (operation.path.len(), root.strip_suffix("_interface")) {
            set(&mut new, root, operation.value.clone())?;
            continue;
        }
        let mut document = Object::new();
        document.insert(root.to_string(), fields::value(&new, root));
        apply(&mut document, operation)?;
        set(&mut new, root, document.remove(root).unwrap_or(Value::Null))?;
    }
    if new.driver != node.driver {
        fields::fill_interfaces(&mut new);
    }
    if !release {
        refuse_by_state(node, &new, &roots, version)?;
    }
    Ok(new)
}

fn set(node: &mut Node, root: &str, value: Value) -> Result<(), PatchError> {
    fields::set(node, root, value).map_err(PatchError::Invalid)
}

fn refuse_by_state(old: &Node, new: &Node, roots: &[&str], version: u16) -> Result<(), PatchError> {
    let state = old.provision_state;
    let conflict = |text: String| Err(PatchError::Conflict(text));
    let busy = old.target_provision_state.is_some()
        && !state.is_failed()
        && !matches!(
            state,
            S::Inspecting | S::InspectWait | S::Error | S::Verifying | S::Servicing | S::ServiceHold
        );
    if (busy && !old.maintenance) || (state == S::Inspecting && version >= 39) {
        return conflict(format!(
            "Node {} can not be updated while a state transition is in progress.",
            old.uuid
        ));
    }
    if let Some(root) = roots.iter().find(|r| r.ends_with("_interface"))
        && !state.is_configurable()
        && !old.maintenance
        && old.interfaces != new.interfaces
    {
        return conflict(format!(
            "Node {} can not have {root} updated unless it is in one of allowed (enroll, inspecting, inspect wait, manageable, available) states or in maintenance mode.",
            old.uuid
        ));
    }
    if old.resource_class.is_some() && old.resource_class != new.resource_class && !state.is_configurable() {
        return conflict(format!(
            "Node {} can not have resource_class updated while in state \"{state}\".",
            old.uuid
        ));
    }
    if old.instance_uuid.is_some() && new.instance_uuid.is_some() && old.instance_uuid != new.instance_uuid {
        return conflict(format!(
            "Node {} is already associated with instance {}.",
            old.uuid,
            old.instance_uuid.as_deref().unwrap_or("")
        ));
    }
    if new.protected && !old.protected && !matches!(state, S::Active | S::Rescue) {
        return conflict(format!(
            "Node {} cannot be protected in state \"{state}\"; only active and rescue can be.",
            old.uuid
        ));
    }
    if new.retired && !old.retired && state == S::Available {
        return conflict(format!(
            "Node {} is available and cannot be retired; move it to manageable first.",
            old.uuid
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        let mut node = Node { driver: "ipmi".into(), provision_state: S::Available, ..Node::default() };
        node.properties = json!({"a": 1}).as_object().unwrap().clone();
        fields::fill_interfaces(&mut node);
        node
    }

    fn run(node: &Node, patch: Value, version: u16) -> Result<Node, PatchError> {
        patch_node(node, &parse(&patch)?, version)
    }

    #[test]
    fn operations_follow_the_rfc_with_ironics_limits() {
        let good = run(
            &node(),
            json!([{"op": "add", "path": "/properties/b", "value": {"c": [1]}},
                   {"op": "add", "path": "/properties/b/c/-", "value": 2},
                   {"op": "replace", "path": "/properties/a", "value": ""},
                   {"op": "add", "path": "/instance_info", "value": {"image_source": "http://x/y"}},
                   {"op": "remove", "path": "/name"},
                   {"op": "remove", "path": "/deploy_interface"}]),
            115,
        )
        .unwrap();
        assert_eq!(Value::Object(good.properties), json!({"a": "", "b": {"c": [1, 2]}}));
        assert_eq!(good.interfaces["deploy"], "autodetect");
        for bad in [
            json!({}),
            json!([{"op": "test", "path": "/name", "value": "x"}]),
            json!([{"op": "add", "path": "/name"}]),
            json!([{"op": "add", "path": "name", "value": "x"}]),
            json!([{"op": "add", "path": "/extra/a.b", "value": "x"}]),
            json!([{"op": "add", "path": "/extra/~1", "value": "x"}]),
            json!([{"op": "remove", "path": "/extra/none"}]),
            json!([{"op": "replace", "path": "/extra/none", "value": 1}]),
            json!([{"op": "add", "path": "/provision_state", "value": "active"}]),
            json!([{"op": "add", "path": "/nosuch", "value": 1}]),
            json!([{"op": "add", "path": "/name", "value": "x", "more": 1}]),
            json!([{"op": "add", "path": "/power_interface", "value": "redfish"}]),
        ] {
            assert!(matches!(run(&node(), bad.clone(), 115), Err(PatchError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_field_newer_than_the_version_is_not_acceptable() {
        let patch = json!([{"op": "add", "path": "/owner", "value": "x"}]);
        assert_eq!(run(&node(), patch.clone(), 49).unwrap_err(), PatchError::NotAcceptable);
        assert!(run(&node(), patch, 50).is_ok());
    }

    #[test]
    fn what_the_state_forbids_is_a_conflict() {
        let mut busy = node();
        busy.provision_state = S::Deploying;
        busy.target_provision_state = Some(S::Active);
        let mut active = node();
        active.provision_state = S::Active;
        active.instance_uuid = Some("6d85b1a0-0000-4000-8000-000000000000".into());
        for (node, patch) in [
            (&busy, json!([{"op": "add", "path": "/extra/a", "value": 1}])),
            (&active, json!([{"op": "replace", "path": "/boot_interface", "value": "pxe"}])),
            (
                &active,
                json!([{"op": "replace", "path": "/instance_uuid", "value": "7d85b1a0-0000-4000-8000-000000000000"}]),
            ),
        ] {
            assert!(matches!(run(node, patch.clone(), 115), Err(PatchError::Conflict(_))), "{patch}");
        }
        busy.maintenance = true;
        assert!(run(&busy, json!([{"op": "remove", "path": "/instance_uuid"}]), 115).is_ok());
    }

    #[test]
    fn leaving_maintenance_clears_reason_and_fault() {
        let mut sick = node();
        sick.maintenance = true;
        sick.fault = Some("power failure".into());
        let well =
            run(&sick, json!([{"op": "replace", "path": "/maintenance", "value": false}]), 115).unwrap();
        assert_eq!((well.maintenance, well.fault), (false, None));
    }
}
