//! Power and boot device of a machine. Looks before it acts, so that doing it again after a restart does no harm; whatever
//! ends a boot ends the token of that boot.

use super::worker::{Next, Stop};
use super::{Conductor, Lease, driver_info};
use crate::domain::node::{BootPhase, Node};
use crate::domain::state::{Event, Power};
use crate::domain::validate;
use crate::drivers::{BootDevice, BootMode, DriverError, Persistence, PowerAction, PowerState};
use jiff::Timestamp;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Tries of a BMC call whose failure may pass.
const TRIES: u32 = 3;

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

/// A read in the node's words.
fn power_of(node: &Node, read: Result<PowerState, DriverError>) -> Result<Power, String> {
    read.map(Power::from)
        .map_err(|error| format!("Failed to get power state for node {}. Error: {error}", node.uuid))
}

impl From<PowerState> for Power {
    fn from(state: PowerState) -> Power {
        match state {
            PowerState::On => Power::On,
            PowerState::Off => Power::Off,
        }
    }
}

impl Conductor {
    /// Asks a node's BMC, unless it refused the same login before: a wrong password that is repeated locks accounts.
    ///
    /// # Errors
    /// What the driver said; [`DriverError::LoginHeld`] for a login that was refused, now or before.
    pub(super) async fn ask_bmc<T>(
        &self,
        node: &Node,
        call: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let slot = self.slots.slot(node.uuid);
        if let Some(refusal) = slot.refusal(node).or_else(|| node.login_refused.clone()) {
            return Err(DriverError::LoginHeld { refusal });
        }
        match call.await {
            Err(error @ DriverError::Credentials { .. }) => {
                let refusal = error.to_string();
                slot.refuse(node, refusal.clone());
                Err(DriverError::LoginHeld { refusal })
            }
            other => other,
        }
    }

    pub(super) async fn read_power(&self, node: &Node) -> Result<Power, String> {
        let hardware = self.hardware(node)?;
        let info = driver_info(node);
        let call = patiently(self.settings.patience.retry, || hardware.power.power_state(&info));
        power_of(node, self.ask_bmc(node, call).await)
    }

    /// The same without patience, where somebody waits for the answer or the next look comes anyway.
    pub(super) async fn read_power_once(&self, node: &Node) -> Result<PowerState, DriverError> {
        let hardware = self.hardware(node).map_err(DriverError::Config)?;
        self.ask_bmc(node, hardware.power.power_state(&driver_info(node))).await
    }

    /// Brings the machine to `want` and waits until it is there. Looks first.
    pub(super) async fn set_power(&self, lease: &mut Lease<'_>, want: Power) -> Result<(), Stop> {
        self.set_power_within(lease, want, self.settings.patience.power_change).await
    }

    pub(super) async fn set_power_within(
        &self,
        lease: &mut Lease<'_>,
        want: Power,
        longest: Duration,
    ) -> Result<(), Stop> {
        let fail = |text: String| Stop::Fail(text);
        let mut now = self.read_power(&lease.node).await.map_err(fail)?;
        if now != want {
            let action = if want == Power::On { PowerAction::On } else { PowerAction::Off };
            self.power_action(&lease.node, action).await?;
            now = self.await_power(&lease.node, want, longest).await?;
        }
        lease.node.note_power(now, Timestamp::now());
        if now != want {
            return Err(Stop::Fail(format!(
                "Failed to set node power state to {want}: the BMC took the request, but after {} s the machine of node {} is still in state {now}",
                longest.as_secs(),
                lease.node.uuid
            )));
        }
        Ok(())
    }

    pub(super) async fn power_action(&self, node: &Node, action: PowerAction) -> Result<(), Stop> {
        let hardware = self.hardware(node).map_err(Stop::Fail)?;
        let info = driver_info(node);
        let call = patiently(self.settings.patience.retry, || hardware.power.power(&info, action));
        self.ask_bmc(node, call)
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
        // Many BMCs forget a boot device that no power-on followed within a minute; an earlier run may have set it long ago.
        if lease.node.flow.boot_phase == BootPhase::PowerOn
            && self.read_power(&lease.node).await.map_err(Stop::Fail)? == Power::Off
        {
            lease.node.flow.boot_phase = BootPhase::BootDevice;
        }
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
                    lease.node.flow.booted_at = Some(Timestamp::now());
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
        let call = patiently(self.settings.patience.retry, || {
            hardware.management.set_boot_device(&info, device, persistence, bmc_mode)
        });
        match self.ask_bmc(&lease.node, call).await {
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

    /// `manage`: proves the BMC's address, password and privilege, and reads the power state.
    pub(super) async fn verify(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        let hardware = self.hardware(&lease.node).map_err(Stop::Fail)?.clone();
        let info = lease.driver_info();
        hardware.power.validate(&info).map_err(|e| Stop::Fail(e.to_string()))?;
        let power = power_of(&lease.node, self.read_power_once(&lease.node).await).map_err(Stop::Fail)?;
        let call = patiently(self.settings.patience.retry, || hardware.management.verify(&info));
        let bmc = self.ask_bmc(&lease.node, call).await.map_err(|e| Stop::Fail(e.to_string()))?;
        lease.node.internal.insert("bmc".into(), bmc.into());
        let now = Timestamp::now();
        lease.node.note_power(power, now);
        lease.node.apply(Event::Done, now).map_err(|e| Stop::Fail(e.to_string()))?;
        lease.save_result().await?;
        Ok(Next::Again)
    }
}
