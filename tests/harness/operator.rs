//! What an operator does: the command `ferric`, and plain requests to the REST API as any client of Ironic makes them.

use crate::process::{die_with_us, run};
use crate::wait;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The microversion asked for: high enough for every field that is read here.
const VERSION: &str = "1.82";

/// An operator at one controller.
#[derive(Clone, Debug)]
pub struct Operator {
    pub url: String,
    pub program: PathBuf,
}

impl Operator {
    /// Runs `ferric` to its end; what it prints, or its error text.
    pub fn ferric(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments))
    }

    /// Runs `ferric` with its output on this terminal.
    pub fn ferric_shown(&self, arguments: &[&str]) -> Result<()> {
        println!("$ ferric --url {} {}", self.url, arguments.join(" "));
        let mut command = self.command(arguments);
        let status = die_with_us(&mut command).stdin(Stdio::null()).status().context("starting ferric")?;
        anyhow::ensure!(status.success(), "ferric {} ended with {status}", arguments.join(" "));
        Ok(())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--url", &self.url]).args(arguments);
        command
    }

    /// One request; see [`request`].
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        request(&self.url, VERSION, method, path, body)
    }

    /// A request that must succeed.
    pub fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        match self.request(method, path, body)? {
            (200..=299, value) => Ok(value),
            (status, value) => bail!("{method} {path} answered {status}: {value}"),
        }
    }

    pub fn node(&self, name: &str) -> Result<Value> {
        self.expect("GET", &format!("/v1/nodes/{name}"), None)
    }

    /// Waits for one of `states`; the node then.
    ///
    /// # Errors
    /// A state that ends with `failed` or `error` and is not waited for, with the node's `last_error`; or time is up. A
    /// controller that does not answer is waited for, since tests restart it.
    pub fn wait_for_state(&self, name: &str, states: &[&str], within: Duration) -> Result<Value> {
        let mut last = String::new();
        wait::until(
            &format!("node {name} to be {}", states.join(" or ")),
            within,
            || {
                let Ok(node) = self.node(name) else { return Ok(None) };
                let state = node["provision_state"].as_str().unwrap_or_default();
                last = format!("{state} ({})", node["last_error"]);
                if states.contains(&state) {
                    return Ok(Some(node));
                }
                if state.ends_with("failed") || state == "error" {
                    bail!("node {name} is in '{state}': {}", node["last_error"]);
                }
                Ok(None)
            },
            String::new,
        )
        .map_err(|error| error.context(last))
    }
}

/// The arguments that enrol a machine.
pub fn create_arguments(
    name: &str,
    bmc: (&str, u16),
    password: &Path,
    mac: &str,
    hint: &str,
    mode: &str,
) -> Vec<String> {
    let (port, password) = (bmc.1.to_string(), password.display().to_string());
    [
        ["node", "create"].as_slice(),
        &[name, "--driver", "ipmi", "--bmc-address", bmc.0, "--bmc-port", &port],
        &["--bmc-user", crate::bmc::USER, "--bmc-password-file", &password],
        &["--mac", mac, "--root-device", hint, "--boot-mode", mode],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// One request to Ironic's API, whoever serves it, in this version; status and body. A body that is no JSON is given as a string.
pub fn request(
    url: &str,
    version: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value)> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .new_agent();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{url}{path}"))
        .header("X-OpenStack-Ironic-API-Version", version)
        .header("Accept", "application/json");
    if body.is_some() {
        request = request.header("Content-Type", "application/json");
    }
    let text = body.map(Value::to_string).unwrap_or_default();
    let what = || format!("{method} {path}");
    let mut answer = if body.is_some() || method == "PUT" || method == "POST" {
        agent.run(request.body(text)?).with_context(what)?
    } else {
        agent.run(request.body(())?).with_context(what)?
    };
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().with_context(what)?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}
