//! What the conductor can ask of a machine from outside, one trait per interface. A driver never sees the store.

pub mod fake;
pub mod ipmi;
pub mod registry;
mod values;

pub use values::{BootDevice, BootMode, Persistence, PowerAction, PowerState};

use async_trait::async_trait;
use serde_json::{Map, Value};
use std::time::Duration;

/// Which stage of talking to a BMC failed, in words for the operator. Secrets never appear.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DriverError {
    #[error("driver_info is not usable: {0}")]
    Config(String),
    /// Nothing answered. Where a port other than 623 is set, the text names 623.
    #[error("no answer from the BMC at {address} (UDP port {port}) after {tries} tries in {waited:?}{hint}")]
    NoAnswer { address: String, port: u16, tries: u32, waited: Duration, hint: String },
    #[error("the BMC at {address} refused the session: {reason}")]
    SessionRefused { address: String, reason: String },
    #[error("the BMC at {address} refused user '{user}': wrong user name or password{detail}")]
    Credentials { address: String, user: String, detail: String },
    /// What becomes of [`Self::Credentials`] in the conductor.
    #[error(
        "{refusal}. It is not asked again with this login, as that could lock the account: correct driver_info, or ask for 'manage' or a power action to have it tried once more"
    )]
    LoginHeld { refusal: String },
    #[error("the BMC at {address} does not give user '{user}' the privilege {privilege}: {reason}")]
    Privilege { address: String, user: String, privilege: String, reason: String },
    #[error("the BMC at {address} answered '{command}' with completion code {code:#04x} ({meaning})")]
    Command { address: String, command: &'static str, code: u8, meaning: &'static str },
    #[error("the BMC at {address} sent an answer that makes no sense: {what}")]
    Protocol { address: String, what: String },
    /// The fault is on our side of the network: no socket, no name, no turn.
    #[error("this controller could not talk to the BMC at {address}: {what}")]
    Local { address: String, what: String },
}

impl DriverError {
    /// Whether asking again later may help. A wrong password never does: repeating it locks accounts.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NoAnswer { .. }
                | Self::SessionRefused { .. }
                | Self::Local { .. }
                | Self::Command { code: 0xC0 | 0xC3 | 0xD2, .. }
        )
    }
}

pub type DriverInfo = Map<String, Value>;

#[async_trait]
pub trait PowerInterface: Send + Sync {
    /// Checks `driver_info` without talking to anyone.
    fn validate(&self, driver_info: &DriverInfo) -> Result<(), DriverError>;
    async fn power_state(&self, driver_info: &DriverInfo) -> Result<PowerState, DriverError>;
    /// Returns when the BMC has accepted the action, not when the machine has followed.
    async fn power(&self, driver_info: &DriverInfo, action: PowerAction) -> Result<(), DriverError>;
}

#[async_trait]
pub trait ManagementInterface: Send + Sync {
    async fn boot_device(
        &self,
        driver_info: &DriverInfo,
    ) -> Result<(Option<BootDevice>, Persistence), DriverError>;
    async fn set_boot_device(
        &self,
        driver_info: &DriverInfo,
        device: BootDevice,
        persistence: Persistence,
        mode: BootMode,
    ) -> Result<(), DriverError>;
    /// Manufacturer and firmware of the BMC, in one line; proves address, password and privilege.
    async fn verify(&self, driver_info: &DriverInfo) -> Result<String, DriverError>;
}
