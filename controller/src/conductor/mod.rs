//! The only one that changes a node. Everything that happens to a node (requests, heartbeats, time passing) comes in here.
//!
//! One writer per node: whoever changes one holds its [`Lease`]; each write also checks the node's generation in the store.
//! A node that is not settled has one task (`worker`), which carries out what `domain::decide` says. Every effect on a machine
//! is recorded as an intent before it happens, and looked at before it happens again.

mod agents;
mod boot_directory;
mod clean;
mod deploy;
mod drive;
mod failure;
mod instance_boot;
mod logs;
mod panicked;
mod ports;
mod power;
mod power_request;
mod power_sync;
mod put_off;
mod raid;
mod refusal;
mod requests;
mod slot;
mod worker;

pub use agents::LookupAnswer;
pub use drive::Drive;
pub use power_request::PowerRequest;
pub use refusal::Refusal;
pub use requests::{BootDeviceAnswer, ProvisionRequest};
pub use slot::Live;

use crate::domain::clean::{Erasure, Priorities};
use crate::domain::node::Node;
use crate::domain::provision::Deadlines;
use crate::domain::validate::{ImageFacts, ImageRequest};
use crate::drivers::DriverInfo;
use crate::drivers::fake::{NODE_KEY, POWER_KEY};
use crate::drivers::registry::{Hardware, Registry};
use crate::store::seal::Sealer;
use crate::store::{Changes, Store, StoreError};
use async_trait::async_trait;
use ferric_common::ids::NodeUuid;
use jiff::Timestamp;
use serde_json::json;
use slot::{Slot, Slots};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::timeout;

/// Asks an image server what an image is, without fetching it.
#[async_trait]
pub trait ImageInspector: Send + Sync {
    /// # Errors
    /// A sentence for the operator: what was asked and what came back.
    async fn inspect(&self, image: &ImageRequest) -> Result<ImageFacts, String>;
}

/// Where the ramdisk comes from when a node names none itself.
#[derive(Clone, Debug, Default)]
pub struct RamdiskFiles {
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    pub extra: Vec<PathBuf>,
    pub kernel_parameters: String,
}

/// An address range in which agents may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((a, wide), (b, other)) = (bits(self.address), bits(ip));
        let prefix = u32::from(self.prefix).min(wide);
        wide == other && (prefix == 0 || (a ^ b) >> (128 - prefix) == 0)
    }
}

/// How many logs of agents are kept, and how many bytes of them together.
#[derive(Clone, Copy, Debug)]
pub struct LogRoom {
    /// 0: none are fetched.
    pub number: u32,
    pub bytes: u64,
}

/// Settings of the conductor, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What clients see as the conductor that holds a node.
    pub hostname: String,
    pub state_dir: PathBuf,
    /// The API as machines reach it, without a slash at the end.
    pub api_url: String,
    pub ramdisk: Option<RamdiskFiles>,
    pub deadlines: Deadlines,
    pub automated_clean: bool,
    pub clean_priorities: Priorities,
    pub erasure: Erasure,
    pub power_off_after_failure: bool,
    pub logs: LogRoom,
    pub default_boot_mode: String,
    /// Callback URLs must be https.
    pub require_tls: bool,
    pub allow_md5: bool,
    /// A second machine that claims a node stops the deployment; else it is only recorded.
    pub conflict_is_error: bool,
    pub heartbeat_timeout: Duration,
    /// Where agents may be called besides the address that the heartbeat came from.
    pub networks: Vec<Network>,
    pub patience: Patience,
}

/// How long things are waited for, and how often they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a request waits for its turn before 409.
    pub turn: Duration,
    /// Pause between looks at the agent's command list.
    pub commands: Duration,
    /// Pause between looks at a machine's power.
    pub power_look: Duration,
    /// How long a machine may take to follow a power action; to power itself off when its agent was told to.
    pub power_change: Duration,
    pub soft_off: Duration,
    /// How long an operating system may take to power its machine off when a client asked for that.
    pub soft_power_off: Duration,
    /// Pause after a hard reset before the power is looked at: some BMCs show the machine as off for a moment.
    pub reset_settle: Duration,
    /// Longest time to fetch the agent's logs after a failure.
    pub logs: Duration,
    /// Pause after a failure of the store or of a BMC before trying again.
    pub retry: Duration,
    /// Pause between reads of every settled machine's power; zero switches it off.
    pub power_sync: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let s = Duration::from_secs;
        Patience {
            turn: s(3),
            commands: s(2),
            power_look: s(2),
            power_change: s(60),
            soft_off: s(35),
            soft_power_off: s(600),
            reset_settle: s(15),
            logs: s(30),
            retry: s(2),
            power_sync: s(60),
        }
    }
}

/// The writer of all nodes.
pub struct Conductor {
    store: Store,
    sealer: Sealer,
    drivers: Registry,
    images: Arc<dyn ImageInspector>,
    settings: Settings,
    slots: Slots,
    /// Names this run of the program, to tell tokens of earlier runs.
    run: String,
    /// When this run began: nothing was heard of any machine before.
    started: Timestamp,
    stop: watch::Sender<bool>,
}

impl Conductor {
    pub fn new(
        store: Store,
        sealer: Sealer,
        drivers: Registry,
        images: Arc<dyn ImageInspector>,
        settings: Settings,
    ) -> Arc<Conductor> {
        Arc::new(Conductor {
            store,
            sealer,
            drivers,
            images,
            settings,
            slots: Slots::default(),
            run: uuid::Uuid::new_v4().to_string(),
            started: Timestamp::now(),
            stop: watch::Sender::new(false),
        })
    }

    /// Takes up every node where an earlier run left it, and starts the background work.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(self: &Arc<Self>) -> Result<(), StoreError> {
        self.store.clear_reservations().await?;
        for uuid in self.store.unsettled().await? {
            tracing::info!(node = %uuid, "taking up an unfinished node");
            self.wake(uuid);
        }
        self.spawn_power_sync();
        Ok(())
    }

    /// Asks all background work to end. What is unfinished is taken up at the next start.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known of a node beside its record: progress and the last thing seen of its machine.
    pub fn live(&self, node: NodeUuid) -> Live {
        self.slots.find(node).map(|slot| slot.live()).unwrap_or_default()
    }

    /// Waits for this node's turn and reads it.
    ///
    /// # Errors
    /// [`Refusal::Locked`] if another operation holds it longer than `patience.turn`.
    async fn lease(&self, uuid: NodeUuid) -> Result<Lease<'_>, Refusal> {
        let slot = self.slots.slot(uuid);
        let turn = timeout(self.settings.patience.turn, slot.turn())
            .await
            .map_err(|_| Refusal::Locked { node: uuid, holder: self.settings.hostname.clone() })?;
        self.leased(uuid, slot, turn).await
    }

    /// The same for the worker, which waits as long as it takes.
    async fn lease_patiently(&self, uuid: NodeUuid) -> Result<Lease<'_>, Refusal> {
        let slot = self.slots.slot(uuid);
        let turn = slot.turn().await;
        self.leased(uuid, slot, turn).await
    }

    async fn leased(
        &self,
        uuid: NodeUuid,
        slot: Arc<Slot>,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Lease<'_>, Refusal> {
        let node = self.store.node(uuid).await?.ok_or_else(|| Refusal::no_node(&uuid.to_string()))?;
        Ok(Lease { conductor: self, slot, node, _turn: turn })
    }

    /// The implementations for a node.
    fn hardware(&self, node: &Node) -> Result<&Hardware, String> {
        self.drivers.hardware(&node.driver).ok_or_else(|| format!("driver '{}' is not known", node.driver))
    }
}

/// The right to change one node, while it lives. Holds the node as last read or written.
struct Lease<'a> {
    conductor: &'a Conductor,
    slot: Arc<Slot>,
    node: Node,
    _turn: OwnedMutexGuard<()>,
}

impl Lease<'_> {
    async fn save(&mut self) -> Result<(), StoreError> {
        self.keep_refusal();
        self.conductor.store.save(&mut self.node, Changes::default()).await
    }
    /// Saves and records that `action` is about to be done.
    async fn save_intent(&mut self, action: &str) -> Result<(), StoreError> {
        self.keep_refusal();
        let changes = Changes { open: Some(action.to_string()), ..Changes::default() };
        self.conductor.store.save(&mut self.node, changes).await
    }
    /// Saves and records that everything begun so far has come to its end.
    async fn save_result(&mut self) -> Result<(), StoreError> {
        self.keep_refusal();
        let changes = Changes { close: Some(self.node.flow.last_intent), ..Changes::default() };
        self.conductor.store.save(&mut self.node, changes).await
    }
    /// A login that was refused is remembered past a restart.
    fn keep_refusal(&mut self) {
        self.node.login_refused = self.slot.refusal(&self.node).or(self.node.login_refused.take());
    }
    /// The BMC may be asked again with a login that it refused.
    fn forgive_login(&mut self) {
        self.node.login_refused = None;
        self.slot.forgive();
    }
    /// Shows clients that a long operation holds the node.
    async fn show(&mut self) -> Result<(), StoreError> {
        self.node.reservation = Some(self.conductor.settings.hostname.clone());
        self.conductor.store.reserve(self.node.uuid, self.node.reservation.clone()).await
    }
    async fn hide(&mut self) -> Result<(), StoreError> {
        self.node.reservation = None;
        self.conductor.store.reserve(self.node.uuid, None).await
    }
    /// What drivers are given: the node's `driver_info` and what the fake driver needs to know it by.
    fn driver_info(&self) -> DriverInfo {
        driver_info(&self.node)
    }
}

fn driver_info(node: &Node) -> DriverInfo {
    let mut info = node.driver_info.clone();
    if node.driver == "fake-hardware" {
        info.insert(NODE_KEY.into(), json!(node.uuid.to_string()));
        info.insert(POWER_KEY.into(), json!(node.power_state.map(|p| p.text())));
    }
    info
}
