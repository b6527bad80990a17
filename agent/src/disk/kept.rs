//! The software RAID arrays that a node keeps: run before anything is erased, as only a running array shows which disks are
//! under it, and only through it its content can be erased.
//!
//! Upstream assembles every array when it starts, and leaves members and their disks alone in every step of erasing.

use super::holders::Rules;
use super::look;
use super::wipe::{EraseError, chain};
use crate::platform::drive::HolderKind;
use crate::platform::machine::{DiskFacts, Machine, MachineError};
use ferric_common::formats::mbr;

/// Runs the arrays, if they are kept.
///
/// # Errors
/// [`EraseError::Arrays`]: mdadm does not work, so nobody knows what must stay. Arrays that cannot run are no error.
pub fn run_arrays(machine: &dyn Machine, rules: Rules) -> Result<(), EraseError> {
    if !rules.keeps_arrays {
        return Ok(());
    }
    machine.assemble_arrays().map_err(EraseError::Arrays)?;
    // The kernel looks for partitions on an array when that is opened, which here nobody did.
    for array in machine.arrays() {
        if let Err(error) = machine.reread_partitions(&array) {
            tracing::warn!("the partitions of {array} may not show: {}", chain(&error));
        }
    }
    Ok(())
}

/// Types of MBR partitions that hold the chain of the logical ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// Of the partitions of a disk under kept arrays those that belong to none. An extended one is none of them: in it stands where
/// the members among the logical ones are.
///
/// # Errors
/// What stands on them cannot be read.
pub fn beside(
    machine: &dyn Machine,
    disk: &str,
    partitions: Vec<String>,
) -> Result<Vec<String>, MachineError> {
    let extended = extended(machine, disk)?;
    let mut free = Vec::new();
    for partition in partitions {
        if extended.contains(&partition) {
            continue;
        }
        if machine.holders(&partition)?.iter().all(|holder| holder.kind != HolderKind::Array) {
            free.push(partition);
        }
    }
    Ok(free)
}

/// The extended partition of a disk with an MBR, by each name that it can have.
///
/// # Errors
/// The disk's start cannot be read.
pub fn extended(machine: &dyn Machine, disk: &str) -> Result<Vec<String>, MachineError> {
    let head = machine.head(disk)?;
    let numbers = mbr::parse(&head).into_iter().flatten().filter(|entry| EXTENDED.contains(&entry.kind));
    Ok(numbers.flat_map(|entry| ["", "p"].map(|before| format!("{disk}{before}{}", entry.number))).collect())
}

/// What becomes of the arrays over a disk.
pub struct Kept<'a> {
    pub machine: &'a dyn Machine,
    pub disks: &'a [DiskFacts],
    /// Of `skip_block_devices`.
    pub volume_names: &'a [String],
}

impl Kept<'_> {
    /// The first that does not run: nothing on it can be erased.
    pub fn asleep<'n>(&self, arrays: &'n [String]) -> Option<&'n str> {
        let is_running = |array: &str| self.disks.iter().any(|facts| facts.disk.name == array);
        arrays.iter().map(String::as_str).find(|array| !self.is_skipped(array) && !is_running(array))
    }

    /// Why a disk under them is left alone.
    pub fn words(&self, arrays: &[String]) -> String {
        let fate = |array: &String| match self.is_skipped(array) {
            true => format!("{array}, which is in skip_block_devices"),
            false => format!("{array}, which is erased as a disk"),
        };
        format!("it is a member of {}", arrays.iter().map(fate).collect::<Vec<_>>().join(", and of "))
    }

    fn is_skipped(&self, array: &str) -> bool {
        look::is_kept_array(self.machine, array, self.volume_names)
    }
}

/// Why neither erasing nor leaving such a member is right.
pub fn not_running(member: &str, array: &str) -> String {
    format!(
        "{member} is a member of {array} that the node keeps, and the array is not running: erasing it would destroy the \
         array, leaving it would keep the data. Delete the RAID configuration first"
    )
}
