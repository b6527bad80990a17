//! Namespace `image`: boot set-up after writing. A whole-disk image brings its own boot loader, so what is left to do is a boot
//! entry in a UEFI machine's firmware.

use super::{Context, Failure, Job, Params, context, failure, rooms, text};
use crate::bootloader::{self, BootError};
use crate::disk::{aligned, raid};
use ferric_common::units::{ByteCount, DiskOffset, MIB};
use serde_json::Value;

pub fn install_bootloader(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    let result = rooms::instance_array(context).and_then(|array| match array {
        // Conductors give the root file system of a whole-disk image on an array, too.
        Some(array) => boot_entry(context, Some(&array)),
        None => whole_disk(context, text(params, "root_uuid"), text(params, "efi_system_part_uuid"))
            .and_then(|()| boot_entry(context, None)),
    });
    let ignore = params
        .get("ignore_bootloader_failure")
        .and_then(Value::as_bool)
        .unwrap_or(context.rules.ignore_bootloader_failure);
    match result {
        Ok(()) => Ok(Value::Null),
        Err(failure) if ignore => {
            tracing::warn!("the failed boot set-up is ignored as asked: {}", failure.details);
            Ok(Value::Null)
        }
        Err(failure) => Err(failure),
    }
}

/// Refuses partition images, into which a boot loader would have to be installed.
fn whole_disk(context: &Context, root_uuid: Option<&str>, esp: Option<&str>) -> Result<(), Failure> {
    // The signature of the disk that we wrote ourselves is a whole-disk image's, too.
    let ours = context::lock(&context.written).as_ref().map(|w| w.root_uuid.clone());
    let whole = |uuid: &str| uuid.is_empty() || uuid == "0x00000000" || ours.as_deref() == Some(uuid);
    if root_uuid.is_none_or(whole) && esp.is_none_or(str::is_empty) {
        return Ok(());
    }
    Err(failure::INVALID_IMAGE.with(format!(
        "installing a boot loader for the root file system {} is not supported by this agent: deploy a whole-disk \
         image, which brings its own boot loader",
        root_uuid.unwrap_or("(none)")
    )))
}

/// Gives the firmware of a UEFI machine an entry for the disk; nothing on a machine that was booted by a BIOS.
fn boot_entry(context: &Context, array: Option<&str>) -> Result<(), Failure> {
    let machine = context.machine.as_ref();
    if let Some(array) = array {
        rooms::refuse_bios_array(context, array)?;
    }
    if machine.inventory().boot.current_boot_mode != "uefi" {
        return Ok(());
    }
    let device = array.map_or_else(|| rooms::instance_disk(context), |array| Ok(array.to_owned()))?;
    let unreadable = |words: String| failure::BLOCK_DEVICE.with(format!("reading {device}: {words}"));
    let disk = machine.open_disk(&device).map_err(|error| unreadable(failure::chain(&error)))?;
    let length = ByteCount(disk.size().0.min(MIB));
    let head = aligned::read(disk.as_ref(), DiskOffset(0), length).map_err(|e| unreadable(e.to_string()))?;
    let sector = disk.sector_size();
    // Held exclusively, no partition of it could be mounted.
    drop(disk);
    let entries = match array {
        Some(array) => raid::boot_entries(machine, array, &head, sector),
        None => bootloader::install(machine, &device, &head, sector),
    };
    let entries = entries.map_err(|error| refused(&device, &error))?;
    if entries.is_empty() {
        tracing::warn!(
            "the EFI system partition of {device} holds no loader that is known: no boot entry was made"
        );
    }
    for entry in &entries {
        tracing::info!("boot entry '{}' is {} on {device}", entry.description, entry.loader);
    }
    Ok(())
}

fn refused(device: &str, error: &BootError) -> Failure {
    match error {
        BootError::NoSystemPartition { .. } => failure::DEVICE_NOT_FOUND.with(failure::chain(error)),
        _ => failure::COMMAND_EXECUTION
            .with(format!("Could not configure UEFI boot on device {device}: {}", failure::chain(error))),
    }
}
