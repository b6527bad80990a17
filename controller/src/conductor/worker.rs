//! One task per node that is not settled: reads the node, lets `domain::decide` say what follows, carries it out, waits.

use super::put_off::PutOff;
use super::slot::Slot;
use super::{Conductor, Lease, Refusal};
use crate::domain::decide::{self, Decision};
use crate::domain::deploy;
use crate::domain::node::Node;
use crate::domain::raid;
use crate::domain::state::{Event, ProvisionState as S};
use crate::ramdisk::{AgentClient, AgentError};
use crate::store::StoreError;
use ferric_common::events::Progress;
use ferric_common::ids::{AgentToken, NodeUuid};
use ferric_common::wire::command::{CommandResult, CommandStatus};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// When to look at the node again.
pub(super) enum Next {
    /// It is settled; the worker ends.
    Idle,
    Again,
    /// After this time, or when something happens.
    After(Duration),
}

/// Why work on a node stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The node fails with this text.
    Fail(String),
    /// Nothing is known to have gone wrong with the node; try again later.
    Later(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Later(error.to_string())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Later(refusal.to_string())
    }
}

impl Conductor {
    /// Makes sure that the node has a worker, and that it looks now.
    pub(super) fn wake(self: &Arc<Self>, uuid: NodeUuid) {
        let slot = self.slots.slot(uuid);
        slot.ring();
        if slot.begin_work() {
            let conductor = self.clone();
            tokio::spawn(async move { conductor.work_on(uuid, slot).await });
        }
    }

    async fn work_on(self: Arc<Self>, uuid: NodeUuid, slot: Arc<Slot>) {
        let mut stop = self.stop.subscribe();
        let mut put_off = PutOff::default();
        loop {
            if *stop.borrow() {
                return slot.end_work();
            }
            let next = self.advance_safely(uuid, &slot).await;
            if next.is_ok() && put_off.over() {
                tracing::info!(node = %uuid, "work on a node goes on");
            }
            let pause = match next {
                Ok(Next::Again) => continue,
                Ok(Next::After(pause)) => pause,
                Ok(Next::Idle) => {
                    slot.end_work();
                    // A ring between the look and the end would be lost: whoever rang has written before, so look once more.
                    let more = !matches!(self.unfinished(uuid).await, Ok(None));
                    if more && slot.begin_work() {
                        continue;
                    }
                    return;
                }
                Err(Stop::Later(reason)) => {
                    if let Some(untold) = put_off.news(&reason, Instant::now()) {
                        tracing::warn!(node = %uuid, %reason, untold, "work on a node is put off; it is tried again all the time, and told seldom");
                    }
                    self.settings.patience.retry
                }
                Err(Stop::Fail(text)) => {
                    if let Some(untold) = put_off.news(&text, Instant::now()) {
                        tracing::error!(node = %uuid, %text, untold, "a node failed outside of its flow");
                    }
                    self.settings.patience.retry
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = slot.rung() => {}
                _ = stop.changed() => {}
            }
        }
    }

    pub(super) async fn advance(&self, uuid: NodeUuid, slot: &Arc<Slot>) -> Result<Next, Stop> {
        let Some((node, open)) = self.unfinished(uuid).await? else { return Ok(Next::Idle) };
        if node.provision_state.is_waiting() && node.power_request.is_none() {
            return self.watch(node, slot).await;
        }
        let mut lease = self.lease_patiently(uuid).await?;
        lease.show().await?;
        let result = match self.work(&mut lease, open).await {
            Err(Stop::Later(reason)) => match self.given_up(&lease.node, &reason) {
                Some(text) => Err(Stop::Fail(text)),
                None => Err(Stop::Later(reason)),
            },
            other => other,
        };
        let result = match result {
            Err(Stop::Fail(text)) if !lease.node.provision_state.is_stable() => {
                self.fail(&mut lease, text).await.map(|()| Next::Again)
            }
            other => other,
        };
        lease.hide().await?;
        result
    }

    /// The node, and whether intents are open, if there is anything to do with it.
    async fn unfinished(&self, uuid: NodeUuid) -> Result<Option<(Node, bool)>, StoreError> {
        let Some(node) = self.store.node(uuid).await? else { return Ok(None) };
        let open = !self.store.intents(uuid).await?.is_empty();
        let restart = decide::on_restart(&node, usize::from(open));
        if restart == decide::Restart::Nothing && node.reservation.is_some() {
            // Only workers reserve, and this is the node's: the store failed when it was to be taken away.
            self.store.reserve(uuid, None).await?;
        }
        Ok((restart == decide::Restart::Resume).then_some((node, open)))
    }

    /// Working states have a deadline too: what cannot go on for as long as a wait may last has failed.
    fn given_up(&self, node: &Node, reason: &str) -> Option<String> {
        if node.provision_state.is_stable() || node.provision_state.is_waiting() {
            return None;
        }
        let longest = match node.provision_state {
            S::Cleaning => self.settings.deadlines.clean,
            _ => self.settings.deadlines.deploy,
        };
        let since = node.provision_updated_at?.max(self.started);
        let stuck = Timestamp::now().duration_since(since).unsigned_abs();
        (stuck >= longest).then(|| {
            format!(
                "The node {} was in state '{}' for {} s and could not go on: {reason}",
                node.uuid,
                node.provision_state,
                stuck.as_secs()
            )
        })
    }

    /// Work that is not waiting: takes the node to its next waiting or stable state.
    async fn work(&self, lease: &mut Lease<'_>, open_intents: bool) -> Result<Next, Stop> {
        if lease.node.power_request.is_some() {
            self.carry_out_power_request(lease).await?;
            return Ok(Next::Again);
        }
        match lease.node.provision_state {
            S::Verifying => self.verify(lease).await,
            S::Deploying => self.deploy(lease).await,
            S::Cleaning => self.clean(lease).await,
            S::Deleting => self.tear_down(lease).await,
            state if state.is_stable() => {
                if open_intents && (state.is_failed() || state == S::Error) {
                    self.clean_up_after_failure(lease).await?;
                } else if open_intents {
                    lease.save_result().await?;
                }
                Ok(Next::Again)
            }
            other => Err(Stop::Fail(format!("the state '{other}' is not supported by this version"))),
        }
    }

    /// A waiting node: deadline, conflict, agent.
    async fn watch(&self, node: Node, slot: &Arc<Slot>) -> Result<Next, Stop> {
        let now = Timestamp::now();
        if decide::was_left_alone(&node, &self.settings.deadlines, self.started) {
            return self.grant_time(&node, now).await;
        }
        if let Some(conflict) = slot.conflict()
            && let Some(next) = self.on_conflict(&node, conflict).await?
        {
            return Ok(next);
        }
        if let Some(text) = self.timed_out(&node, slot, now) {
            let mut lease = self.lease_patiently(node.uuid).await?;
            if lease.node.provision_state == node.provision_state && lease.node.wait == node.wait {
                self.fail(&mut lease, text).await?;
            }
            return Ok(Next::Again);
        }
        let again = self.boots_again_at(&node, slot);
        if again.is_some_and(|at| at <= now) {
            return self.boot_again(&node).await;
        }
        let mut decision = decide::on_heartbeat(&node);
        let mut command = None;
        let silent = node.maintenance || node.agent.url.is_none() || !node.agent.token_proven;
        if matches!(decision, Decision::Wait(_)) && !silent {
            decision = match self.agent(&node) {
                Ok(agent) => match agent.commands().await {
                    Ok(commands) => {
                        slot.hear(Timestamp::now());
                        let present = decide::present_command(&node, &commands);
                        command = present.cloned();
                        let running = present.filter(|c| c.command_status == CommandStatus::Running);
                        slot.set_progress(
                            running.and_then(|c| c.command_result.as_ref()).and_then(progress_in),
                        );
                        decide::on_commands(&node, &commands, self.started)
                    }
                    Err(error) => {
                        tracing::debug!(node = %node.uuid, %error, "reading the agent's commands");
                        Decision::Wait(error.to_string())
                    }
                },
                Err(error) => Decision::Fail(error),
            };
        }
        match decision {
            Decision::Wait(_) if silent => Ok(Next::After(self.until_due(&node, slot, again, now))),
            Decision::Wait(_) => Ok(Next::After(self.settings.patience.commands)),
            decision => self.act(&node, decision, command).await,
        }
    }

    /// Carries out a decision about a waiting node, unless the node has moved on since it was read. `command` is the agent's
    /// command that the decision was about.
    async fn act(
        &self,
        seen: &Node,
        decision: Decision,
        command: Option<CommandResult>,
    ) -> Result<Next, Stop> {
        let mut lease = self.lease_patiently(seen.uuid).await?;
        let same = lease.node.provision_state == seen.provision_state
            && lease.node.flow.index == seen.flow.index
            && lease.node.flow.command == seen.flow.command
            && lease.node.agent.token == seen.agent.token;
        if !same {
            return Ok(Next::Again);
        }
        if let Some(command) = &command {
            lease.node.flow.command = Some(command.id.clone());
        }
        match decision {
            Decision::Wait(_) => {}
            Decision::Fail(text) => self.fail(&mut lease, text).await?,
            Decision::AskSteps => match self.ask_steps(&mut lease).await {
                Ok(()) => {}
                Err(Stop::Fail(text)) => self.fail(&mut lease, text).await?,
                Err(later) => return Err(later),
            },
            Decision::Send | Decision::NextStep => {
                if decision == Decision::NextStep {
                    let result = command.as_ref().and_then(|c| c.command_result.as_ref());
                    if let Err(text) = step_is_done(&mut lease.node, result) {
                        self.fail(&mut lease, text).await?;
                        return Ok(Next::Again);
                    }
                    lease.node.flow.advance();
                    lease.slot.set_progress(None);
                } else {
                    lease.node.flow.forget_command();
                }
                lease.node.apply(Event::Resume, Timestamp::now()).map_err(|e| Stop::Fail(e.to_string()))?;
                lease.save().await?;
            }
        }
        Ok(Next::Again)
    }

    async fn on_conflict(&self, node: &Node, conflict: String) -> Result<Option<Next>, Stop> {
        let noted = node.internal.get("identity_conflict").and_then(|v| v.as_str()) == Some(&conflict);
        if noted {
            return Ok(None);
        }
        let mut lease = self.lease_patiently(node.uuid).await?;
        lease.node.internal.insert("identity_conflict".into(), conflict.clone().into());
        // Once the image is being written, stopping would help nobody but the one who disturbs.
        if self.settings.conflict_is_error
            && lease.node.flow.sent == 0
            && lease.node.provision_state.is_waiting()
        {
            self.fail(&mut lease, conflict).await?;
        } else {
            lease.node.last_error = Some(conflict);
            lease.save().await?;
        }
        Ok(Some(Next::Again))
    }

    /// When the silence has lasted too long: as recorded, or later where a sign of life could not be recorded.
    fn deadline(&self, node: &Node, slot: &Slot) -> Option<Timestamp> {
        let recorded = node.wait.as_ref()?.deadline;
        let longest = self.settings.deadlines.of(node.provision_state)?;
        Some(slot.heard().map_or(recorded, |at| recorded.max(decide::later(at, longest))))
    }

    fn timed_out(&self, node: &Node, slot: &Slot, now: Timestamp) -> Option<String> {
        if self.deadline(node, slot)? > now {
            return None;
        }
        let seen = slot.live().seen.map(|(_, what)| what);
        decide::on_timeout(node, seen.as_deref(), &self.settings.deadlines, now)
    }

    /// A machine that cannot be asked is left alone until it is due for something.
    fn until_due(&self, node: &Node, slot: &Slot, again: Option<Timestamp>, now: Timestamp) -> Duration {
        let due = [self.deadline(node, slot), again].into_iter().flatten().min().unwrap_or(now);
        let left = due.duration_since(now);
        let left = if left.is_negative() { Duration::ZERO } else { left.unsigned_abs() };
        left.max(Duration::from_millis(50))
    }

    /// Who was not there could hear nothing: the time for signs of life begins anew with this run.
    async fn grant_time(&self, seen: &Node, now: Timestamp) -> Result<Next, Stop> {
        let mut lease = self.lease_patiently(seen.uuid).await?;
        if lease.node.provision_state == seen.provision_state && lease.node.wait == seen.wait {
            lease.node.wait = decide::refresh_wait(&lease.node, &self.settings.deadlines, now);
            lease.save().await?;
        }
        Ok(Next::Again)
    }

    fn boots_again_at(&self, node: &Node, slot: &Slot) -> Option<Timestamp> {
        let seen = slot.live().seen.map(|(at, _)| at);
        decide::boots_again_at(node, seen, &self.settings.deadlines, self.started)
    }

    /// The network boot came to nothing while nobody served it: once more from the start.
    async fn boot_again(&self, seen: &Node) -> Result<Next, Stop> {
        let mut lease = self.lease_patiently(seen.uuid).await?;
        if lease.node.wait == seen.wait && lease.node.agent.token.is_none() {
            tracing::warn!(node = %seen.uuid, "the machine did not come to a lookup since the restart; booting it again");
            lease.node.apply(Event::Resume, Timestamp::now()).map_err(|e| Stop::Fail(e.to_string()))?;
            lease.save().await?;
        }
        Ok(Next::Again)
    }

    /// A client for the node's agent.
    pub(super) fn agent(&self, node: &Node) -> Result<AgentClient, String> {
        let agent = &node.agent;
        let url = agent.url.as_deref().ok_or("the agent's address is not known")?;
        let token = agent
            .token
            .as_deref()
            .and_then(|sealed| self.sealer.open(&node.uuid.to_string(), sealed))
            .and_then(|plain| AgentToken::new(plain.as_str()))
            .ok_or("the agent's token cannot be opened: was the key file in the state folder replaced?")?;
        AgentClient::new(url, token, agent.certificate.clone()).map_err(|e| e.to_string())
    }
}

/// What the present step, which the agent has ended, leaves behind on the node.
fn step_is_done(node: &mut Node, result: Option<&serde_json::Value>) -> Result<(), String> {
    match node.flow.step().cloned() {
        Some(step) => {
            deploy::keep_report(node, &step, result);
            raid::after_step(node, &step, result, Timestamp::now())
        }
        None => Ok(()),
    }
}

/// Progress in the result of a running command: the object itself, or under `progress`.
fn progress_in(result: &serde_json::Value) -> Option<Progress> {
    let value = result.get("progress").unwrap_or(result);
    serde_json::from_value(value.clone()).ok()
}

/// A call to the agent failed: later if that may help, else the node fails.
pub(super) fn stop_for(what: &str, error: AgentError) -> Stop {
    if error.is_transient() { Stop::Later(error.to_string()) } else { Stop::Fail(format!("{what}: {error}")) }
}
