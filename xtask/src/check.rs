//! `cargo xtask check` and the runner that `test` shares with it: named parts, each a command, with time and outcome.

use crate::test::MACHINE_TESTS;
use anyhow::{Context, Result};
use ferric_tests::artifacts::workspace;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

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

    /// The table, then the line that counts.
    pub fn finish(self) -> ExitCode {
        println!("\n== summary");
        let failed = self.parts.iter().filter(|part| part.error.is_some()).count();
        for part in &self.parts {
            let outcome = if part.error.is_some() { "FAILED" } else { "ok" };
            println!("{:>7.1} s  {outcome:6}  {}", part.took.as_secs_f64(), part.name);
        }
        let total: Duration = self.parts.iter().map(|part| part.took).sum();
        println!("{:>7.1} s  in all", total.as_secs_f64());
        println!("{} passed, {failed} failed", self.parts.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

pub fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
    let status = command.status().context("starting cargo")?;
    anyhow::ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// The parts that need no machine.
pub fn without_machines(runner: &mut Runner) {
    runner.cargo("format", &["fmt", "--all", "--check"]);
    runner.cargo("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    // Tests with machines are no default targets; name them.
    let mut arguments = vec!["clippy", "--quiet", "-p", "ferric-tests"];
    arguments.extend(MACHINE_TESTS.iter().flat_map(|test| ["--test", test]));
    arguments.extend(["--", "--deny", "warnings"]);
    runner.cargo("lints of the tests with machines", &arguments);
    runner.cargo("unit tests", &["test", "--quiet", "--workspace"]);
}

pub fn run() -> Result<ExitCode> {
    let mut runner = Runner::default();
    without_machines(&mut runner);
    Ok(runner.finish())
}
