//! The firmware's variables for booting (UEFI 2.10, chapter 8.2), by their names without the vendor's GUID.

use std::io;

/// Non-volatile, kept on a UEFI machine; contents without the attributes.
pub trait EfiVariables: Send + Sync {
    /// Names of all variables of the firmware's own namespace.
    fn names(&self) -> io::Result<Vec<String>>;
    /// `None` if there is no such variable.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Makes or replaces a variable.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
}
