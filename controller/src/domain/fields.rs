//! The fields of a node on the wire: since which microversion, who may write them, how they read and are set.

use super::interfaces;
use super::node::{Node, Object, stamp};
use super::state::ProvisionState;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Who may write a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writable {
    Never,
    /// By POST only.
    Create,
    /// By PATCH only.
    Patch,
    Both,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub since: u16,
    pub writable: Writable,
}

const fn f(name: &'static str, since: u16, writable: Writable) -> Field {
    Field { name, since, writable }
}

use Writable::{Both, Create, Never, Patch};
/// Every field but the link lists, which the API adds.
pub const FIELDS: &[Field] = &[
    f("uuid", 1, Create),
    f("name", 5, Both),
    f("created_at", 1, Never),
    f("updated_at", 1, Never),
    f("chassis_uuid", 1, Both),
    f("driver", 1, Both),
    f("driver_info", 1, Both),
    f("properties", 1, Both),
    f("extra", 1, Both),
    f("instance_info", 1, Both),
    f("driver_internal_info", 3, Never),
    f("power_state", 1, Never),
    f("target_power_state", 1, Never),
    f("provision_state", 1, Never),
    f("target_provision_state", 1, Never),
    f("provision_updated_at", 1, Never),
    f("last_error", 1, Never),
    f("reservation", 1, Never),
    f("maintenance", 1, Both),
    f("maintenance_reason", 1, Never),
    f("console_enabled", 1, Never),
    f("instance_uuid", 1, Both),
    f("inspection_started_at", 6, Never),
    f("inspection_finished_at", 6, Never),
    f("clean_step", 7, Never),
    f("raid_config", 12, Never),
    f("target_raid_config", 12, Never),
    f("network_interface", 20, Both),
    f("resource_class", 21, Both),
    f("boot_interface", 31, Both),
    f("console_interface", 31, Both),
    f("deploy_interface", 31, Both),
    f("inspect_interface", 31, Both),
    f("management_interface", 31, Both),
    f("power_interface", 31, Both),
    f("raid_interface", 31, Both),
    f("vendor_interface", 31, Both),
    f("storage_interface", 33, Both),
    f("traits", 37, Never),
    f("rescue_interface", 38, Both),
    f("bios_interface", 40, Both),
    f("fault", 42, Never),
    f("deploy_step", 44, Never),
    f("conductor_group", 46, Both),
    f("automated_clean", 47, Both),
    f("protected", 48, Patch),
    f("protected_reason", 48, Patch),
    f("conductor", 49, Never),
    f("owner", 50, Both),
    f("description", 51, Both),
    f("allocation_uuid", 52, Never),
    f("retired", 61, Both),
    f("retired_reason", 61, Both),
    f("lessee", 65, Both),
    f("network_data", 66, Both),
    f("boot_mode", 75, Never),
    f("secure_boot", 75, Never),
    f("shard", 82, Both),
    f("parent_node", 83, Both),
    f("firmware_interface", 86, Both),
    f("service_step", 87, Never),
    f("disable_power_off", 95, Both),
    f("instance_name", 104, Both),
    f("health", 109, Never),
];

/// The field of this name.
pub fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.name == name)
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(stamp(at)))
}

fn step_in(node: &Node, states: &[ProvisionState]) -> Value {
    match node.flow.step() {
        Some(step) if states.contains(&node.provision_state) => {
            json!({"interface": step.interface, "step": step.step, "priority": step.priority,
                   "abortable": step.abortable.unwrap_or(false)})
        }
        _ => json!({}),
    }
}

/// The value of a field, unmasked. Unknown names are null.
pub fn value(node: &Node, name: &str) -> Value {
    use ProvisionState as S;
    match name {
        "uuid" => json!(node.uuid.to_string()),
        "name" => json!(node.name),
        "created_at" => time(node.created_at),
        "updated_at" => time(node.updated_at),
        "chassis_uuid" => json!(node.chassis_uuid),
        "driver" => json!(node.driver),
        "driver_info" => Value::Object(node.driver_info.clone()),
        "properties" => Value::Object(node.properties.clone()),
        "extra" => Value::Object(node.extra.clone()),
        "instance_info" => Value::Object(node.instance_info.clone()),
        "driver_internal_info" => Value::Object(internal_info(node)),
        "power_state" => json!(node.power_state.map(|p| p.text())),
        "target_power_state" => json!(node.power_request.map(|p| p.shown())),
        "provision_state" => json!(node.provision_state.text()),
        "target_provision_state" => json!(node.target_provision_state.map(|s| s.text())),
        "provision_updated_at" => time(node.provision_updated_at),
        "last_error" => json!(node.last_error),
        "reservation" => json!(node.reservation),
        "maintenance" => json!(node.maintenance),
        "maintenance_reason" => json!(node.maintenance_reason),
        "console_enabled" => json!(false),
        "instance_uuid" => json!(node.instance_uuid),
        "inspection_started_at" => time(node.inspection_started_at),
        "inspection_finished_at" => time(node.inspection_finished_at),
        "clean_step" => step_in(node, &[S::Cleaning, S::CleanWait, S::CleanHold, S::CleanFailed]),
        "deploy_step" => step_in(node, &[S::Deploying, S::DeployWait, S::DeployHold, S::DeployFailed]),
        "service_step" => step_in(node, &[S::Servicing, S::ServiceWait, S::ServiceHold, S::ServiceFailed]),
        "raid_config" => Value::Object(node.raid_config.clone()),
        "target_raid_config" => Value::Object(node.target_raid_config.clone()),
        "resource_class" => json!(node.resource_class),
        "traits" => json!(node.traits),
        "fault" => json!(node.fault),
        "conductor_group" => json!(node.conductor_group),
        "automated_clean" => json!(node.automated_clean),
        "protected" => json!(node.protected),
        "protected_reason" => json!(node.protected_reason),
        "owner" => json!(node.owner),
        "description" => json!(node.description),
        "retired" => json!(node.retired),
        "retired_reason" => json!(node.retired_reason),
        "lessee" => json!(node.lessee),
        "network_data" => Value::Object(node.network_data.clone()),
        "boot_mode" => json!(node.boot_mode),
        "secure_boot" => json!(node.secure_boot),
        "shard" => json!(node.shard),
        "parent_node" => json!(node.parent_node),
        "disable_power_off" => json!(node.disable_power_off),
        "instance_name" => json!(node.instance_name),
        other => match other.strip_suffix("_interface") {
            Some(kind) => json!(node.interface(kind)),
            None => Value::Null, // allocation_uuid, health, conductor (added by the API)
        },
    }
}

/// `driver_internal_info` as clients see it: what is stored, and what is known of the agent and the wait.
pub fn internal_info(node: &Node) -> Object {
    let mut out = node.internal.clone();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            out.insert(key.to_string(), value);
        }
    };
    let agent = &node.agent;
    put("agent_url", json!(agent.url));
    put("agent_version", json!(agent.version));
    put("agent_last_heartbeat", time(agent.last_heartbeat));
    put("agent_status", json!(agent.status));
    put("agent_status_message", json!(agent.status_message));
    put("agent_secret_token", json!(agent.token.as_ref().map(|_| super::names::MASK)));
    put("agent_verify_ca", json!(agent.certificate.as_ref().map(|_| "pinned by the first heartbeat")));
    put("hardware_manager_version", json!(agent.hardware_manager_version));
    if let Some(wait) = &node.wait {
        put(
            "wait",
            json!({"reason": wait.reason, "since": stamp(wait.since), "deadline": stamp(wait.deadline)}),
        );
    }
    if !node.flow.steps.is_empty() {
        let prefix = match node.provision_state {
            ProvisionState::Cleaning | ProvisionState::CleanWait => "clean",
            _ => "deploy",
        };
        let steps: Vec<Value> = node
            .flow
            .steps
            .iter()
            .map(|s| json!({"interface": s.interface, "step": s.step, "priority": s.priority}))
            .collect();
        put(&format!("{prefix}_steps"), Value::Array(steps));
        put(&format!("{prefix}_step_index"), json!(node.flow.index));
    }
    out
}

fn text(name: &str, value: &Value, longest: usize) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.len() <= longest => Ok(Some(text.clone())),
        Value::String(_) => Err(format!("'{name}' is longer than {longest} bytes")),
        other => Err(format!("Schema error for {name}: {} is not of type 'string', 'null'", clip(other))),
    }
}

fn clip(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

fn boolean(name: &str, value: &Value) -> Result<Option<bool>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(b) => Ok(Some(*b)),
        Value::String(text) => parse_bool(text).map(Some).ok_or_else(|| format!("Invalid {name}: '{text}'")),
        other => Err(format!("Invalid {name}: {} is not a boolean", clip(other))),
    }
}

/// A boolean as Ironic reads it from texts.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

fn object(name: &str, value: Value) -> Result<Object, String> {
    match value {
        Value::Null => Ok(Object::new()),
        Value::Object(map) => Ok(map),
        other => Err(format!("Schema error for {name}: {} is not of type 'object', 'null'", clip(&other))),
    }
}

fn uuid_text(name: &str, value: &Value) -> Result<Option<String>, String> {
    match text(name, value, 64)? {
        None => Ok(None),
        Some(text) => uuid::Uuid::parse_str(&text)
            .map(|id| Some(id.to_string()))
            .map_err(|_| format!("Expected UUID for {name}: {text}")),
    }
}

/// Sets a writable field; `null` means its default. Interfaces are set by [`set_interface`].
///
/// # Errors
/// A sentence for the client where the value does not fit.
pub fn set(node: &mut Node, name: &str, value: Value) -> Result<(), String> {
    match name {
        "name" => {
            let new = text(name, &value, ferric_common::limits::NAME)?.filter(|n| !n.is_empty());
            if let Some(refusal) = new.as_deref().and_then(super::names::refuse_name) {
                return Err(refusal);
            }
            node.name = new;
        }
        "driver" => {
            let driver = text(name, &value, 255)?.ok_or("'driver' cannot be removed")?;
            if interfaces::hardware_type(&driver).is_none() {
                return Err(format!(
                    "No valid host was found. Reason: No conductor service registered which supports driver {driver} for conductor group \"{}\".",
                    node.conductor_group
                ));
            }
            node.driver = driver;
        }
        "driver_info" => node.driver_info = checked_driver_info(object(name, value)?)?,
        "properties" => node.properties = checked_properties(object(name, value)?)?,
        "extra" => node.extra = object(name, value)?,
        "instance_info" => {
            node.instance_info = object(name, value)?;
            if node.instance_name.is_none() {
                node.instance_name =
                    node.instance_info.get("display_name").and_then(Value::as_str).map(str::to_string);
            }
        }
        "network_data" => node.network_data = object(name, value)?,
        "chassis_uuid" => node.chassis_uuid = uuid_text(name, &value)?,
        "parent_node" => node.parent_node = uuid_text(name, &value)?,
        "instance_uuid" => node.instance_uuid = uuid_text(name, &value)?,
        "maintenance" => {
            node.maintenance = boolean(name, &value)?.unwrap_or(false);
            if !node.maintenance {
                node.maintenance_reason = None;
                node.fault = None;
            }
        }
        "resource_class" => node.resource_class = text(name, &value, 80)?,
        "conductor_group" => {
            let group = text(name, &value, 255)?.unwrap_or_default().to_ascii_lowercase();
            if !group.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                return Err(format!("Invalid conductor_group: '{group}'"));
            }
            node.conductor_group = group;
        }
        "automated_clean" => node.automated_clean = boolean(name, &value)?,
        "protected" => node.protected = boolean(name, &value)?.unwrap_or(false),
        "protected_reason" => node.protected_reason = text(name, &value, 4096)?,
        "retired" => node.retired = boolean(name, &value)?.unwrap_or(false),
        "retired_reason" => node.retired_reason = text(name, &value, 4096)?,
        "owner" => node.owner = text(name, &value, 255)?,
        "lessee" => node.lessee = text(name, &value, 255)?,
        "description" => node.description = text(name, &value, 4096)?,
        "shard" => node.shard = text(name, &value, 255)?,
        "disable_power_off" => node.disable_power_off = boolean(name, &value)?.unwrap_or(false),
        "instance_name" => node.instance_name = text(name, &value, 255)?,
        other => match other.strip_suffix("_interface") {
            Some(kind) => set_interface(node, kind, text(name, &value, 255)?)?,
            None => return Err(format!("'{other}' cannot be set")),
        },
    }
    Ok(())
}

/// Sets one interface, or its default where `name` is `None`.
pub fn set_interface(node: &mut Node, kind: &str, name: Option<String>) -> Result<(), String> {
    let hardware =
        interfaces::hardware_type(&node.driver).ok_or_else(|| format!("unknown driver '{}'", node.driver))?;
    let chosen = match name {
        None => hardware.default_for(kind).to_string(),
        Some(name) if hardware.names(kind).contains(&name.as_str()) => name,
        Some(name) => {
            return Err(format!(
                "Could not find the following interface in the 'ironic.hardware.interfaces.{kind}' entrypoint: {name}. \
                 Valid interfaces for driver {} are {}.",
                node.driver,
                hardware.names(kind).join(", ")
            ));
        }
    };
    node.interfaces.insert(kind.to_string(), chosen);
    Ok(())
}

/// Gives every kind that has no interface, or one that the driver does not know, its default.
pub fn fill_interfaces(node: &mut Node) {
    if let Some(hardware) = interfaces::hardware_type(&node.driver) {
        for kind in interfaces::KINDS {
            let known =
                node.interfaces.get(*kind).is_some_and(|n| hardware.names(kind).contains(&n.as_str()));
            if !known {
                node.interfaces.insert((*kind).to_string(), hardware.default_for(kind).to_string());
            }
        }
    }
}

fn checked_properties(map: Object) -> Result<Object, String> {
    for key in ["local_gb", "memory_mb", "cpus"] {
        let fits = match map.get(key) {
            None | Some(Value::Null) => true,
            Some(Value::Number(n)) => n.as_u64().is_some(),
            Some(Value::String(text)) => text.is_empty() || text.parse::<u64>().is_ok(),
            _ => false,
        };
        if !fits {
            return Err(format!("The property '{key}' must be a non-negative integer"));
        }
    }
    Ok(map)
}

fn checked_driver_info(map: Object) -> Result<Object, String> {
    if map.contains_key("pxe_template") {
        return Err("driver_info 'pxe_template' is not supported".to_string());
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_set_reads_back_the_same() {
        let mut node = Node { driver: "ipmi".into(), ..Node::default() };
        for (name, given) in [
            ("name", json!("n1")),
            ("driver", json!("ipmi")),
            ("properties", json!({"local_gb": "10", "capabilities": "boot_mode:uefi", "cpu_arch": ""})),
            ("automated_clean", json!(false)),
            ("maintenance", json!(true)),
            ("conductor_group", json!("rack-1")),
            ("network_interface", json!("noop")),
            ("instance_uuid", json!("6d85b1a0-0000-4000-8000-000000000000")),
            ("retired", json!(true)),
            ("description", Value::Null),
        ] {
            set(&mut node, name, given.clone()).unwrap();
            assert_eq!(value(&node, name), given, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut node = Node { driver: "ipmi".into(), ..Node::default() };
        for (name, given) in [
            ("driver", json!("nosuch")),
            ("driver_info", json!([])),
            ("properties", json!({"local_gb": -1})),
            ("maintenance", json!("maybe")),
            ("instance_uuid", json!("x")),
            ("power_interface", json!("redfish")),
            ("resource_class", json!("x".repeat(81))),
            ("provision_state", json!("active")),
        ] {
            assert!(set(&mut node, name, given.clone()).is_err(), "{name} {given}");
        }
    }

    #[test]
    fn every_field_that_may_be_written_can_be() {
        for field in FIELDS.iter().filter(|f| f.writable != Writable::Never && f.name != "uuid") {
            let mut node = Node { driver: "ipmi".into(), ..Node::default() };
            let result = set(&mut node, field.name, Value::Null);
            assert!(result.is_ok() || field.name == "driver", "{}: {result:?}", field.name);
        }
    }
}
