//! What clients ask of ports.

use super::{Conductor, Refusal};
use crate::domain::node::{Node, Object, Port};
use crate::domain::patch::{self, Operation, PatchError};
use ferric_common::ids::{NodeUuid, PortUuid};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Fields of a port that clients may write, and since which version.
const WRITABLE: &[(&str, u16)] = &[
    ("address", 1),
    ("node_uuid", 1),
    ("extra", 1),
    ("pxe_enabled", 19),
    ("local_link_connection", 19),
    ("portgroup_uuid", 24),
    ("physical_network", 34),
    ("is_smartnic", 53),
    ("name", 88),
    ("description", 97),
    ("vendor", 100),
    ("category", 101),
    ("available_for_dynamic_portgroup", 111),
];

/// Fields that decide how a deployed machine is connected: not to be changed under it.
const WIRING: &[&str] = &["portgroup_uuid", "pxe_enabled", "local_link_connection", "physical_network"];

fn check_field(name: &str, version: u16) -> Result<(), Refusal> {
    match WRITABLE.iter().find(|(n, _)| *n == name) {
        Some((_, since)) if *since <= version => Ok(()),
        Some(_) => Err(Refusal::NotAcceptable),
        None => Err(Refusal::Invalid(format!(
            "Schema error for port: Additional properties are not allowed ('{name}' was unexpected)"
        ))),
    }
}

fn parse(fields: Object) -> Result<Port, Refusal> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|e| Refusal::Invalid(format!("Schema error for port: {e}")))
}

/// MAC addresses are given with colons, in either case.
fn check_address(value: Option<&Value>) -> Result<(), Refusal> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    if text.len() == 17 && !text.contains('-') && text.parse::<ferric_common::ids::MacAddress>().is_ok() {
        return Ok(());
    }
    let shown: String = text.chars().take(64).collect();
    Err(Refusal::Invalid(format!("Expected a MAC address but received {shown}.")))
}

impl Conductor {
    pub async fn create_port(&self, given: &Object, version: u16) -> Result<Port, Refusal> {
        let mut fields = given.clone();
        let ident = match (fields.remove("node_ident"), fields.get("node_uuid").cloned()) {
            (Some(_), _) if version < 94 => return Err(Refusal::NotAcceptable),
            (Some(_), Some(_)) => {
                return Err(Refusal::Invalid("Only one of node_uuid and node_ident may be given".into()));
            }
            (Some(ident), None) | (None, Some(ident)) => ident,
            (None, None) => return Err(Refusal::Invalid("Missing mandatory parameter: node_uuid".into())),
        };
        let uuid = fields.remove("uuid");
        for name in fields.keys() {
            check_field(name, version)?;
        }
        check_address(fields.get("address"))?;
        let ident = ident.as_str().unwrap_or_default();
        let node = match self.find(ident).await {
            Err(Refusal::NotFound(text)) => return Err(Refusal::Invalid(text)),
            other => other?,
        };
        fields.retain(|_, v| !v.is_null());
        fields.insert("node_uuid".into(), json!(node.uuid));
        fields.insert("uuid".into(), uuid.unwrap_or_else(|| json!(PortUuid(uuid::Uuid::new_v4()))));
        let mut port = parse(fields)?;
        port.created_at = Some(Timestamp::now());
        let _turn = self.lease(node.uuid).await?;
        Ok(self.store.create_port(port).await?)
    }

    pub async fn port(&self, ident: &str) -> Result<Port, Refusal> {
        let missing = || {
            Refusal::NotFound(format!(
                "Port {} could not be found.",
                ident.chars().take(64).collect::<String>()
            ))
        };
        let uuid: PortUuid = ident.parse().map_err(|_| missing())?;
        self.store.port(uuid).await?.ok_or_else(missing)
    }

    pub async fn patch_port(
        &self,
        ident: &str,
        operations: &[Operation],
        version: u16,
    ) -> Result<Port, Refusal> {
        let owner = self.port(ident).await?.node_uuid;
        let lease = self.lease(owner).await?;
        let port = self.port(ident).await?; // again, now that it is our turn
        let mut roots = Vec::new();
        for operation in operations {
            let root = operation.path.first().map_or("", String::as_str);
            match check_field(root, version) {
                Err(Refusal::Invalid(_)) => {
                    return Err(Refusal::Invalid(format!(
                        "Couldn't apply patch '/{root}'. Reason: the field cannot be updated"
                    )));
                }
                other => other?,
            }
            roots.push(root);
        }
        refuse_by_state(&lease.node, &roots)?;
        let Ok(Value::Object(mut document)) = serde_json::to_value(&port) else {
            return Err(Refusal::Failed("the port cannot be rendered".into()));
        };
        for operation in operations {
            patch::apply(&mut document, operation).map_err(|e: PatchError| Refusal::from(e))?;
        }
        check_address(document.get("address"))?;
        document.retain(|_, v| !v.is_null());
        let changed = parse(document)?;
        if changed.node_uuid != port.node_uuid {
            self.other_node(changed.node_uuid).await?;
        }
        Ok(self.store.save_port(changed).await?)
    }

    async fn other_node(&self, uuid: NodeUuid) -> Result<(), Refusal> {
        match self.store.node(uuid).await? {
            Some(_) => Ok(()),
            None => Err(Refusal::Invalid(format!("Node {uuid} could not be found."))),
        }
    }

    pub async fn delete_port(&self, ident: &str) -> Result<(), Refusal> {
        let port = self.port(ident).await?;
        let lease = self.lease(port.node_uuid).await?;
        if lease.node.instance_uuid.is_some() && !lease.node.maintenance {
            return Err(Refusal::Conflict(format!(
                "Cannot delete the port {} while its node {} has an instance.",
                port.uuid, port.node_uuid
            )));
        }
        Ok(self.store.delete_port(port.uuid).await?)
    }
}

fn refuse_by_state(node: &Node, roots: &[&str]) -> Result<(), Refusal> {
    use crate::domain::state::ProvisionState as S;
    if node.maintenance {
        return Ok(());
    }
    if roots.contains(&"address") && node.instance_uuid.is_some() {
        return Err(Refusal::Conflict(format!(
            "Cannot update the address of a port of node {}, which has an instance.",
            node.uuid
        )));
    }
    let wiring = roots.iter().find(|r| WIRING.contains(r));
    let open = matches!(node.provision_state, S::Enroll | S::Inspecting | S::InspectWait | S::Manageable);
    match wiring {
        Some(root) if !open => Err(Refusal::Conflict(format!(
            "Port {root} can not be updated while node {} is in state \"{}\"; it must be enroll, manageable or inspecting, or in maintenance.",
            node.uuid, node.provision_state
        ))),
        _ => Ok(()),
    }
}
