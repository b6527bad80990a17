//! Looks at a device before it is erased: does it hold what other machines share, is it part of an array, is it the
//! conductor's virtual floppy. Reads only.

use super::wipe::{chain, read, scan};
use crate::platform::block::BlockDevice;
use crate::platform::machine::{DiskFacts, Machine};
use ferric_common::formats::gpt::{self, Gpt};
use ferric_common::formats::mbr;
use ferric_common::formats::signatures::{self, Kind};
use ferric_common::units::{MIB, SectorSize};
use serde_json::Value;
use std::sync::Arc;

/// A medium that a conductor makes for its parameters is smaller, in bytes.
const FLOPPY: u64 = 64 * MIB;

/// A disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    /// Those of a disk.
    pub partitions: Vec<String>,
    pub is_disk: bool,
}

/// What was found on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Erasable,
    /// It has the superblock of a software RAID array. At the end of a disk that may also be its last partition's.
    RaidMember,
    /// A small disk that a conductor filled with the agent's parameters.
    VirtualFloppy,
    Protected(&'static str),
}

impl Device {
    pub fn disk(name: &str, partitions: &[String]) -> Device {
        Device { name: name.to_owned(), partitions: partitions.to_vec(), is_disk: true }
    }

    pub fn partition(name: String) -> Device {
        Device { name, partitions: Vec::new(), is_disk: false }
    }

    /// # Errors
    /// Why it cannot be opened, in one line.
    pub fn open(&self, machine: &dyn Machine) -> Result<Arc<dyn BlockDevice>, String> {
        machine.open_disk(&self.name).map_err(|e| chain(&e))
    }

    /// # Errors
    /// Why it cannot be opened or read, in one line.
    pub fn look(&self, machine: &dyn Machine) -> Result<Look, String> {
        let disk = self.open(machine)?;
        let disk = disk.as_ref();
        let found = scan(disk).map_err(|e| chain(&e))?;
        let head = read(disk, 0, disk.size().0.min(MIB)).map_err(|e| chain(&e))?;
        let guarded = found.iter().find(|spot| spot.kind == Kind::Protected).map(|spot| spot.what);
        if let Some(what) = guarded.or_else(|| protected_partition(&head)) {
            return Ok(Look::Protected(what));
        }
        if found.iter().any(|spot| spot.kind == Kind::RaidMember) {
            return Ok(Look::RaidMember);
        }
        let is_floppy =
            |at: usize| head.get(at..at + 10).is_some_and(|label| label.eq_ignore_ascii_case(b"ir-vfd-dev"));
        // Whoever names a partition or a large disk so must not keep it from being erased.
        let could_be = self.is_disk && disk.size().0 <= FLOPPY;
        Ok(if could_be && (is_floppy(43) || is_floppy(71)) { Look::VirtualFloppy } else { Look::Erasable })
    }
}

/// Whether a BMC shows this disk: an image that somebody inserted, not a part of the machine. BMCs say so in the model, and plug
/// it in by USB.
pub fn is_virtual_media(facts: &DiskFacts) -> bool {
    let model = facts.disk.model.as_deref().filter(|_| facts.disk.tran.as_deref() == Some("usb"));
    model.is_some_and(|model| {
        let model = model.to_ascii_lowercase();
        ["virtual media", "virtual floppy", "virtual cd"].iter().any(|words| model.contains(words))
    })
}

/// A partition in the table of `head` whose type says that it is shared between machines.
fn protected_partition(head: &[u8]) -> Option<&'static str> {
    let by_mbr = mbr::parse(head).into_iter().flatten().find_map(|e| signatures::protected_mbr_type(e.kind));
    let tables = [512, 4096].into_iter().filter_map(|sector| Gpt::parse(head, SectorSize(sector)).ok());
    let types = tables.flat_map(|table| table.partitions().collect::<Vec<gpt::Partition>>());
    by_mbr.or_else(|| types.map(|p| p.type_guid).find_map(|guid| signatures::protected_gpt_type(&guid)))
}

/// Whether the operator insists that shared file systems are erased, too. Upstream's code takes `false` as the permission,
/// its documentation `true`: only the documented word destroys data.
pub fn insists(node: &Value) -> bool {
    node.pointer("/driver_internal_info/wipe_special_filesystems") == Some(&Value::Bool(true))
}

/// Whether the node is meant to keep its software RAID arrays: its `raid_config` has one, or `skip_block_devices` names
/// one. Any other array is a leftover of an earlier tenant, and its members are disks like others.
pub fn keeps_arrays(node: &Value, volume_names: &[String]) -> bool {
    let software = |disk: &Value| disk.get("controller").and_then(Value::as_str) == Some("software");
    let recorded = node.pointer("/raid_config/logical_disks").and_then(Value::as_array);
    !volume_names.is_empty() || recorded.is_some_and(|disks| disks.iter().any(software))
}

/// Whether a device is a software RAID array.
pub fn is_array(name: &str) -> bool {
    name.strip_prefix("/dev/md")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '_' | '/')))
}

/// Whether a device is an array that `skip_block_devices` names.
pub fn is_kept_array(machine: &dyn Machine, name: &str, volume_names: &[String]) -> bool {
    is_array(name)
        && !volume_names.is_empty()
        && machine.array_name(name).is_some_and(|array| volume_names.contains(&array))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arrays_are_kept_where_the_node_says_so() {
        let with = |raid: Value| json!({ "raid_config": raid });
        let software = json!({"logical_disks": [{"controller": "software", "raid_level": "1"}]});
        assert!(keeps_arrays(&with(software), &[]));
        assert!(keeps_arrays(&json!({}), &["data".into()]));
        for none in [json!({}), json!(null), json!({"logical_disks": [{"controller": "PERC"}]})] {
            assert!(!keeps_arrays(&with(none.clone()), &[]), "{none}");
        }
    }
}
