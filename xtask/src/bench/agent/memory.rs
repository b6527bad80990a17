//! What memory a machine uses, seen from inside it over SSH.

use anyhow::{Result, ensure};
use ferric_tests::process::Background;
use ferric_tests::ssh::{self, Key};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says every two seconds what is free, and every process's name and peak.
const LOOK: &str =
    "while :; do cat /proc/meminfo; for p in /proc/[0-9]*; do cat $p/status 2>/dev/null; done; sleep 2; done";

/// At most, in KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// All that could not be given to a new program: processes, kernel, files in memory.
    pub machine: u64,
    /// Peak resident memory of the agent's programs, by name; the largest of each name.
    pub programs: BTreeMap<String, u64>,
}

/// Looks on while the machine lets it.
#[derive(Debug)]
pub struct Sampler {
    key: Key,
    user: &'static str,
    log: PathBuf,
    session: Option<Background>,
}

impl Sampler {
    pub fn new(key: &Key, user: &'static str, folder: &Path) -> Self {
        Self { key: key.clone(), user, log: folder.join("memory.log"), session: None }
    }

    /// Logs in unless it is logged in.
    pub fn go_on(&mut self, address: &str) -> Result<()> {
        let gone = match &mut self.session {
            Some(session) => session.ended()?.is_some(),
            None => true,
        };
        if gone {
            let mut command = Command::new("ssh");
            command.args(ssh::options(&self.key)).arg(format!("{}@{address}", self.user)).arg(LOOK);
            self.session = Some(Background::spawn("ssh", &mut command, &self.log)?);
        }
        Ok(())
    }

    /// What was seen of the machine and of the programs called so.
    pub fn used(self, programs: &[&str]) -> Result<Used> {
        drop(self.session);
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let used = read(&text, programs);
        ensure!(used.machine > 0, "the machine's memory was never seen; see {}", self.log.display());
        for name in programs {
            ensure!(used.programs.contains_key(*name), "{name} was never seen; see {}", self.log.display());
        }
        Ok(used)
    }
}

/// Takes the lines of `/proc/meminfo` and `/proc/PID/status` as they come.
fn read(text: &str, programs: &[&str]) -> Used {
    let (mut used, mut total, mut name) = (Used::default(), 0, "");
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        let kib = || value.strip_suffix(" kB").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        match key {
            "MemTotal" => total = kib(),
            "MemAvailable" => used.machine = used.machine.max(total.saturating_sub(kib())),
            "Name" => name = value,
            "VmHWM" if programs.contains(&name) => {
                let peak = used.programs.entry(name.to_owned()).or_default();
                *peak = kib().max(*peak);
            }
            _ => {}
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_all_looks_counts() {
        let text = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  900 kB\nName:\tinit\nVmHWM:\t  20 kB\nName:\tcat\nVmHWM:\t 99 kB\n\
            MemTotal:  1000 kB\nMemAvailable:  700 kB\nName:\tinit\nVmHWM:\t  40 kB\nMemTotal: 1000 kB\nMemAvailable: 800 kB\nVm";
        let used = read(text, &["init"]);
        assert_eq!((used.machine, used.programs), (300, BTreeMap::from([("init".to_owned(), 40)])));
    }
}
