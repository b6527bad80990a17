//! Sends commands to an agent as a conductor does: by the address of its callback, believing its certificate alone, with the token
//! that [`crate::lookup`] handed out.

use crate::lookup::TOKEN;
use crate::process::call;
use crate::wait;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The agent's command API, as a heartbeat named it.
#[derive(Debug)]
pub struct Agent {
    url: String,
    certificate: String,
}

impl Agent {
    /// As `beat` says; its certificate is kept in `folder`.
    pub fn of(beat: &Value, folder: &Path) -> Result<Self> {
        let field =
            |name: &str| beat[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {beat}"));
        let certificate = folder.join("agent.pem");
        fs::write(&certificate, field("agent_verify_ca")?)?;
        Ok(Self { url: field("callback_url")?, certificate: certificate.display().to_string() })
    }

    /// The machine's own address.
    pub fn address(&self) -> String {
        self.url.trim_start_matches("https://").trim_end_matches(":9999").to_owned()
    }

    /// Sends a command and waits for its end.
    pub fn command(&self, name: &str, params: Value) -> Result<Value> {
        self.post(name, params, "true")
    }

    /// Sends a command; what it says of itself at once.
    pub fn send(&self, name: &str, params: Value) -> Result<Value> {
        self.post(name, params, "false")
    }

    fn post(&self, name: &str, params: Value, wait: &str) -> Result<Value> {
        let body = json!({"name": name, "params": params}).to_string();
        let path = format!("/v1/commands/?wait={wait}&agent_token={TOKEN}");
        self.ask(&path, &["-H", "Content-Type: application/json", "-d", &body])
    }

    /// Looks at a command until it has ended; `running` sees each answer before.
    pub fn ended(&self, started: &Value, within: Duration, mut running: impl FnMut(&Value)) -> Result<Value> {
        let id = started["id"].as_str().with_context(|| started.to_string())?;
        let path = format!("/v1/commands/{id}?agent_token={TOKEN}");
        let look = || {
            let now = self.ask(&path, &[])?;
            running(&now);
            Ok((now["command_status"] != "RUNNING").then_some(now))
        };
        wait::until("the command to end", within, look, String::new)
    }

    fn ask(&self, path: &str, more: &[&str]) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let usual = ["-sS", "--max-time", "60", "--cacert", &self.certificate, &url];
        let said = call("curl", &[&usual[..], more].concat())?;
        serde_json::from_str(&said).with_context(|| format!("{path} answered {said}"))
    }
}
