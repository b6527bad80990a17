//! `cargo xtask check` and the runner that `test` shares with it: named parts, each a command, with time and outcome.

use crate::essence::essence;
use crate::test::{MACHINE_TESTS, PROGRAM_TESTS};
use anyhow::{Context, Result, bail};
use ferric_tests::artifacts::workspace;
use std::io::{IsTerminal, Read, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bytes of a command's output that are kept to tell why it failed.
const KEPT: usize = 256 << 10;

/// One part of a run.
#[derive(Debug)]
pub struct Part {
    pub name: String,
    pub took: Duration,
    pub error: Option<String>,
}

/// Runs parts one after the other, whatever the ones before gave.
#[derive(Debug, Default)]
pub struct Runner {
    parts: Vec<Part>,
}

impl Runner {
    pub fn part(&mut self, name: &str, act: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let error = act().err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            println!("FAILED: {name}: {error}");
        }
        self.parts.push(Part { name: name.to_owned(), took: start.elapsed(), error });
    }

    pub fn cargo(&mut self, name: &str, arguments: &[&str]) {
        self.part(name, || cargo(arguments));
    }

    /// The table, then what each failed part said, then the line that counts: of a long output often the end alone is seen.
    pub fn finish(self) -> ExitCode {
        println!("\n== summary");
        let failed = self.parts.iter().filter(|part| part.error.is_some()).count();
        for part in &self.parts {
            let outcome = if part.error.is_some() { "FAILED" } else { "ok" };
            println!("{:>7.1} s  {outcome:6}  {}", part.took.as_secs_f64(), part.name);
        }
        let total: Duration = self.parts.iter().map(|part| part.took).sum();
        println!("{:>7.1} s  in all", total.as_secs_f64());
        for part in &self.parts {
            if let Some(error) = &part.error {
                println!("\nFAILED: {}\n{error}", part.name);
            }
        }
        println!("{} passed, {failed} failed", self.parts.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs cargo with its output passed on.
///
/// # Errors
/// The essential lines of what it printed.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
    // Frames of the harness would hide the error that they belong to.
    command.env("RUST_BACKTRACE", "0").env_remove("RUST_LIB_BACKTRACE");
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let (status, output) = passed_on(command)?;
    if !status.success() {
        let told = essence(&String::from_utf8_lossy(&output)).join("\n");
        bail!("{told}\ncargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a command, passes on what it prints, and keeps the end of that.
fn passed_on(mut command: Command) -> Result<(ExitStatus, Vec<u8>)> {
    let (mut output, writer) = std::io::pipe().context("making a pipe")?;
    let mut child =
        command.stdout(writer.try_clone()?).stderr(writer).spawn().with_context(|| format!("{command:?}"))?;
    // It holds the writing end; only then does the reading end come to an end.
    drop(command);
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let read = output.read(&mut chunk).context("reading what cargo prints")?;
        let Some(new) = chunk.get(..read).filter(|new| !new.is_empty()) else { break };
        let mut terminal = std::io::stdout().lock();
        terminal.write_all(new).and_then(|()| terminal.flush()).context("passing on what cargo prints")?;
        kept.extend_from_slice(new);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    Ok((child.wait().context("waiting for cargo")?, kept))
}

/// The parts that need no machine.
pub fn without_machines(runner: &mut Runner) {
    runner.cargo("format", &["fmt", "--all", "--check"]);
    runner.cargo("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    // Tests with built programs and with machines are no default targets; name them.
    let mut arguments = vec!["clippy", "--quiet", "-p", "ferric-tests"];
    arguments.extend(PROGRAM_TESTS.iter().chain(MACHINE_TESTS).flat_map(|test| ["--test", test]));
    arguments.extend(["--", "--deny", "warnings"]);
    runner.cargo("lints of the tests with built programs and machines", &arguments);
    runner.cargo("unit tests", &["test", "--quiet", "--workspace"]);
}

pub fn run() -> Result<ExitCode> {
    let mut runner = Runner::default();
    without_machines(&mut runner);
    Ok(runner.finish())
}
