//! Where commands meet the disk and image rooms: their types and errors in, the wire's classes out.

use super::image_info::Image;
use super::{Context, Failure, Job, failure};
use crate::disk::choose;
use crate::platform::block::BlockDevice;
use ferric_common::ids::Digest;
use serde_json::Value;
use std::sync::Arc;

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
}

/// A checked image with everything that the pipeline needs.
pub struct WriteOrder {
    pub image: Image,
    pub format: Format,
    pub digest: Digest,
    pub config_drive: Option<Vec<u8>>,
}

/// Writes an image to a disk. The real one is [`crate::image`]'s pipeline; tests have their own.
pub trait ImageWriter: Send + Sync {
    /// Blocks until the disk is complete and flushed.
    ///
    /// # Errors
    /// A failure of the class that belongs to the cause; both ends of the disk are blank then, or it is untouched.
    fn write(
        &self,
        context: &Context,
        order: WriteOrder,
        disk: &Arc<dyn BlockDevice>,
        job: &Job,
    ) -> Result<(), Failure>;
}

/// The write pipeline of [`crate::image`].
pub struct Pipeline;

impl ImageWriter for Pipeline {
    fn write(
        &self,
        _context: &Context,
        order: WriteOrder,
        disk: &Arc<dyn BlockDevice>,
        _job: &Job,
    ) -> Result<(), Failure> {
        let text = format!("writing image {} to {}: not built in yet", order.image.id, disk.name());
        Err(failure::IMAGE_WRITE.with(text))
    }
}

/// The disk that the operating system goes to, by the node's hints. Disks that are slow to appear are waited for, but
/// only in the first seconds of the agent's life: later a missing disk is missing.
///
/// # Errors
/// [`failure::DEVICE_NOT_FOUND`] with every disk and the reason that it was not taken.
pub fn root_disk(context: &Context) -> Result<String, Failure> {
    loop {
        let result = root_disk_now(context);
        if result.is_ok() || context.started.elapsed() >= context.rules.disk_wait {
            return result;
        }
        std::thread::sleep(context.rules.disk_pause);
    }
}

fn root_disk_now(context: &Context) -> Result<String, Failure> {
    let node = context.node();
    let disks = context.machine.disks().map_err(|error| {
        failure::DEVICE_NOT_FOUND
            .with(format!("listing the disks of this machine: {}", failure::chain(&error)))
    })?;
    choose::root_disk(&node.instance_info, &node.properties, &disks)
        .map(|facts| facts.disk.name)
        .map_err(|error| failure::DEVICE_NOT_FOUND.with(failure::chain(&error)))
}

/// Wipes the metadata of all disks and partitions, those in the node's skip list left out.
///
/// # Errors
/// [`failure::BLOCK_DEVICE_ERASE`] naming each device that could not be wiped.
pub fn erase_devices_metadata(_context: &Context) -> Result<Value, Failure> {
    Err(failure::BLOCK_DEVICE_ERASE.with("not built in yet"))
}

/// Progress of a running command.
#[derive(Clone, Default)]
pub struct ProgressCell(Arc<std::sync::Mutex<ferric_common::events::Progress>>);
impl ProgressCell {
    pub fn latest(&self) -> ferric_common::events::Progress {
        super::context::lock(&self.0).clone()
    }
    pub fn set(&self, progress: ferric_common::events::Progress) {
        *super::context::lock(&self.0) = progress;
    }
}
/// Asks a running command to stop.
#[derive(Clone, Default)]
pub struct CancelFlag(Arc<std::sync::atomic::AtomicBool>);
impl CancelFlag {
    pub fn cancel(&self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
