//! Error classes of the command API: what a conductor reads as `type`, `code` and `message`, and shows as `details`.
//!
//! The names are ironic-python-agent's `errors.py`; conductors and operators' tools match on some of them. `details`
//! becomes the node's `last_error`, so it says in words what was tried, on what, and what came back.

use ferric_common::wire::command::CommandError;

/// One class of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    pub kind: &'static str,
    pub code: u16,
    pub message: &'static str,
}

const fn class(kind: &'static str, code: u16, message: &'static str) -> Class {
    Class { kind, code, message }
}

pub const INVALID_PARAMS: Class = class("InvalidCommandParamsError", 400, "Invalid command parameters");
pub const COMMAND_EXECUTION: Class = class("CommandExecutionError", 500, "Command execution failed");
pub const IMAGE_DOWNLOAD: Class = class("ImageDownloadError", 500, "Error downloading image");
pub const IMAGE_DOWNLOAD_FATAL: Class = class("ImageDownloadFatalError", 500, "Error downloading image");
pub const IMAGE_DOWNLOAD_TIMEOUT: Class = class("ImageDownloadTimeoutError", 408, "Image download timeout");
pub const IMAGE_CHECKSUM: Class = class("ImageChecksumError", 500, "Error verifying image checksum");
pub const IMAGE_WRITE: Class = class("ImageWriteError", 500, "Error writing image to device");
pub const INVALID_IMAGE: Class = class("InvalidImage", 500, "The provided image is not valid for use");
pub const BLOCK_DEVICE: Class = class("BlockDeviceError", 500, "Error accessing block device");
pub const BLOCK_DEVICE_ERASE: Class = class("BlockDeviceEraseError", 500, "Error erasing block device");
pub const PROTECTED_DEVICE: Class =
    class("ProtectedDeviceError", 500, "A device holds a file system that other machines share");
pub const METHOD_NOT_FOUND: Class =
    class("HardwareManagerMethodNotFound", 500, "No HardwareManager found to handle method");
pub const VERSION_MISMATCH: Class =
    class("VersionMismatch", 409, "Hardware managers version mismatch, reload agent with correct version");
pub const DEVICE_NOT_FOUND: Class =
    class("DeviceNotFound", 404, "Error finding the disk or partition device to deploy the image onto");
pub const DEPLOYMENT: Class = class("DeploymentError", 500, "Deploy step failed");
pub const CLEANING: Class = class("CleaningError", 500, "Clean step failed");
pub const SERVICING: Class = class("ServicingError", 500, "Service step failed");
pub const SOFTWARE_RAID: Class = class("SoftwareRAIDError", 500, "Software RAID caused unknown error");
pub const CLOCK_SYNC: Class = class("ClockSyncError", 500, "Error syncing system clock");
pub const SYSTEM_REBOOT: Class = class("SystemRebootError", 500, "Error rebooting system");

impl Class {
    /// A failure of this class.
    pub fn with(self, details: impl Into<String>) -> Failure {
        Failure { class: self, details: details.into() }
    }
}

/// The class of a step of this kind that failed for a reason that has no class of its own.
pub fn of_step(kind: &str) -> Option<Class> {
    match kind {
        "clean" => Some(CLEANING),
        "deploy" => Some(DEPLOYMENT),
        "service" => Some(SERVICING),
        _ => None,
    }
}

/// A command that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    pub details: String,
}

impl Failure {
    pub fn wire(&self) -> CommandError {
        CommandError {
            kind: self.class.kind.to_string(),
            code: self.class.code,
            message: self.class.message.to_string(),
            details: self.details.clone(),
        }
    }
}

/// An error with its sources, joined by colons: error types here leave their source's text to the printer. A source
/// whose text the error already repeats is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
