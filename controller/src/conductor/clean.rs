//! Carries out cleaning: boots the ramdisk, has the agent do the chosen steps, powers off.

use super::worker::{Next, Stop};
use super::{Conductor, Lease};
use crate::domain::clean;
use crate::domain::state::{Event, Power, ProvisionState};
use ferric_common::steps::Step;
use jiff::Timestamp;

impl Conductor {
    /// `cleaning`: from the present step to the next wait, or to the end.
    pub(super) async fn clean(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        let flow = &lease.node.flow;
        let skip = !flow.manual && !clean::is_automated(&lease.node, self.settings.automated_clean);
        if skip || lease.node.interface("deploy") == "fake" {
            return self.finish_clean(lease).await;
        }
        if !flow.agent_steps_known {
            // Stored before the machine boots: the agent reads them with every step.
            lease.node.internal.extend(self.settings.erasure.internal_info());
            self.boot_ramdisk(lease).await?;
            return self.begin_wait(lease).await;
        }
        match flow.step().cloned() {
            Some(step) => self.send_step(lease, &step).await,
            None => {
                lease.save_intent("power off").await?;
                if !lease.node.disable_power_off {
                    self.set_power(lease, Power::Off).await?;
                }
                lease.node.end_agent();
                self.finish_clean(lease).await
            }
        }
    }

    /// The agent has said which steps it has: which of them are done now.
    pub(super) fn choose_clean_steps(&self, lease: &mut Lease<'_>, offered: &[Step]) -> Result<(), Stop> {
        let flow = &mut lease.node.flow;
        let steps = if flow.manual {
            clean::manual_steps(&flow.steps, offered).map_err(Stop::Fail)?
        } else {
            clean::automated_steps(offered, self.settings.clean_priorities)
        };
        flow.steps = steps;
        flow.index = None;
        Ok(())
    }

    async fn finish_clean(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        let manual = lease.node.target_provision_state == Some(ProvisionState::Manageable);
        // A retired node is not offered again.
        let event = if manual || lease.node.retired { Event::Manage } else { Event::Done };
        lease.node.apply(event, Timestamp::now()).map_err(|e| Stop::Fail(e.to_string()))?;
        lease.node.flow.begin(Vec::new());
        lease.save_result().await?;
        Ok(Next::Again)
    }
}
