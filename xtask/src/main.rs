//! `cargo xtask`: the commands that do everything around the code.
//!
//! - `ramdisk [--profile server|vm] [--out DIR] [--firmware]` builds the static agent and the ramdisk.
//! - `demo [--bios|--uefi] [--keep] [--yes]` takes a blank virtual machine to an installed Debian.
//! - `bench image` measures our image writer against others, `bench parts` what it is made of,
//!   `bench agent` our ramdisk beside the Python agent's.
//! - `fuzz [TARGET] [--seconds N]` runs the parsers under libFuzzer.
//! - `mutants [--count N] [--seed S]` holds the image writer against qemu-img on mutated images.
//! - `test [--full] [FILTER]` runs everything, machines included, with `--full` the slow ones too; `check` the part that
//!   needs no machine.

mod bench;
mod check;
mod demo;
mod essence;
mod fuzz;
mod mutants;
mod ramdisk;
mod test;

use anyhow::{Result, bail};
use std::process::ExitCode;
use test::Extent;

const USAGE: &str = "usage: cargo xtask COMMAND
  ramdisk [--profile server|vm] [--out DIR] [--firmware]
          builds the static agent, and vmlinuz and initramfs.img into DIR (default target/ramdisk/PROFILE);
          --firmware adds firmware.img from Debian's firmware packages or this machine's /lib/firmware
  demo [--bios|--uefi] [--keep] [--yes]
          deploys a real Debian to a virtual machine, from power-on to ssh; --keep leaves it running
  test [--full] [FILTER]
          formatting, lints, all tests, budgets, then the tests with machines whose name holds FILTER;
          --full also runs those that are slow, which continuous integration does
  check   formatting, lints and the tests that need no machine
  bench image [--only WORD[,WORD]] [--runs N] [--quick] [--json FILE] [--agent PATH] [--yes]
          our image writer and what others use, in turns on one disk in memory, beside what the machine allows
  bench parts [--json FILE] [--yes]
          hash, decompression, network and disk of this machine, one by one
  bench agent [--runs N] [--quick] [--json FILE] [--yes]
          our ramdisk and one with the real ironic-python-agent: sizes, and the time from power-on to lookup
  fuzz [TARGET] [--seconds N] [--minimise]
          every parser of bytes from elsewhere under libFuzzer, or one, for N seconds each (default 60); new inputs go to
          target/fuzz/corpus, those at fault to target/fuzz/faults; --minimise puts a few small ones that reach
          more than those made by hand into common/fuzz/corpus
  mutants [--count N] [--seed S]
          N mutated qcow2 images (default 100000) from number S on: what our writer calls complete must be what
          qemu-img reads; those at fault are kept in target/runs/mutants";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["ramdisk", rest @ ..] => ramdisk::run(rest).map(|()| ExitCode::SUCCESS),
        ["demo", rest @ ..] => demo::run(rest).map(|()| ExitCode::SUCCESS),
        ["test", "--full"] => test::run("", Extent::Full),
        ["test", "--full", filter] => test::run(filter, Extent::Full),
        ["test"] => test::run("", Extent::Usual),
        ["test", filter] => test::run(filter, Extent::Usual),
        ["check"] => check::run(),
        ["fuzz", rest @ ..] => fuzz::run(rest).map(|()| ExitCode::SUCCESS),
        ["mutants", rest @ ..] => mutants::run(rest).map(|()| ExitCode::SUCCESS),
        ["bench", rest @ ..] => bench::run(rest).map(|()| ExitCode::SUCCESS),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("cargo xtask does not know '{}'\n{USAGE}", words.join(" ")),
    }
}
