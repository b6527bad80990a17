//! The write pipeline: an image comes in over the network and is on the disk, proven, when this returns.
//!
//! One pass: bytes are hashed as received, decoded and written as they arrive; memory does not grow with the image.
//! The head of the disk is written last, after the digest was right and everything else was flushed (see `finish.rs`).
//! What this room leaves to others: which disk (`disk`), who asks (`commands`), kernel calls (`platform`).
//!
//! Memory, at most, whatever the image says:
//! - the stream: [`pipeline::CHUNKS`] × 1 MiB. A qcow2 holds back 1 MiB more for compressed clusters that cross from one of
//!   them into the next (4 with clusters of 2 MiB), and 3 (5) where its tables are taken from the stream;
//! - what becomes of it: [`pipeline::OUTPUT`] for decoded clusters, and for each of at most eight decoders the compressed form of
//!   one cluster, two clusters long at most (together 1 MiB with clusters of 64 KiB, 16 with 2 MiB). For a compressed raw image
//!   [`pipeline::CHUNKS`] × 1 MiB more, and the decompressor's window ([`unpack::WINDOW`]);
//! - the map: 16 MiB ([`map::PIECES`], [`map::GAPS`], [`proofs::PROOFS`]), [`map::GAPS`] once more for the ranges that wait to be
//!   zeroed, and 6 MiB of table bytes and what the planner knows of them while they are read;
//! - the disk: 2 MiB of held head and tail, 3 MiB where twelve writers copy what is not aligned.
//!
//! No term grows with the image.

mod ahead;
mod buffers;
mod decode;
mod drive;
pub mod error;
mod finish;
mod formats;
mod guide;
mod hash;
mod map;
mod patience;
mod pipeline;
mod plan;
mod progress;
mod proofs;
mod queue;
mod raw;
mod report;
mod reuse;
mod route;
pub mod source;
pub mod standalone;
mod stride;
mod sum;
mod tables;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod unpack;
mod verify;

pub use error::ImageError;
pub use ferric_common::images::{ImageFormat, Packing};
pub use formats::permit;
pub use patience::{Patience, Timeouts};
pub use progress::{CancelFlag, ProgressCell};
pub use report::{Limit, WriteReport};
pub use verify::Verify;

use crate::disk::layout::LayoutError;
use crate::fetch::Proxies;
use crate::platform::block::BlockDevice;
use ferric_common::ids::Digest;
use ferric_common::limits;
use ferric_common::units::ByteCount;
use http::header::HeaderValue;
use queue::Stop;
use source::{Source, Way};
use std::sync::Arc;
use std::time::Instant;

/// Where an image is and what it must be.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// Name for messages.
    pub id: String,
    /// `http`, `https` or `file` URLs of the same bytes, tried in this order.
    pub urls: Vec<String>,
    /// What it is said to be; where nobody said it, its first bytes decide.
    pub format: Option<ImageFormat>,
    /// What may be found there, by ironic-python-agent's names in lower case; empty: anything that can be written.
    pub permitted: Vec<String>,
    /// Digest of the file as served.
    pub digest: Digest,
    /// A whole `Authorization` header value; sent only to the hosts named in `urls`, never to where they redirect.
    /// Without it, the user and password that stand in a URL are sent to its host.
    pub authorization: Option<HeaderValue>,
    pub proxies: Proxies,
    /// Whole-disk images must bring a valid partition table; without one nothing would boot.
    pub require_partition_table: bool,
}

#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub image: ImageRequest,
    /// The decoded config drive (ISO 9660 or FAT).
    pub config_drive: Option<Vec<u8>>,
    /// It is made anew as FAT even where it could stay as it came.
    pub rebuild_drive: bool,
    pub verify: Verify,
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
    let other_drive = drive::fit(request, disk.sector_size())?;
    let request = other_drive.as_ref().unwrap_or(request);
    let way = Way {
        tls,
        timeouts: patience.timeouts.clone(),
        began: Instant::now(),
        cancel: cancel.clone(),
        progress: progress.clone(),
    };
    let mut state = Attempt { touched: false, tables: plan::Tables::AsServed, place: 0 };
    let mut attempt = 1;
    loop {
        let result = attempt_once(request, disk, &way, &mut state);
        match result {
            Err(ImageError::TablesLate) => {
                tracing::info!(
                    "image {}: its tables come after their data and the server gives no byte ranges; it is read twice",
                    request.image.id
                );
                state.tables = plan::Tables::First;
            }
            Err(error) if error.is_transient() && attempt < patience.attempts && !cancel.is_set() => {
                let pause = patience.pause.saturating_mul(1 << (attempt - 1).min(6));
                let words = crate::image::error::chain(&error);
                tracing::warn!("{words}; try {attempt} of {}, next in {pause:?}", patience.attempts);
                progress.note(&format!("{words}; next try in {} s", pause.as_secs()));
                cancel.pause(pause);
                attempt += 1;
                state.place += 1;
            }
            Err(error) if state.touched => {
                progress.stage("blanking");
                return Err(finish::blank_after(error, disk.as_ref()));
            }
            other => return other,
        }
    }
}

/// What one attempt leaves to the next.
struct Attempt {
    /// The disk is no longer what it was.
    touched: bool,
    tables: plan::Tables,
    /// Which of the image's places is asked first.
    place: usize,
}

fn attempt_once(
    request: &WriteRequest,
    disk: &Arc<dyn BlockDevice>,
    way: &Way,
    state: &mut Attempt,
) -> Result<WriteReport, ImageError> {
    let (image, progress, cancel) = (&request.image, &way.progress, &way.cancel);
    let started = Instant::now();
    progress.begin("preparing");
    if let Some(drive) = &request.config_drive
        && drive.len() as u64 > limits::CONFIG_DRIVE
    {
        return Err(LayoutError::ConfigDriveSize(ByteCount(drive.len() as u64)).into());
    }
    let stop = Stop::on(cancel);
    // A disk that fails ends the waiting for a server, too.
    let way = Way { cancel: stop.flag().clone(), ..way.clone() };
    let mut source = Source::open(image, &way, &mut state.place)?;
    let plan = plan::make(request, &mut source, disk.as_ref(), progress, state.tables)?;
    progress.total(source.length());
    tracing::info!("image {}: {}", image.id, plan.describe(disk.name()));
    let target = target::Target::new(disk.clone(), ByteCount(plan.capacity), request.verify);
    if cancel.is_set() {
        return Err(ImageError::Cancelled);
    }
    progress.stage("blanking");
    state.touched = true;
    finish::blank_ends(disk.as_ref())?;
    let prepared = started.elapsed();
    progress.stage("writing");
    let body = pipeline::run(image, plan, source, &target, progress, stop)?;
    progress.stage("finishing");
    finish::complete(request, &target, body, prepared, (progress, cancel))
}
