//! Hardware type `fake-hardware`: a machine that exists in memory only, for trying out the API and for tests.
//!
//! Power and boot device are remembered per node; the conductor puts the node's UUID and its stored power state into the
//! driver information that it hands over.

use super::{
    BootDevice, BootMode, DriverError, DriverInfo, ManagementInterface, Persistence, PowerAction,
    PowerInterface, PowerState,
};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys that the conductor adds to `driver_info`; no real driver reads them.
pub const NODE_KEY: &str = "ferric_node";
pub const POWER_KEY: &str = "ferric_power";

#[derive(Clone, Copy, Debug)]
struct Machine {
    power: PowerState,
    device: Option<(BootDevice, Persistence)>,
}

/// All fake machines.
#[derive(Default)]
pub struct Fake {
    machines: Mutex<HashMap<String, Machine>>,
}

impl Fake {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn with<T>(&self, info: &DriverInfo, act: impl FnOnce(&mut Machine) -> T) -> T {
        let word = |key: &str| info.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_string();
        let power = if word(POWER_KEY) == "power on" { PowerState::On } else { PowerState::Off };
        act(self.all().entry(word(NODE_KEY)).or_insert(Machine { power, device: None }))
    }
}

#[async_trait]
impl PowerInterface for Fake {
    fn validate(&self, _: &DriverInfo) -> Result<(), DriverError> {
        Ok(())
    }
    async fn power_state(&self, info: &DriverInfo) -> Result<PowerState, DriverError> {
        Ok(self.with(info, |m| m.power))
    }
    async fn power(&self, info: &DriverInfo, action: PowerAction) -> Result<(), DriverError> {
        self.with(info, |m| {
            m.power = match action {
                PowerAction::On | PowerAction::Cycle | PowerAction::Reset => PowerState::On,
                PowerAction::Off | PowerAction::SoftOff => PowerState::Off,
            };
        });
        Ok(())
    }
}

#[async_trait]
impl ManagementInterface for Fake {
    async fn boot_device(&self, info: &DriverInfo) -> Result<(Option<BootDevice>, Persistence), DriverError> {
        Ok(self.with(info, |m| m.device.map_or((None, Persistence::Once), |(d, p)| (Some(d), p))))
    }
    async fn set_boot_device(
        &self,
        info: &DriverInfo,
        device: BootDevice,
        persistence: Persistence,
        _: BootMode,
    ) -> Result<(), DriverError> {
        self.with(info, |m| m.device = Some((device, persistence)));
        Ok(())
    }
    async fn verify(&self, _: &DriverInfo) -> Result<String, DriverError> {
        Ok("a machine in memory".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn each_node_has_its_own_power_which_starts_as_it_was_stored() {
        let fake = Fake::default();
        let info =
            |node: &str, power: &str| json!({NODE_KEY: node, POWER_KEY: power}).as_object().unwrap().clone();
        let (a, b) = (info("a", "power on"), info("b", ""));
        assert_eq!(fake.power_state(&a).await.unwrap(), PowerState::On);
        assert_eq!(fake.power_state(&b).await.unwrap(), PowerState::Off);
        fake.power(&a, PowerAction::Off).await.unwrap();
        fake.power(&b, PowerAction::Cycle).await.unwrap();
        assert_eq!(fake.power_state(&a).await.unwrap(), PowerState::Off);
        assert_eq!(fake.power_state(&b).await.unwrap(), PowerState::On);
    }
}
