//! Namespace `image`: boot set-up after writing. Only what a whole-disk image under BIOS needs, which is nothing.

use super::{Context, Failure, Job, Params, context, failure, text};
use serde_json::Value;

pub fn install_bootloader(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    let uefi = context.machine.inventory().boot.current_boot_mode == "uefi";
    let result = decide(text(params, "root_uuid"), uefi, text(params, "efi_system_part_uuid"), context);
    let ignore = params
        .get("ignore_bootloader_failure")
        .and_then(Value::as_bool)
        .unwrap_or(context.rules.ignore_bootloader_failure);
    match result {
        Err(failure) if ignore => {
            tracing::warn!("the failed boot set-up is ignored as asked: {}", failure.details);
            Ok(Value::Null)
        }
        other => other,
    }
}

fn decide(
    root_uuid: Option<&str>,
    uefi: bool,
    esp: Option<&str>,
    context: &Context,
) -> Result<Value, Failure> {
    // The signature of the disk that we wrote ourselves is a whole-disk image's, too.
    let ours = context::lock(&context.written).as_ref().map(|w| w.root_uuid.clone());
    let whole = |uuid: &str| uuid.is_empty() || uuid == "0x00000000" || ours.as_deref() == Some(uuid);
    let whole_disk = root_uuid.is_none_or(whole) && esp.is_none_or(str::is_empty);
    match (whole_disk, uefi) {
        (true, false) => Ok(Value::Null),
        // Firmware finds \EFI\BOOT\BOOTX64.EFI on the disk by itself; making an entry of our own is not built yet.
        (true, true) => {
            tracing::info!("no UEFI boot entry was made: firmware will use the removable-media path of the disk");
            Ok(Value::Null)
        }
        (false, _) => Err(failure::INVALID_IMAGE.with(format!(
            "installing a boot loader for the root file system {} is not supported by this agent: deploy a whole-disk \
             image, which brings its own boot loader",
            root_uuid.unwrap_or("(none)")
        ))),
    }
}
