//! Reads the power of settled machines now and then, so that the API tells the truth.

use super::Conductor;
use crate::domain::node::Node;
use crate::store::NodeFilter;
use jiff::Timestamp;
use std::sync::Arc;
use tokio::time::sleep;

/// BMCs read at the same time.
const AT_ONCE: usize = 128;

impl Conductor {
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
        let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
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
