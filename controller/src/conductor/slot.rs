//! What the process remembers of a node beside its record: whose turn it is, whether it has a worker, how far its work is.
//! Nothing here is needed after a restart.

use super::put_off::PutOff;
use crate::domain::node::{Node, Object};
use ferric_common::events::Progress;
use ferric_common::ids::NodeUuid;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

/// What clients may see of it.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub progress: Option<Progress>,
    /// The last thing that was seen of the machine, and when.
    pub seen: Option<(Timestamp, String)>,
}

#[derive(Default)]
struct Memory {
    working: bool,
    live: Live,
    /// A sign of life that could not be recorded because the node was busy.
    heard: Option<Timestamp>,
    /// A second machine claims the node.
    conflict: Option<String>,
    /// The login that the BMC refused, and how.
    refusal: Option<(Login, String)>,
    /// Power reads of the sync in a row that failed, and what was said of them.
    misses: u32,
    unread: PutOff,
}

/// What a login is made from: driver and `driver_info`.
type Login = (String, Object);

fn login(node: &Node) -> Login {
    (node.driver.clone(), node.driver_info.clone())
}

/// One node's slot.
#[derive(Default)]
pub struct Slot {
    turn: Arc<AsyncMutex<()>>,
    bell: Notify,
    memory: Mutex<Memory>,
}

impl Slot {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }
    pub fn ring(&self) {
        self.bell.notify_one();
    }
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
    /// `true` for the one caller who shall start the worker.
    pub fn begin_work(&self) -> bool {
        !std::mem::replace(&mut self.memory().working, true)
    }
    pub fn end_work(&self) {
        self.memory().working = false;
    }
    pub fn live(&self) -> Live {
        self.memory().live.clone()
    }
    pub fn set_progress(&self, progress: Option<Progress>) {
        self.memory().live.progress = progress;
    }
    pub fn see(&self, what: String, now: Timestamp) {
        self.memory().live.seen = Some((now, what));
    }
    /// A new boot begins: what was seen of the one before no longer counts.
    pub fn forget_boot(&self) {
        let mut memory = self.memory();
        memory.live = Live::default();
        memory.heard = None;
        memory.conflict = None;
    }
    pub fn hear(&self, now: Timestamp) {
        self.memory().heard = Some(now);
    }
    pub fn heard(&self) -> Option<Timestamp> {
        self.memory().heard
    }
    pub fn claim(&self, conflict: String) {
        self.memory().conflict = Some(conflict);
    }
    pub fn conflict(&self) -> Option<String> {
        self.memory().conflict.clone()
    }
    /// The BMC refused the login of this node, as it was when it was asked.
    pub fn refuse(&self, node: &Node, how: String) {
        self.memory().refusal = Some((login(node), how));
    }
    /// How the BMC refused the login that the node has now.
    pub fn refusal(&self, node: &Node) -> Option<String> {
        self.memory()
            .refusal
            .as_ref()
            .filter(|(refused, _)| *refused == login(node))
            .map(|(_, how)| how.clone())
    }
    pub fn forgive(&self) {
        let mut memory = self.memory();
        memory.refusal = None;
        memory.misses = 0;
    }
    /// Counts a read of the power; answers how many have failed in a row.
    pub fn count_read(&self, worked: bool) -> u32 {
        let mut memory = self.memory();
        memory.misses = if worked { 0 } else { memory.misses.saturating_add(1) };
        memory.misses
    }
    /// Whether a failed read of the power is worth a line in the log: the number of those that were not told since the last one.
    pub fn unread(&self, reason: &str, now: Instant) -> Option<u64> {
        self.memory().unread.news(reason, now)
    }
    /// Whether a read that worked is the first after failed ones.
    pub fn read_again(&self) -> bool {
        self.memory().unread.over()
    }
}

/// All slots. They are made on first use and stay; each is a few hundred bytes.
#[derive(Default)]
pub struct Slots {
    all: Mutex<HashMap<NodeUuid, Arc<Slot>>>,
}

impl Slots {
    fn all(&self) -> MutexGuard<'_, HashMap<NodeUuid, Arc<Slot>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn slot(&self, node: NodeUuid) -> Arc<Slot> {
        self.all().entry(node).or_default().clone()
    }
    pub fn find(&self, node: NodeUuid) -> Option<Arc<Slot>> {
        self.all().get(&node).cloned()
    }
    /// Forgets a node that was deleted.
    pub fn remove(&self, node: NodeUuid) {
        self.all().remove(&node);
    }
}
