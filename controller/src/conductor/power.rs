//! Power and boot device of a machine. Looks before it acts, so that doing it again after a restart does no harm; whatever
//! ends a boot ends the token of that boot.

use super::worker::{Next, Stop};
use super::{Conductor, Lease, driver_info};
use crate::domain::node::{BootPhase, Node};
use crate::domain::state::{Event, Power, PowerTarget};
use crate::domain::validate;
use crate::drivers::{BootDevice, BootMode, DriverError, Persistence, PowerAction, PowerState};
use crate::store::NodeFilter;
use jiff::Timestamp;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Tries of a BMC call whose failure may pass.
const TRIES: u32 = 3;
/// BMCs read at the same time by the power sync.
const SYNC_AT_ONCE: usize = 128;

/// Repeats a BMC call while its failure may pass.
async fn patiently<T, F, Fut>(pause: Duration, call: F) -> Result<T, DriverError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, DriverError>>,
{
    let mut tried = 1;
    loop {
        match call().await {
            Err(error) if error.is_transient() && tried < TRIES => {
                tried += 1;
                sleep(pause).await;
            }
            other => return other,
        }
    }
}

fn power_read(node: &Node, read: Result<PowerState, DriverError>) -> Result<Power, String> {
    match read {
        Ok(PowerState::On) => Ok(Power::On),
        Ok(PowerState::Off) => Ok(Power::Off),
        Err(error) => Err(format!("Failed to get power state for node {}. Error: {error}", node.uuid)),
    }
}

impl Conductor {
    pub(super) async fn read_power(&self, node: &Node) -> Result<Power, String> {
        let hardware = self.hardware(node)?;
        let info = driver_info(node);
        let read = patiently(self.settings.patience.retry, || hardware.power.power_state(&info)).await;
        power_read(node, read)
    }

    /// The same without patience, where somebody waits for the answer or the next look comes anyway.
    async fn read_power_once(&self, node: &Node) -> Result<Power, String> {
        power_read(node, self.hardware(node)?.power.power_state(&driver_info(node)).await)
    }

    /// Brings the machine to `want` and waits until it is there. Looks first.
    pub(super) async fn set_power(&self, lease: &mut Lease<'_>, want: Power) -> Result<(), Stop> {
        let fail = |text: String| Stop::Fail(text);
        let mut now = self.read_power(&lease.node).await.map_err(fail)?;
        if now != want {
            let action = if want == Power::On { PowerAction::On } else { PowerAction::Off };
            self.power_action(&lease.node, action).await?;
            now = self.await_power(&lease.node, want, self.settings.patience.power_change).await?;
        }
        lease.node.note_power(now, Timestamp::now());
        if now != want {
            return Err(Stop::Fail(format!(
                "Failed to set node power state to {want}: the BMC took the request, but after {} s the machine of node {} is still in state {now}",
                self.settings.patience.power_change.as_secs(),
                lease.node.uuid
            )));
        }
        Ok(())
    }

    async fn power_action(&self, node: &Node, action: PowerAction) -> Result<(), Stop> {
        let hardware = self.hardware(node).map_err(Stop::Fail)?;
        let info = driver_info(node);
        patiently(self.settings.patience.retry, || hardware.power.power(&info, action))
            .await
            .map_err(|e| Stop::Fail(format!("Failed to change power of node {}. Error: {e}", node.uuid)))
    }

    /// Looks at the power until it is `want` or the time is over; the last look is returned.
    pub(super) async fn await_power(
        &self,
        node: &Node,
        want: Power,
        longest: Duration,
    ) -> Result<Power, Stop> {
        let end = Instant::now() + longest;
        loop {
            let now = self.read_power(node).await.map_err(Stop::Fail)?;
            if now == want || Instant::now() >= end {
                return Ok(now);
            }
            sleep(self.settings.patience.power_look).await;
        }
    }

    /// Off, boot device network (once), on: the machine boots the ramdisk. Goes on where an earlier run stopped.
    pub(super) async fn boot_ramdisk(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        loop {
            match lease.node.flow.boot_phase {
                BootPhase::PowerOff => {
                    lease.node.end_agent();
                    lease.slot.forget_boot();
                    lease.save_intent("power off").await?;
                    self.set_power(lease, Power::Off).await?;
                    lease.node.end_agent();
                    lease.node.flow.boot_phase = BootPhase::BootDevice;
                    lease.save_result().await?;
                }
                BootPhase::BootDevice => {
                    lease.save_intent("boot device network, once").await?;
                    self.set_boot_device(lease, BootDevice::Pxe, Persistence::Once).await?;
                    lease.node.flow.boot_phase = BootPhase::PowerOn;
                    lease.save_result().await?;
                }
                BootPhase::PowerOn => {
                    lease.save_intent("power on").await?;
                    self.set_power(lease, Power::On).await?;
                    lease.node.flow.boot_phase = BootPhase::PowerOff;
                    return Ok(());
                }
            }
        }
    }

    /// Sets the boot device. A BMC that cannot is no reason to fail: the machine's own order may do.
    pub(super) async fn set_boot_device(
        &self,
        lease: &mut Lease<'_>,
        device: BootDevice,
        persistence: Persistence,
    ) -> Result<(), Stop> {
        if lease.node.interface("management") == "noop" {
            return Ok(());
        }
        let mode = validate::boot_mode(&lease.node, &self.settings.default_boot_mode).map_err(Stop::Fail)?;
        let bmc_mode = if mode == "bios" { BootMode::Bios } else { BootMode::Uefi };
        lease.node.boot_mode = Some(mode);
        let hardware = self.hardware(&lease.node).map_err(Stop::Fail)?;
        let info = lease.driver_info();
        let call = || hardware.management.set_boot_device(&info, device, persistence, bmc_mode);
        match patiently(self.settings.patience.retry, call).await {
            Ok(()) => Ok(()),
            Err(error @ DriverError::Command { .. }) => {
                tracing::warn!(node = %lease.node.uuid, %error, "the boot device cannot be set; going on");
                Ok(())
            }
            Err(error) => Err(Stop::Fail(format!(
                "Failed to set the boot device of node {}. Error: {error}",
                lease.node.uuid
            ))),
        }
    }

    /// A power action that a client asked for.
    pub(super) async fn carry_out_power_request(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        let Some(target) = lease.node.power_request else { return Ok(()) };
        let result = self.reach(lease, target).await;
        lease.node.power_request = None;
        match result {
            Ok(()) => {}
            Err(Stop::Fail(text)) => lease.node.last_error = Some(text),
            Err(later) => return Err(later),
        }
        lease.save().await?;
        Ok(())
    }

    async fn reach(&self, lease: &mut Lease<'_>, target: PowerTarget) -> Result<(), Stop> {
        match target {
            PowerTarget::On => self.set_power(lease, Power::On).await,
            PowerTarget::Off => {
                lease.node.end_agent();
                self.set_power(lease, Power::Off).await
            }
            PowerTarget::SoftOff => {
                lease.node.end_agent();
                self.power_action(&lease.node, PowerAction::SoftOff).await?;
                let longest = self.settings.patience.power_change.saturating_mul(10);
                let now = self.await_power(&lease.node, Power::Off, longest).await?;
                lease.node.note_power(now, Timestamp::now());
                if now == Power::Off {
                    return Ok(());
                }
                Err(Stop::Fail(format!(
                    "Failed to set node power state to soft power off: its operating system did not power the machine off in {} s",
                    longest.as_secs()
                )))
            }
            PowerTarget::Reboot | PowerTarget::SoftReboot => {
                lease.node.end_agent();
                self.set_power(lease, Power::Off).await?;
                self.set_power(lease, Power::On).await
            }
        }
    }

    /// `manage`: proves the BMC's address, password and privilege, and reads the power state.
    pub(super) async fn verify(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        let hardware = self.hardware(&lease.node).map_err(Stop::Fail)?.clone();
        let info = lease.driver_info();
        hardware.power.validate(&info).map_err(|e| Stop::Fail(e.to_string()))?;
        let power = self.read_power_once(&lease.node).await.map_err(Stop::Fail)?;
        let bmc = patiently(self.settings.patience.retry, || hardware.management.verify(&info))
            .await
            .map_err(|e| Stop::Fail(e.to_string()))?;
        lease.node.internal.insert("bmc".into(), bmc.into());
        let now = Timestamp::now();
        lease.node.note_power(power, now);
        lease.node.apply(Event::Done, now).map_err(|e| Stop::Fail(e.to_string()))?;
        lease.save_result().await?;
        Ok(Next::Again)
    }

    /// Reads every settled machine's power now and then, so that the API tells the truth.
    pub(super) fn spawn_power_sync(self: &Arc<Self>) {
        let pause = self.settings.patience.power_sync;
        if pause.is_zero() {
            return;
        }
        let conductor = self.clone();
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = stop.changed() => return,
                }
                conductor.sync_power().await;
            }
        });
    }

    async fn sync_power(self: &Arc<Self>) {
        let nodes =
            match self.store.nodes(NodeFilter { include_children: true, ..NodeFilter::default() }).await {
                Ok(nodes) => nodes,
                Err(error) => return tracing::warn!(%error, "the power sync cannot read the nodes"),
            };
        let room = Arc::new(tokio::sync::Semaphore::new(SYNC_AT_ONCE));
        let mut reads = tokio::task::JoinSet::new();
        for node in nodes.into_iter().filter(syncable) {
            let (conductor, room) = (self.clone(), room.clone());
            reads.spawn(async move {
                let _permit = room.acquire_owned().await;
                conductor.sync_one(node).await;
            });
        }
        while reads.join_next().await.is_some() {}
    }

    async fn sync_one(&self, node: Node) {
        match self.read_power_once(&node).await {
            Ok(power) if node.power_state == Some(power) => {}
            Ok(power) => {
                let Ok(mut lease) = self.lease(node.uuid).await else { return };
                if lease.node.generation == node.generation {
                    lease.node.note_power(power, Timestamp::now());
                    if let Err(error) = lease.save().await {
                        tracing::warn!(node = %node.uuid, %error, "recording the power state");
                    }
                }
            }
            Err(error) => tracing::warn!(node = %node.uuid, %error, "power sync"),
        }
    }
}

fn syncable(node: &Node) -> bool {
    use crate::domain::state::ProvisionState as S;
    node.provision_state.is_stable()
        && !matches!(node.provision_state, S::Enroll | S::AdoptFailed)
        && !node.maintenance
        && node.power_request.is_none()
}
