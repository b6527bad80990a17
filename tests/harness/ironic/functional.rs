//! The functional tests that ironic-python-agent ships, from PyPI, pointed at a program of ours by `functional.py`.

use crate::artifacts::cache_folder;
use crate::process::{call, run};
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The release whose tests are run.
pub const VERSION: &str = "13.0.0";
/// What its tests need beside it.
const WITH: &str = "oslotest==6.1.0";
/// Tenths of a second that the tests wait for the agent; on a machine without a network card it waits for one first.
const TRIES: &str = "900";

/// Installs the tests unless they are there.
pub fn install() -> Result<std::path::PathBuf> {
    let folder = cache_folder()?.join(format!("ironic-python-agent-{VERSION}"));
    let done = folder.join("installed");
    if !done.exists() {
        eprintln!("installing ironic-python-agent {VERSION} (once)");
        // A virtual environment cannot be moved; one without its mark is made anew.
        fs::remove_dir_all(&folder).ok();
        call("/usr/bin/python3", &["-m", "venv", &folder.display().to_string()])?;
        let wanted = format!("ironic-python-agent=={VERSION}");
        call(&folder.join("bin/pip").display().to_string(), &["install", "--quiet", &wanted, WITH])?;
        fs::write(&done, VERSION)?;
    }
    Ok(folder)
}

/// Runs all of them in this thread's network; what they said.
///
/// # Errors
/// A test failed: with what it said.
pub fn judge(program: &Path, folder: &Path) -> Result<String> {
    let python = install()?.join("bin/python");
    let shim = folder.join("functional.py");
    fs::write(&shim, include_str!("functional.py"))?;
    let mut command = Command::new(python);
    command.arg(shim).arg(program).arg(folder).env("IPA_WAIT_TRIES", TRIES).current_dir(folder);
    run(&mut command)
}
