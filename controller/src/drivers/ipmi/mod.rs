//! IPMI over LAN (RMCP+): power, boot device and identity of a BMC, spoken natively.
//!
//! `packet`, `rakp`, `session`, `commands`, `target` and `explain` are pure; `transport` holds the socket. No password leaves
//! this process: no program is started and nothing is written. One talk at a time per BMC; each talk is a session of
//! its own, so that nothing is held open on BMCs, which have few sessions.
//! Specification: IPMI v2.0 rev. 1.1; keys and behaviour of `driver_info` as in Ironic's `ipmi` hardware type.

mod commands;
mod explain;
mod packet;
mod rakp;
mod session;
mod target;
mod transport;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod test_bmc;
#[cfg(test)]
mod tests;

use super::{
    BootDevice, BootMode, DriverError, DriverInfo, ManagementInterface, Persistence, PowerAction,
    PowerInterface, PowerState,
};
use async_trait::async_trait;
use commands::{BootRequest, DeviceId};
use rakp::Suite;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use target::{EmptyPassword, Target};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};
use transport::Talk;

/// BMCs remembered before those that are not in use are forgotten.
const BMCS: usize = 8192;
/// "Not possible in the present state": the answer of many BMCs to "on" when the machine is on.
const WRONG_STATE: u8 = 0xD5;

/// Patience and rules of the client.
#[derive(Debug, Clone)]
pub struct IpmiSettings {
    /// How often each question is sent before the BMC counts as silent.
    pub tries: u32,
    /// Wait after the first try; it doubles with each further one (three tries: 2 + 4 + 8 s).
    pub first_wait: Duration,
    /// The longest that one talk may take, and the longest that one waits for the talk before it.
    pub talk: Duration,
    /// Whether a BMC without a password may be used.
    pub allow_empty_password: bool,
}

impl Default for IpmiSettings {
    fn default() -> Self {
        IpmiSettings {
            tries: 3,
            first_wait: Duration::from_secs(2),
            talk: Duration::from_secs(60),
            allow_empty_password: false,
        }
    }
}

/// Where a BMC is: address in lower case, UDP port.
type Place = (String, u16);

/// What is remembered of a BMC between talks: the suite that worked last.
type Memory = Option<Suite>;

/// The driver for every BMC that speaks IPMI over LAN. Cheap to share; make one per process.
pub struct Ipmi {
    settings: IpmiSettings,
    bmcs: Mutex<HashMap<Place, Arc<AsyncMutex<Memory>>>>,
}

impl Ipmi {
    pub fn new(settings: IpmiSettings) -> Self {
        Ipmi { settings, bmcs: Mutex::new(HashMap::new()) }
    }

    fn target(&self, info: &DriverInfo) -> Result<Target, DriverError> {
        let empty = match self.settings.allow_empty_password {
            true => EmptyPassword::Allowed,
            false => EmptyPassword::Refused,
        };
        Target::parse(info, empty)
    }

    /// Waits for the turn with this BMC.
    async fn turn(&self, target: &Target) -> Result<OwnedMutexGuard<Memory>, DriverError> {
        let key = (target.address.to_ascii_lowercase(), target.port);
        let lock = {
            let mut bmcs = self.bmcs.lock().unwrap_or_else(PoisonError::into_inner);
            if bmcs.len() >= BMCS && !bmcs.contains_key(&key) {
                bmcs.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            Arc::clone(bmcs.entry(key).or_default())
        };
        timeout(self.settings.talk, lock.lock_owned()).await.map_err(|_| DriverError::Local {
            address: target.address.clone(),
            what: format!("another talk with it has not ended within {:?}", self.settings.talk),
        })
    }

    async fn open<'a>(&self, target: &'a Target, memory: &mut Memory) -> Result<Talk<'a>, DriverError> {
        let deadline = Instant::now() + self.settings.talk;
        // The suite that worked last time goes first; the others stay behind it in case the BMC was updated.
        let mut suites = target.suites.clone();
        suites.sort_by_key(|suite| Some(*suite) != *memory);
        let talk = Talk::open(target, &self.settings, &suites, deadline).await?;
        *memory = Some(talk.suite());
        Ok(talk)
    }
}

/// Opens a talk, runs the body, and closes the talk whatever the body returned.
macro_rules! talk {
    ($self:ident, $info:ident, |$talk:ident, $target:ident| $body:expr) => {{
        let $target = $self.target($info)?;
        let mut memory = $self.turn(&$target).await?;
        let mut $talk = $self.open(&$target, &mut memory).await?;
        let result = $body.await;
        $talk.close().await;
        result
    }};
}

async fn state(talk: &mut Talk<'_>) -> Result<PowerState, DriverError> {
    talk.read(&commands::chassis_status(), commands::parse_chassis_status).await
}

async fn control(talk: &mut Talk<'_>, action: PowerAction) -> Result<(), DriverError> {
    let refused = match talk.run(&commands::chassis_control(action)).await {
        Err(error @ DriverError::Command { code: WRONG_STATE, .. }) => error,
        other => return other.map(drop),
    };
    // A repetition must not fail: what was asked for may be the state already.
    match (action, state(talk).await?) {
        (PowerAction::On, PowerState::On) => Ok(()),
        (PowerAction::Off | PowerAction::SoftOff, PowerState::Off) => Ok(()),
        // Cycling or resetting a machine that is off is switching it on.
        (PowerAction::Cycle | PowerAction::Reset, PowerState::Off) => {
            talk.run(&commands::chassis_control(PowerAction::On)).await.map(drop)
        }
        _ => Err(refused),
    }
}

async fn identity(talk: &mut Talk<'_>) -> Result<DeviceId, DriverError> {
    talk.read(&commands::device_id(), DeviceId::parse).await
}

async fn set_boot(
    talk: &mut Talk<'_>,
    target: &Target,
    device: BootDevice,
    persistence: Persistence,
    mode: BootMode,
) -> Result<(), DriverError> {
    // The maker matters only for the one number that differs.
    let supermicro =
        (mode, device) == (BootMode::Uefi, BootDevice::Disk) && identity(talk).await?.is_supermicro();
    let keep_beyond_60s = target.keep_boot_flags;
    for command in
        commands::set_boot_device(BootRequest { device, persistence, mode, keep_beyond_60s, supermicro })
    {
        talk.run(&command).await?;
    }
    Ok(())
}

async fn verify(talk: &mut Talk<'_>) -> Result<String, DriverError> {
    let id = identity(talk).await?;
    // The power state is what will be asked for all the time: it has to work before a node is taken on.
    state(talk).await?;
    Ok(format!("{}, cipher suite {}", id.describe(), talk.suite().number()))
}

#[async_trait]
impl PowerInterface for Ipmi {
    fn validate(&self, driver_info: &DriverInfo) -> Result<(), DriverError> {
        self.target(driver_info).map(drop)
    }

    async fn power_state(&self, driver_info: &DriverInfo) -> Result<PowerState, DriverError> {
        talk!(self, driver_info, |talk, target| state(&mut talk))
    }

    async fn power(&self, driver_info: &DriverInfo, action: PowerAction) -> Result<(), DriverError> {
        talk!(self, driver_info, |talk, target| control(&mut talk, action))
    }
}

#[async_trait]
impl ManagementInterface for Ipmi {
    async fn boot_device(
        &self,
        driver_info: &DriverInfo,
    ) -> Result<(Option<BootDevice>, Persistence), DriverError> {
        talk!(self, driver_info, |talk, target| talk
            .read(&commands::boot_flags(), commands::parse_boot_flags))
    }

    async fn set_boot_device(
        &self,
        driver_info: &DriverInfo,
        device: BootDevice,
        persistence: Persistence,
        mode: BootMode,
    ) -> Result<(), DriverError> {
        talk!(self, driver_info, |talk, target| set_boot(&mut talk, &target, device, persistence, mode))
    }

    async fn verify(&self, driver_info: &DriverInfo) -> Result<String, DriverError> {
        talk!(self, driver_info, |talk, target| verify(&mut talk))
    }
}
