//! Where commands meet the disk and image rooms: their types and errors in, the wire's classes out.

use super::context::lock;
use super::image_info::Image;
use super::{Context, Failure, Job, failure};
use crate::bootloader;
use crate::disk::choose;
use crate::disk::erase::{self, board::Watch};
use crate::disk::wipe::{self, EraseError};
use crate::disk::{look, raid};
use crate::image::error::Class;
use crate::image::{self, ImageError, ImageRequest, WriteReport, WriteRequest};
use crate::platform::block::BlockDevice;
use crate::platform::linux::process;
use crate::platform::machine::MachineError;
use ferric_common::events::Progress;
use ferric_common::hints;
use ferric_common::ids::Digest;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A checked image with everything that the pipeline needs.
pub struct WriteOrder {
    pub image: Image,
    pub digest: Digest,
    pub config_drive: Option<Vec<u8>>,
}

/// Writes an image to a disk. The real one is [`crate::image`]'s pipeline; tests have their own.
pub trait ImageWriter: Send + Sync {
    /// Blocks until the disk is complete and flushed; gives the account of it.
    ///
    /// # Errors
    /// A failure of the class that belongs to the cause; both ends of the disk are blank then, or it is untouched.
    fn write(
        &self,
        context: &Context,
        order: WriteOrder,
        disk: &Arc<dyn BlockDevice>,
        job: &Job,
    ) -> Result<WriteReport, Failure>;
}

/// The write pipeline of [`crate::image`].
pub struct Pipeline;

impl ImageWriter for Pipeline {
    fn write(
        &self,
        context: &Context,
        order: WriteOrder,
        disk: &Arc<dyn BlockDevice>,
        job: &Job,
    ) -> Result<WriteReport, Failure> {
        let WriteOrder { image, digest, config_drive } = order;
        let id = image.id.clone();
        let request = WriteRequest {
            image: ImageRequest {
                id: image.id,
                urls: image.urls.iter().map(ToString::to_string).collect(),
                format: image.declared,
                permitted: context.rules.permitted_formats.clone(),
                digest,
                authorization: image.authorization,
                proxies: image.proxies,
                require_partition_table: true,
            },
            config_drive,
            rebuild_drive: context.rules.rebuild_drive,
            verify: context.rules.verify,
        };
        let (tls, patience) = (Arc::clone(&context.tls), &context.rules.patience);
        let report = image::write_patiently(&request, disk, tls, &job.progress, &job.cancel, patience)
            .map_err(|error| refused(&id, &error))?;
        tracing::info!("image {id} is on {}: {report}", disk.name());
        if let Some(peak) = process::peak_memory() {
            tracing::info!("peak memory of the agent so far: VmHWM {} kB", peak >> 10);
        }
        Ok(report)
    }
}

/// The class by cause, and the words that become the node's `last_error`.
fn refused(id: &str, error: &ImageError) -> Failure {
    let words = error.for_operator();
    match error.class() {
        Class::Download => failure::IMAGE_DOWNLOAD.with(format!("Download of image {id} failed: {words}")),
        Class::DownloadFatal => {
            failure::IMAGE_DOWNLOAD_FATAL.with(format!("Download of image {id} failed: {words}"))
        }
        Class::DownloadTimeout => {
            failure::IMAGE_DOWNLOAD_TIMEOUT.with(format!("Download of image {id} failed: {words}"))
        }
        Class::Checksum => {
            failure::IMAGE_CHECKSUM.with(format!("Image {id} failed to verify against checksum: {words}"))
        }
        Class::Invalid => failure::INVALID_IMAGE.with(format!("image {id}: {words}")),
        Class::Write => failure::IMAGE_WRITE.with(format!("writing image {id}: {words}")),
        Class::Cancelled => failure::COMMAND_EXECUTION.with(format!("writing image {id}: {words}")),
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
        if result.is_ok() || context.started.elapsed() >= context.rules.disk_wait.whole() {
            return result;
        }
        std::thread::sleep(context.rules.disk_wait.pause());
    }
}

/// The disk that was written in this boot, else the one that the hints choose.
///
/// # Errors
/// As [`root_disk`].
pub fn instance_disk(context: &Context) -> Result<String, Failure> {
    let written = lock(&context.written).as_ref().map(|written| written.device.clone());
    written.map_or_else(|| root_disk(context), Ok)
}

/// The array that holds the instance, or will: the one written in this boot, else the one that the node's RAID configuration
/// marks for the system.
///
/// # Errors
/// [`failure::DEVICE_NOT_FOUND`]: arrays that cannot be assembled or listed; the marked one is not there.
pub fn instance_array(context: &Context) -> Result<Option<String>, Failure> {
    match lock(&context.written).as_ref().map(|written| written.device.clone()) {
        Some(device) => Ok(Some(device).filter(|device| look::is_array(device))),
        None => root_array(context),
    }
}

fn root_array(context: &Context) -> Result<Option<String>, Failure> {
    raid::root_volume(context.machine.as_ref(), &context.node().raid_config)
        .map_err(|error| failure::DEVICE_NOT_FOUND.with(failure::chain(&error)))
}

fn unlisted(error: &MachineError) -> Failure {
    failure::DEVICE_NOT_FOUND.with(format!("listing the disks of this machine: {}", failure::chain(error)))
}

/// Nothing is written to an array from which the machine could not boot.
///
/// # Errors
/// [`failure::INVALID_IMAGE`].
pub fn refuse_bios_array(context: &Context, device: &str) -> Result<(), Failure> {
    if !look::is_array(device) || context.machine.inventory().boot.current_boot_mode == "uefi" {
        return Ok(());
    }
    Err(failure::INVALID_IMAGE.with(format!(
        "the system goes to the array {device}, from which a BIOS cannot boot, and installing a boot loader on its disks is not \
         supported by this agent: deploy with boot_mode uefi"
    )))
}

fn root_disk_now(context: &Context) -> Result<String, Failure> {
    let node = context.node();
    // A volume that the RAID configuration marks for the system is that, whatever the hints say.
    if let Some(volume) = root_array(context)? {
        return Ok(volume);
    }
    let disks = context.machine.disks().map_err(|error| unlisted(&error))?;
    choose::root_disk(&node.instance_info, &node.properties, &disks)
        .map(|facts| facts.disk.name)
        .map_err(|error| failure::DEVICE_NOT_FOUND.with(failure::chain(&error)))
}

/// Wipes the metadata of all disks and partitions, those in the node's skip list left out.
///
/// # Errors
/// [`failure::BLOCK_DEVICE_ERASE`] naming each device that could not be wiped, [`failure::PROTECTED_DEVICE`] for a file
/// system that other machines share.
pub fn erase_devices_metadata(context: &Context) -> Result<Value, Failure> {
    erasing(context, |node| wipe::erase_devices_metadata(context.machine.as_ref(), node))
}

/// Erases all disks securely, those in the node's skip list left out; says what was done to each.
///
/// # Errors
/// As [`erase_devices_metadata`].
pub fn erase_devices(context: &Context, job: &Job) -> Result<Value, Failure> {
    erasing(context, |node| erase::erase_devices(context.machine.as_ref(), node, job))
}

/// Erases NVMe drives securely and the metadata of all others.
///
/// # Errors
/// As [`erase_devices_metadata`].
pub fn erase_devices_express(context: &Context, job: &Job) -> Result<Value, Failure> {
    erasing(context, |node| erase::erase_devices_express(context.machine.as_ref(), node, job))
}

impl Watch for Job {
    fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }
    fn report(&self, progress: Progress) {
        self.progress.set(progress);
    }
}

/// Removes the kernel's crash records from the firmware's memory; says which there were.
///
/// # Errors
/// [`failure::CLEANING`].
pub fn erase_pstore(context: &Context) -> Result<Value, Failure> {
    let gone =
        context.machine.clear_pstore().map_err(|error| failure::CLEANING.with(failure::chain(&error)))?;
    tracing::info!("{} crash records erased", gone.len());
    Ok(json!({ "erased": gone }))
}

/// Removes boot entries of earlier systems; says which. A machine that was not started by UEFI has none.
///
/// # Errors
/// [`failure::INVALID_PARAMS`] for patterns that are none, [`failure::CLEANING`] for firmware that refuses.
pub fn clean_uefi_nvram(context: &Context, args: &Map<String, Value>) -> Result<Value, Failure> {
    let given = args.get("match_patterns");
    let patterns = bootloader::clean::patterns(given).ok_or_else(|| {
        let shown = given.map(hints::python).unwrap_or_default();
        failure::INVALID_PARAMS.with(format!("The match_patterns must be a list of strings: {shown}"))
    })?;
    if context.machine.inventory().boot.current_boot_mode != "uefi" {
        tracing::info!("this machine was not started by UEFI: it has no boot entries to clean");
        return Ok(json!({"removed": []}));
    }
    let refused = |error: &dyn std::error::Error| failure::CLEANING.with(failure::chain(error));
    let variables = context.machine.efi_variables().map_err(|error| refused(&error))?;
    let gone = bootloader::clean::remove(variables.as_ref(), &patterns).map_err(|error| refused(&error))?;
    tracing::info!("boot entries removed: {gone:?}");
    Ok(json!({ "removed": gone }))
}

/// Runs an erase step with the node as the disk room reads it.
fn erasing(
    context: &Context,
    erase: impl FnOnce(&Value) -> Result<Value, EraseError>,
) -> Result<Value, Failure> {
    let node = context.node();
    let mut internal = node.driver_internal_info;
    // The kernel parameter is the one reliable word: upstream's documentation and code mean opposite things by the node's.
    if context.rules.wipe_special_filesystems {
        internal.insert("wipe_special_filesystems".into(), Value::Bool(true));
    }
    if context.rules.discard_erase {
        internal.entry("agent_enable_discard_erase").or_insert(Value::Bool(true));
    }
    let node = json!({
        "uuid": node.uuid,
        "properties": node.properties,
        "instance_info": node.instance_info,
        "driver_internal_info": internal,
        "raid_config": node.raid_config,
    });
    // Whatever was written in this boot is gone, wholly or in part.
    context.forget_written();
    erase(&node).map_err(|error| {
        let words = failure::chain(&error);
        match error {
            EraseError::Protected { .. } => failure::PROTECTED_DEVICE.with(words),
            _ => failure::BLOCK_DEVICE_ERASE.with(words),
        }
    })
}
