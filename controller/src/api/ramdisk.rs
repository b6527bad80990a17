//! The endpoints of the ramdisk: lookup, heartbeat, and the refusal of inspection data. Public; they tell a stranger nothing.

use super::Api;
use super::answer::{Answer, Problem};
use super::request::{Request, unexpected};
use crate::conductor::LookupAnswer;
use crate::domain::fields;
use crate::domain::names;
use ferric_common::ids::{MacAddress, NodeUuid};
use ferric_common::limits::LOOKUP_MACS;
use ferric_common::wire::heartbeat::Heartbeat;
use ferric_common::wire::lookup::MASK;
use http::Method;
use serde_json::{Map, Value, json};

/// Fields of a heartbeat and the version since which each exists.
const HEARTBEAT: &[(&str, u16)] = &[
    ("callback_url", 22),
    ("agent_version", 36),
    ("agent_token", 62),
    ("agent_verify_ca", 68),
    ("agent_status", 72),
    ("agent_status_message", 72),
];

impl Api {
    pub(super) async fn ramdisk(&self, r: &Request, path: &[&str]) -> Result<Answer, Problem> {
        let get = matches!(r.method, Method::GET | Method::HEAD);
        match (path, &r.method) {
            (["lookup"], _) if get => {
                r.since(22)?;
                self.lookup(r).await
            }
            (["lookup"], _) => Err(Problem::method_not_allowed("GET")),
            (["heartbeat", node], &Method::POST) => {
                r.since(22)?;
                self.heartbeat(r, node).await
            }
            (["heartbeat", _], _) => Err(Problem::method_not_allowed("POST")),
            (["continue_inspection"], &Method::POST) => continue_inspection(r),
            (["continue_inspection"], _) => Err(Problem::method_not_allowed("POST")),
            _ => Err(Problem::not_found_path()),
        }
    }

    async fn lookup(&self, r: &Request) -> Result<Answer, Problem> {
        r.only_params(&["addresses", "node_uuid"])?;
        let given = r.param("addresses").unwrap_or_default();
        if given.split(',').count() > LOOKUP_MACS {
            return Err(Problem::invalid(format!("More than {LOOKUP_MACS} addresses were given")));
        }
        // What is no MAC address is left out, as agents report every NIC they have.
        let addresses: Vec<MacAddress> = given.split(',').filter_map(|a| a.parse().ok()).collect();
        let node_uuid = match r.param("node_uuid").filter(|t| !t.is_empty()) {
            None => None,
            Some(text) => Some(text.parse::<NodeUuid>().map_err(|_| {
                Problem::invalid(format!(
                    "Expected UUID for node_uuid: {}",
                    text.chars().take(64).collect::<String>()
                ))
            })?),
        };
        if addresses.is_empty() && node_uuid.is_none() {
            return Err(Problem::invalid(
                "At least one of 'addresses' and 'node_uuid' parameters is required",
            ));
        }
        let found = self.conductor.lookup(addresses, node_uuid, r.version, r.peer).await?;
        Ok(Answer::ok(self.lookup_document(r, &found)))
    }

    fn lookup_document(&self, r: &Request, found: &LookupAnswer) -> Value {
        let settings = self.conductor.settings();
        let mut node = Map::new();
        for name in ["uuid", "properties", "instance_info", "driver_internal_info"] {
            node.insert(name.to_string(), names::mask(&fields::value(&found.node, name)));
        }
        node.insert("links".into(), r.links(&format!("nodes/{}", found.node.uuid)));
        let token = found.token.as_ref().map_or(MASK, |t| t.expose());
        json!({
            "node": node,
            "config": {
                "metrics": {"backend": "noop", "prepend_host": false, "prepend_uuid": false,
                            "prepend_host_reverse": true, "global_prefix": null},
                "metrics_statsd": {"statsd_host": "localhost", "statsd_port": 8125},
                "heartbeat_timeout": settings.heartbeat_timeout.as_secs(),
                "agent_containers": {"allow_arbitrary_containers": false, "allowed_containers": [],
                    "container_steps_file": "/etc/ironic-python-agent.d/mysteps.yaml", "runner": "podman",
                    "pull_options": [], "run_options": ["--rm", "--network=host"]},
                "agent_token": token,
                "agent_token_required": true,
                "agent_md5_checksum_enable": settings.allow_md5,
                "disable_deep_image_inspection": false,
                "permitted_image_formats": ["raw", "gpt", "qcow2"],
                "agent_skip_bmc_detect": false,
                "enable_bios_bootloader_install": false,
                "tls_min_version": null,
                "tls_cipher_suites": null,
            },
        })
    }

    async fn heartbeat(&self, r: &Request, node: &str) -> Result<Answer, Problem> {
        // A body that is no JSON reads as an empty one: the first field is missing.
        let body = match &r.body {
            Ok(Some(Value::Object(map))) => map.clone(),
            _ => Map::new(),
        };
        for name in body.keys() {
            match HEARTBEAT.iter().find(|(n, _)| n == name) {
                None => return Err(unexpected(name)),
                Some((_, since)) if *since > r.version => {
                    return Err(Problem::invalid(format!("Field \"{name}\" not recognised")));
                }
                Some(_) => {}
            }
        }
        if !body.contains_key("callback_url") {
            return Err(Problem::invalid("Missing mandatory parameter: callback_url"));
        }
        let beat: Heartbeat = serde_json::from_value(Value::Object(body))
            .map_err(|_| Problem::invalid("Every field of a heartbeat must be a text"))?;
        if beat.agent_token.is_none() {
            return Err(Problem::invalid("Agent token is required for heartbeat processing."));
        }
        // An identifier that is no UUID belongs to no node, which looks like any wrong token.
        let uuid = node.parse().unwrap_or(NodeUuid(uuid::Uuid::nil()));
        self.conductor.heartbeat(uuid, beat, r.peer).await?;
        Ok(Answer::accepted(None))
    }
}

/// No node is ever in `inspect wait` in this version, so well-formed data finds none.
fn continue_inspection(r: &Request) -> Result<Answer, Problem> {
    if r.version != 1 && r.version < 84 {
        return Err(Problem::not_found("API version 1.84 or newer is required"));
    }
    let bad = |text: String| Err(Problem::invalid(format!("Schema error for data: {text}")));
    let body = r.json()?;
    let Value::Object(map) = body else { return bad(format!("{body} is not of type 'object'")) };
    match map.get("inventory") {
        None => bad("'inventory' is a required property".into()),
        Some(inventory) if inventory.get("interfaces").is_none() => {
            bad("'interfaces' is a required property".into())
        }
        Some(_) => Err(Problem::not_found("Resource could not be found.")),
    }
}
