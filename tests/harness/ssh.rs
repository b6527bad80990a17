//! The stock OpenSSH client, by key and by password.

use crate::process::{call, die_with_us};
use crate::wait;
use anyhow::{Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
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
        let text = fs::read_to_string(&self.public)?;
        Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }
}

/// Keeps the client off the user's own files, and short of words.
const ALWAYS: [&str; 4] =
    ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=10", "LogLevel=ERROR"];

fn flags(options: &[&str]) -> Vec<String> {
    options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]).collect()
}

/// The options that keep the client off the user's own files.
pub fn options(key: &Key) -> Vec<String> {
    let mut options = flags(&["BatchMode=yes", "IdentitiesOnly=yes"]);
    options.extend(flags(&ALWAYS));
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
    let what = format!("ssh {user}@{address} {command}");
    repeat(&what, within, || attempt(key, user, address, command))
}

/// A password, and the program that tells it to a client without a terminal.
#[derive(Clone, Debug)]
pub struct Password {
    password: String,
    teller: PathBuf,
}

impl Password {
    pub fn new(password: &str, folder: &Path) -> Result<Self> {
        let teller = folder.join("askpass");
        fs::write(&teller, "#!/bin/sh\nprintf '%s\\n' \"$FERRIC_PASSWORD\"\n")?;
        fs::set_permissions(&teller, fs::Permissions::from_mode(0o700))?;
        Ok(Self { password: password.to_owned(), teller })
    }

    /// Runs one command over SSH; the password is given once and nothing else is.
    pub fn attempt(&self, user: &str, address: &str, command: &str) -> Result<Output> {
        let mut ssh = Command::new("timeout");
        ssh.args(["60", "ssh", "-F", "/dev/null"])
            .args(flags(&[
                "PubkeyAuthentication=no",
                "PreferredAuthentications=password",
                "NumberOfPasswordPrompts=1",
            ]))
            .args(flags(&ALWAYS))
            .arg(format!("{user}@{address}"))
            .arg(command)
            .env("SSH_ASKPASS", &self.teller)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("FERRIC_PASSWORD", &self.password)
            .stdin(Stdio::null());
        Ok(die_with_us(&mut ssh).output()?)
    }

    /// Tries until the command succeeds; its output.
    pub fn run(&self, user: &str, address: &str, command: &str, within: Duration) -> Result<String> {
        let what = format!("ssh {user}@{address} {command}, with a password");
        repeat(&what, within, || self.attempt(user, address, command))
    }
}

fn repeat(what: &str, within: Duration, mut attempt: impl FnMut() -> Result<Output>) -> Result<String> {
    let mut last = String::new();
    let text = wait::until(
        what,
        within,
        || {
            let output = attempt()?;
            last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() {
                return Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
            }
            // 255 is the client's own failure; any other status is the command's.
            match output.status.code() {
                Some(255) => Ok(None),
                Some(124) => bail!("{what} did not end within 60 s"),
                code => bail!("{what} ended with {code:?}: {last}"),
            }
        },
        String::new,
    );
    text.map_err(|error| error.context(last))
}
