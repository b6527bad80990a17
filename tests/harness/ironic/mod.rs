//! The real OpenStack Ironic as an operator of a small site runs it: one process, SQLite, no authentication, from PyPI in
//! a virtual environment of its own. It judges our ramdisk; nothing of it is ours.
//!
//! [`setup`] installs and configures, [`netboot`] reads what it would have a machine boot, [`lab`] puts it beside a
//! machine, a BMC and an image server. [`functional`] is the other half's own tests.

pub mod functional;
pub mod lab;
pub mod netboot;
pub mod setup;

use crate::operator;
use crate::process::{Background, tail};
use crate::wait;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use setup::{Release, Settings};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running Ironic; ends with its handle.
#[derive(Debug)]
pub struct Ironic {
    release: &'static Release,
    process: Background,
    url: String,
}

impl Ironic {
    /// Makes the database and starts the program; gives it when it answers and its conductor is there.
    pub fn start(release: &'static Release, settings: &Settings) -> Result<Self> {
        let config = setup::configure(release, settings)?;
        let bin = setup::folder(release)?.join("bin");
        let log = settings.folder.join("ironic.log");
        let argument = format!("--config-file={}", config.display());
        crate::process::call(
            &bin.join("ironic-dbsync").display().to_string(),
            &[&argument, "create_schema"],
        )?;
        // Its workers are processes too; as members of one process namespace they end with the first of them.
        let mut command = std::process::Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(bin.join("ironic")).arg(&argument);
        let process = Background::spawn("ironic", &mut command, &log)?;
        let mut ironic =
            Self { release, process, url: format!("http://{}:{}", settings.address, setup::API_PORT) };
        wait::until(
            "Ironic to answer",
            Duration::from_secs(120),
            || {
                ironic.process.expect_running()?;
                let Ok((200, drivers)) = ironic.request("GET", "/v1/drivers", None) else { return Ok(None) };
                // Listed once a conductor serves it.
                Ok(drivers["drivers"].as_array().is_some_and(|d| !d.is_empty()).then_some(()))
            },
            || tail(&log, 40),
        )?;
        Ok(ironic)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The end of the log without the requests that tests ask all the time.
    pub fn told(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let all: Vec<&str> = text.lines().filter(|line| !line.contains(" INFO ironic.api ")).collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    /// One request; see [`operator::request`].
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        operator::request(&self.url, self.release.api, method, path, body)
    }

    /// A request that must succeed. A node that its conductor holds is asked again.
    pub fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        wait::until(
            &format!("{method} {path} to be taken"),
            Duration::from_secs(60),
            || match self.request(method, path, body)? {
                (200..=299, value) => Ok(Some(value)),
                (409, _) => Ok(None),
                (status, value) => bail!("{method} {path} answered {status}: {value}"),
            },
            || self.told(20),
        )
    }

    pub fn node(&self, name: &str) -> Result<Value> {
        self.expect("GET", &format!("/v1/nodes/{name}"), None)
    }

    /// Asks for a change of the provision state; `more` goes into the body (`clean_steps`, `configdrive`).
    pub fn provision(&self, name: &str, target: &str, more: Value) -> Result<()> {
        let mut body = json!({"target": target});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        self.expect("PUT", &format!("/v1/nodes/{name}/states/provision"), Some(&body)).map(drop)
    }

    /// Waits until the node is in `state`; the node then.
    ///
    /// # Errors
    /// A state that tells of failure, or time is up: with the node's own words.
    pub fn wait_for(&self, name: &str, state: &str, within: Duration) -> Result<Value> {
        let told = std::cell::RefCell::new(String::new());
        wait::until(
            &format!("node {name} to be {state}"),
            within,
            || {
                let node = self.node(name)?;
                let now = node["provision_state"].as_str().unwrap_or_default();
                *told.borrow_mut() = format!("{now}, last error {}", node["last_error"]);
                if now == state && node["target_provision_state"].is_null() {
                    return Ok(Some(node));
                }
                if now != state && (now.ends_with("failed") || now == "error") {
                    bail!("node {name} is in '{now}': {}", node["last_error"]);
                }
                Ok(None)
            },
            || told.borrow().clone(),
        )
    }

    /// [`Self::provision`], then [`Self::wait_for`].
    pub fn bring(
        &self,
        name: &str,
        target: &str,
        more: Value,
        state: &str,
        within: Duration,
    ) -> Result<Value> {
        self.provision(name, target, more).with_context(|| format!("asking for '{target}'"))?;
        self.wait_for(name, state, within).with_context(|| format!("after '{target}'"))
    }
}

/// Where the programs of a release are, installed if they are not yet; call it where there is a way out.
pub fn install(release: &'static Release) -> Result<PathBuf> {
    setup::install(release)
}
