//! What survives a restart: nodes, ports, config drives, open intents. The only room that knows SQL.
//!
//! SQLite in WAL mode with synchronous=FULL: when a method returns, the change is on stable storage. One thread owns the
//! connection; the async handle sends it work, of which a panic is the failure of that work alone. Statements use `$1` parameters, TEXT and BIGINT, so that PostgreSQL can run them.

mod nodes;
mod ports;
pub mod seal;

use rusqlite::Connection;
use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub use nodes::{Changes, DriveChange, Intent, NodeFilter};
pub use ports::PortFilter;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the database {path}: {reason}")]
    Open { path: PathBuf, reason: String },
    #[error(
        "the database {path} fails its integrity check: {reason}; restore it from a backup, or move it away to begin anew"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "the database {path} was written by a newer version (schema {found}, this program knows {known})"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("the database did not do it: {0}")]
    Failed(String),
    #[error("{what} {value} is already used")]
    Duplicate { what: &'static str, value: String },
    /// Somebody else wrote since this writer read: its turn is over.
    #[error("the record was changed by another writer in the meantime")]
    Lost,
    #[error("the record does not exist")]
    Missing,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        let text = error.to_string();
        for (column, what) in [
            ("nodes.name", "name"),
            ("nodes.instance_uuid", "instance_uuid"),
            ("nodes.uuid", "uuid"),
            ("ports.address", "MAC address"),
            ("ports.uuid", "uuid"),
        ] {
            if text.contains("UNIQUE constraint failed") && text.contains(column) {
                return StoreError::Duplicate { what, value: String::new() };
            }
        }
        StoreError::Failed(text)
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> StoreError {
        StoreError::Failed(format!("a record cannot be read: {error}"))
    }
}

const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_first.sql")];
/// Requests that may wait for the database; more callers wait for room.
const QUEUE: usize = 1024;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A place at a commit that writes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// All is written, nothing is on stable storage.
    Before,
    /// It is on stable storage, and nobody knows it yet.
    After,
}

/// Looks on at commits; `Break` ends the store there and then, as a kill of the process would.
pub type Watch = Box<dyn FnMut(Moment) -> ControlFlow<()> + Send>;

type Job = Box<dyn FnOnce(&mut Connection, &mut Watch) -> ControlFlow<()> + Send>;

/// Handle to the database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens or creates the database file, checks it, brings its schema up to date and starts its thread.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Damaged`], [`StoreError::Newer`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::open_watched(path, Box::new(|_| ControlFlow::Continue(())))
    }

    /// The same with an onlooker, by which tests kill the service at each commit.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_watched(path: &Path, mut watch: Watch) -> Result<Store, StoreError> {
        let mut connection = connect(path)?;
        migrate(&mut connection, path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let named = std::thread::Builder::new().name("store".to_string());
        named
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    if job(&mut connection, &mut watch).is_break() {
                        break;
                    }
                }
                // The onlooker goes last: when it is gone, so is the connection.
                drop(connection);
            })
            .map_err(|e| StoreError::Open { path: path.to_path_buf(), reason: e.to_string() })?;
        Ok(Store { jobs })
    }

    /// Runs `work` on the database's thread inside one transaction, committed if it returns `Ok`.
    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection, watch| {
            let done = match shielded(connection, watch, work) {
                Ok(ControlFlow::Continue(value)) => Ok(value),
                Ok(ControlFlow::Break(())) => return ControlFlow::Break(()),
                Err(error) => Err(error),
            };
            let _ = answer.send(done);
            ControlFlow::Continue(())
        });
        let gone = || StoreError::Failed("the database thread has ended".to_string());
        self.jobs.send(job).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

/// [`commit`], of which a panic is an error like others: the transaction has been taken back on the way, and the thread, without
/// which the whole service would stand still until a restart, goes on.
fn shielded<T>(
    connection: &mut Connection,
    watch: &mut Watch,
    work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, StoreError>,
) -> Result<ControlFlow<(), T>, StoreError> {
    let done = catch_unwind(AssertUnwindSafe(|| commit(connection, watch, work)));
    done.unwrap_or_else(|_| {
        // Its own words may hold anything, and this text reaches clients; the log has them, with the place.
        let text = "the work on the database was stopped by a fault in the controller itself (a panic) and nothing of it was stored; the \
                    log says where; please report it";
        tracing::error!("{text}");
        Err(StoreError::Failed(text.to_string()))
    })
}

fn commit<T>(
    connection: &mut Connection,
    watch: &mut Watch,
    work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, StoreError>,
) -> Result<ControlFlow<(), T>, StoreError> {
    let before = connection.total_changes();
    let transaction = connection.transaction()?;
    let value = work(&transaction)?;
    let writes = transaction.total_changes() > before;
    if writes && watch(Moment::Before).is_break() {
        return Ok(ControlFlow::Break(()));
    }
    transaction.commit()?;
    if writes && watch(Moment::After).is_break() {
        return Ok(ControlFlow::Break(()));
    }
    Ok(ControlFlow::Continue(value))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = |e: rusqlite::Error| StoreError::Open { path: path.to_path_buf(), reason: e.to_string() };
    // BMC passwords are in it: for this user only. SQLite gives its side files the same mode.
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map_err(|e| StoreError::Open { path: path.to_path_buf(), reason: e.to_string() })?;
    let connection = Connection::open(path).map_err(open)?;
    let settle = || -> Result<String, rusqlite::Error> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    match settle() {
        Ok(verdict) if verdict == "ok" => Ok(connection),
        Ok(reason) => Err(StoreError::Damaged { path: path.to_path_buf(), reason }),
        Err(error) => Err(StoreError::Damaged { path: path.to_path_buf(), reason: error.to_string() }),
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, applied_at TEXT NOT NULL)",
    )?;
    let found: i64 =
        connection
            .query_row("SELECT COALESCE(MAX(version), 0) FROM schema_versions", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known });
    }
    for (version, sql) in (1i64..).zip(MIGRATIONS).filter(|(v, _)| *v > found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.execute(
            "INSERT INTO schema_versions (version, applied_at) VALUES ($1, $2)",
            rusqlite::params![version, jiff::Timestamp::now().to_string()],
        )?;
        transaction.commit()?;
    }
    Ok(())
}

/// `$n` is PostgreSQL's numbered parameter; SQLite would take it as a name, its own form is `?n`.
fn dialect(sql: &str) -> String {
    sql.replace('$', "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::node::{Node, Port};
    use crate::domain::state::{Event, ProvisionState};
    use ferric_common::ids::{NodeUuid, PortUuid};
    use jiff::Timestamp;

    fn node(name: &str) -> Node {
        Node {
            uuid: NodeUuid(uuid::Uuid::new_v4()),
            name: Some(name.into()),
            driver: "fake-hardware".into(),
            created_at: Some(Timestamp::UNIX_EPOCH),
            ..Node::default()
        }
    }

    fn port(node: &Node, mac: &str) -> Port {
        serde_json::from_value(serde_json::json!({
            "uuid": PortUuid(uuid::Uuid::new_v4()), "address": mac, "node_uuid": node.uuid,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_was_saved_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut first = node("one");
        {
            let store = Store::open(&path).unwrap();
            first = store.create_node(first).await.unwrap();
            first.provision_state = ProvisionState::Manageable;
            first.apply(Event::Provide, Timestamp::UNIX_EPOCH).unwrap();
            let changes = Changes {
                open: Some("power off".into()),
                drive: DriveChange::Set("AAAA".into()),
                ..Changes::default()
            };
            store.save(&mut first, changes).await.unwrap();
            store.create_port(port(&first, "52:54:00:00:00:01")).await.unwrap();
        } // as after a kill: no orderly close
        let store = Store::open(&path).unwrap();
        let found = store.node(first.uuid).await.unwrap().unwrap();
        assert_eq!(found.provision_state, ProvisionState::Cleaning);
        assert_eq!(found.generation, first.generation);
        assert_eq!(store.configdrive(first.uuid).await.unwrap().as_deref(), Some("AAAA"));
        let intents = store.intents(first.uuid).await.unwrap();
        assert_eq!(intents.iter().map(|i| i.action.as_str()).collect::<Vec<_>>(), ["power off"]);
        assert_eq!(store.unsettled().await.unwrap(), vec![first.uuid]);
        assert_eq!(
            store.ports(PortFilter { node: Some(first.uuid), ..PortFilter::default() }).await.unwrap().len(),
            1
        );
    }

    #[tokio::test]
    async fn a_writer_that_lost_its_turn_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let mut mine = store.create_node(node("one")).await.unwrap();
        let mut stale = mine.clone();
        store.save(&mut mine, Changes::default()).await.unwrap();
        stale.last_error = Some("from the past".into());
        assert!(matches!(store.save(&mut stale, Changes::default()).await, Err(StoreError::Lost)));
        assert!(matches!(store.delete_node(stale.uuid, stale.generation).await, Err(StoreError::Lost)));
        assert_eq!(store.node(mine.uuid).await.unwrap().unwrap().last_error, None);
        store.save(&mut mine, Changes::default()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_takes_back_its_own_work_and_the_store_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let first = store.create_node(node("one")).await.unwrap();
        let panics: Result<(), StoreError> = store
            .run(|transaction| {
                let changed = transaction.execute("DELETE FROM nodes", []).unwrap();
                panic!("{changed} nodes are gone");
            })
            .await;
        let said = panics.unwrap_err().to_string();
        assert!(
            said.contains("a fault in the controller itself (a panic)") && !said.contains("gone"),
            "{said}"
        );
        assert_eq!(store.node(first.uuid).await.unwrap().unwrap().name.as_deref(), Some("one"));
        store.create_node(node("two")).await.unwrap();
        assert_eq!(store.nodes(NodeFilter::default()).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn names_and_addresses_are_unique_and_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let first = store.create_node(node("one")).await.unwrap();
        assert!(matches!(
            store.create_node(node("one")).await,
            Err(StoreError::Duplicate { what: "name", .. })
        ));
        store.create_port(port(&first, "52:54:00:00:00:01")).await.unwrap();
        assert!(matches!(
            store.create_port(port(&first, "52:54:00:00:00:01")).await,
            Err(StoreError::Duplicate { what: "MAC address", .. })
        ));
        store.delete_node(first.uuid, first.generation).await.unwrap();
        assert!(store.ports(PortFilter::default()).await.unwrap().is_empty(), "ports go with their node");
    }

    #[tokio::test]
    async fn lists_filter_and_page_in_order_of_creation() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let mut all = Vec::new();
        for name in ["a", "b", "c"] {
            all.push(store.create_node(node(name)).await.unwrap());
        }
        all[1].maintenance = true;
        store.save(&mut all[1], Changes::default()).await.unwrap();
        for (filter, names) in [
            (NodeFilter::default(), "abc"),
            (NodeFilter { limit: Some(2), ..NodeFilter::default() }, "ab"),
            (NodeFilter { after: Some(all[0].uuid), ..NodeFilter::default() }, "bc"),
            (NodeFilter { maintenance: Some(true), ..NodeFilter::default() }, "b"),
            (NodeFilter { provision_state: Some("active".into()), ..NodeFilter::default() }, ""),
        ] {
            let found: String =
                store.nodes(filter).await.unwrap().into_iter().filter_map(|n| n.name).collect();
            assert_eq!(found, names);
        }
    }

    #[tokio::test]
    async fn nobody_else_may_read_the_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        store.create_node(node("one")).await.unwrap();
        let modes: Vec<u32> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777)
            .collect();
        assert_eq!(modes, vec![0o600; 3], "database, WAL and shared memory");
    }

    #[test]
    fn a_database_of_a_newer_version_or_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(Store::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.execute("INSERT INTO schema_versions VALUES (99, '')", []).unwrap();
        drop(connection);
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
        let junk = dir.path().join("junk");
        std::fs::write(&junk, b"this is not a database at all, but it is long enough to be read as one")
            .unwrap();
        assert!(matches!(Store::open(&junk), Err(StoreError::Damaged { .. })));
    }
}
