//! A firmware's variables in memory, which may refuse writes.

use crate::platform::efi::EfiVariables;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct MemVariables {
    all: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Writes to variables of this name fail.
    pub refuses: Option<String>,
    /// Writes to variables of this name succeed and change nothing.
    pub ignores: Option<String>,
}

impl MemVariables {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// All variables, as they are.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.all().clone()
    }
}

impl EfiVariables for MemVariables {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.all().keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.all().get(name).cloned())
    }
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.refuses.as_deref() == Some(name) {
            return Err(io::Error::other("the firmware is out of space"));
        }
        if self.ignores.as_deref() != Some(name) {
            self.all().insert(name.to_owned(), bytes.to_owned());
        }
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        match self.all().remove(name) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
