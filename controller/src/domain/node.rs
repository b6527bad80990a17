//! A node and its ports as the controller keeps them. The API renders them, the store saves them whole, the conductor
//! alone changes them.
//!
//! Field names and meanings follow Ironic's node; what only the conductor needs is in [`Agent`] and [`Flow`].

use super::provision;
use super::state::{Event, Power, PowerTarget, ProvisionState};
use ferric_common::ids::{MacAddress, NodeUuid, PortUuid};
use ferric_common::steps::Step;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub type Object = Map<String, Value>;

/// A machine under management. `Debug` shows name and state only: `driver_info` holds passwords.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    pub uuid: NodeUuid,
    pub name: Option<String>,
    pub driver: String,
    pub driver_info: Object,
    pub properties: Object,
    pub extra: Object,
    pub instance_info: Object,
    pub network_data: Object,
    pub raid_config: Object,
    pub target_raid_config: Object,
    /// Interface name by kind (`power` → `ipmitool`).
    pub interfaces: BTreeMap<String, String>,
    pub provision_state: ProvisionState,
    pub target_provision_state: Option<ProvisionState>,
    pub provision_updated_at: Option<Timestamp>,
    pub power_state: Option<Power>,
    /// A power action that was accepted and is not done yet; it outlives a restart.
    pub power_request: Option<PowerTarget>,
    /// Seconds that the client gave the machine for it.
    pub power_timeout: Option<u64>,
    /// How the BMC refused the login that `driver_info` gives. It is not asked again until that changes or an operator acts.
    pub login_refused: Option<String>,
    pub last_error: Option<String>,
    pub maintenance: bool,
    pub maintenance_reason: Option<String>,
    pub fault: Option<String>,
    pub instance_uuid: Option<String>,
    pub instance_name: Option<String>,
    pub resource_class: Option<String>,
    pub conductor_group: String,
    pub automated_clean: Option<bool>,
    pub protected: bool,
    pub protected_reason: Option<String>,
    pub retired: bool,
    pub retired_reason: Option<String>,
    pub owner: Option<String>,
    pub lessee: Option<String>,
    pub description: Option<String>,
    pub shard: Option<String>,
    pub parent_node: Option<String>,
    pub chassis_uuid: Option<String>,
    pub disable_power_off: bool,
    pub boot_mode: Option<String>,
    pub secure_boot: Option<bool>,
    pub traits: Vec<String>,
    pub inspection_started_at: Option<Timestamp>,
    pub inspection_finished_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    /// What clients see as `driver_internal_info`, without the parts that are rendered from [`Agent`] and [`Wait`].
    pub internal: Object,
    pub agent: Agent,
    pub flow: Flow,
    pub wait: Option<Wait>,
    /// Who holds the node for a long operation; kept in a column of its own.
    #[serde(skip)]
    pub reservation: Option<String>,
    /// Counts the writes to this node. A writer whose number is old has lost its turn.
    #[serde(skip)]
    pub generation: i64,
}

/// What is known of the agent of the present boot. Ends with every power-off, reboot, abort and time-out.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// The token, sealed.
    pub token: Option<String>,
    /// Which run of the controller gave it out, and to which address.
    pub token_run: Option<String>,
    pub token_address: Option<String>,
    /// A heartbeat with this token has come: from now on nobody gets it, or another one, again.
    pub token_proven: bool,
    pub url: Option<String>,
    pub version: Option<String>,
    /// PEM of the one certificate that calls to this agent accept.
    pub certificate: Option<String>,
    pub last_heartbeat: Option<Timestamp>,
    pub status: Option<String>,
    pub status_message: Option<String>,
    pub hardware_manager_version: Option<Value>,
}

/// Why the node waits, since when, and when the waiting ends in failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub reason: String,
    pub since: Timestamp,
    pub deadline: Timestamp,
}

/// Where booting the ramdisk stands; each part is looked at before it is done again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootPhase {
    #[default]
    PowerOff,
    BootDevice,
    PowerOn,
}

/// Where a flow (deploy, clean) stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    pub steps: Vec<Step>,
    /// The step that is being done; `None` before the first.
    pub index: Option<usize>,
    pub boot_phase: BootPhase,
    /// When the machine was about to be powered on for this boot.
    pub booted_at: Option<Timestamp>,
    /// The agent's steps of this boot are known.
    pub agent_steps_known: bool,
    /// The command at the agent that carries out the present step, once its id is known.
    pub command: Option<String>,
    /// How often the present step was sent to an agent, and when it was about to be sent last.
    pub sent: u32,
    pub sent_at: Option<Timestamp>,
    /// Commands that earlier steps left in the agent's list.
    pub past_commands: Vec<String>,
    /// Cleaning was asked for with a list of steps.
    pub manual: bool,
    /// Number of the last intent.
    pub last_intent: u64,
}

impl Flow {
    /// The step being done.
    pub fn step(&self) -> Option<&Step> {
        self.index.and_then(|i| self.steps.get(i))
    }
    /// Goes to the next step; `false` if there is none.
    pub fn advance(&mut self) -> bool {
        let next = self.index.map_or(0, |i| i + 1);
        self.forget_command();
        self.sent = 0;
        let more = next < self.steps.len();
        self.index = more.then_some(next);
        more
    }
    /// The present command counts no more; another will carry out the step.
    pub fn forget_command(&mut self) {
        self.past_commands.extend(self.command.take());
    }
    /// Begins anew with these steps, before the first.
    pub fn begin(&mut self, steps: Vec<Step>) {
        *self = Flow { steps, last_intent: self.last_intent, ..Flow::default() };
    }
}

impl Default for Node {
    fn default() -> Node {
        Node {
            uuid: NodeUuid(uuid::Uuid::nil()),
            name: None,
            driver: String::new(),
            driver_info: Object::new(),
            properties: Object::new(),
            extra: Object::new(),
            instance_info: Object::new(),
            network_data: Object::new(),
            raid_config: Object::new(),
            target_raid_config: Object::new(),
            interfaces: BTreeMap::new(),
            provision_state: ProvisionState::Enroll,
            target_provision_state: None,
            provision_updated_at: None,
            power_state: None,
            power_request: None,
            power_timeout: None,
            login_refused: None,
            last_error: None,
            maintenance: false,
            maintenance_reason: None,
            fault: None,
            instance_uuid: None,
            instance_name: None,
            resource_class: None,
            conductor_group: String::new(),
            automated_clean: None,
            protected: false,
            protected_reason: None,
            retired: false,
            retired_reason: None,
            owner: None,
            lessee: None,
            description: None,
            shard: None,
            parent_node: None,
            chassis_uuid: None,
            disable_power_off: false,
            boot_mode: None,
            secure_boot: None,
            traits: Vec::new(),
            inspection_started_at: None,
            inspection_finished_at: None,
            created_at: None,
            updated_at: None,
            internal: Object::new(),
            agent: Agent::default(),
            flow: Flow::default(),
            wait: None,
            reservation: None,
            generation: 0,
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({} {:?} {})", self.uuid, self.name, self.provision_state)
    }
}

/// An event that the table does not allow in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event '{event}' is not possible in state '{state}'")]
pub struct Refused {
    pub state: ProvisionState,
    pub event: Event,
}

impl Node {
    /// Moves the node by the table: sets state, target and time. The target is cleared where a stable state is
    /// reached and kept where it failed.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<(), Refused> {
        let from = self.provision_state;
        let to = provision::next(from, event).ok_or(Refused { state: from, event })?;
        if let Some(target) = provision::target(from, event) {
            self.target_provision_state = Some(target);
        }
        if to.is_stable() && !to.is_failed() {
            self.target_provision_state = None;
        }
        self.provision_state = to;
        self.provision_updated_at = Some(now);
        self.wait = None;
        Ok(())
    }
    /// Forgets the agent of the boot that ends now: its token, address and certificate are never valid again.
    pub fn end_agent(&mut self) {
        self.agent = Agent::default();
        self.flow.agent_steps_known = false;
        self.flow.past_commands.clear();
        self.flow.command = None;
    }
    /// Records what was read from the BMC.
    pub fn note_power(&mut self, power: Power, now: Timestamp) {
        if self.power_state != Some(power) {
            self.internal.insert("last_power_state_change".into(), Value::String(stamp(now)));
        }
        self.power_state = Some(power);
    }
    /// The name of an interface of this node.
    pub fn interface(&self, kind: &str) -> &str {
        self.interfaces.get(kind).map_or("", String::as_str)
    }
    /// What operators call it in messages: name and UUID.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.uuid),
            None => self.uuid.to_string(),
        }
    }
}

/// A NIC of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Port {
    pub uuid: PortUuid,
    pub address: MacAddress,
    pub node_uuid: NodeUuid,
    #[serde(default)]
    pub extra: Object,
    #[serde(default)]
    pub internal_info: Object,
    #[serde(default = "yes")]
    pub pxe_enabled: bool,
    #[serde(default)]
    pub local_link_connection: Object,
    #[serde(default)]
    pub portgroup_uuid: Option<String>,
    #[serde(default)]
    pub physical_network: Option<String>,
    #[serde(default)]
    pub is_smartnic: bool,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub vendor: Option<String>,
    #[serde(default)]
    pub category: Option<String>,
    #[serde(default = "yes")]
    pub available_for_dynamic_portgroup: bool,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
}

fn yes() -> bool {
    true
}

/// A moment as Ironic's API writes it: microseconds and an explicit offset (Go clients refuse a bare time).
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_prints_with_six_digits_and_an_offset() {
        for (nanos, text) in
            [(0, "1970-01-01T00:00:00.000000+00:00"), (1_131_415_000, "1970-01-01T00:00:01.131415+00:00")]
        {
            assert_eq!(stamp(Timestamp::from_nanosecond(nanos).unwrap()), text);
        }
    }

    #[test]
    fn the_target_is_kept_on_failure_and_cleared_on_arrival() {
        let now = Timestamp::UNIX_EPOCH;
        let mut node = Node { provision_state: ProvisionState::Available, ..Node::default() };
        node.apply(Event::Deploy, now).unwrap();
        assert_eq!(node.target_provision_state, Some(ProvisionState::Active));
        node.apply(Event::Fail, now).unwrap();
        assert_eq!(node.target_provision_state, Some(ProvisionState::Active));
        node.apply(Event::Rebuild, now).unwrap();
        node.apply(Event::Done, now).unwrap();
        assert_eq!((node.provision_state, node.target_provision_state), (ProvisionState::Active, None));
        assert!(node.apply(Event::Deploy, now).is_err());
        assert_eq!(node.provision_state, ProvisionState::Active);
    }
}
