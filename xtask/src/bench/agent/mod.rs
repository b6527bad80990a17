//! `cargo xtask bench agent`: our ramdisk and one with the real ironic-python-agent, in turns in the same machine.
//!
//! [`boot`] measures to the lookup, [`deploy`] whole deployments by the real Ironic.

mod boot;
mod deploy;
mod memory;
mod python_ramdisk;
mod table;

use super::machine;
use super::options::Options;
use anyhow::{Context, Result};
use deploy::Deployment;
use ferric_initramfs::Profile;
use ferric_tests::artifacts::{self, run_folder, target};
use ferric_tests::ssh::Key;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Runs of each without `--runs`.
pub const RUNS: usize = 3;
const MIB: f64 = 1_048_576.0;
const GIB: u64 = 1 << 30;

/// One ramdisk and what it took.
#[derive(Debug)]
struct Contender {
    name: String,
    kernel: PathBuf,
    ramdisk: PathBuf,
    /// Who may log in, with which key, and what must be in the ramdisk beside the kernel parameter that names the key.
    user: &'static str,
    key: Key,
    login: Option<PathBuf>,
    /// Names of the processes that are the agent.
    programs: &'static [&'static str],
    kernel_bytes: u64,
    ramdisk_bytes: u64,
    unpacked_bytes: u64,
    /// Seconds from QEMU's start to the lookup; none: it did not come.
    lookups: Vec<Option<f64>>,
    deployments: Vec<Deployment>,
    /// In MiB, of the machine; none: it was not enough or not tried.
    least_memory: Option<u32>,
}

pub fn run(options: &Options) -> Result<()> {
    let mut contenders = contenders()?;
    let machine = machine::describe()?;
    boot::measure(&mut contenders, options.runs)?;
    deploy::measure(&mut contenders, options.runs)?;
    println!("{}\n", machine.join("\n"));
    print!("{}", table::text(&contenders));
    if let Some(path) = &options.json {
        fs::write(path, table::as_json(&machine, &contenders).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn contenders() -> Result<[Contender; 2]> {
    let python = python_ramdisk::obtain()?;
    artifacts::agent()?;
    let ours = artifacts::ramdisk(Profile::Server, &target()?.join("ramdisk/server"))?;
    let folder = run_folder("bench-agent-key")?;
    let key = Key::generate(&folder)?;
    let login = folder.join("login");
    let private = login.join("root/.ssh");
    fs::create_dir_all(&private)?;
    fs::copy(&key.public, private.join("authorized_keys"))?;
    // The SSH server refuses keys that others could write.
    for folder in [login.join("root"), private] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let ferric = Contender {
        name: "ferric-agent".to_owned(),
        kernel: ours.kernel,
        ramdisk: ours.ramdisk,
        user: "dev",
        key: key.clone(),
        login: None,
        programs: &["init", "ferric-agent", "ferric-network", "ferric-devices"],
        kernel_bytes: ours.kernel_bytes,
        ramdisk_bytes: ours.ramdisk_bytes,
        unpacked_bytes: ours.unpacked_bytes,
        lookups: Vec::new(),
        deployments: Vec::new(),
        least_memory: None,
    };
    let theirs = Contender {
        name: format!("ironic-python-agent {}", python_ramdisk::VERSION),
        kernel: ferric.kernel.clone(),
        ramdisk: python.path,
        user: "root",
        key,
        login: Some(login),
        programs: &["python3", "qemu-img"],
        kernel_bytes: ferric.kernel_bytes,
        ramdisk_bytes: python.bytes,
        unpacked_bytes: python.unpacked_bytes,
        lookups: Vec::new(),
        deployments: Vec::new(),
        least_memory: None,
    };
    Ok([ferric, theirs])
}
