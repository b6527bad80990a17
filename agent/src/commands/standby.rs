//! Namespace `standby`: write an image, flush, end the machine.

use super::configdrive;
use super::image_info;
use super::rooms::{self, WriteOrder};
use super::{Context, Failure, Job, Params, checksum, context, failure};
use crate::disk::aligned;
use crate::image::WriteReport;
use crate::platform::block::BlockDevice;
use crate::state::Written;
use ferric_common::units::{ByteCount, DiskOffset};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub fn validate_image(context: &Context, params: &Params) -> Result<(), Failure> {
    let image_info = params.get("image_info").unwrap_or(&Value::Null);
    match image_info::check(image_info, &context.rules) {
        // What is well-formed but refused (a partition image, a format) fails the command, not the request.
        Err(failure) if failure.class == failure::INVALID_PARAMS => Err(failure),
        _ => Ok(()),
    }
}

pub fn prepare_image(context: &Context, params: &Params, job: &Job) -> Result<Value, Failure> {
    let image_info = params.get("image_info").unwrap_or(&Value::Null);
    Ok(write(context, image_info, params.get("configdrive"), job)?.result())
}

/// What became of an image.
pub struct Outcome {
    /// The reference agent's words, in which conductors look for `root_uuid=`.
    text: String,
    /// None if nothing had to be written.
    report: Option<WriteReport>,
}

impl Outcome {
    fn new(written: &Written, how: &str, report: Option<WriteReport>) -> Outcome {
        let Written { image_id, device, root_uuid, .. } = written;
        Outcome { text: format!("image ({image_id}) {how} device {device} root_uuid={root_uuid}"), report }
    }
    /// As a command's or a step's result. The account has a key of its own: Ironic's conductors read at most the text.
    pub fn result(&self) -> Value {
        let mut result = json!({"result": format!("prepare_image: {}", self.text)});
        if let (Some(report), Some(map)) = (&self.report, result.as_object_mut()) {
            map.insert("report".into(), report.shown());
        }
        result
    }
}

/// Writes an image and its config drive to the root disk; the same image that is already there is not written again.
pub fn write(
    context: &Context,
    image_info: &Value,
    config_drive: Option<&Value>,
    job: &Job,
) -> Result<Outcome, Failure> {
    let image = image_info::check(image_info, &context.rules)?;
    let digest = checksum::digest(context, &image)?;
    // Older conductors put the config drive into image_info only, newer ones into both.
    let config_drive = config_drive.filter(|v| !v.is_null()).or_else(|| image_info.get("configdrive"));
    let config_drive = configdrive::bytes(context, config_drive)?;
    let device = rooms::root_disk(context)?;
    rooms::refuse_bios_array(context, &device)?;
    let mut plan = Written {
        image_id: image.id.clone(),
        digest: digest.to_string(),
        device: device.clone(),
        config_drive: config_drive.as_deref().map(fingerprint).unwrap_or_default(),
        root_uuid: String::new(),
        changed: false,
    };
    if let Some(before) = context::lock(&context.written).clone()
        && (Written { root_uuid: before.root_uuid.clone(), ..plan.clone() }) == before
    {
        return Ok(Outcome::new(&before, "already present on", None));
    }
    // From here on the disk changes: what was on it before is no longer complete.
    context.forget_written();
    let disk = context.machine.open_disk(&device).map_err(|error| {
        failure::BLOCK_DEVICE.with(format!("opening the root disk {device}: {}", failure::chain(&error)))
    })?;
    tracing::info!("writing image {} to {device} ({})", image.id, disk.size());
    let order = WriteOrder { image, digest, config_drive };
    let report = context.writer.write(context, order, &disk, job)?;
    plan.root_uuid = disk_signature(disk.as_ref())?;
    drop(disk);
    if let Err(error) = context.machine.reread_partitions(&device) {
        tracing::warn!(
            "asking the kernel to read the partition table of {device} again: {}",
            failure::chain(&error)
        );
    }
    *context::lock(&context.written) = Some(plan.clone());
    (context.remember)(Some(&plan));
    Ok(Outcome::new(&plan, "written to", Some(report)))
}

fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Four bytes at offset 440 of the MBR, as the reference agent prints them.
fn disk_signature(disk: &dyn BlockDevice) -> Result<String, Failure> {
    let bytes = aligned::read(disk, DiskOffset(440), ByteCount(4)).map_err(|error| {
        failure::BLOCK_DEVICE.with(format!("reading the disk signature of {}: {error}", disk.name()))
    })?;
    let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
    Ok(format!("0x{:08x}", u32::from_le_bytes(bytes)))
}

pub fn get_partition_uuids(context: &Context, _params: &Params, _job: &Job) -> Result<Value, Failure> {
    Ok(match context::lock(&context.written).as_ref() {
        Some(written) => json!({"root uuid": written.root_uuid}),
        None => Value::Object(Map::new()),
    })
}

pub fn sync(context: &Context, _params: &Params, _job: &Job) -> Result<Value, Failure> {
    context.machine.sync().map_err(|error| {
        failure::COMMAND_EXECUTION.with(format!("flushing file system buffers: {}", failure::chain(&error)))
    })?;
    Ok(Value::Null)
}

pub fn power_off(context: &Context, _params: &Params, _job: &Job) -> Result<Value, Failure> {
    end(context, "power off", |machine| machine.power_off())
}

pub fn run_image(context: &Context, _params: &Params, _job: &Job) -> Result<Value, Failure> {
    end(context, "reboot", |machine| machine.reboot())
}

/// The installed system reads the battery clock first, so that is set, by the time servers if there are any. A clock that stays as
/// it is is no reason to leave a machine on, unless the operator says so.
fn keep_time(context: &Context, what: &str) -> Result<(), Failure> {
    let keep = |()| context.machine.keep_clock().map_err(|error| failure::chain(&error));
    match (context.set_clock)().and_then(keep) {
        Err(why) if context.rules.clock_required => {
            Err(failure::CLOCK_SYNC.with(format!("Failed to sync hardware clock: {why}")))
        }
        Err(why) => {
            tracing::warn!("the clock before the {what}: {why}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn end(
    context: &Context,
    what: &str,
    act: impl FnOnce(&dyn crate::platform::machine::Machine) -> Result<(), crate::platform::machine::MachineError>,
) -> Result<Value, Failure> {
    keep_time(context, what)?;
    if let Err(error) = context.machine.sync() {
        tracing::warn!("flushing before the {what}: {}", failure::chain(&error));
    }
    tracing::info!("the controller asked for a {what}");
    std::thread::sleep(context.reply_grace);
    act(context.machine.as_ref()).map_err(|error| {
        failure::SYSTEM_REBOOT.with(format!("the {what} of this machine failed: {}", failure::chain(&error)))
    })?;
    Ok(Value::Null)
}
