//! The stock OpenSSH client.

use crate::process::{call, die_with_us};
use crate::wait;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A key pair of this run.
#[derive(Clone, Debug)]
pub struct Key {
    pub private: PathBuf,
    pub public: PathBuf,
}

impl Key {
    pub fn generate(folder: &Path) -> Result<Self> {
        let private = folder.join("id_ed25519");
        call(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &private.display().to_string()],
        )?;
        Ok(Self { public: private.with_extension("pub"), private })
    }

    /// The public key as `TYPE BASE64`, without comment.
    pub fn public_text(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.public)?;
        Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }
}

/// The options that keep the client off the user's own files.
pub fn options(key: &Key) -> Vec<String> {
    let mut options: Vec<String> = [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ConnectTimeout=10",
        "LogLevel=ERROR",
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option.to_owned()])
    .collect();
    options.extend(["-F".into(), "/dev/null".into(), "-i".into(), key.private.display().to_string()]);
    options
}

/// Runs one command over SSH.
pub fn attempt(key: &Key, user: &str, address: &str, command: &str) -> Result<Output> {
    // A session that hangs is a failure, not a wait.
    let mut ssh = Command::new("timeout");
    ssh.args(["60", "ssh"])
        .args(options(key))
        .arg(format!("{user}@{address}"))
        .arg(command)
        .stdin(Stdio::null());
    Ok(die_with_us(&mut ssh).output()?)
}

/// Tries until the command succeeds; its output.
pub fn run(key: &Key, user: &str, address: &str, command: &str, within: Duration) -> Result<String> {
    let mut last = String::new();
    let text = wait::until(
        &format!("ssh {user}@{address} {command}"),
        within,
        || {
            let output = attempt(key, user, address, command)?;
            last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() {
                return Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
            }
            // 255 is the client's own failure; any other status is the command's.
            match output.status.code() {
                Some(255) => Ok(None),
                Some(124) => bail!("'{command}' on {address} did not end within 60 s"),
                code => bail!("'{command}' ended with {code:?} on {address}: {last}"),
            }
        },
        String::new,
    );
    text.map_err(|error| error.context(last))
}
