//! Namespace `clean`: what makes a machine ready for the next tenant.

use super::steps::{self, Family};
use super::{Context, Failure, Job, Params, raid, rooms};
use serde_json::{Value, json};

/// Name, interface and priority of each step. Those with a priority above 0 are run by an automated cleaning; a conductor's
/// own settings come before these numbers, which are ironic-python-agent's.
const STEPS: &[(&str, &str, u32)] = &[
    ("erase_devices", "deploy", 10),
    ("erase_devices_metadata", "deploy", 99),
    ("erase_devices_express", "deploy", 0),
    ("erase_pstore", "deploy", 0),
    ("clean_uefi_nvram", "deploy", 0),
    ("delete_configuration", "raid", 0),
    ("create_configuration", "raid", 0),
];

pub fn get_clean_steps(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    steps::list(Family::Clean, context, params)
}

pub fn execute_clean_step(context: &Context, params: &Params, job: &Job) -> Result<Value, Failure> {
    steps::execute(Family::Clean, context, params, job, |name, args| match name {
        "erase_devices" => rooms::erase_devices(context, job),
        "erase_devices_metadata" => rooms::erase_devices_metadata(context),
        "erase_devices_express" => rooms::erase_devices_express(context, job),
        "erase_pstore" => rooms::erase_pstore(context),
        "clean_uefi_nvram" => rooms::clean_uefi_nvram(context, args),
        "delete_configuration" => raid::delete_configuration(context),
        "create_configuration" => raid::create_configuration(context),
        _ => Err(steps::unknown(name)),
    })
}

/// The clean steps as they are published.
pub(super) fn published() -> Value {
    let step = |(name, interface, priority): &(&str, &str, u32)| {
        let mut step = json!({
            "step": name, "priority": priority, "interface": interface, "reboot_requested": false, "abortable": true,
        });
        if let Some(step) = step.as_object_mut().filter(|_| *name == "clean_uefi_nvram") {
            step.insert("argsinfo".to_owned(), nvram_arguments());
        }
        step
    };
    STEPS.iter().map(step).collect()
}

/// What `clean_uefi_nvram` takes.
pub(super) fn nvram_arguments() -> Value {
    json!({"match_patterns": {
        "description": "List of regular expressions. A UEFI boot entry is removed if one of them is found in its device \
                        path. Default: [\"^HD\\(\", \"shim.*\\.efi\", \"grub.*\\.efi\"]",
        "required": false,
    }})
}
