//! The write pipeline: an image comes in over the network and is on the disk, proven, when this returns.
//!
//! One pass: bytes are hashed as received, decoded and written as they arrive; memory does not grow with the image.
//! The head of the disk is written last, after the digest was right and everything else was flushed (see `finish.rs`).
//! What this room leaves to others: which disk (`disk`), who asks (`commands`), kernel calls (`platform`).
//!
//! Memory, at most: [`pipeline::CHUNKS`] × [`buffers::CHUNK`] for the stream, 8 MiB of output
//! buffers, the copies of compressed clusters that crossed two buffers, 2 MiB of held head and tail, at most 4 MiB of table bytes, and the extent map ([`plan::MAP_BUDGET`]).

mod buffers;
pub mod error;
mod finish;
mod formats;
mod pipeline;
mod plan;
mod progress;
mod queue;
mod report;
mod route;
pub mod source;
pub mod standalone;
mod target;
#[cfg(test)]
mod tests;

pub use error::ImageError;
pub use progress::{CancelFlag, ProgressCell};
pub use report::{Limit, WriteReport};

use crate::disk::layout::LayoutError;
use crate::platform::block::BlockDevice;
use ferric_common::ids::Digest;
use ferric_common::limits;
use ferric_common::units::ByteCount;
use source::{Source, Timeouts};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the bytes of an image are. Declared by the operator, checked against the content, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    Raw,
    Qcow2,
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        })
    }
}

/// Where an image is and what it must be.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// Name for messages.
    pub id: String,
    /// `http`, `https` or `file` URLs of the same bytes, tried in this order.
    pub urls: Vec<String>,
    pub format: ImageFormat,
    /// Digest of the file as served.
    pub digest: Digest,
    /// A whole `Authorization` header value; sent only to the hosts named in `urls`, never to where they redirect.
    pub authorization: Option<String>,
    /// Proxy by scheme (`http`, `https`).
    pub proxies: BTreeMap<String, String>,
    /// Whole-disk images must bring a valid partition table; without one nothing would boot.
    pub require_partition_table: bool,
}

#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub image: ImageRequest,
    /// The decoded config drive (ISO 9660 or FAT).
    pub config_drive: Option<Vec<u8>>,
}

/// How patient the pipeline is. The defaults are those of `limits.rs`; tests use shorter ones.
#[derive(Clone, Debug)]
pub struct Patience {
    pub timeouts: Timeouts,
    /// Attempts to write the whole image (a changed file, all URLs failing in mid-transfer).
    pub attempts: u32,
    /// First pause between attempts; doubles.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            timeouts: Timeouts::default(),
            attempts: limits::DOWNLOAD_TRIES,
            pause: Duration::from_secs(1),
        }
    }
}

/// Writes an image onto a disk and proves it. Blocks; call it on a thread of its own.
///
/// When it returns `Ok`, the disk is complete, flushed and read back. When it returns `Err`, the disk is untouched (the
/// image was refused before the first write) or blank at both ends; the error says which, and why.
///
/// # Errors
/// See [`ImageError`].
pub fn write_image(
    request: &WriteRequest,
    disk: &Arc<dyn BlockDevice>,
    tls: Arc<rustls::ClientConfig>,
    progress: &ProgressCell,
    cancel: &CancelFlag,
) -> Result<WriteReport, ImageError> {
    write_patiently(request, disk, tls, progress, cancel, &Patience::default())
}

/// [`write_image`] with its time-outs given.
///
/// # Errors
/// See [`ImageError`].
pub fn write_patiently(
    request: &WriteRequest,
    disk: &Arc<dyn BlockDevice>,
    tls: Arc<rustls::ClientConfig>,
    progress: &ProgressCell,
    cancel: &CancelFlag,
    patience: &Patience,
) -> Result<WriteReport, ImageError> {
    let mut touched = false;
    let mut attempt = 1;
    loop {
        let result = attempt_once(request, disk, &tls, progress, cancel, patience, &mut touched);
        match result {
            Err(error) if error.is_transient() && attempt < patience.attempts && !cancel.is_set() => {
                let pause = patience.pause.saturating_mul(1 << (attempt - 1).min(6));
                let words = crate::image::error::chain(&error);
                tracing::warn!("{words}; try {attempt} of {}, next in {pause:?}", patience.attempts);
                progress.note(&format!("{words}; next try in {} s", pause.as_secs()));
                cancel.pause(pause);
                attempt += 1;
            }
            Err(error) if touched => {
                progress.stage("blanking");
                return Err(finish::blank_after(error, disk.as_ref()));
            }
            other => return other,
        }
    }
}

fn attempt_once(
    request: &WriteRequest,
    disk: &Arc<dyn BlockDevice>,
    tls: &Arc<rustls::ClientConfig>,
    progress: &ProgressCell,
    cancel: &CancelFlag,
    patience: &Patience,
    touched: &mut bool,
) -> Result<WriteReport, ImageError> {
    let image = &request.image;
    progress.begin("preparing");
    if let Some(drive) = &request.config_drive
        && drive.len() as u64 > limits::CONFIG_DRIVE
    {
        return Err(LayoutError::ConfigDriveSize(ByteCount(drive.len() as u64)).into());
    }
    let mut source = Source::open(image, tls.clone(), &patience.timeouts, cancel)?;
    let plan = plan::make(image, &mut source, disk.as_ref(), progress)?;
    progress.total(source.length());
    tracing::info!("image {}: {}", image.id, plan.describe(disk.name()));
    let target = target::Target::new(disk.clone(), ByteCount(plan.virtual_size));
    progress.stage("blanking");
    *touched = true;
    finish::blank_ends(disk.as_ref())?;
    progress.stage("writing");
    let body = pipeline::run(image, plan, source, &target, progress, cancel)?;
    progress.stage("finishing");
    finish::complete(request, &target, body, progress)
}
