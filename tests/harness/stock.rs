//! The stock client of Ironic, `baremetal` of python-ironicclient, from PyPI in a virtual environment of its own.

use crate::artifacts::cache_folder;
use crate::operator::Operator;
use crate::process::{Background, call, run};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release the tests were written with.
const VERSION: &str = "6.3.0";

/// The client, aimed at one controller.
#[derive(Clone, Debug)]
pub struct Baremetal {
    program: PathBuf,
    url: String,
}

/// Installs the client unless it is there; call it before entering a network without a way out.
pub fn install() -> Result<PathBuf> {
    let folder = cache_folder()?.join(format!("python-ironicclient-{VERSION}"));
    let program = folder.join("bin/baremetal");
    if !program.exists() {
        eprintln!("installing python-ironicclient {VERSION} (once)");
        // A virtual environment cannot be moved; one without its mark is made anew.
        fs::remove_dir_all(&folder).ok();
        call("/usr/bin/python3", &["-m", "venv", &folder.display().to_string()])?;
        let pip = folder.join("bin/pip").display().to_string();
        let made = call(&pip, &["install", "--quiet", &format!("python-ironicclient=={VERSION}")]);
        made.inspect_err(|_| drop(fs::remove_dir_all(&folder)))?;
    }
    Ok(program)
}

impl Baremetal {
    pub fn new(program: PathBuf, operator: &Operator) -> Self {
        Self { program, url: operator.url.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--os-auth-type", "none", "--os-endpoint", &self.url]).args(arguments);
        command
    }

    /// Runs `baremetal …`; its output.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments))
    }

    /// Starts `baremetal …` with its output appended to `log`, and does not wait for its end.
    pub fn start(&self, arguments: &[&str], log: &Path) -> Result<Background> {
        Background::spawn("baremetal", &mut self.command(arguments), log)
    }

    /// The same with `-f json`, read.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[arguments, &["-f", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("reading what baremetal printed: {text}"))
    }
}
