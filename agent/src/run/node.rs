//! Which node this machine is, and what follows from the answer.

use super::{AGENT_VERSION, Fatal, greeted};
use crate::api::ReadRule;
use crate::commands::failure;
use crate::conductor::client::ApiClient;
use crate::conductor::heartbeat::Beat;
use crate::conductor::lookup::{self, Found, LookupError, Plan};
use crate::conductor::ntp::Clock;
use crate::config::{Config, TlsRules};
use crate::disk::wait::Wanted;
use crate::platform::machine::Machine;
use crate::state::{Advertised, Identity};
use ferric_common::ids::AgentToken;
use ferric_common::wire::inventory::Inventory;
use ferric_common::wire::lookup::{LookupConfig, LookupNode, LookupResponse};
use ferric_common::wire::version::ApiVersion;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// First API version whose conductors send the token when they read results, too (Ironic 29.0).
const READS_WITH_TOKEN: ApiVersion = ApiVersion(96);

/// A node, and whether this process continues an earlier one.
pub(super) struct Node {
    pub lookup: LookupResponse,
    pub version: Option<ApiVersion>,
    pub identity: Identity,
    pub resumed: bool,
}

impl Node {
    /// The conductor's word beats our own; what of it means nothing here is said.
    pub fn tls(&self, config: &Config) -> TlsRules {
        let theirs = &self.lookup.config;
        let (rules, told) =
            config.tls.overruled(theirs.tls_min_version.as_deref(), theirs.tls_cipher_suites.as_deref());
        if let Some(told) = told {
            tracing::warn!("{told}");
        }
        rules
    }

    pub fn disks(&self) -> Wanted {
        let node = &self.lookup.node;
        Wanted { instance_info: node.instance_info.clone(), properties: node.properties.clone() }
    }

    pub fn read_rule(&self) -> ReadRule {
        match self.version {
            Some(version) if version >= READS_WITH_TOKEN => ReadRule::Always,
            _ => ReadRule::OnceSeen,
        }
    }

    pub fn beat(&self, token: AgentToken, advertised: Advertised) -> Beat {
        Beat {
            node_uuid: self.lookup.node.uuid.clone(),
            callback_url: advertised.callback_url,
            token,
            agent_version: AGENT_VERSION.to_string(),
            certificate: advertised.certificate,
            timeout: Duration::from_secs(self.lookup.config.heartbeat_timeout.clamp(1, 86_400)),
            version: self.version,
            greeted,
        }
    }
}

/// Looks the machine up; after a crash, goes on with what was known if nobody answers.
///
/// # Errors
/// No answer in time, or one that makes this life pointless.
pub(super) async fn identify(
    api: &ApiClient,
    config: &Config,
    machine: &Arc<dyn Machine>,
    inventory: &Inventory,
    earlier: Option<Identity>,
    inspected: Option<String>,
    clock: Clock,
) -> Result<Node, Fatal> {
    tracing::info!("looking for the node of {}", macs(inventory).join(", "));
    let own = earlier.as_ref().and_then(|identity| AgentToken::new(identity.token.clone()));
    let resumed = own.is_some();
    let (first, again) = (Mutex::new(Some(macs(inventory))), Arc::clone(machine));
    let plan = Plan {
        // Read anew for each try after the first: the card that the controller knows may be the slowest to appear.
        macs: Arc::new(move || {
            let first = crate::commands::context::lock(&first).take();
            first.unwrap_or_else(|| macs(&again.inventory()))
        }),
        node_uuid: earlier.as_ref().map(|identity| identity.node_uuid.clone()).or(inspected),
        own_token: own.or_else(|| config.token.clone()),
        fixed_version: config.api_version,
        interval: config.lookup_interval,
        // A resumed agent knows everything that it needs: one try, to hear what is new.
        give_up_after: if resumed { Duration::ZERO } else { config.lookup_timeout },
    };
    let set_clock = |to: SystemTime| {
        if clock == Clock::Known {
            tracing::warn!("the controller's clock is more than an hour off what a time server said");
            return;
        }
        match machine.set_clock(to) {
            Ok(()) => tracing::info!("the clock was more than an hour off and now follows the controller's"),
            Err(error) => {
                tracing::warn!(
                    "the clock is more than an hour off the controller's: {}",
                    failure::chain(&error)
                )
            }
        }
    };
    match (lookup::lookup(api, &plan, set_clock).await, earlier) {
        (Ok(found), earlier) => Ok(merge(found, earlier)),
        (Err(error), Some(identity)) => {
            tracing::warn!("going on with what was known before the restart: {error}");
            Ok(Node { lookup: remembered(&identity), version: config.api_version, identity, resumed: true })
        }
        (Err(error), None) => {
            if matches!(error, LookupError::Taken { .. }) {
                lock_down(machine.as_ref());
            }
            Err(error.into())
        }
    }
}

/// A machine that may not be the node's, or that the controller has given up, must not stay in its network.
fn lock_down(machine: &dyn Machine) {
    match machine.lock_down() {
        Ok(()) => tracing::error!("this machine goes off the network until it is reset"),
        Err(error) => tracing::warn!("locking this machine down: {}", failure::chain(&error)),
    }
}

pub(super) fn macs(inventory: &Inventory) -> Vec<String> {
    inventory.interfaces.iter().map(|nic| nic.mac_address.clone()).filter(|mac| !mac.is_empty()).collect()
}

/// The same node and token continue; anything else is a new beginning.
pub(super) fn merge(found: Found, earlier: Option<Identity>) -> Node {
    let Found { response, token, version } = found;
    let fresh = Identity {
        node_uuid: response.node.uuid.clone(),
        token: token.expose().to_string(),
        heartbeat_timeout: response.config.heartbeat_timeout,
        ..Identity::default()
    };
    let same = earlier.filter(|old| old.node_uuid == fresh.node_uuid && token.matches(&old.token));
    let resumed = same.is_some();
    tracing::info!("this machine is node {}{}", fresh.node_uuid, if resumed { " (resumed)" } else { "" });
    let identity = match same {
        Some(old) => Identity { heartbeat_timeout: fresh.heartbeat_timeout, ..old },
        None => fresh,
    };
    Node { lookup: response, version, identity, resumed }
}

/// What is known of a node without asking anybody.
pub(super) fn remembered(identity: &Identity) -> LookupResponse {
    LookupResponse {
        node: LookupNode { uuid: identity.node_uuid.clone(), ..LookupNode::default() },
        config: LookupConfig { heartbeat_timeout: identity.heartbeat_timeout, ..LookupConfig::default() },
    }
}
