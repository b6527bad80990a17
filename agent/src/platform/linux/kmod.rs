//! Loading one kernel module file. Which, and in which order, is decided in `init::modules`.

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::Path;

/// The kernel unpacks the file itself (since 5.17, where configured). Not yet named by nix.
const COMPRESSED_FILE: u32 = 4;

/// Loads a module with its parameters (`name=value name=value`). One that is loaded already is no error.
///
/// # Errors
/// As finit_module(2); `ENOEXEC` for a file of another kernel, `EOPNOTSUPP` for a compressed one that the kernel cannot read.
pub fn load(file: &Path, parameters: &str) -> io::Result<()> {
    let compressed = file.extension().is_some_and(|end| end != "ko");
    let flags = ModuleInitFlags::from_bits_retain(if compressed { COMPRESSED_FILE } else { 0 });
    let parameters = CString::new(parameters)?;
    match finit_module(File::open(file)?, &parameters, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
