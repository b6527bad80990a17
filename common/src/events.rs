//! Progress of long work, as it travels from the pipeline to the console, the command result and the controller's API.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// How far a long step is. Only the latest matters; older ones may be dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, in the operator's words: `preparing`, `writing`, `verifying`, `finishing`.
    pub stage: String,
    /// Bytes of the image received so far, and in all where known.
    pub bytes_done: u64,
    pub bytes_total: Option<u64>,
    /// Bytes written to the disk as data so far.
    #[serde(default)]
    pub bytes_written: u64,
    /// Rate of `bytes_done` over the last seconds, in bytes per second.
    pub rate: u64,
    /// Seconds since the work began.
    pub seconds: u64,
    /// One line for a person: what is awaited, retried or limiting at the moment; may be empty.
    #[serde(default)]
    pub note: String,
}
