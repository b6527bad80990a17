//! How a flow ends badly: the error is recorded first, then the machine is seen to.

use super::worker::Stop;
use super::{Conductor, Lease};
use crate::domain::state::{Event, Power, ProvisionState as S};
use jiff::Timestamp;
use tokio::time::timeout;

/// The intent under which a failed machine is seen to.
const CLEAN_UP: &str = "clean up after failure";

impl Conductor {
    /// Records the failure and its reason. Seeing to the machine is left to the worker, under an intent.
    pub(super) async fn fail(&self, lease: &mut Lease<'_>, text: String) -> Result<(), Stop> {
        let from = lease.node.provision_state;
        tracing::error!(node = %lease.node.uuid, state = %from, error = %text, "failed");
        lease
            .node
            .apply(Event::Fail, Timestamp::now())
            .map_err(|e| Stop::Later(format!("{e}; the failure was: {text}")))?;
        if matches!(from, S::Cleaning | S::CleanWait) && lease.node.flow.step().is_some() {
            lease.node.maintenance = true;
            lease.node.maintenance_reason = Some(text.clone());
            lease.node.fault = Some("clean failure".to_string());
        }
        lease.node.last_error = Some(text);
        lease.slot.set_progress(None);
        if from == S::Verifying {
            lease.save_result().await?;
        } else {
            lease.save_intent(CLEAN_UP).await?;
        }
        Ok(())
    }

    /// After a failure or an abort: fetch the agent's logs, power off, end the agent's token.
    pub(super) async fn clean_up_after_failure(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        lease.slot.set_progress(None);
        let wanted = self.settings.logs.number > 0;
        if wanted && lease.node.agent.url.is_some() && lease.node.agent.token.is_some() {
            match timeout(self.settings.patience.logs, self.keep_logs(&lease.node)).await {
                Ok(Ok(path)) => tracing::info!(node = %lease.node.uuid, %path, "kept the agent's logs"),
                Ok(Err(error)) => {
                    tracing::warn!(node = %lease.node.uuid, %error, "the agent's logs were not kept")
                }
                Err(_) => tracing::warn!(node = %lease.node.uuid, "the agent's logs did not come in time"),
            }
        }
        let fake = lease.node.interface("deploy") == "fake";
        if self.settings.power_off_after_failure && !lease.node.disable_power_off && !fake {
            match self.set_power(lease, Power::Off).await {
                Ok(()) => {}
                Err(Stop::Fail(text)) => {
                    let before = lease.node.last_error.take().unwrap_or_default();
                    lease.node.last_error =
                        Some(format!("{before} Afterwards the machine could not be powered off: {text}"));
                }
                // The intent stays open: the worker comes here again.
                Err(later @ Stop::Later(_)) => return Err(later),
            }
        }
        lease.node.end_agent();
        lease.save_result().await?;
        Ok(())
    }
}
