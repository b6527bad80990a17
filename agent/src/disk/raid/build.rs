//! Makes the arrays that a node wants.

use super::plan::{self, ArrayPlan, DiskPlan, Layout, Table};
use super::wanted::{self, Volume};
use super::{Node, RaidError, partitions, remove};
use crate::disk::choose::candidate;
use crate::disk::{aligned, look, wipe};
use crate::platform::block::BlockDevice;
use crate::platform::drive::ArrayOrder;
use crate::platform::machine::{DiskFacts, Machine};
use ferric_common::formats::gpt::{self, Gpt, SYSTEM_PARTITION};
use ferric_common::formats::mbr;
use ferric_common::hints::SkipList;
use ferric_common::units::{DiskOffset, MIB};
use serde_json::{Map, Value, json};

/// Linux RAID, `A19D880F-05FC-4D3B-A006-743F0F84911E`, in on-disk byte order.
const LINUX_RAID: [u8; 16] =
    [0x0f, 0x88, 0x9d, 0xa1, 0xfc, 0x05, 0x3b, 0x4d, 0xa0, 0x06, 0x74, 0x3f, 0x0f, 0x84, 0x91, 0x1e];
/// Linux RAID in an MBR.
const LINUX_RAID_MBR: u8 = 0xfd;

/// Makes what `config` wants. Returns it with its logical disks in the order in which they were made, or `{}` if it wants
/// no software RAID.
///
/// # Errors
/// [`RaidError`]. After one of `Partitioning` or `Making` disks are half done: delete the configuration, then try again.
pub fn create(machine: &dyn Machine, node: &Node<'_>, config: &Value) -> Result<Value, RaidError> {
    let Some((volumes, layout)) = planned(machine, node, config)? else { return Ok(json!({})) };
    refuse_used(machine, &layout)?;
    build(machine, &layout, table(node))?;
    let given: Vec<Value> = volumes.into_iter().map(|volume| volume.given).collect();
    let mut answer = config.as_object().cloned().unwrap_or_default();
    answer.insert("logical_disks".to_owned(), Value::Array(given));
    Ok(Value::Object(answer))
}

/// Checks `config`, takes existing arrays away unless they are to stay, and makes it.
///
/// # Errors
/// As [`create`] and [`remove::delete`]; a configuration that breaks a rule, or has no room, before anything is taken away.
pub fn apply(
    machine: &dyn Machine,
    node: &Node<'_>,
    config: &Value,
    delete_existing: bool,
) -> Result<Value, RaidError> {
    planned(machine, node, config)?;
    if delete_existing {
        remove::delete(machine, node)?;
    }
    create(machine, node, config)
}

/// The wanted volumes, and where those of them come to lie that are not there yet; `None` without software RAID.
fn planned(
    machine: &dyn Machine,
    node: &Node<'_>,
    config: &Value,
) -> Result<Option<(Vec<Volume>, Layout)>, RaidError> {
    let skip = skip_list(node)?;
    let volumes = wanted::parse(config, !skip.volume_names.is_empty())
        .map_err(|faults| RaidError::Invalid { node: node.uuid.to_owned(), faults: faults.join("; ") })?;
    let Some(volumes) = volumes else { return Ok(None) };
    let existing = kept(machine, &skip)?;
    let is_new = |volume: &&Volume| volume.name.as_ref().is_none_or(|name| !existing.contains(name));
    let missing: Vec<Volume> = volumes.iter().filter(is_new).cloned().collect();
    let layout = plan::lay_out(&missing, &disks(machine, &skip)?, table(node))?;
    Ok(Some((volumes, layout)))
}

pub(super) fn skip_list(node: &Node<'_>) -> Result<SkipList, RaidError> {
    let empty = Map::new();
    let properties = node.fields.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    SkipList::parse(properties).map_err(RaidError::SkipList)
}

/// Disks that arrays may be made of.
pub(super) fn disks(machine: &dyn Machine, skip: &SkipList) -> Result<Vec<DiskFacts>, RaidError> {
    let mut disks = machine.disks().map_err(RaidError::Listing)?;
    disks.retain(|facts| {
        !facts.read_only && !look::is_array(&facts.disk.name) && !skip.skips(&candidate(facts))
    });
    Ok(disks)
}

/// Names of arrays that the node's skip list keeps and that are there.
fn kept(machine: &dyn Machine, skip: &SkipList) -> Result<Vec<String>, RaidError> {
    if skip.volume_names.is_empty() {
        return Ok(Vec::new());
    }
    machine.assemble_arrays().map_err(RaidError::Listing)?;
    let names = machine.arrays().into_iter().filter_map(|device| machine.array_name(&device));
    Ok(names.filter(|name| skip.volume_names.contains(name)).collect())
}

/// GPT for UEFI; else what the node's capability `disk_label` says, MBR if it says nothing.
fn table(node: &Node<'_>) -> Table {
    let says = |key: &str| {
        let text = |part: &str| {
            node.fields.pointer(&format!("/{part}/capabilities")).and_then(|caps| word(caps, key))
        };
        text("instance_info").or_else(|| text("properties"))
    };
    let deploy = |part: &str| {
        let mode = node.fields.pointer(&format!("/{part}/deploy_boot_mode"));
        mode.and_then(Value::as_str).map(str::to_owned)
    };
    let mode =
        deploy("instance_info").or_else(|| says("boot_mode")).or_else(|| deploy("driver_internal_info"));
    let uefi = mode.map_or(node.uefi, |mode| mode.eq_ignore_ascii_case("uefi"))
        || says("secure_boot").is_some_and(|says| says.eq_ignore_ascii_case("true"));
    match (uefi, says("disk_label").as_deref()) {
        (true, _) => Table::Gpt { uefi: true },
        (false, Some("gpt")) => Table::Gpt { uefi: false },
        (false, _) => Table::Mbr,
    }
}

/// A capability, from an object or from `name:value,name:value`.
fn word(capabilities: &Value, key: &str) -> Option<String> {
    match capabilities {
        Value::Object(map) => map.get(key).and_then(Value::as_str).map(str::to_owned),
        Value::String(text) => text
            .split(',')
            .filter_map(|pair| pair.split_once(':'))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned()),
        _ => None,
    }
}

/// Nothing is done to disks that hold something.
fn refuse_used(machine: &dyn Machine, layout: &Layout) -> Result<(), RaidError> {
    let mut partitioned = Vec::new();
    for plan in &layout.disks {
        if let Some(holder) = machine.holders(&plan.disk).map_err(RaidError::Listing)?.first() {
            return Err(RaidError::InUse { device: plan.disk.clone(), by: holder.name.clone() });
        }
        if !machine.partitions(&plan.disk).map_err(RaidError::Listing)?.is_empty() {
            partitioned.push(plan.disk.as_str());
        }
    }
    if partitioned.is_empty() { Ok(()) } else { Err(RaidError::Partitions(partitioned.join(", "))) }
}

fn build(machine: &dyn Machine, layout: &Layout, table: Table) -> Result<(), RaidError> {
    let mut found = Vec::new();
    for (nth, plan) in layout.disks.iter().enumerate() {
        partition(machine, plan, nth, table)?;
        let names =
            partitions(machine, &plan.disk, plan.partitions.len() + usize::from(plan.system.is_some()))?;
        for name in &names {
            blank(machine, name)?;
        }
        found.push((plan.disk.as_str(), names));
    }
    for array in &layout.arrays {
        make(machine, array, &found)?;
    }
    Ok(())
}

fn partition(machine: &dyn Machine, plan: &DiskPlan, nth: usize, table: Table) -> Result<(), RaidError> {
    let failed = |why: String| RaidError::Partitioning { disk: plan.disk.clone(), why };
    let disk = machine.open_disk(&plan.disk).map_err(|error| failed(wipe::chain(&error)))?;
    wipe::metadata(disk.as_ref()).map_err(|error| failed(wipe::chain(&error)))?;
    let writes = match table {
        Table::Gpt { .. } => gpt_writes(disk.as_ref(), plan, nth).map_err(|e| failed(e.to_string()))?,
        Table::Mbr => vec![(0, mbr_head(disk.as_ref(), &plan.partitions))],
    };
    for (at, bytes) in writes {
        aligned::write(disk.as_ref(), DiskOffset(at), &bytes)
            .map_err(|error| failed(format!("writing the partition table: {error}")))?;
    }
    disk.flush().map_err(|error| failed(format!("flushing the partition table: {error}")))?;
    drop(disk);
    machine.reread_partitions(&plan.disk).map_err(|error| failed(wipe::chain(&error)))
}

/// Backup, then primary table with its protective MBR: bytes by place.
fn gpt_writes(
    disk: &dyn BlockDevice,
    plan: &DiskPlan,
    nth: usize,
) -> Result<Vec<(u64, Vec<u8>)>, gpt::GptError> {
    let sector = disk.sector_size();
    let unit = u64::from(sector.0.max(1));
    let sectors = disk.size().0 / unit;
    let mut table = Gpt::new(sectors, sector, random())?;
    let raid = plan.partitions.iter().map(|range| (LINUX_RAID, "raid".to_owned(), range));
    let system = plan.system.iter().map(|range| (SYSTEM_PARTITION, format!("uefi-holder-{nth}"), range));
    for (type_guid, name, (first, end)) in raid.chain(system) {
        let (first, last) = (first / unit, end / unit - 1);
        table.add(&gpt::Partition { number: 0, type_guid, guid: random(), first, last, name })?;
    }
    let mut head = vec![0; MIB as usize];
    mbr::sign(&mut head);
    let count = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr::add(&mut head, &mbr::Entry { number: 1, kind: mbr::PROTECTIVE, first: 1, count });
    table.render_primary(&mut head);
    let (at, backup) = table.render_backup();
    Ok(vec![(at * unit, backup), (0, head)])
}

fn mbr_head(disk: &dyn BlockDevice, partitions: &[(u64, u64)]) -> Vec<u8> {
    let unit = u64::from(disk.sector_size().0.max(1));
    let mut head = vec![0; mbr::SIZE];
    mbr::sign(&mut head);
    // The planner keeps every place below what an MBR can name.
    let sectors = |bytes: u64| u32::try_from(bytes / unit).unwrap_or(u32::MAX);
    for (number, (first, end)) in (1u8..).zip(partitions) {
        let entry =
            mbr::Entry { number, kind: LINUX_RAID_MBR, first: sectors(*first), count: sectors(end - first) };
        mbr::add(&mut head, &entry);
    }
    head
}

/// In on-disk byte order; of a random GUID every order is one.
fn random() -> [u8; 16] {
    *uuid::Uuid::new_v4().as_bytes()
}

/// An old superblock in a partition that comes to lie where one was would be assembled as what it was.
fn blank(machine: &dyn Machine, partition: &str) -> Result<(), RaidError> {
    let failed = |why: String| RaidError::Partitioning { disk: partition.to_owned(), why };
    let device = machine.open_disk(partition).map_err(|error| failed(wipe::chain(&error)))?;
    wipe::metadata(device.as_ref()).map(|_| ()).map_err(|error| failed(wipe::chain(&error)))
}

fn make(machine: &dyn Machine, array: &ArrayPlan, found: &[(&str, Vec<String>)]) -> Result<(), RaidError> {
    let member = |(disk, place): &(String, usize)| {
        let (_, names) = found.iter().find(|(name, _)| name == disk)?;
        names.get(*place).cloned()
    };
    let members: Vec<String> = array.members.iter().filter_map(member).collect();
    let order = ArrayOrder {
        device: free_name(machine),
        name: array.name.clone(),
        level: array.level,
        metadata: "1.2",
        members,
    };
    machine.make_array(&order).map_err(|source| RaidError::Making {
        device: order.device.clone(),
        members: order.members.join(", "),
        source,
    })?;
    tracing::info!(
        "made {} (RAID {}, {}) of {}",
        order.device,
        order.level,
        order.name,
        order.members.join(", ")
    );
    Ok(())
}

/// The first `/dev/md<number>` that no array has.
pub fn free_name(machine: &dyn Machine) -> String {
    let taken = machine.arrays();
    let mut names = (0..=taken.len()).map(|number| format!("/dev/md{number}"));
    names.find(|name| !taken.contains(name)).unwrap_or_else(|| "/dev/md127".to_owned())
}
