//! `ipa-debug=1` on the kernel command line makes the program say more: the real one is run and its words are read.

// Test code outside of #[test] functions: a failed unwrap there is a failed test too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends with its handle, whatever the test does.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the agent until it has asked `api` for something, and returns what it had said by then.
fn words(folder: &Path, api: &TcpListener, parameters: &str) -> Vec<String> {
    let cmdline = folder.join("cmdline");
    let url = format!("ipa-api-url=http://{}", api.local_addr().unwrap());
    std::fs::write(&cmdline, format!("quiet {url} ipa-agent-token={} {parameters}\n", "s".repeat(43)))
        .unwrap();
    let mut agent = Agent(
        Command::new(env!("CARGO_BIN_EXE_ferric-agent"))
            .arg("run")
            .args([Path::new("--cmdline"), &cmdline, Path::new("--config-dir"), &folder.join("none")])
            .args([Path::new("--state-dir"), &folder.join("state")])
            .args(["--listen-host", "127.0.0.1"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    // It comes to its first question, which is answered by hanging up; the failed try is said at every level.
    drop(api.accept().unwrap());
    let lines = BufReader::new(agent.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines {
        let failed = line.contains("WARN");
        said.push(line);
        if failed {
            break;
        }
    }
    said
}

#[test]
fn debug_on_the_kernel_command_line_makes_it_say_more() {
    let folder = tempfile::tempdir().unwrap();
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let quiet = words(folder.path(), &api, "");
    assert!(quiet.iter().any(|line| line.contains("INFO")), "{quiet:?}");
    assert!(!quiet.iter().any(|line| line.contains("DEBUG")), "{quiet:?}");
    let loud = words(folder.path(), &api, "ipa-debug=1");
    let settings = loud.iter().find(|line| line.contains("DEBUG") && line.contains("settings: "));
    let settings = settings.unwrap_or_else(|| panic!("{loud:?}"));
    assert!(settings.contains("debug=1") && settings.contains("agent_token=***"), "{settings}");
    assert!(
        loud.iter().any(|line| line.contains("DEBUG") && line.contains("GET http://127.0.0.1:")),
        "{loud:?}"
    );
    assert!(!loud.concat().contains(&"s".repeat(43)), "a secret was printed");
}
