//! What all interfaces' threads have found so far, and the files made of it: `network.json` and `/etc/resolv.conf`.

use super::settings::{self, Network, Nic};
use crate::logging;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub use super::settings::Six;

/// One place for all threads.
#[derive(Default)]
pub struct Board {
    nics: Mutex<BTreeMap<u32, Nic>>,
}

impl Board {
    /// Takes what IPv4 found on an interface, `None` when it is gone. Answers whether that changed anything.
    pub fn put(&self, index: u32, nic: Option<Nic>) -> bool {
        let mut nics = self.nics.lock().unwrap_or_else(PoisonError::into_inner);
        let nic = nic.map(|nic| {
            let old = nics.get(&index);
            let six = old.map(|old| old.six.clone()).unwrap_or_default();
            let fixed = nic.fixed.clone().or_else(|| old.and_then(|old| old.fixed.clone()));
            Nic { six, fixed, ..nic }
        });
        if nics.get(&index) == nic.as_ref() {
            return false;
        }
        match nic {
            Some(nic) => drop(nics.insert(index, nic)),
            None => drop(nics.remove(&index)),
        }
        publish(&nics);
        true
    }

    /// Takes what IPv6 found. Answers what was known before, if that was something else.
    pub fn put_six(&self, index: u32, six: &Six) -> Option<Six> {
        let mut nics = self.nics.lock().unwrap_or_else(PoisonError::into_inner);
        let nic = nics.get_mut(&index).filter(|nic| nic.six != *six)?;
        let before = std::mem::replace(&mut nic.six, six.clone());
        publish(&nics);
        Some(before)
    }
}

/// Called under the lock: the files never show an older state than the last one put.
fn publish(nics: &BTreeMap<u32, Nic>) {
    let mut network = Network { nics: nics.values().cloned().collect() };
    network.nics.sort_by_key(|nic| !nic.boot);
    if let Ok(text) = serde_json::to_vec(&network) {
        replace(&settings::path(), &text);
    }
    replace(Path::new("/etc/resolv.conf"), network.resolv_conf().as_bytes());
}

/// Writes aside and renames: a reader sees the old text or the new one.
fn replace(path: &Path, text: &[u8]) {
    let aside = path.with_extension("new");
    if let Err(error) = fs::write(&aside, text).and_then(|()| fs::rename(&aside, path)) {
        logging::say(&format!("network: writing {} failed: {error}", path.display()));
    }
}
