//! Clean, deploy and service steps: names, priority, order.

use alloc::collections::BTreeMap;
use alloc::string::String;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A step as an agent publishes it and as the controller sends it back.
/// Unknown keys are ignored; `args` are kept as they came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub step: String,
    #[serde(default)]
    pub interface: String,
    #[serde(default)]
    pub priority: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_requested: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abortable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argsinfo: Option<BTreeMap<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Value>,
}

impl Step {
    /// `interface.step`, the form in which errors and logs name a step.
    pub fn full_name(&self) -> String {
        alloc::format!("{}.{}", self.interface, self.step)
    }
}
