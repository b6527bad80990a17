//! Logs of agents whose machine failed: `logs/<node>_<time>.tar.gz` in the state folder. Their number and bytes are bounded;
//! the oldest go first.

use super::{Conductor, LogRoom};
use crate::domain::node::Node;
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Making room and filling it is one thing: two that do it at once would count the same room.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What ends a name that is ours.
const SUFFIX: &str = ".tar.gz";

/// An archive in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    name: String,
    bytes: u64,
}

impl Kept {
    /// The time in its name, which is how old it is whatever was done to the file since; `None` for files that are not ours.
    fn time(&self) -> Option<&str> {
        self.name.strip_suffix(SUFFIX)?.rsplit_once('_').map(|(_, time)| time)
    }
}

/// Which archives have to go so that one more, of so many bytes, fits.
fn surplus(mut kept: Vec<Kept>, room: LogRoom, coming: u64) -> Vec<Kept> {
    kept.retain(|k| k.time().is_some());
    kept.sort_by(|a, b| (a.time(), &a.name).cmp(&(b.time(), &b.name)));
    let mut number = kept.len().saturating_add(1);
    let mut bytes = kept.iter().fold(coming, |sum, k| sum.saturating_add(k.bytes));
    let most = usize::try_from(room.number).unwrap_or(usize::MAX);
    kept.into_iter()
        .take_while(|k| {
            let over = number > most || bytes > room.bytes;
            number = number.saturating_sub(1);
            bytes = bytes.saturating_sub(k.bytes);
            over
        })
        .collect()
}

impl Conductor {
    /// Fetches the agent's logs and writes them; where to is the answer.
    pub(super) async fn keep_logs(&self, node: &Node) -> Result<String, String> {
        let room = self.settings.logs;
        let agent = self.agent(node)?;
        let answer =
            agent.execute("log.collect_system_logs", Map::new(), true).await.map_err(|e| e.to_string())?;
        let encoded = answer
            .command_result
            .as_ref()
            .and_then(|r| r.get("system_logs"))
            .and_then(Value::as_str)
            .ok_or("the answer holds no logs")?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded.trim())
            .map_err(|e| format!("the logs are not base64: {e}"))?;
        let folder = self.settings.state_dir.join("logs");
        let name = format!("{}_{}{SUFFIX}", node.uuid, Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ"));
        let shown = folder.join(&name).display().to_string();
        tokio::task::spawn_blocking(move || keep(&folder, &name, &bytes, room))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok(shown)
    }
}

fn keep(folder: &Path, name: &str, bytes: &[u8], room: LogRoom) -> io::Result<()> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > room.bytes {
        return Err(io::Error::other(format!(
            "they have {length} bytes, and [agent] logs_mib allows {} for all logs together",
            room.bytes
        )));
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(folder)?;
    for old in surplus(list(folder)?, room, length) {
        tracing::info!(name = old.name, bytes = old.bytes, "removing the oldest logs of agents to make room");
        fs::remove_file(folder.join(&old.name))?;
    }
    let path = folder.join(name);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(bytes);
    if written.is_err() {
        // Half an archive helps nobody and takes room; that it cannot be written is what is told.
        let _ = fs::remove_file(&path);
    }
    written
}

fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        if let (true, Ok(name)) = (facts.is_file(), entry.file_name().into_string()) {
            kept.push(Kept { name, bytes: facts.len() });
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(number: u32, bytes: u64) -> LogRoom {
        LogRoom { number, bytes }
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_needed() {
        let kept = |list: &[(&str, u64)]| {
            list.iter().map(|(name, bytes)| Kept { name: (*name).into(), bytes: *bytes }).collect::<Vec<_>>()
        };
        // Made by earlier versions with whole seconds, by others than us, and out of order.
        let there = kept(&[
            ("b_20260102T000000Z.tar.gz", 10),
            ("a_20260103T000000.500Z.tar.gz", 20),
            ("c_20260101T000000Z.tar.gz", 30),
            ("notes_of_the_operator.txt", 1000),
            ("x.tar.gz", 1000),
        ]);
        let gone = |room, coming| {
            let names = surplus(there.clone(), room, coming);
            names.iter().map(|k| k.name.chars().take(1).collect::<String>()).collect::<String>()
        };
        for (limits, coming, expected) in [
            (room(4, 100), 40, ""),
            (room(3, 100), 40, "c"),
            (room(4, 99), 40, "c"),
            (room(4, 69), 40, "cb"),
            (room(4, 40), 40, "cba"),
            (room(1, 1000), 0, "cba"),
        ] {
            assert_eq!(gone(limits, coming), expected, "{limits:?}, {coming} more");
        }
    }

    #[test]
    fn logs_that_would_take_all_the_room_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), "a_1.tar.gz", &[7; 60], room(9, 100)).unwrap();
        let error = keep(folder.path(), "a_2.tar.gz", &[7; 101], room(9, 100)).unwrap_err();
        assert!(error.to_string().contains("101 bytes"), "{error}");
        assert_eq!(list(folder.path()).unwrap().len(), 1, "and nothing was removed for them");
        keep(folder.path(), "a_2.tar.gz", &[7; 41], room(9, 100)).unwrap();
        assert_eq!(list(folder.path()).unwrap(), [Kept { name: "a_2.tar.gz".into(), bytes: 41 }]);
    }
}
