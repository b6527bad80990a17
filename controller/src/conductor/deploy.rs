//! Carries out a deployment step by step. Which step follows is said by `domain`; each can be repeated with the same end.

use super::worker::{Next, Stop, stop_for};
use super::{Conductor, Lease};
use crate::domain::decide;
use crate::domain::deploy::{self, core_step};
use crate::domain::names;
use crate::domain::node::{Node, Wait};
use crate::domain::state::{Event, Power, ProvisionState as S};
use crate::domain::validate;
use crate::store::{Changes, DriveChange, PortFilter};
use ferric_common::steps::Step;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

fn refused(error: impl ToString) -> Stop {
    Stop::Fail(error.to_string())
}

impl Conductor {
    /// `deploying`: from the present step to the next wait, or to the end.
    pub(super) async fn deploy(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        if lease.node.interface("deploy") == "fake" {
            self.set_power(lease, Power::On).await?;
            return self.finish_deploy(lease).await;
        }
        loop {
            let Some(step) = lease.node.flow.step().cloned() else {
                if !lease.node.flow.advance() {
                    return Err(Stop::Fail("the deployment has no steps".to_string()));
                }
                lease.save().await?;
                continue;
            };
            match core_step(&step) {
                Some("deploy") => {
                    self.boot_ramdisk(lease).await?;
                    return self.begin_wait(lease).await;
                }
                None | Some("write_image") => return self.send_step(lease, &step).await,
                Some("prepare_instance_boot") => self.prepare_instance_boot(lease).await?,
                Some("tear_down_agent") => self.tear_down_agent(lease).await?,
                Some("boot_instance") => {
                    lease.save_intent("power on").await?;
                    self.set_power(lease, Power::On).await?;
                    return self.finish_deploy(lease).await;
                }
                Some(_) => {}
            }
            lease.node.flow.advance();
            lease.save_result().await?;
        }
    }

    /// Moves to the waiting state and closes what was open.
    pub(super) async fn begin_wait(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        let now = Timestamp::now();
        lease.node.apply(Event::Wait, now).map_err(refused)?;
        lease.node.wait = decide::begin_wait(&lease.node, &self.settings.deadlines, now);
        lease.save_result().await?;
        Ok(Next::Again)
    }

    async fn finish_deploy(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        lease.node.apply(Event::Done, Timestamp::now()).map_err(refused)?;
        lease.node.last_error = None;
        lease.node.flow.begin(Vec::new());
        lease.slot.set_progress(None);
        let changes = Changes {
            close: Some(lease.node.flow.last_intent),
            drive: DriveChange::Keep, // a rebuild may want it again
            ..Changes::default()
        };
        self.store.save(&mut lease.node, changes).await?;
        tracing::info!(node = %lease.node.uuid, "deployed");
        Ok(Next::Again)
    }

    /// Asks a fresh agent for its steps and merges them into the flow.
    pub(super) async fn ask_steps(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        let cleaning = lease.node.provision_state == S::CleanWait;
        let (command, key) = if cleaning {
            ("clean.get_clean_steps", "clean_steps")
        } else {
            ("deploy.get_deploy_steps", "deploy_steps")
        };
        let agent = self.agent(&lease.node).map_err(Stop::Fail)?;
        let params = self.node_and_ports(&lease.node).await?;
        let answer = agent
            .execute(command, params, true)
            .await
            .map_err(|e| stop_for("asking the agent for its steps", e))?;
        let result = answer.command_result.unwrap_or(Value::Null);
        let (steps, version) = deploy::parse_agent_steps(&result, key)
            .map_err(|e| Stop::Fail(format!("The agent's answer to {command} cannot be used: {e}")))?;
        if cleaning {
            self.choose_clean_steps(lease, &steps)?;
        } else {
            if !steps.iter().any(|s| core_step(s) == Some("write_image")) {
                return Err(Stop::Fail(
                    "the agent offers no step deploy.write_image: is its ramdisk of the right kind?"
                        .to_string(),
                ));
            }
            let present = lease.node.flow.step().map(Step::full_name);
            lease.node.flow.steps = deploy::steps(&steps);
            lease.node.flow.index = lease.node.flow.steps.iter().position(|s| Some(s.full_name()) == present);
        }
        lease.node.agent.hardware_manager_version = Some(version);
        lease.node.flow.forget_command(); // refused for its version; the step is sent anew
        lease.node.flow.agent_steps_known = true;
        lease.save().await?;
        Ok(())
    }

    pub(super) async fn node_and_ports(&self, node: &Node) -> Result<Map<String, Value>, Stop> {
        let ports = self.store.ports(PortFilter { node: Some(node.uuid), ..PortFilter::default() }).await?;
        let mut params = Map::new();
        params.insert("node".into(), deploy::agent_node(node));
        params.insert("ports".into(), deploy::agent_ports(&ports));
        Ok(params)
    }

    /// Has the agent do the present step, unless its list shows that it already got it. Ends in a waiting state.
    pub(super) async fn send_step(&self, lease: &mut Lease<'_>, step: &Step) -> Result<Next, Stop> {
        if let Some(conflict) = lease.slot.conflict()
            && self.settings.conflict_is_error
            && lease.node.flow.sent == 0
        {
            return Err(Stop::Fail(conflict));
        }
        let agent = self.agent(&lease.node).map_err(Stop::Fail)?;
        match agent.commands().await {
            Ok(commands) => {
                if let Some(found) = decide::present_command(&lease.node, &commands) {
                    lease.node.flow.command = Some(found.id.clone());
                    lease.node.flow.sent = lease.node.flow.sent.max(1);
                    return self.begin_wait(lease).await;
                }
            }
            // The wait looks again until the deadline says otherwise; nothing is sent to an agent that was not looked at.
            Err(error) if error.is_transient() => {
                tracing::warn!(node = %lease.node.uuid, %error, "the agent cannot be asked before a step");
                return self.begin_wait(lease).await;
            }
            Err(error) => return Err(stop_for("reading the agent's commands", error)),
        }
        let cleaning = lease.node.provision_state == S::Cleaning;
        let mut params = self.node_and_ports(&lease.node).await?;
        params.insert("step".into(), self.step_for_agent(&lease.node, step).await?);
        let version_key = if cleaning { "clean_version" } else { "deploy_version" };
        params.insert(version_key.into(), json!(lease.node.agent.hardware_manager_version));
        let command = if cleaning { "clean.execute_clean_step" } else { "deploy.execute_deploy_step" };
        lease.node.flow.sent_at = Some(Timestamp::now());
        lease.save_intent(&format!("send {}", step.full_name())).await?;
        match agent.execute(command, params, false).await {
            Ok(answer) => {
                lease.node.flow.command = Some(answer.id);
                lease.node.flow.sent += 1;
            }
            // It may have come through: the wait finds it in the agent's list, or sends it again.
            Err(error) if error.is_transient() => {
                tracing::warn!(node = %lease.node.uuid, %error, "sending a step");
            }
            Err(error) => return Err(stop_for(&format!("sending the step {}", step.full_name()), error)),
        }
        self.begin_wait(lease).await
    }

    async fn step_for_agent(&self, node: &Node, step: &Step) -> Result<Value, Stop> {
        let mut args = step.args.clone();
        if core_step(step) == Some("write_image") {
            let request = validate::image_request(node, self.settings.allow_md5).map_err(Stop::Fail)?;
            let drive = self.store.configdrive(node.uuid).await?;
            let info = validate::image_info(node, &request, None);
            args.insert("image_info".into(), serde_json::to_value(info).map_err(refused)?);
            args.insert("configdrive".into(), json!(drive));
        }
        Ok(json!({"interface": step.interface, "step": step.step, "priority": step.priority,
                  "abortable": step.abortable, "args": args}))
    }

    /// Has the agent power the machine off, so that its file systems and disks are flushed; then by the BMC.
    async fn tear_down_agent(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        lease.save_intent("power off").await?;
        let on = self.read_power(&lease.node).await.map_err(Stop::Fail)? == Power::On;
        if on && lease.node.agent.url.is_some() {
            self.power_off_by_agent(&lease.node).await?;
        }
        self.set_power(lease, Power::Off).await?;
        lease.node.end_agent();
        Ok(())
    }

    /// Tells the agent and waits. An agent that is busy or silent may be at it already, told by an earlier run of this
    /// program: then the power must not be cut under it either.
    async fn power_off_by_agent(&self, node: &Node) -> Result<(), Stop> {
        let agent = self.agent(node).map_err(Stop::Fail)?;
        if let Err(error) = agent.execute("standby.power_off", Map::new(), false).await {
            tracing::warn!(node = %node.uuid, %error, "the agent did not take the power off");
            if !error.is_transient() {
                return Ok(());
            }
        }
        self.await_power(node, Power::Off, self.settings.patience.soft_off).await.map(drop)
    }

    /// `deleting`: power off, forget the instance, then clean.
    pub(super) async fn tear_down(&self, lease: &mut Lease<'_>) -> Result<Next, Stop> {
        lease.node.end_agent();
        lease.slot.forget_boot();
        lease.save_intent("power off").await?;
        if !lease.node.disable_power_off {
            self.set_power(lease, Power::Off).await?;
        }
        let node = &mut lease.node;
        node.end_agent();
        node.instance_info.clear();
        node.instance_uuid = None;
        node.instance_name = None;
        for key in ["root_uuid_or_disk_id", "is_whole_disk_image", "identity_conflict", deploy::IMAGE_WRITE] {
            node.internal.remove(key);
        }
        node.flow.begin(Vec::new());
        node.apply(Event::Clean, Timestamp::now()).map_err(refused)?;
        let close = Some(node.flow.last_intent);
        let changes = Changes { close, drive: DriveChange::Remove, ..Changes::default() };
        self.store.save(&mut lease.node, changes).await?;
        Ok(Next::Again)
    }
}

/// The wait as clients see it, with how far the machine came.
pub(super) fn shown_wait(wait: &Wait, live: &super::Live) -> Value {
    let stamp = crate::domain::node::stamp;
    let mut shown =
        json!({"reason": wait.reason, "since": stamp(wait.since), "deadline": stamp(wait.deadline)});
    if let (Some((at, what)), Some(map)) = (&live.seen, shown.as_object_mut()) {
        let line = format!("{}; last seen: {what}", wait.reason);
        map.insert("reason".into(), json!(names::mask_url(&line)));
        map.insert("last_seen".into(), json!({"what": what, "at": stamp(*at)}));
    }
    shown
}
