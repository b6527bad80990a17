//! `cargo xtask test`: everything, the tests with the built programs and with machines included. `.ci/run` is this.

use crate::check::{Runner, cargo, without_machines};
use crate::fuzz;
use crate::ramdisk::report;
use anyhow::{Context, Result};
use ferric_initramfs::{Manifest, Profile, build};
use ferric_tests::accel::Accel;
use ferric_tests::artifacts::{self, target, workspace};
use ferric_tests::{debian, host, images};
use std::process::ExitCode;

/// Files of `tests/e2e` in the order they run: the quick and basic ones first.
pub const MACHINE_TESTS: &[&str] = &[
    "e2e_harness",
    "e2e_ramdisk",
    "e2e_network",
    "e2e_inspection",
    "e2e_deploy",
    "e2e_clean",
    "e2e_disks",
    "e2e_steps",
    "e2e_kill",
    "e2e_bad_input",
    "e2e_power_cut",
    "e2e_real_ironic",
    "e2e_raid",
];

/// Files of `tests/images` and `tests/wire`: the built agent, no machine.
pub const PROGRAM_TESTS: &[&str] = &["images_corpus", "images_hostile", "images_mutants", "wire_functional"];

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Usual,
    /// Also the slow machine tests: those whose names begin with `full_`, which are marked `#[ignore]`.
    Full,
}

pub fn run(filter: &str, extent: Extent) -> Result<ExitCode> {
    host::prepare(host::consent())?;
    let mut runner = Runner::default();
    if filter.is_empty() {
        without_machines(&mut runner);
        runner.part("fuzz: every parser, briefly", fuzz::briefly);
    }
    runner.part("build: programs, static", || artifacts::programs().map(drop));
    for test in PROGRAM_TESTS {
        tests_of(&mut runner, test, filter);
    }
    runner.part("build: ramdisks, and their budgets", budgets);
    runner.part("build: disk images", || {
        debian::image()?;
        images::probe().map(drop)
    });
    println!("machines run under {:?}", Accel::choose());
    for test in MACHINE_TESTS {
        tests_of(&mut runner, test, filter);
        if extent == Extent::Full && has_slow_tests(test)? {
            slow_tests_of(&mut runner, test, filter);
        }
    }
    Ok(runner.finish())
}

/// The tests of one file whose names hold `filter`; all, if the file's name does.
fn tests_of(runner: &mut Runner, test: &str, filter: &str) {
    let mut arguments = vec!["test", "--quiet", "-p", "ferric-tests", "--test", test, "--"];
    // One machine at a time: two of them on two cores miss each other's deadlines.
    arguments.extend(["--test-threads", "1", "--nocapture"]);
    if !filter.is_empty() && !test.contains(filter) {
        arguments.push(filter);
    }
    runner.part(test, || cargo(&arguments));
}

/// Beginning of the names of tests that only a full run does.
const SLOW: &str = "full_";

fn has_slow_tests(test: &str) -> Result<bool> {
    let file = workspace().join("tests").join(test.replacen('_', "/", 1)).with_extension("rs");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.contains(&format!("fn {SLOW}")))
}

/// The slow tests of one file whose names begin with `filter`; all, if the file's name holds it.
fn slow_tests_of(runner: &mut Runner, test: &str, filter: &str) {
    let names = match filter {
        _ if filter.starts_with(SLOW) => filter,
        _ if test.contains(filter) => SLOW,
        _ => return,
    };
    let mut arguments = vec!["test", "--quiet", "-p", "ferric-tests", "--test", test, "--"];
    arguments.extend(["--test-threads", "1", "--nocapture", "--ignored", names]);
    runner.part(&format!("{test}, slow"), || cargo(&arguments));
}

fn budgets() -> Result<()> {
    let manifest = Manifest::builtin()?;
    for profile in [Profile::Server, Profile::Vm] {
        let built = artifacts::ramdisk(profile, &target()?.join("ramdisk").join(profile.to_string()))?;
        println!("{}", report(&built));
        if profile == Profile::Server {
            build::check_budget(&manifest, &built).with_context(|| workspace().display().to_string())?;
        }
    }
    Ok(())
}
