//! What must survive a crash of the agent's process: who the node is, the token, the certificate and its key, the
//! address that was advertised, and the command list.
//!
//! Two files in a root-only folder on tmpfs (`/run/ferric`), so they end with the boot: `identity.json` (secrets,
//! written rarely) and `commands.json` (written at every change of the list). Each is written aside, flushed and renamed.
//! A token is handed out once per boot and the certificate text must not change, so without this a crashed agent could
//! never speak to its conductor again.

use ferric_common::wire::command::CommandResult;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What went wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{action} the agent's state file {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent's state file {path} is not readable JSON; remove it and reboot the machine")]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// The identity of this boot. Holds secrets: has no `Debug`.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Identity {
    pub node_uuid: String,
    pub token: String,
    /// Seconds; from the lookup.
    pub heartbeat_timeout: u64,
    /// Filled once the address is known; a crash before that starts over from here.
    #[serde(default)]
    pub advertised: Option<Advertised>,
    /// The image that was written completely in this boot.
    #[serde(default)]
    pub written: Option<Written>,
}

/// Where the command API is, and what proves it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Advertised {
    pub callback_url: String,
    /// PEM; none when the API is plain HTTP or the operator's own certificate is used.
    pub certificate: Option<String>,
    /// PKCS#8 PEM.
    pub key: Option<String>,
}

/// An image on a disk, complete and verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Written {
    pub image_id: String,
    pub digest: String,
    pub device: String,
    /// SHA-256 of the config drive that was put beside it; empty without one.
    pub config_drive: String,
    /// MBR disk signature, `0x%08x`.
    pub root_uuid: String,
    /// A step has been at the disk since: the same image again is written again.
    #[serde(default)]
    pub changed: bool,
}

/// The folder with both files.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Makes the folder, readable by root only, if it is not there.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| StateError::Io {
            action: "making the folder of",
            path: path.into(),
            source,
        })?;
        Ok(StateDir(path.into()))
    }

    /// The identity of an earlier life in this boot, if there was one.
    ///
    /// # Errors
    /// [`StateError`]; an unreadable file is not taken for "none".
    pub fn identity(&self) -> Result<Option<Identity>, StateError> {
        self.read("identity.json")
    }

    /// # Errors
    /// [`StateError::Io`].
    pub fn save_identity(&self, identity: &Identity) -> Result<(), StateError> {
        self.write("identity.json", identity)
    }

    /// The command list of an earlier life, oldest first; empty if there was none.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn commands(&self) -> Result<Vec<CommandResult>, StateError> {
        Ok(self.read("commands.json")?.unwrap_or_default())
    }

    /// # Errors
    /// [`StateError::Io`].
    pub fn save_commands(&self, commands: &[CommandResult]) -> Result<(), StateError> {
        self.write("commands.json", &commands)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| StateError::Format { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { action: "reading", path, source }),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.0.join(name);
        let aside = self.0.join(format!("{name}.new"));
        let put = || -> io::Result<()> {
            let bytes = zeroize_on_drop(serde_json::to_vec(value)?);
            let mut file =
                fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &path)
        };
        put().map_err(|source| StateError::Io { action: "writing", path: path.clone(), source })
    }
}

/// The serialised key must not stay behind in freed memory.
fn zeroize_on_drop(bytes: Vec<u8>) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_saved_comes_back_and_only_root_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("run/ferric")).unwrap();
        assert!(state.identity().unwrap().is_none());
        assert!(state.commands().unwrap().is_empty());
        let identity = Identity { node_uuid: "n".into(), token: "t".into(), ..Identity::default() };
        state.save_identity(&identity).unwrap();
        assert_eq!(state.identity().unwrap().unwrap().token, "t");
        let file = folder.path().join("run/ferric/identity.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let above = fs::metadata(folder.path().join("run/ferric")).unwrap();
        assert_eq!(above.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_broken_file_is_an_error_not_a_fresh_start() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        fs::write(folder.path().join("identity.json"), "{").unwrap();
        assert!(matches!(state.identity(), Err(StateError::Format { .. })));
    }
}
