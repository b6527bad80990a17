//! The volume that the operating system goes to, by the configuration that the node was given.

use crate::platform::machine::{Machine, MachineError};
use serde_json::{Map, Value};

/// Whether the node's recorded configuration has software RAID, and which running array of it is marked as the root
/// volume: `is_root_volume`.
///
/// # Errors
/// Arrays that cannot be assembled, disks that cannot be listed.
pub fn root_volume(
    machine: &dyn Machine,
    raid_config: &Map<String, Value>,
) -> Result<Option<String>, MachineError> {
    let Some(disks) = raid_config.get("logical_disks").and_then(Value::as_array) else { return Ok(None) };
    let is_software = |disk: &Value| disk.get("controller").and_then(Value::as_str) == Some("software");
    if !disks.iter().any(is_software) {
        return Ok(None);
    }
    machine.assemble_arrays()?;
    let is_root = |disk: &&Value| is_software(disk) && disk.get("is_root_volume") == Some(&Value::Bool(true));
    let Some((nth, root)) = disks.iter().enumerate().find(|(_, disk)| is_root(disk)) else { return Ok(None) };
    let name =
        root.get("volume_name").and_then(Value::as_str).map_or_else(|| format!("md{nth}"), str::to_owned);
    Ok(machine
        .arrays()
        .into_iter()
        .find(|device| machine.array_name(device).as_deref() == Some(name.as_str())))
}
