//! Namespace `deploy`: the steps that put an instance on the machine.

use super::steps::{self, Family};
use super::{Context, Failure, Job, Params, failure, inject, raid, rooms, standby};
use serde_json::{Map, Value, json};

pub fn get_deploy_steps(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    steps::list(Family::Deploy, context, params)
}

pub fn execute_deploy_step(context: &Context, params: &Params, job: &Job) -> Result<Value, Failure> {
    steps::execute(Family::Deploy, context, params, job, |name, args| match name {
        "write_image" => write_image(context, args, job),
        "erase_devices_metadata" => rooms::erase_devices_metadata(context),
        "apply_configuration" => raid::apply_configuration(context, args),
        "clean_uefi_nvram" => rooms::clean_uefi_nvram(context, args),
        "inject_files" => inject::inject_files(context, params, args),
        // The conductor's own step; whoever sends it in-band gets the truth: a whole-disk image boots by itself.
        "prepare_instance_boot" => Ok(Value::Null),
        _ => Err(steps::unknown(name)),
    })
}

/// What `write_image` takes.
pub(super) fn image_arguments() -> Value {
    json!({
        "image_info": {
            "description": "The image, as a deployment has it: id, urls, disk_format, and os_hash_algo with os_hash_value or \
                            checksum",
            "required": true,
        },
        "configdrive": {
            "description": "The config drive: its URL, or its content packed by gzip, in base64. Default: none",
            "required": false,
        },
    })
}

pub(super) fn write_image(context: &Context, args: &Map<String, Value>, job: &Job) -> Result<Value, Failure> {
    let Some(image_info) = args.get("image_info") else {
        return Err(failure::INVALID_PARAMS.with("the step write_image needs the argument 'image_info'"));
    };
    Ok(standby::write(context, image_info, args.get("configdrive"), job)?.result())
}
