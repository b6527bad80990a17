//! The steps of software RAID: parameters in, [`crate::disk::raid`], the wire's class out.

use super::{Context, Failure, failure};
use crate::disk::raid::{self, Node, RaidError};
use serde_json::{Map, Value, json};

/// Makes the arrays of the node's `target_raid_config`; returns it, or `{}` if it has none for software RAID.
///
/// # Errors
/// [`failure::SOFTWARE_RAID`].
pub fn create_configuration(context: &Context) -> Result<Value, Failure> {
    let wanted = Value::Object(context.node().target_raid_config);
    changing(context, |node| raid::create(context.machine.as_ref(), node, &wanted))
}

/// Makes the arrays of the step's `raid_config`, after those that are there were taken away unless `delete_existing` is false.
///
/// # Errors
/// [`failure::INVALID_PARAMS`] for arguments of another kind, [`failure::SOFTWARE_RAID`].
pub fn apply_configuration(context: &Context, args: &Map<String, Value>) -> Result<Value, Failure> {
    let Some(wanted @ Value::Object(_)) = args.get("raid_config") else {
        return Err(failure::INVALID_PARAMS.with("apply_configuration needs raid_config, an object"));
    };
    let delete_existing = match args.get("delete_existing") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(says)) => *says,
        Some(other) => {
            return Err(
                failure::INVALID_PARAMS.with(format!("delete_existing must be true or false, it is {other}"))
            );
        }
    };
    changing(context, |node| raid::apply(context.machine.as_ref(), node, wanted, delete_existing))
}

/// Takes all arrays away, but those that the node's `skip_block_devices` names.
///
/// # Errors
/// [`failure::SOFTWARE_RAID`].
pub fn delete_configuration(context: &Context) -> Result<Value, Failure> {
    changing(context, |node| raid::delete(context.machine.as_ref(), node).map(|()| Value::Null))
}

fn changing(
    context: &Context,
    change: impl FnOnce(&Node<'_>) -> Result<Value, RaidError>,
) -> Result<Value, Failure> {
    let node = context.node();
    let fields = json!({
        "properties": node.properties, "instance_info": node.instance_info,
        "driver_internal_info": node.driver_internal_info,
    });
    let uefi = context.machine.inventory().boot.current_boot_mode == "uefi";
    // Whatever was written in this boot may lie on disks that are changed.
    context.forget_written();
    change(&Node { uuid: &node.uuid, fields: &fields, uefi })
        .map_err(|error| failure::SOFTWARE_RAID.with(failure::chain(&error)))
}

/// What `apply_configuration` takes.
pub(super) fn arguments() -> Value {
    json!({
        "raid_config": {"description": "The RAID configuration to make.", "required": true},
        "delete_existing": {
            "description": "Whether existing software RAID is deleted first. Default: true",
            "required": false,
        },
    })
}
