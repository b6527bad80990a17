//! What clients ask of nodes. Each answer that says yes comes after the change is stored.

use super::drive::{self, Drive, Packed};
use super::{Conductor, Lease, Refusal, boot_directory, driver_info};
use crate::domain::fields::{self, Writable};
use crate::domain::node::{Node, Object};
use crate::domain::patch::{self, Operation};
use crate::domain::provision;
use crate::domain::state::{Event, ProvisionState as S, Verb};
use crate::domain::{deploy, raid, validate};
use crate::drivers::{BootDevice, BootMode, DriverError, Persistence};
use crate::store::{Changes, DriveChange, PortFilter};
use ferric_common::ids::NodeUuid;
use ferric_common::steps::Step;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// A request to `states/provision`, its shape checked by the API.
pub struct ProvisionRequest {
    pub verb: &'static Verb,
    pub drive: Option<Drive>,
    pub clean_steps: Vec<Step>,
}

/// What a BMC says of the boot device.
pub struct BootDeviceAnswer {
    pub device: Option<BootDevice>,
    pub persistent: bool,
}

/// Verbs whose flows this version does not have.
const NOT_BUILT: &[Event] =
    &[Event::Inspect, Event::Adopt, Event::Rescue, Event::Unrescue, Event::Service, Event::Unhold];

impl Conductor {
    /// The node of this UUID or name.
    pub async fn find(&self, ident: &str) -> Result<Node, Refusal> {
        let found = match ident.parse::<NodeUuid>() {
            Ok(uuid) => self.store.node(uuid).await?,
            Err(_) => self.store.node_by_name(ident).await?,
        };
        found.ok_or_else(|| Refusal::no_node(ident))
    }

    /// Enrols a node from the fields of a POST.
    pub async fn create_node(&self, given: &Object, version: u16) -> Result<Node, Refusal> {
        for name in given.keys() {
            match fields::field(name) {
                Some(f) if f.since > version => return Err(Refusal::NotAcceptable),
                Some(f) if matches!(f.writable, Writable::Both | Writable::Create) => {}
                _ => {
                    return Err(Refusal::Invalid(format!(
                        "Schema error for node: Additional properties are not allowed ('{name}' was unexpected)"
                    )));
                }
            }
        }
        let mut node = Node { created_at: Some(Timestamp::now()), ..Node::default() };
        node.uuid = match given.get("uuid").filter(|v| !v.is_null()) {
            None => NodeUuid(uuid::Uuid::new_v4()),
            Some(text) => text
                .as_str()
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| Refusal::Invalid(format!("Expected UUID for uuid: {text}")))?,
        };
        if given.get("driver").and_then(Value::as_str).is_none() {
            return Err(Refusal::Invalid("Schema error for node: 'driver' is a required property".into()));
        }
        // The driver first: interfaces are checked against it.
        let mut names: Vec<&String> = given.keys().filter(|n| *n != "uuid").collect();
        names.sort_by_key(|n| *n != "driver");
        for name in names {
            let value = given.get(name).cloned().unwrap_or(Value::Null);
            fields::set(&mut node, name, value).map_err(Refusal::Invalid)?;
        }
        fields::fill_interfaces(&mut node);
        if version < 11 {
            node.provision_state = S::Available;
        }
        if self.drivers.hardware(&node.driver).is_none() {
            return Err(Refusal::Invalid(format!(
                "No valid host was found. Reason: No conductor service registered which supports driver {} for conductor group \"{}\".",
                node.driver, node.conductor_group
            )));
        }
        Ok(self.store.create_node(node).await?)
    }

    /// Changes fields of a node, all or none.
    pub async fn patch_node(
        &self,
        uuid: NodeUuid,
        operations: &[Operation],
        version: u16,
    ) -> Result<Node, Refusal> {
        let mut lease = self.lease(uuid).await?;
        let new = patch::patch_node(&lease.node, operations, version)?;
        let old = std::mem::replace(&mut lease.node, new);
        let new = &lease.node;
        let other_login = (&old.driver, &old.driver_info) != (&new.driver, &new.driver_info);
        if other_login || (old.maintenance && !new.maintenance) {
            lease.forgive_login();
        }
        lease.save().await?;
        Ok(lease.node)
    }

    /// Deletes a node with everything that belongs to it.
    pub async fn delete_node(&self, uuid: NodeUuid) -> Result<(), Refusal> {
        let lease = self.lease(uuid).await?;
        let node = &lease.node;
        if node.protected {
            return Err(Refusal::Forbidden(format!(
                "Node {uuid} is protected and can not be undeployed, rebuilt or deleted."
            )));
        }
        if node.instance_uuid.is_some() && !node.maintenance {
            return Err(Refusal::Conflict(format!(
                "Node {uuid} is associated with instance {}.",
                node.instance_uuid.as_deref().unwrap_or_default()
            )));
        }
        let allowed =
            matches!(node.provision_state, S::Enroll | S::Manageable | S::AdoptFailed | S::Available);
        if !allowed && !node.maintenance {
            return Err(Refusal::Conflict(format!(
                "Can not delete node \"{uuid}\" while it is in provision state \"{}\". Valid provision states to perform deletion are: \"enroll\", \"manageable\", \"adopt failed\", \"available\"",
                node.provision_state
            )));
        }
        self.store.delete_node(uuid, node.generation).await?;
        self.slots.remove(uuid);
        Ok(())
    }

    /// A verb of `states/provision`. Returns when the node has moved.
    pub async fn provision(
        self: &Arc<Self>,
        uuid: NodeUuid,
        request: ProvisionRequest,
    ) -> Result<(), Refusal> {
        let node = self.store.node(uuid).await?.ok_or_else(|| Refusal::no_node(&uuid.to_string()))?;
        let event = request.verb.event;
        if provision::next(node.provision_state, event).is_none() && node.reservation.is_some() {
            return Err(Refusal::Locked { node: uuid, holder: node.reservation.unwrap_or_default() });
        }
        permit(&node, &request)?;
        let deploys = matches!(event, Event::Deploy | Event::Rebuild);
        let mut drive = DriveChange::Keep;
        if deploys {
            let given = request.drive.is_some();
            let packed = match request.drive {
                Some(given) => Some(drive::pack(given, &node).await?),
                None if event == Event::Rebuild => self.kept_drive(uuid).await?,
                None => None,
            };
            let size = packed.as_ref().and_then(|packed| packed.size);
            self.validate_deploy(&node, size).await.map_err(|e| {
                Refusal::Invalid(format!("Failed to validate deploy or power info for node {uuid}: {e}"))
            })?;
            drive = match packed {
                Some(packed) if given => DriveChange::Set(packed.text),
                Some(_) => DriveChange::Keep,
                None => DriveChange::Remove,
            };
        }
        let mut lease = self.lease(uuid).await?;
        let fresh = ProvisionRequest { verb: request.verb, drive: None, clean_steps: request.clean_steps };
        permit(&lease.node, &fresh)?;
        if deploys && lease.node.interface("deploy") != "fake" {
            validate::image_request(&lease.node, self.settings.allow_md5).map_err(Refusal::Invalid)?;
        }
        self.begin(&mut lease, &fresh)?;
        let open = (event == Event::Abort).then(|| "clean up after failure".to_string());
        self.store.save(&mut lease.node, Changes { open, drive, ..Changes::default() }).await?;
        drop(lease);
        self.wake(uuid);
        Ok(())
    }

    /// The config drive of an earlier deployment.
    async fn kept_drive(&self, uuid: NodeUuid) -> Result<Option<Packed>, Refusal> {
        match self.store.configdrive(uuid).await? {
            Some(text) => drive::measure(text).await.map(Some),
            None => Ok(None),
        }
    }

    /// Applies the verb to the node.
    fn begin(&self, lease: &mut Lease<'_>, request: &ProvisionRequest) -> Result<(), Refusal> {
        if request.verb.event == Event::Manage {
            lease.forgive_login();
        }
        let node = &mut lease.node;
        let from = node.provision_state;
        node.apply(request.verb.event, Timestamp::now()).map_err(|e| Refusal::Invalid(e.to_string()))?;
        node.last_error = None;
        node.internal.remove("identity_conflict");
        match request.verb.event {
            Event::Deploy | Event::Rebuild => {
                node.flow.begin(deploy::steps(&[]));
                node.internal.remove(deploy::IMAGE_WRITE);
                node.internal.insert("is_whole_disk_image".into(), json!(true));
            }
            Event::Provide | Event::Delete => node.flow.begin(Vec::new()),
            Event::Clean => {
                node.flow.begin(request.clean_steps.clone());
                node.flow.manual = true;
            }
            Event::Abort => {
                let what = if from == S::CleanWait { "clean" } else { "deploy" };
                node.last_error =
                    Some(format!("By request, the {what} operation was aborted in state '{from}'."));
                node.end_agent();
            }
            _ => {}
        }
        if from == S::CleanFailed {
            node.fault = None;
        }
        if !matches!(request.verb.event, Event::Abort) {
            lease.slot.forget_boot();
        }
        Ok(())
    }

    /// Everything that can be known to fail, before the machine is powered on. `drive`: bytes of the config drive.
    async fn validate_deploy(&self, node: &Node, drive: Option<u64>) -> Result<(), String> {
        self.validate_power(node)?;
        login_works(node)?;
        if node.interface("deploy") == "fake" {
            return Ok(());
        }
        self.validate_boot(node).await?;
        self.validate_image(node, drive).await
    }

    pub(super) fn validate_power(&self, node: &Node) -> Result<(), String> {
        self.hardware(node)?.power.validate(&driver_info(node)).map_err(|e| e.to_string())
    }

    async fn validate_boot(&self, node: &Node) -> Result<(), String> {
        validate::boot_mode(node, &self.settings.default_boot_mode)?;
        if node.interface("boot") == "fake" {
            return Ok(());
        }
        let ports = self
            .store
            .ports(PortFilter { node: Some(node.uuid), ..PortFilter::default() })
            .await
            .map_err(|e| e.to_string())?;
        if !ports.iter().any(|p| p.pxe_enabled) {
            return Err("the node has no port that may boot from the network: create one with the MAC address of its NIC on the provisioning network".into());
        }
        let files = boot_directory::ramdisk_files(node, self.settings.ramdisk.as_ref())?;
        tokio::task::spawn_blocking(move || {
            use crate::images::boot_file;
            boot_file::check_kernel(&files.kernel).map_err(|e| e.to_string())?;
            boot_file::check_ramdisk(&files.ramdisk).map_err(|e| e.to_string())
        })
        .await
        .map_err(|e| e.to_string())?
    }

    async fn validate_image(&self, node: &Node, drive: Option<u64>) -> Result<(), String> {
        let request = validate::image_request(node, self.settings.allow_md5)?;
        let facts = self.images.inspect(&request).await?;
        validate::image_fits(node, &request, &facts, drive)
    }

    /// The answer of `GET validate`: per interface whether it can work, and why not.
    pub async fn validate(&self, node: &Node) -> Value {
        let mut out = Object::new();
        let verdict = |result: Result<(), String>| match result {
            Ok(()) => json!({"result": true}),
            Err(reason) => json!({"result": false, "reason": reason}),
        };
        let power = self.validate_power(node).and_then(|()| login_works(node));
        out.insert("management".into(), verdict(power.clone()));
        out.insert("power".into(), verdict(power));
        out.insert("boot".into(), verdict(self.validate_boot(node).await));
        let deploy =
            if node.interface("deploy") == "fake" { Ok(()) } else { self.validate_image(node, None).await };
        out.insert("deploy".into(), verdict(deploy));
        for kind in ["bios", "console", "firmware", "inspect", "network", "raid", "rescue", "storage"] {
            let name = node.interface(kind);
            let built = matches!((kind, name), ("network" | "storage", _) | ("raid", "agent") | (_, "fake"));
            let result = match built {
                true => Ok(()),
                false => Err(format!(
                    "Driver {} does not support {kind} (disabled or not implemented).",
                    node.driver
                )),
            };
            out.insert(kind.into(), verdict(result));
        }
        Value::Object(out)
    }

    pub async fn set_maintenance(
        self: &Arc<Self>,
        uuid: NodeUuid,
        on: bool,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let mut lease = self.lease(uuid).await?;
        lease.node.maintenance = on;
        lease.node.maintenance_reason = reason.filter(|_| on);
        if !on {
            lease.node.fault = None;
            lease.forgive_login();
        }
        lease.save().await?;
        drop(lease);
        self.wake(uuid);
        Ok(())
    }

    pub async fn boot_device(&self, node: &Node) -> Result<BootDeviceAnswer, Refusal> {
        let hardware = self.hardware(node).map_err(Refusal::Invalid)?;
        if node.interface("management") == "noop" {
            return Ok(BootDeviceAnswer { device: None, persistent: false });
        }
        let info = driver_info(node);
        let (device, persistence) = self
            .ask_bmc(node, hardware.management.boot_device(&info))
            .await
            .map_err(|e| Refusal::Failed(e.to_string()))?;
        Ok(BootDeviceAnswer { device, persistent: persistence == Persistence::Always })
    }

    pub async fn change_boot_device(
        &self,
        uuid: NodeUuid,
        device: BootDevice,
        persistent: bool,
    ) -> Result<(), Refusal> {
        let lease = self.lease(uuid).await?;
        let hardware = self.hardware(&lease.node).map_err(Refusal::Invalid)?;
        let mode =
            validate::boot_mode(&lease.node, &self.settings.default_boot_mode).map_err(Refusal::Invalid)?;
        let mode = if mode == "bios" { BootMode::Bios } else { BootMode::Uefi };
        let persistence = if persistent { Persistence::Always } else { Persistence::Once };
        if lease.node.interface("management") == "noop" {
            return Ok(());
        }
        let info = lease.driver_info();
        self.ask_bmc(&lease.node, hardware.management.set_boot_device(&info, device, persistence, mode))
            .await
            .map_err(|e| Refusal::Failed(e.to_string()))
    }
}

/// Whether the BMC has not refused the node's login before.
fn login_works(node: &Node) -> Result<(), String> {
    match &node.login_refused {
        None => Ok(()),
        Some(refusal) => Err(DriverError::LoginHeld { refusal: refusal.clone() }.to_string()),
    }
}

/// Whether the verb may be done to the node now, apart from what a deployment needs.
fn permit(node: &Node, request: &ProvisionRequest) -> Result<(), Refusal> {
    let (verb, uuid) = (request.verb, node.uuid);
    if provision::next(node.provision_state, verb.event).is_none() {
        return Err(Refusal::Invalid(format!(
            "The requested action \"{}\" can not be performed on node \"{uuid}\" while it is in state \"{}\".",
            verb.text, node.provision_state
        )));
    }
    if NOT_BUILT.contains(&verb.event) {
        return Err(Refusal::Invalid(format!(
            "The requested action \"{}\" is not supported by this version of the controller.",
            verb.text
        )));
    }
    if node.maintenance && matches!(verb.event, Event::Deploy | Event::Rebuild) {
        let what = if verb.event == Event::Rebuild { "rebuild" } else { "provisioning" };
        return Err(Refusal::Invalid(format!(
            "The {what} operation can't be performed on node {uuid} because it's in maintenance mode."
        )));
    }
    if node.protected && matches!(verb.event, Event::Delete | Event::Rebuild) {
        return Err(Refusal::Forbidden(format!(
            "Node {uuid} is protected and can not be undeployed, rebuilt or deleted."
        )));
    }
    if verb.event == Event::Clean {
        raid::permits(node, &request.clean_steps).map_err(Refusal::Invalid)?;
    }
    if node.retired && verb.event == Event::Provide {
        return Err(Refusal::Invalid(format!("Node {uuid} can not be provided because it is retired.")));
    }
    Ok(())
}
