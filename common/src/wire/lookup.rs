//! `GET /v1/lookup`: an agent asks which node it runs on.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What replaces a token that was already handed out.
pub const MASK: &str = "******";

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LookupResponse {
    pub node: LookupNode,
    pub config: LookupConfig,
}

/// The part of a node that a ramdisk may see; secrets are masked.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LookupNode {
    pub uuid: String,
    #[serde(default)]
    pub properties: Map<String, Value>,
    #[serde(default)]
    pub instance_info: Map<String, Value>,
    #[serde(default)]
    pub driver_internal_info: Map<String, Value>,
    #[serde(default)]
    pub links: Vec<Value>,
}

/// What the conductor tells the agent. Only the time-out is required: older conductors send less.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LookupConfig {
    /// Seconds after which the conductor calls an agent lost.
    pub heartbeat_timeout: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<String>,
    #[serde(default)]
    pub agent_token_required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_md5_checksum_enable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_deep_image_inspection: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted_image_formats: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_bios_bootloader_install: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_skip_bmc_detect: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_min_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cipher_suites: Option<String>,
    /// Keys that Ferric does not act on, kept for the wire (`metrics`, `agent_containers`, …).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}
