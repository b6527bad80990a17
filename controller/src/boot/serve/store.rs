//! The file of leases: written aside, synced, renamed; read at the start.

use crate::boot::leases::LeaseFile;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes: 65,536 leases of some 120 bytes.
const LONGEST: u64 = 16 << 20;

/// `leases.json` in the state folder.
#[derive(Clone, Debug)]
pub struct LeaseStore {
    folder: PathBuf,
}

impl LeaseStore {
    pub fn new(state_dir: &Path) -> LeaseStore {
        LeaseStore { folder: state_dir.to_owned() }
    }
    pub fn path(&self) -> PathBuf {
        self.folder.join("leases.json")
    }

    /// What was kept; nothing when there is no file. A file that is no table of leases is put aside and serving starts
    /// from an empty one: machines that hold an address have it confirmed when they ask.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(&self) -> io::Result<LeaseFile> {
        let mut text = Vec::new();
        match File::open(self.path()) {
            Ok(file) => file.take(LONGEST).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LeaseFile::default()),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&text) {
            Ok(leases) => Ok(leases),
            Err(error) => {
                let aside = self.folder.join("leases.json.damaged");
                fs::rename(self.path(), &aside)?;
                tracing::warn!(aside = %aside.display(), %error, "the file of dhcp leases is damaged; starting without");
                Ok(LeaseFile::default())
            }
        }
    }

    /// Replaces the file; after `Ok` the content is on stable storage.
    ///
    /// # Errors
    /// The first step that failed; the old file is whole then.
    pub fn save(&self, leases: &LeaseFile) -> io::Result<()> {
        let aside = self.folder.join(".leases.json.new");
        let mut file = File::create(&aside)?;
        file.write_all(&serde_json::to_vec_pretty(leases)?)?;
        file.sync_all()?;
        fs::rename(&aside, self.path())?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::leases::{Lease, Standing};
    use ferric_common::ids::MacAddress;

    #[test]
    fn leases_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(folder.path());
        assert!(store.load().unwrap().leases.is_empty());
        let lease = Lease {
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            address: [10, 0, 0, 9].into(),
            expires: 77,
            standing: Standing::Enrolled,
        };
        store.save(&LeaseFile { leases: vec![lease.clone()] }).unwrap();
        assert_eq!(store.load().unwrap().leases, [lease]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(folder.path());
        fs::write(store.path(), b"{\"leases\": [").unwrap();
        assert!(store.load().unwrap().leases.is_empty());
        assert!(folder.path().join("leases.json.damaged").exists());
    }
}
