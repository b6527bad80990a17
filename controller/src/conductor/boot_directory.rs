//! What the boot services ask: which machine may boot what now.

use super::{Conductor, Live, RamdiskFiles};
use crate::boot::{BootDirectory, BootPlan, NoPlan};
use crate::domain::node::{Node, Object};
use crate::domain::validate;
use crate::store::{PortFilter, StoreError};
use async_trait::async_trait;
use ferric_common::ids::{MacAddress, NodeUuid};
use jiff::Timestamp;
use serde_json::Value;
use std::path::PathBuf;

impl Conductor {
    async fn node_of(&self, mac: MacAddress) -> Result<Option<Node>, StoreError> {
        let filter = PortFilter { addresses: vec![mac], ..PortFilter::default() };
        let ports = self.store.ports(filter).await?;
        match ports.iter().find(|p| p.pxe_enabled) {
            Some(port) => self.store.node(port.node_uuid).await,
            None => Ok(None),
        }
    }

    fn plan(&self, node: &Node) -> Result<BootPlan, String> {
        if !node.provision_state.boots_ramdisk() {
            return Err(format!(
                "node {} is in state '{}', which boots no ramdisk",
                node.label(),
                node.provision_state
            ));
        }
        let files = ramdisk_files(node, self.settings.ramdisk.as_ref())?;
        let parameters = format!("{} ipa-api-url={}", files.kernel_parameters, self.settings.api_url);
        Ok(BootPlan {
            node: node.uuid,
            kernel: files.kernel,
            ramdisk: files.ramdisk,
            extra_ramdisks: files.extra,
            kernel_parameters: validate::kernel_parameters(parameters.trim())?,
        })
    }
}

/// A store that does not answer says nothing about the machine.
fn unknown(error: StoreError) -> NoPlan {
    NoPlan::Unknown(error.to_string())
}

fn word<'a>(info: &'a Object, key: &str) -> Option<&'a str> {
    info.get(key).and_then(Value::as_str).filter(|t| !t.is_empty())
}

/// The node's own kernel, ramdisk and parameters, or the configured ones.
///
/// # Errors
/// Neither the node nor the configuration names them, or a node names one that is no absolute path.
pub(super) fn ramdisk_files(node: &Node, configured: Option<&RamdiskFiles>) -> Result<RamdiskFiles, String> {
    let path = |key: &str| -> Result<Option<PathBuf>, String> {
        let Some(text) = word(&node.driver_info, key) else { return Ok(None) };
        let path = PathBuf::from(text.strip_prefix("file://").unwrap_or(text));
        match path.is_absolute() {
            true => Ok(Some(path)),
            false => {
                Err(format!("driver_info {key} is '{text}'; an absolute path or a file:// URL is needed"))
            }
        }
    };
    let files = match (path("deploy_kernel")?, path("deploy_ramdisk")?, configured) {
        (Some(kernel), Some(ramdisk), _) => RamdiskFiles { kernel, ramdisk, ..RamdiskFiles::default() },
        (None, None, Some(files)) => files.clone(),
        (None, None, None) => {
            return Err("no ramdisk is configured: set kernel and ramdisk in [boot], or driver_info deploy_kernel and deploy_ramdisk".into());
        }
        _ => {
            return Err(
                "driver_info names only one of deploy_kernel and deploy_ramdisk; they belong together".into(),
            );
        }
    };
    let default = configured.map_or("", |f| f.kernel_parameters.as_str());
    let own = word(&node.instance_info, "kernel_append_params")
        .or_else(|| word(&node.driver_info, "kernel_append_params"));
    let kernel_parameters = own.map_or_else(|| default.to_string(), |own| own.replace("%default%", default));
    Ok(RamdiskFiles { kernel_parameters, ..files })
}

#[async_trait]
impl BootDirectory for Conductor {
    async fn knows(&self, mac: MacAddress) -> Result<bool, String> {
        let filter = PortFilter { addresses: vec![mac], ..PortFilter::default() };
        self.store.ports(filter).await.map(|ports| !ports.is_empty()).map_err(|e| e.to_string())
    }

    async fn plan_for_mac(&self, mac: MacAddress) -> Result<BootPlan, NoPlan> {
        match self.node_of(mac).await.map_err(unknown)? {
            Some(node) => self.plan(&node).map_err(NoPlan::Nothing),
            None => Err(NoPlan::Nothing(format!(
                "no port with the MAC address {mac} is enrolled for network boot"
            ))),
        }
    }

    async fn plan_for_node(&self, node: NodeUuid) -> Result<BootPlan, NoPlan> {
        match self.store.node(node).await.map_err(unknown)? {
            Some(node) => self.plan(&node).map_err(NoPlan::Nothing),
            None => Err(NoPlan::Nothing(format!("there is no node {node}"))),
        }
    }

    async fn seen(&self, mac: Option<MacAddress>, node: Option<NodeUuid>, what: String) {
        let uuid = match (node, mac) {
            (Some(uuid), _) => Some(uuid),
            (None, Some(mac)) => self.node_of(mac).await.ok().flatten().map(|n| n.uuid),
            (None, None) => None,
        };
        let Some(slot) = uuid.and_then(|uuid| self.slots.find(uuid)) else { return };
        tracing::info!(node = ?uuid.map(|u| u.to_string()), %what, "boot");
        slot.see(what.chars().take(200).collect(), Timestamp::now());
    }
}

impl Live {
    /// `driver_internal_info.wait` with how far the machine came.
    pub fn shown_wait(&self, node: &Node) -> Option<Value> {
        node.wait.as_ref().map(|wait| super::deploy::shown_wait(wait, self))
    }
}
