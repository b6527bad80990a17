//! `cargo xtask test`: everything, the tests with the built programs and with machines included. `.ci/run` is this.

use crate::check::{Runner, cargo, without_machines};
use crate::ramdisk::report;
use anyhow::{Context, Result};
use ferric_initramfs::{Manifest, Profile, build};
use ferric_tests::accel::Accel;
use ferric_tests::artifacts::{self, target, workspace};
use ferric_tests::{debian, host, images};
use std::process::ExitCode;

/// Files of `tests/e2e` in the order they run: the quick and basic ones first.
pub const MACHINE_TESTS: &[&str] =
    &["e2e_harness", "e2e_ramdisk", "e2e_network", "e2e_deploy", "e2e_kill", "e2e_bad_input"];

/// Files of `tests/images`: images and the built agent, no machine.
pub const IMAGE_TESTS: &[&str] = &["images_corpus", "images_hostile", "images_mutants"];

pub fn run(filter: &str) -> Result<ExitCode> {
    host::prepare(host::consent())?;
    let mut runner = Runner::default();
    if filter.is_empty() {
        without_machines(&mut runner);
    }
    runner.part("build: programs, static", || artifacts::programs().map(drop));
    for test in IMAGE_TESTS {
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
