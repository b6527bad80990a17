//! Reads the power of settled machines now and then, so that the API tells the truth. What a read means is said by
//! `domain::power`.

use super::Conductor;
use crate::domain::node::Node;
use crate::domain::power::{self, Unread, Verdict};
use crate::domain::state::Power;
use crate::drivers::DriverError;
use crate::store::NodeFilter;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::sleep;

/// BMCs read at the same time.
const AT_ONCE: usize = 128;

impl Conductor {
    pub(super) fn spawn_power_sync(self: &Arc<Self>) {
        let pause = self.settings.patience.power_sync;
        if pause.is_zero() {
            return;
        }
        let conductor = self.clone();
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            for round in 1.. {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = stop.changed() => return,
                }
                conductor.sync_power(round).await;
            }
        });
    }

    async fn sync_power(self: &Arc<Self>, round: u64) {
        let nodes =
            match self.store.nodes(NodeFilter { include_children: true, ..NodeFilter::default() }).await {
                Ok(nodes) => nodes,
                Err(error) => return tracing::warn!(%error, "the power sync cannot read the nodes"),
            };
        let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let mut reads = tokio::task::JoinSet::new();
        for node in nodes.into_iter().filter(|node| power::is_due(node, round)) {
            let (conductor, room) = (self.clone(), room.clone());
            reads.spawn(async move {
                let _permit = room.acquire_owned().await;
                conductor.sync_one(node).await;
            });
        }
        while reads.join_next().await.is_some() {}
    }

    async fn sync_one(&self, node: Node) {
        let read = self.read_power_once(&node).await;
        let slot = self.slots.slot(node.uuid);
        let misses = slot.count_read(read.is_ok());
        match &read {
            Ok(_) if slot.read_again() => {
                tracing::info!(node = %node.uuid, "the power of a node can be read again");
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(untold) = slot.unread(&error.to_string(), Instant::now()) {
                    tracing::warn!(node = %node.uuid, %error, misses, untold, "the power of a node cannot be read; it is read in every round, and told seldom");
                }
            }
        }
        let read = read.map(Power::from).map_err(|error| match error {
            DriverError::LoginHeld { .. } => Unread::Refused(error.to_string()),
            other => Unread::Failed(other.to_string()),
        });
        let verdict = power::judge(&node, misses, read);
        if matches!(verdict, Verdict::Nothing | Verdict::Missed) {
            return;
        }
        // A node that has moved on since it was read is looked at again in the next round.
        let Ok(mut lease) = self.lease(node.uuid).await else { return };
        if lease.node.generation != node.generation {
            return;
        }
        match verdict {
            Verdict::Nothing | Verdict::Missed => {}
            Verdict::Record(power) => lease.node.note_power(power, Timestamp::now()),
            Verdict::Recovered(power) => {
                lease.node.note_power(power, Timestamp::now());
                lease.node.leave_power_fault();
            }
            Verdict::Fault(why) => lease.node.enter_power_fault(why),
        }
        if let Err(error) = lease.save().await {
            tracing::warn!(node = %node.uuid, %error, "recording the power state");
        }
    }
}
