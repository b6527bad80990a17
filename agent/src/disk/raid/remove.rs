//! Takes all arrays away: stops them, blanks their members and the tables of the disks that they were on.

use super::build::{disks, skip_list};
use super::{Node, RaidError};
use crate::disk::choose::candidate;
use crate::disk::holders::{self, Held, Rules};
use crate::disk::look::{self, Device, Look};
use crate::disk::wipe;
use crate::platform::drive::{Holder, HolderKind};
use crate::platform::machine::{Machine, MachineError};
use ferric_common::hints::SkipList;
use std::collections::BTreeSet;

/// As often it is tried: what stood on an array may only show when that is gone.
const PASSES: usize = 2;

/// Removes every array but those that the node's skip list names, or of whose disks it names one; one that shares a disk with
/// such an array is blanked and stays.
///
/// # Errors
/// [`RaidError::Remaining`] with each array that is still there, and why.
pub fn delete(machine: &dyn Machine, node: &Node<'_>) -> Result<(), RaidError> {
    let skip = skip_list(node)?;
    let mut remaining = Vec::new();
    for _ in 0..PASSES {
        machine.assemble_arrays().map_err(RaidError::Listing)?;
        remaining = pass(machine, &skip)?;
        if remaining.is_empty() {
            return Ok(());
        }
    }
    Err(RaidError::Remaining(remaining.join("; ")))
}

struct Array {
    device: String,
    members: Vec<String>,
    /// The whole disks under it.
    disks: BTreeSet<String>,
    is_kept: bool,
}

/// One round. Returns what did not go.
fn pass(machine: &dyn Machine, skip: &SkipList) -> Result<Vec<String>, RaidError> {
    let arrays = arrays(machine, skip)?;
    let held: BTreeSet<&String> = arrays.iter().filter(|a| a.is_kept).flat_map(|a| &a.disks).collect();
    let (mut remaining, mut freed) = (Vec::new(), BTreeSet::new());
    for array in arrays.iter().filter(|array| !array.is_kept) {
        let shares = array.disks.iter().any(|disk| held.contains(disk));
        match remove(machine, array, shares) {
            Ok(()) if shares => {
                tracing::warn!("{} stays: it shares a disk with a kept array; blanked", array.device)
            }
            Ok(()) => freed.extend(array.disks.iter().cloned()),
            Err(why) => remaining.push(format!("{}: {why}", array.device)),
        }
    }
    if !remaining.is_empty() {
        return Ok(remaining);
    }
    freed.extend(leftovers(machine, skip, &held)?);
    for disk in &freed {
        if let Err(why) = blank(machine, disk) {
            remaining.push(format!("{disk}: {why}"));
        }
        if let Err(error) = machine.reread_partitions(disk) {
            tracing::warn!(disk, "the kernel keeps the old partitions: {}", wipe::chain(&error));
        }
    }
    Ok(remaining)
}

/// Disks on which a superblock is left though no array has them: one of a member that was lost. Superblocks in partitions are
/// blanked here, as blanking the disk would leave them.
fn leftovers(
    machine: &dyn Machine,
    skip: &SkipList,
    held: &BTreeSet<&String>,
) -> Result<Vec<String>, RaidError> {
    let mut found = Vec::new();
    for facts in disks(machine, skip)? {
        let name = facts.disk.name;
        if held.contains(&name) {
            continue;
        }
        let partitions = machine.partitions(&name).map_err(RaidError::Listing)?;
        let is_member = |device: &Device| matches!(device.look(machine), Ok(Look::RaidMember));
        let members: Vec<&String> =
            partitions.iter().filter(|part| is_member(&Device::partition((*part).clone()))).collect();
        for member in &members {
            if let Err(why) = blank(machine, member) {
                tracing::warn!("{member} could not be blanked: {why}");
            }
        }
        // A superblock at the end of a disk with partitions is the last one's, or older than they are.
        if !members.is_empty() || partitions.is_empty() && is_member(&Device::disk(&name, &partitions)) {
            found.push(name);
        }
    }
    Ok(found)
}

fn arrays(machine: &dyn Machine, skip: &SkipList) -> Result<Vec<Array>, RaidError> {
    let disks = machine.disks().map_err(RaidError::Listing)?;
    let mut arrays = Vec::new();
    for device in machine.arrays() {
        let members = machine.array_members(&device);
        let is_under = |disk: &&str| -> Result<bool, MachineError> {
            let partitions = machine.partitions(disk)?;
            Ok(members.iter().any(|member| member == disk || partitions.contains(member)))
        };
        let mut under = BTreeSet::new();
        let mut is_kept = look::is_kept_array(machine, &device, &skip.volume_names);
        for facts in &disks {
            if is_under(&facts.disk.name.as_str()).map_err(RaidError::Listing)? {
                is_kept |= skip.skips(&candidate(facts));
                under.insert(facts.disk.name.clone());
            }
        }
        arrays.push(Array { is_kept, device, members, disks: under });
    }
    Ok(arrays)
}

/// Blanks an array and, unless it is to stay, stops it and blanks its members.
fn remove(machine: &dyn Machine, array: &Array, stays: bool) -> Result<(), String> {
    let rules = Rules { keeps_arrays: false, insists: true };
    match holders::take_down(machine, &array.device, rules) {
        Ok(_) => {}
        Err(Held::Stop(error)) => return Err(wipe::chain(&error)),
        Err(Held::Busy(why)) => return Err(why),
    }
    // An array that has failed cannot be written; its members can.
    if let Err(why) = blank(machine, &array.device) {
        tracing::warn!("{} could not be blanked: {why}", array.device);
    }
    if stays {
        return Ok(());
    }
    machine
        .release(&Holder { name: array.device.clone(), kind: HolderKind::Array })
        .map_err(|error| wipe::chain(&error))?;
    array.members.iter().try_for_each(|member| blank(machine, member))
}

fn blank(machine: &dyn Machine, device: &str) -> Result<(), String> {
    let disk = machine.open_disk(device).map_err(|error| wipe::chain(&error))?;
    wipe::metadata(disk.as_ref()).map(|_| ()).map_err(|error| wipe::chain(&error))
}
