//! Where the agent's words go: the console (the kernel's `console=` choice, inherited as standard error from process 1)
//! and, in the ramdisk, `/run/ferric/agent.log`, of which the newest [`LOG_KEPT`] to twice that many bytes are kept.
//!
//! Each process of the agent appends by itself; a full file is renamed to `agent.log.1`. What to say is the callers'.

use crate::platform::linux::{STATE_DIR, clock};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Bytes after which the log file is set aside. The ramdisk's files are memory, and a machine may have 256 MiB.
pub const LOG_KEPT: u64 = 1 << 20;

/// The current log file and the one before it, oldest first.
pub fn files() -> [PathBuf; 2] {
    let current = Path::new(STATE_DIR).join("agent.log");
    [current.with_extension("log.1"), current]
}

/// Writes one line to console and log: `ferric: [  3.214] links up`.
pub fn say(text: &str) {
    let line = format!("ferric: [{:>7.3}] {text}\n", clock::since_boot().as_secs_f64());
    // A console that cannot be written to (none, or hung up) must not stop a machine.
    drop(Tee.write_all(line.as_bytes()));
}

/// How much the agent says, by its `debug` setting.
pub fn level(debug: bool) -> tracing::Level {
    if debug { tracing::Level::DEBUG } else { tracing::Level::INFO }
}

/// Sends `tracing` to console and log. Later calls change nothing.
pub fn start(level: tracing::Level) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_timer(BootTime)
        .with_writer(|| Tee)
        .finish();
    drop(tracing::subscriber::set_global_default(subscriber));
}

/// Seconds since the kernel started: the machine's clock may be years wrong until the conductor has told the time.
struct BootTime;

impl FormatTime for BootTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "ferric: [{:>7.3}]", clock::since_boot().as_secs_f64())
    }
}

struct Tee;

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        drop(io::stderr().write_all(bytes));
        let [old, current] = files();
        drop(append(&current, &old, LOG_KEPT, bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends to `current` unless its folder is missing (outside the ramdisk); one grown past `kept` becomes `old` first.
fn append(current: &Path, old: &Path, kept: u64, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(current).is_ok_and(|found| found.len() >= kept) {
        fs::rename(current, old)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(current)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_set_aside_and_the_one_before_it_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (current, old) = (folder.path().join("agent.log"), folder.path().join("agent.log.1"));
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            append(&current, &old, 10, line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "first\nsecond\n");
        assert_eq!(fs::read_to_string(&current).unwrap(), "third\nfourth\n");
        for _ in 0..4 {
            append(&current, &old, 10, b"later, long\n").unwrap();
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "later, long\n");
    }

    #[test]
    fn without_its_folder_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/agent.log");
        assert!(append(&missing, &folder.path().join("old"), 10, b"x").is_err());
        assert!(!folder.path().join("none").exists());
    }
}
