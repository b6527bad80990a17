//! Provision verbs, and waiting for their end: what counts as done or failed is decided here, in pure code.

use super::args::At;
use super::client::{Api, node_path};
use super::error::CliError;
use super::progress::Status;
use super::render::{one_line, printable};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the node is looked at, and how often unchanged progress is printed where lines cannot be redrawn.
const LOOK: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(5);
/// States in which a node stays until somebody asks for something (Ironic's stable states).
const STABLE: [&str; 6] = ["enroll", "manageable", "available", "active", "rescue", "error"];
/// A controller that restarts is waited for; longer than this it is an error.
const AWAY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Manage,
    Provide,
    Deploy,
    Abort,
    Undeploy,
    Rebuild,
}

impl Verb {
    /// The target on the wire.
    pub fn target(self) -> &'static str {
        match self {
            Verb::Manage => "manage",
            Verb::Provide => "provide",
            Verb::Deploy => "active",
            Verb::Abort => "abort",
            Verb::Undeploy => "deleted",
            Verb::Rebuild => "rebuild",
        }
    }

    /// The state in which it is done; an abort ends in whatever stable or failed state comes next.
    fn done(self) -> Option<&'static str> {
        match self {
            Verb::Manage => Some("manageable"),
            Verb::Provide | Verb::Undeploy => Some("available"),
            Verb::Deploy | Verb::Rebuild => Some("active"),
            Verb::Abort => None,
        }
    }
}

/// What one look at the node means for the wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Goes,
    Done,
    Failed(String),
}

/// Judges a look. `looks` counts them from 1: the first may still show the state before the request.
pub fn judge(verb: Verb, node: &str, status: &Status, looks: u32) -> Outcome {
    let state = status.state.as_str();
    let rests = status.target.is_none() && STABLE.contains(&state);
    let failed = state == "error" || state.ends_with(" failed");
    match verb.done() {
        Some(wanted) if state == wanted && status.target.is_none() => return Outcome::Done,
        None if rests || failed => return Outcome::Done,
        _ => {}
    }
    if failed || (rests && looks > 1) {
        let error =
            status.last_error.as_deref().unwrap_or("the controller gives no reason (last_error is empty)");
        return Outcome::Failed(format!("node {node} ended in '{}': {}", one_line(state), printable(error)));
    }
    Outcome::Goes
}

/// Asks for a verb and, if wanted, waits for its end.
pub fn provision(api: &Api, at: &At, verb: Verb) -> Result<(), CliError> {
    api.put(&node_path(&at.node, "/states/provision"), &json!({"target": verb.target()}))?;
    finish(api, at, verb)
}

/// The end of every provision command: wait if asked to, else say what was accepted.
pub fn finish(api: &Api, at: &At, verb: Verb) -> Result<(), CliError> {
    match at.wait {
        Some(seconds) => {
            let mut screen = Screen::new(std::io::stdout().is_terminal(), columns());
            wait(api, &at.node, verb, Duration::from_secs(seconds), LOOK, &mut screen, &mut std::io::stdout())
        }
        None => {
            let (verb, node) = (verb.target(), &at.node);
            println!("'{verb}' was accepted for node {node}; follow it with: ferric node watch {node}");
            Ok(())
        }
    }
}

/// Looks at the node until it is done, has failed, or time is up.
fn wait(
    api: &Api,
    node: &str,
    verb: Verb,
    limit: Duration,
    look: Duration,
    screen: &mut Screen,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let start = Instant::now();
    let mut looks = 0;
    loop {
        let status = patient_look(api, node, start, limit)?;
        looks += 1;
        screen.show(&status, start.elapsed(), out)?;
        match judge(verb, node, &status, looks) {
            Outcome::Done => {
                screen.end(out)?;
                if let Some(line) = status.written.filter(|_| verb.done() == Some("active")) {
                    writeln!(out, "image: {line}")?;
                }
                return Ok(out.flush()?);
            }
            Outcome::Failed(text) => {
                screen.end(out)?;
                return Err(CliError::Failed(text));
            }
            Outcome::Goes if start.elapsed() >= limit => {
                screen.end(out)?;
                let reason =
                    status.reason.map(|r| format!(", waiting for: {}", one_line(&r))).unwrap_or_default();
                let wanted = verb.done().unwrap_or("a stable state").to_string();
                let state = status.state;
                return Err(CliError::TooLong { node: node.into(), wanted, waited: limit, state, reason });
            }
            Outcome::Goes => std::thread::sleep(look.min(limit.saturating_sub(start.elapsed()))),
        }
    }
}

/// A look that outlasts a restart of the controller.
fn patient_look(api: &Api, node: &str, start: Instant, limit: Duration) -> Result<Status, CliError> {
    let away = Instant::now();
    loop {
        match api.get(&node_path(node, "")) {
            Ok(value) => return Ok(Status::of(&value)),
            Err(CliError::NotRunning { .. } | CliError::Unreachable { .. })
                if away.elapsed() < AWAY && start.elapsed() < limit =>
            {
                std::thread::sleep(LOOK);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Prints what a node does until interrupted.
pub fn watch(api: &Api, node: &str) -> Result<(), CliError> {
    let mut screen = Screen::new(std::io::stdout().is_terminal(), columns());
    let start = Instant::now();
    let (mut error, mut written) = (None, None);
    loop {
        let status = patient_look(api, node, start, Duration::MAX)?;
        let mut out = std::io::stdout();
        screen.show(&status, start.elapsed(), &mut out)?;
        if status.last_error != error {
            if let Some(text) = &status.last_error {
                screen.end(&mut out)?;
                writeln!(out, "last_error: {}", printable(text))?;
            }
            error = status.last_error;
        }
        if status.written != written {
            if let Some(line) = &status.written {
                screen.end(&mut out)?;
                writeln!(out, "image: {line}")?;
            }
            written = status.written;
        }
        std::thread::sleep(LOOK);
    }
}

/// The terminal's width as the shell tells it; 80 if it does not.
fn columns() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c >= 20).unwrap_or(80)
}

/// Where lines go: a terminal redraws one, anything else gets a line per change and per five seconds of progress.
pub struct Screen {
    terminal: bool,
    columns: usize,
    shown: Option<(Status, Duration)>,
}

impl Screen {
    pub fn new(terminal: bool, columns: usize) -> Screen {
        Screen { terminal, columns, shown: None }
    }

    pub fn show(&mut self, status: &Status, at: Duration, out: &mut dyn Write) -> std::io::Result<()> {
        let stamp = format!("{:>5}s  ", at.as_secs());
        if self.terminal {
            let line: String = format!("{stamp}{}", status.line()).chars().take(self.columns - 1).collect();
            // A new state gets a line of its own, so that the way here stays readable.
            if self.shown.as_ref().is_some_and(|(before, _)| before.state != status.state) {
                writeln!(out)?;
            }
            write!(out, "\r\u{1b}[2K{line}")?;
            self.shown = Some((status.clone(), at));
            return out.flush();
        }
        let due = match &self.shown {
            None => true,
            Some((before, _)) if before.headline() != status.headline() => true,
            Some((before, when)) => before.line() != status.line() && at.saturating_sub(*when) >= QUIET,
        };
        if due {
            writeln!(out, "{stamp}{}", status.line())?;
            self.shown = Some((status.clone(), at));
        }
        out.flush()
    }

    /// Leaves the redrawn line behind.
    pub fn end(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        if self.terminal && self.shown.is_some() {
            writeln!(out)?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, answer};
    use ferric_common::report::WriteReport;
    use serde_json::Value;

    fn node(state: &str, target: Option<&str>, error: Option<&str>) -> Value {
        json!({"provision_state": state, "target_provision_state": target, "last_error": error,
            "driver_internal_info": {"wait": {"reason": "its heartbeat"}}})
    }

    #[test]
    fn done_and_failed_are_told_apart() {
        let failed = |text: &str| Outcome::Failed(text.into());
        for (verb, state, target, error, looks, expected) in [
            (Verb::Manage, "verifying", Some("manageable"), None, 1, Outcome::Goes),
            (Verb::Manage, "manageable", None, None, 1, Outcome::Done),
            (Verb::Manage, "enroll", None, None, 1, Outcome::Goes),
            (
                Verb::Manage,
                "enroll",
                None,
                Some("no answer"),
                2,
                failed("node n ended in 'enroll': no answer"),
            ),
            (
                Verb::Provide,
                "clean failed",
                Some("available"),
                Some("a\nb"),
                1,
                failed("node n ended in 'clean failed': a\nb"),
            ),
            (Verb::Deploy, "wait call-back", Some("active"), None, 9, Outcome::Goes),
            (Verb::Deploy, "active", None, None, 9, Outcome::Done),
            (Verb::Rebuild, "active", None, None, 1, Outcome::Done),
            (Verb::Undeploy, "error", None, Some("x"), 1, failed("node n ended in 'error': x")),
            (Verb::Abort, "deploy failed", None, Some("aborted"), 1, Outcome::Done),
        ] {
            let status = Status::of(&node(state, target, error));
            assert_eq!(judge(verb, "n", &status, looks), expected, "{verb:?} {state} {looks}");
        }
    }

    fn run(answers: Vec<Value>, limit: Duration) -> (Result<(), CliError>, String, Vec<String>) {
        let server = Server::start(answers.into_iter().map(|a| answer(200, a)).collect());
        let (mut screen, mut out) = (Screen::new(false, 80), Vec::new());
        let look = Duration::from_millis(1);
        let result = wait(&server.api(), "n", Verb::Deploy, limit, look, &mut screen, &mut out);
        (result, String::from_utf8(out).unwrap(), server.lines())
    }

    #[test]
    fn a_deployment_prints_each_change_once() {
        let waiting = node("wait call-back", Some("active"), None);
        let answers = vec![waiting.clone(), waiting.clone(), waiting, node("active", None, None)];
        let (result, out, lines) = run(answers, Duration::from_secs(20));
        result.unwrap();
        assert_eq!(out.lines().count(), 2, "{out}");
        assert!(out.contains("wait call-back  its heartbeat\n") && !out.contains('\u{1b}'), "{out}");
        assert_eq!(lines, ["GET /v1/nodes/n"; 4]);
    }

    #[test]
    fn a_deployment_ends_with_the_account_of_its_image() {
        let mut done = node("active", None, None);
        done["driver_internal_info"]["image_write"] = WriteReport::default().shown();
        let (result, out, _) = run(vec![done], Duration::from_secs(20));
        result.unwrap();
        let last = out.lines().last().unwrap();
        assert!(last.starts_with("image: 0 MiB received at 0 MiB/s, 0 MiB written, "), "{out}");
        assert!(last.contains("; limited by ") && last.ends_with("; 0 resumes"), "{out}");
    }

    #[test]
    fn a_failure_is_code_1_with_the_whole_error_and_slowness_code_2_with_the_reason() {
        let failed = node("deploy failed", Some("active"), Some("image digest is wrong\nexpected …"));
        let (result, _, _) = run(vec![failed], Duration::from_secs(20));
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("image digest is wrong\nexpected …"), "{error}");

        let (result, _, _) =
            run(vec![node("wait call-back", Some("active"), None)], Duration::from_millis(20));
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("is in 'wait call-back', waiting for: its heartbeat"), "{error}");
    }

    #[test]
    fn a_terminal_redraws_one_line_within_its_width() {
        let (mut screen, mut out) = (Screen::new(true, 30), Vec::new());
        for state in ["deploying", "deploying", "active"] {
            screen.show(&Status::of(&node(state, Some("active"), None)), Duration::ZERO, &mut out).unwrap();
        }
        screen.end(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\r').count(), 3);
        assert_eq!(text.matches('\n').count(), 2);
        assert!(text.split(['\r', '\n']).all(|l| l.replace("\u{1b}[2K", "").chars().count() < 30), "{text}");
    }
}
