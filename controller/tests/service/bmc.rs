//! A BMC in memory, with a record of what it was told.

use crate::fuse::Fuse;
use async_trait::async_trait;
use ferric_controller::drivers::{
    BootDevice, BootMode, DriverError, DriverInfo, ManagementInterface, Persistence, PowerAction,
    PowerInterface, PowerState,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One machine's BMC, with a record of what it was told.
pub struct Bmc {
    pub power: Mutex<PowerState>,
    pub device: Mutex<Option<(BootDevice, Persistence)>>,
    pub log: Mutex<Vec<String>>,
    pub fuse: Arc<Fuse>,
    /// Counts power-ons: a machine that was off and on again is in another boot, however short the pause.
    pub boots: AtomicUsize,
    /// The operating system does not power the machine off when it is asked to.
    pub deaf_system: AtomicBool,
    /// What `driver_info` must give as `password`, if it gives one.
    pub password: Mutex<String>,
    /// The network to it is broken.
    pub silent: AtomicBool,
    /// Talks from now on that end in a panic of the driver.
    pub panics: AtomicUsize,
    /// Talks by node, refused ones included.
    talks: Mutex<BTreeMap<String, usize>>,
}

impl Default for Bmc {
    fn default() -> Bmc {
        Bmc {
            power: Mutex::new(PowerState::Off),
            device: Mutex::new(None),
            log: Mutex::new(Vec::new()),
            fuse: Arc::new(Fuse::default()),
            boots: AtomicUsize::new(0),
            deaf_system: AtomicBool::new(false),
            password: Mutex::new("right".into()),
            silent: AtomicBool::new(false),
            panics: AtomicUsize::new(0),
            talks: Mutex::default(),
        }
    }
}

impl Bmc {
    pub fn note(&self, text: impl Into<String>) {
        self.log.lock().unwrap().push(text.into());
    }
    /// How often a node's BMC was talked to.
    pub fn talks(&self, node: &str) -> usize {
        self.talks.lock().unwrap().get(node).copied().unwrap_or_default()
    }
    pub async fn talk(&self, info: &DriverInfo) -> Result<(), DriverError> {
        tokio::task::yield_now().await;
        let word = |key: &str| info.get(key).and_then(Value::as_str);
        let node = word("ferric_node").unwrap_or_default().to_string();
        *self.talks.lock().unwrap().entry(node).or_default() += 1;
        if self.panics.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("index out of bounds in a driver, hunter2");
        }
        let address = "192.0.2.9".to_string();
        if self.silent.load(Ordering::SeqCst) {
            return Err(DriverError::NoAnswer {
                address,
                port: 623,
                tries: 3,
                waited: Duration::from_secs(14),
                hint: String::new(),
            });
        }
        match word("password").is_none_or(|given| given == *self.password.lock().unwrap()) {
            true => Ok(()),
            false => Err(DriverError::Credentials { address, user: "admin".into(), detail: String::new() }),
        }
    }
    /// A kill before an effect, or after one of which nobody heard.
    pub async fn moment(&self, what: &str) {
        if self.fuse.moment(what) {
            std::future::pending::<()>().await;
        }
    }
    pub fn switch(&self, action: PowerAction) {
        self.note(format!("power {action:?}"));
        let mut power = self.power.lock().unwrap();
        let new = match action {
            PowerAction::On | PowerAction::Cycle | PowerAction::Reset => PowerState::On,
            PowerAction::SoftOff if self.deaf_system.load(Ordering::SeqCst) => *power,
            PowerAction::Off | PowerAction::SoftOff => PowerState::Off,
        };
        if new == PowerState::On && *power == PowerState::Off {
            self.boots.fetch_add(1, Ordering::SeqCst);
        }
        *power = new;
    }
    /// As many BMCs do with a boot device for one boot that does not follow within a minute.
    pub fn forget_one_boot(&self) {
        let mut device = self.device.lock().unwrap();
        if self.power_now() == PowerState::Off && matches!(*device, Some((_, Persistence::Once))) {
            *device = None;
        }
    }
    pub fn power_now(&self) -> PowerState {
        *self.power.lock().unwrap()
    }
    /// What the machine boots from now; a one-shot choice is used up.
    pub fn boot(&self) -> Option<BootDevice> {
        let mut device = self.device.lock().unwrap();
        let found = *device;
        if matches!(found, Some((_, Persistence::Once))) {
            *device = None;
        }
        found.map(|(d, _)| d)
    }
}

#[async_trait]
impl PowerInterface for Bmc {
    fn validate(&self, _: &DriverInfo) -> Result<(), DriverError> {
        Ok(())
    }
    async fn power_state(&self, info: &DriverInfo) -> Result<PowerState, DriverError> {
        self.talk(info).await?;
        Ok(self.power_now())
    }
    async fn power(&self, info: &DriverInfo, action: PowerAction) -> Result<(), DriverError> {
        self.talk(info).await?;
        self.moment(&format!("before power {action:?}")).await;
        self.switch(action);
        self.moment(&format!("after power {action:?}")).await;
        Ok(())
    }
}

#[async_trait]
impl ManagementInterface for Bmc {
    async fn boot_device(&self, info: &DriverInfo) -> Result<(Option<BootDevice>, Persistence), DriverError> {
        self.talk(info).await?;
        Ok(self.device.lock().unwrap().map_or((None, Persistence::Once), |(d, p)| (Some(d), p)))
    }
    async fn set_boot_device(
        &self,
        info: &DriverInfo,
        device: BootDevice,
        persistence: Persistence,
        mode: BootMode,
    ) -> Result<(), DriverError> {
        self.talk(info).await?;
        self.moment(&format!("before boot {device:?}")).await;
        self.note(format!("boot {device:?} {persistence:?} {mode:?}"));
        *self.device.lock().unwrap() = Some((device, persistence));
        self.moment(&format!("after boot {device:?}")).await;
        Ok(())
    }
    async fn verify(&self, info: &DriverInfo) -> Result<String, DriverError> {
        self.talk(info).await?;
        Ok("a BMC in memory".into())
    }
}
