//! Makes disks look empty: blanks partition tables, file systems' and volume managers' signatures, both ends.
//!
//! Not secure erasure: content between the ends stays. Which bytes are signatures is `ferric_common::formats::signatures`.
//! Rules of ironic-python-agent's `erase_devices_metadata`, with two changes towards safety: everything is looked at
//! before anything is wiped, and a protected file system is found however its partition's type is spelt.

use super::aligned;
use super::choose::candidate;
use super::holders::{self, Held};
use super::kept::{self, Kept};
use super::look::{self, Device, Look};
use super::member::{self, Fate};
use super::stays::{Stays, Tie};
use crate::platform::block::BlockDevice;
use crate::platform::machine::{DiskFacts, Machine, MachineError};
use ferric_common::formats::signatures::{self, Spot};
use ferric_common::hints::{HintError, SkipList};
use ferric_common::units::{ByteCount, DiskOffset, MIB};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io;

/// What stood on a device before it was blanked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WipeReport {
    pub device: String,
    /// `GPT`, `ext2/3/4`, …, each once.
    pub found: Vec<&'static str>,
}

/// Why a device is not known to be blank.
#[derive(Debug, thiserror::Error)]
pub enum WipeError {
    #[error("{action} {device} at byte {at}")]
    Device {
        action: &'static str,
        device: String,
        at: DiskOffset,
        #[source]
        source: io::Error,
    },
    #[error(
        "{device} took the zeros, but {what} still reads back at byte {at}: the device does not keep what is written"
    )]
    Remains { device: String, what: &'static str, at: DiskOffset },
}

/// Why an erase step did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("listing the disks to erase")]
    List(#[source] MachineError),
    #[error(
        "the node keeps its software RAID arrays, and they could not be looked for, so nothing is erased"
    )]
    Arrays(#[source] MachineError),
    #[error("skip_block_devices of the node cannot be read, so nothing is erased")]
    SkipList(#[source] HintError),
    /// Nothing was erased, on any device.
    #[error(
        "Protected {what} located on device {device}. Nothing was erased. Detach the volume, or set \
         wipe_special_filesystems to true in the node's driver_internal_info to have it erased."
    )]
    Protected { what: &'static str, device: String },
    #[error("Failed to erase the metadata on the device(s): {0}")]
    Failed(String),
    #[error("Failed to erase the device(s): {0}")]
    Disks(String),
}

/// Blanks the first and last MiB of a device and every signature in between, then reads back that they are gone.
///
/// # Errors
/// [`WipeError`] names the step and the byte. The device may be half blank then.
pub fn metadata(disk: &dyn BlockDevice) -> Result<WipeReport, WipeError> {
    let ends = Ends::of(disk);
    let found = scan(disk)?;
    let zeros = vec![0; MIB as usize];
    let blank = |at: u64, length: u64| {
        let zeros = zeros.get(..length as usize).unwrap_or(&zeros);
        aligned::write(disk, DiskOffset(at), zeros).map_err(|source| failed(disk, "blanking", at, source))
    };
    // The head last: until then the old table says that the disk is not blank yet.
    for spot in found.iter().filter(|spot| ends.is_between(spot)) {
        blank(spot.at, spot.magic.len() as u64)?;
    }
    blank(ends.tail, ends.size - ends.tail)?;
    blank(0, ends.head)?;
    disk.flush().map_err(|source| failed(disk, "flushing", 0, source))?;

    let remains = |what, at| WipeError::Remains { device: disk.name().into(), what, at: DiskOffset(at) };
    for (at, length) in [(0, ends.head), (ends.tail, ends.size - ends.tail)] {
        let bytes = read(disk, at, length)?;
        // Compared as a whole first: that is one memcmp.
        if Some(bytes.as_slice()) != zeros.get(..bytes.len()) {
            let offset = bytes.iter().position(|&b| b != 0).unwrap_or(0);
            return Err(remains("an old byte", at + offset as u64));
        }
    }
    if let Some(spot) = scan(disk)?.first() {
        return Err(remains(spot.what, spot.at));
    }
    Ok(WipeReport { device: disk.name().into(), found: names(&found) })
}

/// Blanks the metadata of all disks and their partitions, in reverse order of their names (partitions first).
///
/// Left alone: disks in the node's `skip_block_devices`, read-only ones, the conductor's virtual floppy, and members of
/// software RAID arrays with their disks if the node is meant to keep its arrays; and other paths to any of these. Returns
/// `null`, as upstream does.
///
/// # Errors
/// [`EraseError`]: a protected file system anywhere (then nothing is erased), or the list of devices that failed.
pub fn erase_devices_metadata(machine: &dyn Machine, node: &Value) -> Result<Value, EraseError> {
    let empty = Map::new();
    let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let skip = SkipList::parse(properties).map_err(EraseError::SkipList)?;
    let rules = holders::Rules {
        keeps_arrays: look::keeps_arrays(node, &skip.volume_names),
        insists: look::insists(node),
    };
    kept::run_arrays(machine, rules)?;
    let mut failures = Vec::new();
    let devices = released(machine, &skip, rules, &mut failures)?;
    for device in looked_at(machine, devices, &skip, rules, &mut failures)? {
        erase(machine, &device, &mut failures);
    }
    if failures.is_empty() { Ok(Value::Null) } else { Err(EraseError::Failed(failures.join("; "))) }
}

/// Takes down what stands on the disks that are to be erased; these and their partitions, in reverse order of their names. What
/// cannot be had goes to `failures`.
fn released(
    machine: &dyn Machine,
    skip: &SkipList,
    rules: holders::Rules,
    failures: &mut Vec<String>,
) -> Result<Vec<Device>, EraseError> {
    let disks = machine.disks().map_err(EraseError::List)?;
    let kept = Kept { machine, disks: &disks, volume_names: &skip.volume_names };
    let (mut devices, mut free, mut stays) = (Vec::new(), Vec::new(), Stays::default());
    for facts in &disks {
        let name = &facts.disk.name;
        if let Some(why) = left_alone(machine, facts, skip) {
            tracing::info!(disk = name, "left alone: {why}");
            stays.add(facts);
            continue;
        }
        if !rules.keeps_arrays && look::is_array(name) {
            // A leftover: it goes with the first of its members.
            continue;
        }
        match holders::take_down(machine, name, rules) {
            Ok(arrays) if arrays.is_empty() => free.push(facts),
            Ok(arrays) => {
                tracing::info!(disk = name, "left alone: under {}", arrays.join(", "));
                stays.add(facts);
                let asleep = kept.asleep(&arrays).map(|array| kept::not_running(name, array));
                failures.extend(asleep.map(|why| format!("\"{name}\": {why}")));
                let partitions = machine.partitions(name).map_err(EraseError::List)?;
                let beside = kept::beside(machine, name, partitions).map_err(EraseError::List)?;
                devices.extend(beside.into_iter().map(Device::partition));
            }
            Err(Held::Stop(error)) => return Err(error),
            Err(Held::Busy(why)) => {
                stays.add(facts);
                failures.push(format!("\"{name}\": {why}"));
            }
        }
    }
    for facts in free {
        let name = &facts.disk.name;
        match stays.tie(machine, facts) {
            Tie::Free => {
                let partitions = machine.partitions(name).map_err(EraseError::List)?;
                devices.push(Device::disk(name, &partitions));
                devices.extend(partitions.into_iter().map(Device::partition));
            }
            Tie::Path(why) => tracing::info!(disk = name, "left alone: {why}"),
            Tie::Unclear(why) => failures.push(format!("\"{name}\": {why}")),
        }
    }
    devices.sort_by(|a, b| b.name.cmp(&a.name));
    Ok(devices)
}

/// Why nothing is done to a disk.
fn left_alone(machine: &dyn Machine, facts: &DiskFacts, skip: &SkipList) -> Option<&'static str> {
    if skip.skips(&candidate(facts)) || facts.read_only {
        return Some("read-only or in skip_block_devices");
    }
    if look::is_virtual_media(facts) {
        return Some("virtual media of the BMC");
    }
    look::is_kept_array(machine, &facts.disk.name, &skip.volume_names)
        .then_some("an array in skip_block_devices")
}

/// Those that may be erased, by what is on them. Each is opened by itself: a partition and its disk cannot be held exclusively
/// together.
fn looked_at(
    machine: &dyn Machine,
    devices: Vec<Device>,
    skip: &SkipList,
    rules: holders::Rules,
    failures: &mut Vec<String>,
) -> Result<Vec<Device>, EraseError> {
    let disks = machine.disks().map_err(EraseError::List)?;
    let (mut erasable, mut members) = (Vec::new(), BTreeSet::new());
    for device in devices {
        match device.look(machine) {
            Ok(Look::Protected(what)) if !rules.insists => {
                return Err(EraseError::Protected { what, device: device.name });
            }
            Ok(Look::RaidMember) if rules.keeps_arrays => {
                let name = device.name;
                match member::fate(machine, &disks, &skip.volume_names, &name) {
                    Fate::Named(why) | Fate::Lost(why) => {
                        tracing::warn!(device = name, "left alone: {why}");
                    }
                    Fate::Wanted => {
                        let why = kept::not_running(&name, "a software RAID array");
                        failures.push(format!("\"{name}\": {why}"));
                    }
                }
                members.insert(name);
            }
            Ok(Look::VirtualFloppy) => {
                tracing::info!(device = device.name, "left alone: it is the conductor's virtual floppy")
            }
            Ok(_) => erasable.push(device),
            Err(why) => {
                failures.push(format!("\"{}\": {why}", device.name));
                members.extend(Some(device.name).filter(|_| rules.keeps_arrays));
            }
        }
    }
    // The table of a disk is what its members are found by; a partition that cannot be looked at may be one.
    let is_over_members = |device: &Device| device.partitions.iter().any(|part| members.contains(part));
    let mut chains = Vec::new();
    for device in erasable.extract_if(.., |device| is_over_members(device)) {
        tracing::warn!(device = device.name, "left alone: it has members of a software RAID array");
        // Nor may what leads to the logical ones among them be lost.
        chains.extend(kept::extended(machine, &device.name).unwrap_or(device.partitions));
    }
    erasable.retain(|device| !chains.contains(&device.name));
    Ok(erasable)
}

fn erase(machine: &dyn Machine, device: &Device, failures: &mut Vec<String>) {
    let report = device.open(machine).and_then(|disk| metadata(disk.as_ref()).map_err(|e| chain(&e)));
    match report {
        Ok(report) => tracing::info!(device = device.name, found = ?report.found, "metadata erased"),
        Err(why) => failures.push(format!("\"{}\": {why}", device.name)),
    }
    if device.is_disk
        && let Err(e) = machine.reread_partitions(&device.name)
    {
        tracing::warn!(device = device.name, "the kernel keeps the old partitions: {}", chain(&e));
    }
}

/// The two stretches that are blanked whole. On a small device they meet.
struct Ends {
    size: u64,
    /// Bytes at the start.
    head: u64,
    /// Where the end's stretch begins.
    tail: u64,
}

impl Ends {
    fn of(disk: &dyn BlockDevice) -> Ends {
        let size = disk.size().0;
        let head = size.min(MIB);
        Ends { size, head, tail: size.saturating_sub(MIB).max(head) }
    }

    fn is_between(&self, spot: &Spot) -> bool {
        spot.at + spot.magic.len() as u64 > self.head && spot.at < self.tail
    }
}

/// Every signature that stands on the device.
pub(super) fn scan(disk: &dyn BlockDevice) -> Result<Vec<Spot>, WipeError> {
    let ends = Ends::of(disk);
    let head = read(disk, 0, ends.head)?;
    let tail = read(disk, ends.tail, ends.size - ends.tail)?;
    let mut found = Vec::new();
    for spot in signatures::spots(ends.size) {
        let length = spot.magic.len();
        let part = |bytes: &[u8], at: u64| bytes.get(at as usize..at as usize + length) == Some(spot.magic);
        let is_there = if ends.is_between(&spot) {
            read(disk, spot.at, length as u64)? == spot.magic
        } else if spot.at < ends.head {
            part(&head, spot.at)
        } else {
            part(&tail, spot.at - ends.tail)
        };
        if is_there {
            found.push(spot);
        }
    }
    Ok(found)
}

pub(super) fn read(disk: &dyn BlockDevice, at: u64, length: u64) -> Result<Vec<u8>, WipeError> {
    aligned::read(disk, DiskOffset(at), ByteCount(length))
        .map_err(|source| failed(disk, "reading", at, source))
}

fn failed(disk: &dyn BlockDevice, action: &'static str, at: u64, source: io::Error) -> WipeError {
    WipeError::Device { action, device: disk.name().into(), at: DiskOffset(at), source }
}

fn names(found: &[Spot]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for spot in found {
        if !names.contains(&spot.what) {
            names.push(spot.what);
        }
    }
    names
}

/// An error with its causes in one line, for the list of failures.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
