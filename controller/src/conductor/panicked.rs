//! Work on a node that panicked: a fault of this program. It must hold neither the node nor its worker until a restart.

use super::slot::Slot;
use super::worker::{Next, Stop};
use super::{Conductor, Lease};
use crate::domain::node::Node;
use ferric_common::ids::NodeUuid;
use std::any::Any;
use std::future::Future;
use std::sync::Arc;

/// Runs work in a task of its own; a panic comes back as its words.
async fn shielded<T: Send + 'static>(
    work: impl Future<Output = Result<T, Stop>> + Send + 'static,
) -> Result<Result<T, Stop>, String> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Err(words(panic.as_ref())),
            Err(_) => Ok(Err(Stop::Later("this program is ending".to_string()))),
        },
    }
}

/// What `panic!` was given.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_string()
}

/// Without the panic's own words: they may hold anything, and every client of the API reads this.
fn text(node: &Node) -> String {
    format!(
        "The controller's work on node {} in state '{}' was stopped by a fault in the controller itself (a panic). Its log says where; please report it",
        node.uuid, node.provision_state
    )
}

impl Conductor {
    /// [`Conductor::advance`], of which a panic is a failure of the node like others.
    pub(super) async fn advance_safely(
        self: &Arc<Self>,
        uuid: NodeUuid,
        slot: &Arc<Slot>,
    ) -> Result<Next, Stop> {
        let (conductor, slot) = (self.clone(), slot.clone());
        let panic = match shielded(async move { conductor.advance(uuid, &slot).await }).await {
            Ok(result) => return result,
            Err(panic) => panic,
        };
        tracing::error!(node = %uuid, %panic, "the work on a node panicked: a fault of this program, please report it");
        let conductor = self.clone();
        let seen_to = shielded(async move { conductor.after_panic(uuid).await }).await;
        seen_to.unwrap_or_else(|panic| {
            Err(Stop::Later(format!(
                "the controller panicked over the node and could not see to it: {panic}"
            )))
        })
    }

    /// Lets go of the node and fails what was going on. Nothing here asks the machine: that may be what panicked.
    async fn after_panic(&self, uuid: NodeUuid) -> Result<Next, Stop> {
        let mut lease = self.lease_patiently(uuid).await?;
        lease.hide().await?;
        let text = text(&lease.node);
        if lease.node.power_request.is_some() {
            lease.node.power_request = None;
            lease.node.power_timeout = None;
            lease.node.last_error = Some(text);
            lease.save().await?;
        } else if lease.node.provision_state.is_stable() {
            self.leave_as_it_is(&mut lease, &text).await?;
        } else {
            self.fail(&mut lease, text).await?;
        }
        Ok(Next::Again)
    }

    /// Seeing to a failed machine panicked: it is not tried again, the operator is told.
    async fn leave_as_it_is(&self, lease: &mut Lease<'_>, text: &str) -> Result<(), Stop> {
        let before = lease.node.last_error.take().unwrap_or_default();
        lease.node.last_error =
            Some(format!("{before} {text}. The machine may still have power").trim().into());
        lease.node.end_agent();
        lease.save_result().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_comes_back_as_its_words() {
        let panics = |words: &'static str| async move {
            if words.is_empty() { std::panic::panic_any(7) } else { panic!("{words}") }
        };
        for (given, said) in [("out of range", "out of range"), ("", "no words")] {
            let result: Result<Result<(), Stop>, String> = shielded(panics(given)).await;
            assert_eq!(result.unwrap_err(), said);
        }
        assert_eq!(shielded(async { Ok(7) }).await.unwrap().unwrap(), 7);
    }
}
