//! A disk that failed while it was erased or looked at: one error for all ways, since all name the place.

use crate::platform::block::BlockDevice;
use std::io;

/// What was being done, on which disk, at which byte.
#[derive(Debug, thiserror::Error)]
#[error("{action} {device} at byte {at}")]
pub struct DeviceFault {
    action: &'static str,
    device: String,
    at: u64,
    source: io::Error,
}

impl DeviceFault {
    /// For `map_err`: `action` is what was being done to the disk.
    pub fn at(
        action: &'static str,
        disk: &dyn BlockDevice,
        at: u64,
    ) -> impl FnOnce(io::Error) -> DeviceFault {
        move |source| DeviceFault { action, device: disk.name().to_owned(), at, source }
    }
}
