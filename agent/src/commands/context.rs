//! What commands work with: the machine, the rules of this deployment, the node as last seen, and what was written.

use crate::commands::Rules;
use crate::commands::rooms::ImageWriter;
use crate::disk::wait::{self, Wanted};
use crate::image::{CancelFlag, ProgressCell};
use crate::outside::Shelf;
use crate::platform::child::Programs;
use crate::platform::machine::Machine;
use crate::state::Written;
use ferric_common::events::Progress;
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The parts of a node that commands read.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub uuid: String,
    pub properties: Map<String, Value>,
    pub instance_info: Map<String, Value>,
    pub driver_internal_info: Map<String, Value>,
    pub raid_config: Map<String, Value>,
    pub target_raid_config: Map<String, Value>,
}

impl NodeView {
    /// Reads a node object as a conductor sends it; what is missing is empty.
    pub fn from_value(node: &Value) -> NodeView {
        let part = |name: &str| node.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        NodeView {
            uuid: node.get("uuid").and_then(Value::as_str).unwrap_or_default().to_string(),
            properties: part("properties"),
            instance_info: part("instance_info"),
            driver_internal_info: part("driver_internal_info"),
            raid_config: part("raid_config"),
            target_raid_config: part("target_raid_config"),
        }
    }
}

/// Keeps what was written (or that nothing is) where a crash does not reach it.
pub type Remember = Box<dyn Fn(Option<&Written>) + Send + Sync>;

/// Sets the clock by the time servers that the configuration names; says why not only where that must not pass.
pub type SetClock = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Makes what talks to servers without looking at their certificates, for a step that says so by name.
pub type MakeTls = fn() -> Result<Arc<rustls::ClientConfig>, String>;

/// Shared by all commands of a boot.
pub struct Context {
    pub machine: Arc<dyn Machine>,
    pub writer: Box<dyn ImageWriter>,
    /// The steps that an operator added, and what runs them.
    pub shelf: Shelf,
    pub programs: Box<dyn Programs>,
    /// For image and checksum servers.
    pub tls: Arc<rustls::ClientConfig>,
    pub unchecked_tls: MakeTls,
    pub runtime: tokio::runtime::Handle,
    pub rules: Rules,
    pub node: Mutex<NodeView>,
    pub written: Mutex<Option<Written>>,
    /// Called after an image was written completely, to keep that over a crash.
    pub remember: Remember,
    pub set_clock: SetClock,
    /// How long a command that ends the machine waits, so that the answer to its POST gets out first.
    pub reply_grace: Duration,
    /// When the agent began to look for disks.
    pub started: Instant,
    /// Told when the agent is to end once its last answer is out; process 1 knows by then what comes next.
    pub leave: tokio::sync::Notify,
}

impl Context {
    pub fn node(&self) -> NodeView {
        lock(&self.node).clone()
    }
    /// Until a command ordered the agent's end, and its answer had time to get out.
    pub async fn left(&self) {
        self.leave.notified().await;
        tokio::time::sleep(self.reply_grace).await;
    }
    /// From here on no disk is known to be complete.
    pub fn forget_written(&self) {
        *lock(&self.written) = None;
        (self.remember)(None);
    }
    /// A step may change what was written: the disk keeps its name and signature, but is no longer the image's copy.
    pub fn note_change(&self) {
        let mut written = lock(&self.written);
        if let Some(written) = written.as_mut().filter(|written| !written.changed) {
            written.changed = true;
            (self.remember)(Some(written));
        }
    }
    /// Takes over the node that came with a command: it is newer than the lookup's. The disk of another node is waited for.
    pub fn cache_node(&self, node: &Value) {
        let new = NodeView::from_value(node);
        let wanted = Wanted { instance_info: new.instance_info.clone(), properties: new.properties.clone() };
        let known = std::mem::replace(&mut *lock(&self.node), new).uuid;
        if self.node().uuid != known && wanted.is_particular() {
            let (machine, age) = (self.machine.as_ref(), self.started.elapsed());
            wait::root_disk(machine, &wanted, self.rules.disk_wait, age, &std::thread::sleep);
        }
    }
}

/// A poisoned lock only means that a command panicked while holding it; the values are replaced whole, so they are sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One running command, as seen from outside.
#[derive(Default)]
pub struct Job {
    pub progress: ProgressCell,
    pub cancel: CancelFlag,
}

impl Job {
    /// How far the command is; none for commands that do not count bytes.
    pub fn progress(&self) -> Option<Progress> {
        Some(self.progress.latest()).filter(|progress| !progress.stage.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::patience::Patience;
    use crate::platform::fake::machine::{FakeMachine, facts};
    use crate::platform::machine::Drivers;
    use crate::testing::{Act, ScriptedWriter};
    use serde_json::json;
    use std::sync::atomic::Ordering;

    #[tokio::test]
    async fn the_disk_of_another_node_is_waited_for_and_that_of_the_same_is_not() {
        let machine = Arc::new(FakeMachine::new());
        machine.set_drivers(Drivers::Loaded);
        let mut context = crate::testing::context(machine.clone(), ScriptedWriter::new(Act::Succeed));
        context.rules.disk_wait = Patience { attempts: 1000, delay: Duration::from_secs(3) };
        let node = |uuid: &str| json!({"uuid": uuid, "properties": {"root_device": {"serial": "late"}}});
        lock(&context.node).uuid = "one".into();
        context.cache_node(&node("one"));
        assert_eq!(machine.waits.load(Ordering::Relaxed), 0);
        std::thread::scope(|scope| {
            let cached = scope.spawn(|| context.cache_node(&node("two")));
            while machine.waits.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
            assert!(!cached.is_finished());
            machine.set_disks(vec![facts("/dev/sda", 8 << 30, "late")]);
            cached.join().unwrap();
        });
        assert_eq!(context.node().uuid, "two");
    }
}
