//! `/v1/nodes/N/states` and the boot device.

use super::Api;
use super::answer::{Answer, Problem};
use super::nodes::bool_param;
use super::request::{Request, unexpected};
use crate::conductor::{Drive, PowerRequest, ProvisionRequest};
use crate::domain::fields;
use crate::domain::node::Node;
use crate::domain::state::{self, Event, PowerTarget};
use crate::drivers::BootDevice;
use ferric_common::steps::Step;
use http::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;

const BOOT_DEVICES: &[(&str, BootDevice)] = &[
    ("pxe", BootDevice::Pxe),
    ("disk", BootDevice::Disk),
    ("cdrom", BootDevice::Cdrom),
    ("bios", BootDevice::Bios),
    ("safe", BootDevice::Safe),
];

pub fn boot_device_names() -> Vec<&'static str> {
    BOOT_DEVICES.iter().map(|(name, _)| *name).collect()
}

/// Keys of `states/provision`: since which version, and with which events they go.
const KEYS: &[(&str, u16, &[Event])] = &[
    ("target", 1, &[]),
    ("configdrive", 1, &[Event::Deploy, Event::Rebuild]),
    ("clean_steps", 15, &[Event::Clean]),
    ("deploy_steps", 69, &[Event::Deploy, Event::Rebuild]),
    ("service_steps", 87, &[Event::Service]),
    ("rescue_password", 38, &[Event::Rescue]),
    ("disable_ramdisk", 70, &[Event::Clean, Event::Service]),
    ("runbook", 92, &[Event::Clean, Event::Service]),
];

impl Api {
    pub(super) async fn states(&self, r: &Request, node: &Node, path: &[&str]) -> Result<Answer, Problem> {
        let get = matches!(r.method, Method::GET | Method::HEAD);
        match (path, &r.method) {
            ([], _) if get => Ok(Answer::ok(self.node_states(r, node))),
            ([], _) => Err(Problem::method_not_allowed("GET")),
            (["power"], &Method::PUT) => self.power(r, node).await,
            (["provision"], &Method::PUT) => self.provision(r, node).await,
            (["raid"], &Method::PUT) => self.raid(r, node).await,
            (["power" | "provision" | "raid"], _) => Err(Problem::method_not_allowed("PUT")),
            (["console"], _) if get => {
                Ok(Answer::ok(json!({"console_enabled": false, "console_info": null})))
            }
            _ => Err(Problem::not_found_path()),
        }
    }

    fn node_states(&self, r: &Request, node: &Node) -> Value {
        let mut names: Vec<String> = [
            "console_enabled",
            "last_error",
            "power_state",
            "provision_state",
            "provision_updated_at",
            "target_power_state",
            "target_provision_state",
        ]
        .map(str::to_string)
        .to_vec();
        for name in ["raid_config", "target_raid_config", "boot_mode", "secure_boot"] {
            if fields::field(name).is_some_and(|f| f.since <= r.version) {
                names.push(name.to_string());
            }
        }
        let mut shown = self.render(r, node, Some(&names));
        if let Some(map) = shown.as_object_mut() {
            map.remove("links");
        }
        shown
    }

    async fn power(&self, r: &Request, node: &Node) -> Result<Answer, Problem> {
        let body = r.object()?;
        if let Some(name) = body.keys().find(|k| !["target", "timeout"].contains(&k.as_str())) {
            return Err(unexpected(name));
        }
        let text = body
            .get("target")
            .and_then(Value::as_str)
            .ok_or_else(|| Problem::invalid("Missing mandatory parameter: target"))?;
        let target = PowerTarget::from_text(text).ok_or_else(|| {
            Problem::invalid(format!(
                "Cannot set power state to \"{}\".",
                text.chars().take(64).collect::<String>()
            ))
        })?;
        let timeout = body.get("timeout").filter(|t| !t.is_null());
        if r.version < target.since() || (timeout.is_some() && r.version < 27) {
            return Err(Problem::too_new());
        }
        let timeout = timeout.map(seconds).transpose()?;
        self.conductor.request_power(node.uuid, PowerRequest { target, timeout }).await?;
        Ok(Answer::accepted(Some(states_url(r, node))))
    }

    async fn provision(&self, r: &Request, node: &Node) -> Result<Answer, Problem> {
        let body = r.object()?;
        let text = body
            .get("target")
            .and_then(Value::as_str)
            .ok_or_else(|| Problem::invalid("Missing mandatory parameter: target"))?;
        let verb = state::verb(text).ok_or_else(|| {
            Problem::invalid(format!(
                "The requested action \"{}\" can not be performed on node \"{}\" while it is in state \"{}\".",
                text.chars().take(64).collect::<String>(),
                node.uuid,
                node.provision_state
            ))
        })?;
        if verb.since > r.version {
            return Err(Problem::too_new());
        }
        check_keys(&body, r.version, verb.event)?;
        let drive = match body.get("configdrive") {
            None | Some(Value::Null) => None,
            Some(_) if verb.event == Event::Rebuild && r.version < 35 => return Err(Problem::too_new()),
            Some(Value::String(text)) => Some(Drive::Text(text.clone())),
            Some(parts @ Value::Object(map)) => {
                if r.version < 56 || (map.contains_key("vendor_data") && r.version < 59) {
                    return Err(Problem::too_new());
                }
                Some(Drive::Parts(parts.clone()))
            }
            Some(_) => return Err(Problem::invalid("configdrive must be a text or an object")),
        };
        let clean_steps = match (verb.event, body.get("clean_steps")) {
            (Event::Clean, Some(steps)) => parse_steps(steps)?,
            (Event::Clean, None) => {
                return Err(Problem::invalid(
                    "\"clean_steps\" is required when setting target provision state to clean",
                ));
            }
            _ => Vec::new(),
        };
        if body.get("deploy_steps").and_then(Value::as_array).is_some_and(|s| !s.is_empty()) {
            return Err(Problem::invalid(
                "deploy_steps given by the client are not supported by this version of the controller",
            ));
        }
        self.conductor.provision(node.uuid, ProvisionRequest { verb, drive, clean_steps }).await?;
        Ok(Answer::accepted(Some(states_url(r, node))))
    }

    /// The whole body is the configuration; an empty object takes it back.
    async fn raid(&self, r: &Request, node: &Node) -> Result<Answer, Problem> {
        if r.version < 12 {
            return Err(Problem::too_new());
        }
        r.only_params(&[])?;
        let Value::Object(wanted) = r.json()? else {
            return Err(Problem::invalid("The target RAID configuration must be a JSON object."));
        };
        self.conductor.set_target_raid_config(node.uuid, wanted.clone()).await?;
        Ok(Answer::no_content())
    }

    pub(super) async fn boot_device(&self, r: &Request, node: &Node) -> Result<Answer, Problem> {
        match r.method {
            Method::GET | Method::HEAD => {
                let found = self.conductor.boot_device(node).await?;
                let name =
                    found.device.and_then(|d| BOOT_DEVICES.iter().find(|(_, b)| *b == d).map(|(n, _)| *n));
                let persistent = name.map(|_| found.persistent);
                Ok(Answer::ok(json!({"boot_device": name, "persistent": persistent})))
            }
            Method::PUT => {
                let body = r.object()?;
                if let Some(name) = body.keys().find(|k| !["boot_device", "persistent"].contains(&k.as_str()))
                {
                    return Err(unexpected(name));
                }
                let text = body
                    .get("boot_device")
                    .and_then(Value::as_str)
                    .ok_or_else(|| Problem::invalid("Missing mandatory parameter: boot_device"))?;
                let device =
                    BOOT_DEVICES.iter().find(|(n, _)| *n == text).map(|(_, d)| *d).ok_or_else(|| {
                        Problem::invalid(format!(
                            "Invalid boot device {}; supported are {}.",
                            text.chars().take(32).collect::<String>(),
                            boot_device_names().join(", ")
                        ))
                    })?;
                let persistent = match body.get("persistent") {
                    None | Some(Value::Null) => false,
                    Some(Value::Bool(b)) => *b,
                    Some(Value::String(text)) => bool_param("persistent", text)?,
                    Some(_) => return Err(Problem::invalid("persistent must be a boolean")),
                };
                self.conductor.change_boot_device(node.uuid, device, persistent).await?;
                Ok(Answer::no_content())
            }
            _ => Err(Problem::method_not_allowed("GET, PUT")),
        }
    }
}

/// The longest time that a machine may be given for a power action: a week.
const LONGEST_POWER_ACTION: u64 = 604_800;

fn seconds(value: &Value) -> Result<Duration, Problem> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|t| (1..=LONGEST_POWER_ACTION).contains(t))
        .map(Duration::from_secs)
        .ok_or_else(|| {
            Problem::invalid(format!("timeout must be a number of seconds from 1 to {LONGEST_POWER_ACTION}"))
        })
}

fn states_url(r: &Request, node: &Node) -> String {
    format!("{}/v1/nodes/{}/states", r.base, node.uuid)
}

fn check_keys(body: &Map<String, Value>, version: u16, event: Event) -> Result<(), Problem> {
    for (name, value) in body {
        let (_, since, events) =
            KEYS.iter().find(|(key, _, _)| key == name).ok_or_else(|| unexpected(name))?;
        if value.is_null() {
            continue;
        }
        if *since > version {
            return Err(Problem::too_new());
        }
        if name != "target" && !events.contains(&event) {
            return Err(Problem::invalid(format!(
                "Adding a {} is only supported with other target states than this one.",
                name.replace('_', " ")
            )));
        }
    }
    Ok(())
}

fn parse_steps(value: &Value) -> Result<Vec<Step>, Problem> {
    let bad = |why: String| Problem::invalid(format!("Schema error for clean_steps: {why}"));
    let list = value
        .as_array()
        .filter(|l| l.len() <= 100)
        .ok_or_else(|| bad("a list of at most 100 steps is expected".into()))?;
    list.iter()
        .map(|raw| {
            let step: Step = serde_json::from_value(raw.clone()).map_err(|e| bad(e.to_string()))?;
            match step.interface.is_empty() {
                true => Err(bad("'interface' is a required property".to_string())),
                false => Ok(step),
            }
        })
        .collect()
}
