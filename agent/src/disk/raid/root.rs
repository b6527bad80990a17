//! The volume that the operating system goes to, by the configuration that the node was given.

use super::RaidError;
use crate::platform::machine::Machine;
use serde_json::{Map, Value};

/// Whether the node's recorded configuration has software RAID, and which array of it is marked as the root volume:
/// `is_root_volume`.
///
/// # Errors
/// Arrays that cannot be assembled; a marked volume that is not there: another disk is no substitute for it.
pub fn root_volume(
    machine: &dyn Machine,
    raid_config: &Map<String, Value>,
) -> Result<Option<String>, RaidError> {
    let Some(disks) = raid_config.get("logical_disks").and_then(Value::as_array) else { return Ok(None) };
    let is_software = |disk: &Value| disk.get("controller").and_then(Value::as_str) == Some("software");
    if !disks.iter().any(is_software) {
        return Ok(None);
    }
    machine.assemble_arrays().map_err(RaidError::Listing)?;
    let is_root = |disk: &&Value| is_software(disk) && disk.get("is_root_volume") == Some(&Value::Bool(true));
    let Some((nth, root)) = disks.iter().enumerate().find(|(_, disk)| is_root(disk)) else { return Ok(None) };
    let name =
        root.get("volume_name").and_then(Value::as_str).map_or_else(|| format!("md{nth}"), str::to_owned);
    match machine.arrays().into_iter().find(|array| machine.array_name(array).as_ref() == Some(&name)) {
        Some(array) => Ok(Some(array)),
        None => Err(RaidError::NoRoot { found: there(machine), name }),
    }
}

/// The arrays of this machine, in words.
fn there(machine: &dyn Machine) -> String {
    let arrays = machine.arrays().into_iter();
    let named = arrays.map(|array| match machine.array_name(&array) {
        Some(name) => format!("{array} ({name})"),
        None => array,
    });
    let words = named.collect::<Vec<_>>().join(", ");
    if words.is_empty() { "none".to_owned() } else { words }
}
