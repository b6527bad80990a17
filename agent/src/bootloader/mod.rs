//! Gives a UEFI machine a boot entry for the system that was written: the loader on its EFI system partition, first in the
//! firmware's order.
//!
//! `table`, `loader`, `entry` and `plan` are pure: bytes and names in, decisions out. `esp` reads a mounted folder; kernel
//! calls are `platform`'s. No boot loader is installed and no program is started: an image brings its own loader.
//! Source of the rules: ironic-python-agent 13.0.0, `efi_utils.py`; UEFI 2.10, chapters 3.1 and 10.3.

pub mod clean;
pub mod entry;
mod esp;
pub mod loader;
pub mod path;
mod plan;
pub mod table;

use crate::platform::efi::EfiVariables;
use crate::platform::machine::{Machine, MachineError};
use entry::Entry;
use ferric_common::formats::gpt::GptError;
use ferric_common::units::SectorSize;
use loader::Loader;
use plan::Change;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// How long the kernel may take to show a partition of the table that was just written.
const PARTITION_WAIT: Duration = Duration::from_secs(10);
const PARTITION_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no boot entry. The disk itself is complete.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("reading the partition table that was written to {disk}")]
    Table {
        disk: String,
        #[source]
        source: GptError,
    },
    /// The reference agent's words.
    #[error(
        "No EFI partition could be detected on device {disk} and EFI partition UUID has not been recorded during \
         deployment (which is often the case for whole disk images). Are you using a UEFI-compatible image?"
    )]
    NoSystemPartition { disk: String },
    #[error("the kernel shows no partition {partition} although the table on {disk} has it")]
    NoDevice { disk: String, partition: String },
    #[error("reading the EFI system partition")]
    Machine(#[from] MachineError),
    #[error("{action} the firmware's variable {name}")]
    Variable {
        action: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the firmware's variable {0} reads back other than it was written")]
    ReadBack(String),
    #[error("all 65536 numbers of boot entries are taken")]
    Full,
    #[error(
        "{disk} under {array} has no EFI system partition, so nothing can be booted from it: make the arrays anew with the \
         machine started by UEFI"
    )]
    NoRoomUnder { array: String, disk: String },
    #[error("moving the EFI system partition of an array to its disks: {action} {device}: {why}")]
    Mirror { action: &'static str, device: String, why: String },
}

/// Writes boot entries for the loaders of the disk, and returns them; none if its system partition holds no known loader.
///
/// `head` is the start of the disk, 1 MiB of it. Entries of the same name are replaced; all others stay, behind the new ones.
///
/// # Errors
/// [`BootError`]. Changes are ordered so that what was bootable before stays so, whichever of them fails.
pub fn install(
    machine: &dyn Machine,
    disk: &str,
    head: &[u8],
    sector: SectorSize,
) -> Result<Vec<Entry>, BootError> {
    let table = |source| BootError::Table { disk: disk.to_owned(), source };
    let place = table::system_partition(head, sector)
        .map_err(table)?
        .ok_or_else(|| BootError::NoSystemPartition { disk: disk.to_owned() })?;
    let partition = wait_for_partition(machine, disk, place.number)?;
    let entries: Vec<Entry> = find_loaders(machine, &partition)?
        .into_iter()
        .map(|loader| Entry { description: loader.label, place, loader: loader.path })
        .collect();
    if !entries.is_empty() {
        write(machine.efi_variables()?.as_ref(), &entries)?;
    }
    Ok(entries)
}

/// The loaders of an EFI system partition.
///
/// # Errors
/// It cannot be mounted or read.
pub fn find_loaders(machine: &dyn Machine, partition: &str) -> Result<Vec<Loader>, BootError> {
    let mut found = esp::Esp::default();
    machine.look_into(partition, "vfat", &mut |folder| {
        found = esp::read(folder)?;
        Ok(())
    })?;
    Ok(loader::loaders(&found))
}

/// The partition's device, once the kernel has it.
///
/// # Errors
/// [`BootError::NoDevice`] after ten seconds.
pub fn wait_for_partition(machine: &dyn Machine, disk: &str, number: u32) -> Result<String, BootError> {
    let partition = table::partition_name(disk, number);
    let end = Instant::now() + PARTITION_WAIT;
    machine.reread_partitions(disk)?;
    while !machine.partitions(disk)?.contains(&partition) {
        if Instant::now() >= end {
            return Err(BootError::NoDevice { disk: disk.to_owned(), partition });
        }
        std::thread::sleep(PARTITION_PAUSE);
    }
    Ok(partition)
}

/// Has the firmware try these first.
///
/// # Errors
/// As [`install`].
pub fn write(variables: &dyn EfiVariables, entries: &[Entry]) -> Result<(), BootError> {
    let existing = existing(variables)?;
    for change in plan::plan(&existing, &order(variables)?, entries).ok_or(BootError::Full)? {
        carry_out(variables, change)?;
    }
    Ok(())
}

fn failed(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> BootError {
    let name = name.to_owned();
    move |source| BootError::Variable { action, name, source }
}

/// The entries by number.
fn existing(variables: &dyn EfiVariables) -> Result<BTreeMap<u16, Vec<u8>>, BootError> {
    let mut existing = BTreeMap::new();
    for name in variables.names().map_err(failed("listing", "Boot####"))? {
        if let Some(number) = plan::number(&name)
            && let Some(bytes) = variables.read(&name).map_err(failed("reading", &name))?
        {
            existing.insert(number, bytes);
        }
    }
    Ok(existing)
}

fn order(variables: &dyn EfiVariables) -> Result<Vec<u8>, BootError> {
    Ok(variables.read(plan::ORDER).map_err(failed("reading", plan::ORDER))?.unwrap_or_default())
}

fn carry_out(variables: &dyn EfiVariables, change: Change) -> Result<(), BootError> {
    match change {
        Change::Write(name, bytes) => {
            variables.write(&name, &bytes).map_err(failed("writing", &name))?;
            // Some firmware says yes and keeps what it had.
            match variables.read(&name).map_err(failed("reading", &name))?.as_ref() == Some(&bytes) {
                true => Ok(()),
                false => Err(BootError::ReadBack(name)),
            }
        }
        Change::Remove(name) => variables.remove(&name).map_err(failed("removing", &name)),
    }
}

#[cfg(test)]
mod tests;
