//! Namespace `log`: what a person would look at first, as one archive.

use super::{Context, Failure, Job, Params, failure};
use crate::platform::machine::Machine;
use base64::Engine as _;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Bytes of one log that go into the archive; the end of a log tells more than its beginning.
const ONE_LOG: usize = 4 << 20;
/// Bytes of all logs together, before compression.
const ALL_LOGS: usize = 16 << 20;

pub fn collect_system_logs(context: &Context, _params: &Params, _job: &Job) -> Result<Value, Failure> {
    let archive = packed(context.machine.as_ref())
        .map_err(|error| failure::COMMAND_EXECUTION.with(format!("packing the logs: {error}")))?;
    Ok(json!({"system_logs": archive}))
}

/// The machine's logs as base64 of a gzipped tar archive, bounded. Inspection posts the same.
///
/// # Errors
/// The archive cannot be written, which is memory alone.
pub fn packed(machine: &dyn Machine) -> io::Result<String> {
    Ok(base64::engine::general_purpose::STANDARD.encode(archive(machine)?))
}

fn archive(machine: &dyn Machine) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut left = ALL_LOGS;
    for log in machine.logs() {
        let keep = log.bytes.len().min(ONE_LOG).min(left);
        left = left.saturating_sub(keep);
        let from = log.bytes.len().saturating_sub(keep);
        let bytes = log.bytes.get(from..).unwrap_or_default();
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len()).unwrap_or(0));
        header.set_mode(0o644);
        header.set_cksum();
        let name: String = log.name.trim_start_matches('/').chars().take(100).collect();
        tar.append_data(&mut header, name, bytes)?;
    }
    let mut gz = tar.into_inner()?;
    gz.flush()?;
    gz.finish()
}
