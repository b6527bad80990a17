//! Power actions that clients ask for. What they do to a machine follows Ironic's `ipmitool` power interface: a reboot is off and
//! on by the BMC; the soft ones ask the operating system and never turn into hard ones by themselves.

use super::worker::Stop;
use super::{Conductor, Lease, Refusal};
use crate::domain::node::Node;
use crate::domain::state::{Power, PowerTarget, ProvisionState as S};
use crate::drivers::PowerAction;
use ferric_common::ids::NodeUuid;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A power action as a client asks for it.
#[derive(Clone, Copy, Debug)]
pub struct PowerRequest {
    pub target: PowerTarget,
    /// How long the machine may take for each change; `None` is the configured time.
    pub timeout: Option<Duration>,
}

/// Whether the action may be asked of this node now.
fn permit(node: &Node, target: PowerTarget) -> Result<(), Refusal> {
    let uuid = node.uuid;
    if matches!(node.provision_state, S::Cleaning | S::CleanWait) {
        return Err(Refusal::Invalid(format!(
            "The requested action \"{target}\" can not be performed on node \"{uuid}\" while it is in state \"{}\".",
            node.provision_state
        )));
    }
    match target {
        PowerTarget::Off | PowerTarget::SoftOff if node.disable_power_off => {
            Err(Refusal::Conflict(format!("Node {uuid} must not be powered off (disable_power_off is set).")))
        }
        // A BMC can reset a machine, but not have its operating system reboot.
        PowerTarget::SoftReboot if node.disable_power_off => Err(Refusal::Invalid(format!(
            "The driver {} does not support the power state, {target}, where disable_power_off is set on the node",
            node.driver
        ))),
        _ => Ok(()),
    }
}

impl Conductor {
    /// Accepts a power action; the worker carries it out.
    pub async fn request_power(self: &Arc<Self>, uuid: NodeUuid, asked: PowerRequest) -> Result<(), Refusal> {
        let mut lease = self.lease(uuid).await?;
        let node = &mut lease.node;
        permit(node, asked.target)?;
        self.validate_power(node).map_err(Refusal::Invalid)?;
        lease.forgive_login();
        let node = &mut lease.node;
        node.power_request = Some(asked.target);
        node.power_timeout = asked.timeout.map(|t| t.as_secs());
        node.last_error = None;
        lease.save().await?;
        drop(lease);
        self.wake(uuid);
        Ok(())
    }

    /// Does what a client asked for. How it failed is the node's `last_error`.
    pub(super) async fn carry_out_power_request(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        let Some(target) = lease.node.power_request else { return Ok(()) };
        let result = self.reach(lease, target).await;
        lease.node.power_request = None;
        lease.node.power_timeout = None;
        match result {
            Ok(()) => {}
            Err(Stop::Fail(text)) => {
                let text =
                    format!("Failed to change power state to '{}' by '{target}': {text}", target.shown());
                lease.node.last_error = Some(text);
            }
            Err(later) => return Err(later),
        }
        lease.save().await?;
        Ok(())
    }

    async fn reach(&self, lease: &mut Lease<'_>, target: PowerTarget) -> Result<(), Stop> {
        let patience = &self.settings.patience;
        let given = lease.node.power_timeout.map(Duration::from_secs);
        let hard = given.unwrap_or(patience.power_change);
        let soft = given.unwrap_or(patience.soft_power_off);
        if target != PowerTarget::On {
            lease.node.end_agent();
        }
        match target {
            PowerTarget::On => self.set_power_within(lease, Power::On, hard).await,
            PowerTarget::Off => self.set_power_within(lease, Power::Off, hard).await,
            PowerTarget::SoftOff => self.soft_off(lease, soft).await,
            PowerTarget::Reboot if lease.node.disable_power_off => self.reset(lease, hard).await,
            PowerTarget::Reboot => {
                self.set_power_within(lease, Power::Off, hard).await?;
                self.set_power_within(lease, Power::On, hard).await
            }
            PowerTarget::SoftReboot => {
                self.soft_off(lease, soft).await?;
                self.set_power_within(lease, Power::On, hard).await
            }
        }
    }

    /// Has the operating system power the machine off.
    async fn soft_off(&self, lease: &mut Lease<'_>, longest: Duration) -> Result<(), Stop> {
        let mut now = self.read_power(&lease.node).await.map_err(Stop::Fail)?;
        if now != Power::Off {
            self.power_action(&lease.node, PowerAction::SoftOff).await?;
            now = self.await_power(&lease.node, Power::Off, longest).await?;
        }
        lease.node.note_power(now, Timestamp::now());
        if now == Power::Off {
            return Ok(());
        }
        Err(Stop::Fail(format!(
            "its operating system did not power the machine off within {} s. Ask again with a longer timeout, or do it without the operating system's consent: 'power off' or 'rebooting'",
            longest.as_secs()
        )))
    }

    /// A reboot that never takes the power away.
    async fn reset(&self, lease: &mut Lease<'_>, longest: Duration) -> Result<(), Stop> {
        self.power_action(&lease.node, PowerAction::Reset).await?;
        sleep(self.settings.patience.reset_settle).await;
        self.set_power_within(lease, Power::On, longest).await
    }
}
