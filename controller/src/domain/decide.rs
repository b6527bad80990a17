//! What to do next with a node that waits for its agent. Values in, a decision out; the conductor carries it out.

use super::deploy::core_step;
use super::node::{Node, Wait};
use super::provision::Deadlines;
use super::state::ProvisionState as S;
use ferric_common::wire::command::{CommandResult, CommandStatus};
use jiff::Timestamp;
use std::time::Duration;

/// What follows from what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep waiting, for this reason.
    Wait(String),
    /// The agent is there; ask which steps it has.
    AskSteps,
    /// Send the present step to the agent (again).
    Send,
    /// The present step is done: go to the next one.
    NextStep,
    /// End in failure with this text.
    Fail(String),
}

/// How often one step is sent to agents before it is given up.
const SENDS: u32 = 2;
/// The agent's word for an image server that could not be reached to the end.
const DOWNLOAD_FAILED: &str = "ImageDownloadError";

/// `execute_clean_step` or `execute_deploy_step`, as the agent's list shows it.
pub fn execute_name(state: S) -> &'static str {
    match state {
        S::Cleaning | S::CleanWait => "execute_clean_step",
        _ => "execute_deploy_step",
    }
}

/// The agent's command that carries out the node's present step, if it is in the list.
///
/// Its id is known where the answer to the sending came through. Otherwise it is the newest command of the right name that no
/// earlier step left behind: that is how a controller which was killed between sending and writing finds its command again.
pub fn present_command<'a>(node: &Node, commands: &'a [CommandResult]) -> Option<&'a CommandResult> {
    let name = execute_name(node.provision_state);
    match &node.flow.command {
        Some(id) => commands.iter().find(|c| c.id == *id),
        None => {
            commands.iter().rev().find(|c| c.command_name == name && !node.flow.past_commands.contains(&c.id))
        }
    }
}

/// A heartbeat came, or it is time to look again, and nothing is known of the agent's commands yet.
pub fn on_heartbeat(node: &Node) -> Decision {
    if node.maintenance {
        return Decision::Wait("the node is in maintenance: steps go on once that is taken back".to_string());
    }
    if node.agent.url.is_none() || !node.agent.token_proven {
        return Decision::Wait(awaiting(node));
    }
    if !node.flow.agent_steps_known {
        return Decision::AskSteps;
    }
    match node.flow.step() {
        None => Decision::NextStep,
        Some(step) if core_step(step) == Some("deploy") && node.provision_state == S::DeployWait => {
            Decision::NextStep
        }
        Some(_) => Decision::Wait(awaiting(node)),
    }
}

/// The agent's command list was read while the node waits for its present step. `started` is when this run of the
/// controller began.
pub fn on_commands(node: &Node, commands: &[CommandResult], started: Timestamp) -> Decision {
    match on_heartbeat(node) {
        Decision::Wait(reason) if node.maintenance || node.agent.url.is_none() => {
            return Decision::Wait(reason);
        }
        Decision::Wait(_) => {}
        other => return other,
    }
    let Some(step) = node.flow.step() else { return Decision::NextStep };
    let kind = if execute_name(node.provision_state) == "execute_clean_step" { "Clean" } else { "Deploy" };
    let Some(command) = present_command(node, commands) else {
        return match node.flow.sent {
            0..SENDS => Decision::Send,
            sent => Decision::Fail(format!(
                "{kind} step {} failed on node {}. It was sent to the agent {sent} times, and each time the agent lost it (its command list is empty: the agent restarted). Read the machine's console and the agent's log",
                step.full_name(),
                node.uuid
            )),
        };
    };
    match command.command_status {
        CommandStatus::Running => Decision::Wait(awaiting(node)),
        CommandStatus::Succeeded => Decision::NextStep,
        CommandStatus::VersionMismatch => Decision::AskSteps,
        // Images may come from this very controller, which was away.
        CommandStatus::Failed
            if command.command_error.as_ref().is_some_and(|e| e.kind == DOWNLOAD_FAILED)
                && node.flow.sent_at.is_some_and(|at| at < started)
                && node.flow.sent < SENDS =>
        {
            Decision::Send
        }
        CommandStatus::Failed => {
            let error = command.command_error.as_ref();
            let words = error
                .map(|e| if e.details.is_empty() { e.message.as_str() } else { e.details.as_str() })
                .filter(|t| !t.is_empty())
                .unwrap_or("The agent gave no reason");
            Decision::Fail(format!("{kind} step {} failed on node {}. {words}", step.full_name(), node.uuid))
        }
    }
}

/// What a waiting node waits for, in words.
pub fn awaiting(node: &Node) -> String {
    if node.agent.url.is_none() || !node.agent.token_proven {
        return match node.agent.token {
            None => "the machine to boot the ramdisk and look itself up".to_string(),
            Some(_) => "the first heartbeat of the agent, which has looked itself up".to_string(),
        };
    }
    match node.flow.step() {
        Some(step) if core_step(step) != Some("deploy") => {
            format!("the agent to finish the step {}", step.full_name())
        }
        _ => "the agent to say which steps it has".to_string(),
    }
}

/// The wait that begins now in this state.
pub fn begin_wait(node: &Node, deadlines: &Deadlines, now: Timestamp) -> Option<Wait> {
    let longest = deadlines.of(node.provision_state)?;
    Some(Wait { reason: awaiting(node), since: now, deadline: later(now, longest) })
}

/// A sign of life: the deadline starts anew, the reason follows what is awaited now.
pub fn refresh_wait(node: &Node, deadlines: &Deadlines, now: Timestamp) -> Option<Wait> {
    let longest = deadlines.of(node.provision_state)?;
    let since = node.wait.as_ref().map_or(now, |w| w.since);
    Some(Wait { reason: awaiting(node), since, deadline: later(now, longest) })
}

/// `by` after `now`.
pub fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Whether the deadline of this wait was set by an earlier run and leaves less than a whole wait after `started`, when this run
/// began: the machine may have spoken to nobody in between.
pub fn was_left_alone(node: &Node, deadlines: &Deadlines, started: Timestamp) -> bool {
    let longest = deadlines.of(node.provision_state);
    let whole = longest.map(|longest| later(started, longest));
    node.wait.as_ref().zip(whole).is_some_and(|(wait, whole)| wait.since < started && wait.deadline < whole)
}

/// When a machine that was booting the ramdisk as this run began is booted once more, unless it looks itself up before.
///
/// Firmware that finds no server goes on to the disk and never comes back; the boot that follows is this run's own and is
/// not repeated. It is given a third of the longest silence (10 minutes by default), for slow firmware, from the moment
/// `seen` at which it last fetched something.
pub fn boots_again_at(
    node: &Node,
    seen: Option<Timestamp>,
    deadlines: &Deadlines,
    started: Timestamp,
) -> Option<Timestamp> {
    let booting = match node.provision_state {
        S::DeployWait => node.flow.step().is_some_and(|step| core_step(step) == Some("deploy")),
        S::CleanWait => node.flow.index.is_none(),
        _ => false,
    };
    let began_before = node.flow.booted_at.is_some_and(|at| at < started);
    let came = node.agent.token.is_some() || node.flow.agent_steps_known;
    if !booting || !began_before || came || node.maintenance {
        return None;
    }
    let patience = deadlines.of(node.provision_state)? / 3;
    let from = seen.map_or(started, |seen| seen.max(started));
    Some(later(from, patience))
}

/// Whether the wait has lasted too long; then the text for `last_error`: what was awaited, how long, the last thing seen, what to check.
pub fn on_timeout(
    node: &Node,
    last_seen: Option<&str>,
    deadlines: &Deadlines,
    now: Timestamp,
) -> Option<String> {
    let wait = node.wait.as_ref().filter(|w| w.deadline <= now)?;
    let seconds = deadlines.of(node.provision_state).map_or(0, |d| d.as_secs());
    let doing = match node.provision_state {
        S::CleanWait => format!("Timeout reached while cleaning the node {}", node.uuid),
        _ => format!("Timeout reached while waiting for callback for node {}", node.uuid),
    };
    Some(format!(
        "{doing}: for {seconds} s nothing was heard while waiting for {}. Last seen: {}. {}",
        wait.reason,
        last_seen.unwrap_or("nothing since the machine was powered on"),
        what_to_check(last_seen)
    ))
}

/// What an operator looks at next, by how far the machine came.
pub fn what_to_check(last_seen: Option<&str>) -> &'static str {
    let Some(seen) = last_seen else {
        return "Check that the machine really has power, boots from the network first, and that its port has the MAC address of the NIC on the provisioning network.";
    };
    let seen = seen.to_ascii_lowercase();
    let has = |word: &str| seen.contains(word);
    if has("heartbeat") {
        "Check the machine's console: the agent was running and fell silent. The network between controller and machine, or the machine itself, failed."
    } else if has("looked itself up") || has("lookup") {
        "Check that the agent can reach this API again after its lookup, and the machine's clock and console."
    } else if has("ramdisk") {
        "Check the machine's console: the ramdisk was fetched and did not come to a lookup. Often its kernel has no driver for the NIC, or memory is short."
    } else if has("kernel") {
        "Check the machine's console: the kernel was fetched, the ramdisk was not."
    } else if has("script") {
        "Check the machine's console: the boot script was fetched, the kernel was not."
    } else if has("fetched") {
        "Check the machine's console: the boot file was fetched, the boot script was not. Often the firmware mode (BIOS or UEFI) does not match."
    } else {
        "Check that the machine can reach this controller by TFTP and HTTP: it got an address and fetched nothing."
    }
}

/// What a controller does with a node that it finds at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Nothing was going on.
    Nothing,
    /// Go on from the recorded place; look before doing anything again.
    Resume,
}

/// At the start of the controller.
pub fn on_restart(node: &Node, open_intents: usize) -> Restart {
    if !node.provision_state.is_stable() || node.power_request.is_some() || open_intents > 0 {
        Restart::Resume
    } else {
        Restart::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::deploy;
    use ferric_common::wire::command::CommandError;

    const SECOND: Duration = Duration::from_secs(1);
    /// The start of a run that is older than everything.
    const BEFORE: Timestamp = Timestamp::MIN;
    const DEADLINES: Deadlines =
        Deadlines { deploy: SECOND, clean: SECOND, inspect: SECOND, rescue: SECOND, service: SECOND };

    fn writing() -> Node {
        let mut node = Node { provision_state: S::DeployWait, ..Node::default() };
        node.flow.begin(deploy::steps(&[]));
        node.flow.index = Some(1);
        node.flow.agent_steps_known = true;
        node.flow.sent = 1;
        node.agent.url = Some("https://10.0.0.5:9999".into());
        node.agent.token_proven = true;
        node
    }

    fn command(id: &str, status: CommandStatus) -> CommandResult {
        CommandResult {
            id: id.into(),
            command_name: "execute_deploy_step".into(),
            command_status: status,
            command_error: Some(CommandError {
                kind: "ImageChecksumError".into(),
                code: 500,
                message: "Error verifying image checksum".into(),
                details: "digest is ab, expected cd".into(),
            }),
            command_result: None,
        }
    }

    #[test]
    fn before_the_agent_is_known_nothing_is_sent() {
        let mut node = writing();
        node.agent.url = None;
        node.agent.token_proven = false;
        assert!(
            matches!(on_commands(&node, &[], BEFORE), Decision::Wait(r) if r.contains("boot the ramdisk"))
        );
        node.agent.token = Some("sealed".into());
        assert!(matches!(on_heartbeat(&node), Decision::Wait(r) if r.contains("first heartbeat")));
    }

    #[test]
    fn the_first_heartbeat_asks_for_steps_and_then_leaves_the_boot_step() {
        let mut node = writing();
        node.flow.index = Some(0);
        node.flow.agent_steps_known = false;
        assert_eq!(on_heartbeat(&node), Decision::AskSteps);
        node.flow.agent_steps_known = true;
        assert_eq!(on_heartbeat(&node), Decision::NextStep);
        node.maintenance = true;
        assert!(matches!(on_heartbeat(&node), Decision::Wait(r) if r.contains("maintenance")));
    }

    #[test]
    fn a_commands_status_decides() {
        let mut node = writing();
        for (status, want) in [
            (CommandStatus::Running, None),
            (CommandStatus::Succeeded, Some(Decision::NextStep)),
            (CommandStatus::VersionMismatch, Some(Decision::AskSteps)),
        ] {
            let found = on_commands(&node, &[command("a", status)], BEFORE);
            match want {
                Some(want) => assert_eq!(found, want),
                None => assert!(matches!(found, Decision::Wait(r) if r.contains("write_image"))),
            }
        }
        let failed = on_commands(&node, &[command("a", CommandStatus::Failed)], BEFORE);
        assert_eq!(
            failed,
            Decision::Fail(format!(
                "Deploy step deploy.write_image failed on node {}. digest is ab, expected cd",
                node.uuid
            ))
        );
        node.flow.past_commands = vec!["a".into()];
        assert_eq!(
            on_commands(&node, &[command("a", CommandStatus::Failed)], BEFORE),
            Decision::Send,
            "an old command"
        );
    }

    #[test]
    fn a_step_in_the_agents_list_is_never_sent_again() {
        let mut node = writing();
        node.flow.sent = 0; // killed before the sending was recorded
        node.flow.command = None;
        for status in [CommandStatus::Running, CommandStatus::Succeeded, CommandStatus::Failed] {
            assert_ne!(on_commands(&node, &[command("x", status)], BEFORE), Decision::Send, "{status:?}");
        }
        assert_eq!(on_commands(&node, &[], BEFORE), Decision::Send);
    }

    #[test]
    fn an_agent_that_loses_a_step_twice_fails_the_node() {
        let mut node = writing();
        node.flow.command = Some("gone".into());
        assert_eq!(on_commands(&node, &[], BEFORE), Decision::Send);
        node.flow.sent = 2;
        assert!(matches!(on_commands(&node, &[], BEFORE), Decision::Fail(text) if text.contains("lost it")));
    }

    #[test]
    fn a_download_that_broke_while_the_controller_was_away_is_begun_once_more() {
        let mut node = writing();
        let sent = Timestamp::UNIX_EPOCH;
        node.flow.sent_at = Some(sent);
        let mut failed = command("a", CommandStatus::Failed);
        let restart = later(sent, SECOND);
        let decide = |node: &Node, failed: &CommandResult, started| {
            on_commands(node, std::slice::from_ref(failed), started)
        };
        assert!(matches!(decide(&node, &failed, restart), Decision::Fail(_)), "a wrong digest stays one");
        failed.command_error.as_mut().unwrap().kind = "ImageDownloadError".into();
        assert!(matches!(decide(&node, &failed, sent), Decision::Fail(_)), "it was there all the time");
        assert_eq!(decide(&node, &failed, restart), Decision::Send);
        node.flow.sent = SENDS;
        assert!(matches!(decide(&node, &failed, restart), Decision::Fail(_)), "not for ever");
    }

    #[test]
    fn a_wait_that_nobody_watched_gets_its_time_anew() {
        let mut node = writing();
        let since = Timestamp::UNIX_EPOCH;
        node.wait = begin_wait(&node, &DEADLINES, since);
        let long_after = later(since, SECOND * 1000);
        assert!(was_left_alone(&node, &DEADLINES, long_after));
        assert!(!was_left_alone(&node, &DEADLINES, since), "it began in this run");
        node.wait = refresh_wait(&node, &DEADLINES, long_after);
        assert!(!was_left_alone(&node, &DEADLINES, long_after), "once");
        assert_eq!(on_timeout(&node, None, &DEADLINES, long_after), None);
    }

    #[test]
    fn only_a_boot_that_an_earlier_run_began_is_repeated() {
        let third = SECOND / 3;
        let booted = Timestamp::UNIX_EPOCH;
        let restart = later(booted, SECOND);
        let mut booting = writing();
        booting.flow.index = Some(0);
        booting.flow.agent_steps_known = false;
        booting.agent = Default::default();
        booting.flow.booted_at = Some(booted);
        let at = |node: &Node, seen| boots_again_at(node, seen, &DEADLINES, restart);
        assert_eq!(at(&booting, None), Some(later(restart, third)));
        let seen = later(restart, third);
        assert_eq!(at(&booting, Some(seen)), Some(later(seen, third)), "it is on its way");
        assert_eq!(boots_again_at(&booting, None, &DEADLINES, booted), None, "this run's own boot");
        let but = |change: fn(&mut Node)| {
            let mut node = booting.clone();
            change(&mut node);
            at(&node, None)
        };
        assert_eq!(but(|n| n.agent.token = Some("sealed".into())), None, "it has looked itself up");
        assert_eq!(but(|n| n.flow.index = Some(1)), None, "the image may be on the disk");
        assert_eq!(but(|n| n.maintenance = true), None);
        assert_eq!(but(|n| n.provision_state = S::Deploying), None);
        let cleaning = |index| {
            let mut node = Node { provision_state: S::CleanWait, ..booting.clone() };
            node.flow.index = index;
            at(&node, None)
        };
        assert_eq!((cleaning(None), cleaning(Some(0))), (Some(later(restart, third)), None));
    }

    #[test]
    fn a_timeout_says_what_was_awaited_and_how_far_the_machine_came() {
        let now = Timestamp::UNIX_EPOCH;
        let mut node = writing();
        node.agent = Default::default();
        node.wait = begin_wait(&node, &DEADLINES, now);
        assert_eq!(on_timeout(&node, None, &DEADLINES, now), None);
        let after = later(now, SECOND);
        for (seen, words) in [
            (None, "MAC address"),
            (Some("DHCP answered 10.0.0.5"), "TFTP and HTTP"),
            (Some("fetched snponly.efi"), "firmware mode"),
            (Some("fetched the boot script"), "the kernel was not"),
            (Some("fetched the kernel"), "the ramdisk was not"),
            (Some("fetched the ramdisk"), "driver for the NIC"),
            (Some("looked itself up from 10.0.0.5"), "reach this API"),
            (Some("heartbeat from https://10.0.0.5:9999"), "fell silent"),
        ] {
            let text = on_timeout(&node, seen, &DEADLINES, after).unwrap();
            assert!(
                text.starts_with(&format!(
                    "Timeout reached while waiting for callback for node {}",
                    node.uuid
                ))
            );
            assert!(text.contains(words) && text.contains("boot the ramdisk"), "{text}");
            assert!(text.contains(seen.unwrap_or("nothing since")), "{text}");
        }
    }

    #[test]
    fn a_restart_fails_nobody() {
        for state in S::ALL {
            let node = Node { provision_state: *state, ..Node::default() };
            let want = if state.is_stable() { Restart::Nothing } else { Restart::Resume };
            assert_eq!(on_restart(&node, 0), want, "{state}");
            assert_eq!(on_restart(&node, 1), Restart::Resume, "{state} with an open intent");
        }
    }
}
