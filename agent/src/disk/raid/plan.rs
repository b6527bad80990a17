//! Lays arrays out on disks: which partition lies where, which array is made of which. Pure.

use super::RaidError;
use super::wanted::{Size, Volume};
use crate::disk::choose::candidate;
use crate::platform::machine::DiskFacts;
use ferric_common::units::{ByteCount, GIB, MIB};

/// Before the first partition of a machine that UEFI starts: room for an EFI system partition of 550 MiB.
const UEFI_START: u64 = 551 * MIB;
/// With a GPT on a machine that a BIOS starts: room for a boot loader's partition.
const BIOS_GPT_START: u64 = 8 * MIB;
const MBR_START: u64 = MIB;
/// The largest place that an MBR can name, in sectors.
const MBR_SECTORS: u64 = u32::MAX as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Gpt { uefi: bool },
    Mbr,
}

/// What a disk becomes: partitions by first byte and end, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlan {
    pub disk: String,
    pub partitions: Vec<(u64, u64)>,
    /// Room for an EFI system partition; the last in the table, so that the arrays' partitions are numbered as ever.
    pub system: Option<(u64, u64)>,
}

/// One array of partitions: for each the disk and the place among its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayPlan {
    pub name: String,
    pub level: &'static str,
    pub members: Vec<(String, usize)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub disks: Vec<DiskPlan>,
    pub arrays: Vec<ArrayPlan>,
}

/// Chooses the disks and places the partitions. A size in GiB is where the first partition of a disk ends (so it is smaller
/// by the room before it), and what is added by the second; that is upstream's reckoning.
///
/// # Errors
/// [`RaidError::NoDisk`], [`RaidError::NoRoom`].
pub fn lay_out(volumes: &[Volume], disks: &[DiskFacts], table: Table) -> Result<Layout, RaidError> {
    let mut layout = Layout::default();
    for (nth, volume) in volumes.iter().enumerate() {
        let name = volume.name.clone().unwrap_or_else(|| format!("md{nth}"));
        let chosen = choose(volume, disks)?;
        if chosen.len() < volume.level.least_disks() {
            let why = format!(
                "RAID {} needs {} disks, {} are there",
                volume.level.number(),
                volume.level.least_disks(),
                chosen.len()
            );
            return Err(RaidError::NoRoom { volume: name, disk: "this machine".to_owned(), why });
        }
        let mut members = Vec::new();
        for facts in chosen {
            let place = layout.place(facts, volume.size, table).map_err(|why| RaidError::NoRoom {
                volume: name.clone(),
                disk: facts.disk.name.clone(),
                why,
            })?;
            members.push((facts.disk.name.clone(), place));
        }
        layout.arrays.push(ArrayPlan { name, level: volume.level.number(), members });
    }
    Ok(layout)
}

/// The disks of a volume: for each of its hints the first that fits and is not taken, or all.
fn choose<'a>(volume: &Volume, disks: &'a [DiskFacts]) -> Result<Vec<&'a DiskFacts>, RaidError> {
    let Some(choices) = &volume.disks else { return Ok(disks.iter().collect()) };
    let mut chosen: Vec<&DiskFacts> = Vec::new();
    for hints in choices {
        let mut why = Vec::new();
        let found = disks.iter().find(|facts| {
            if chosen.iter().any(|other| other.disk.name == facts.disk.name) {
                why.push(format!("{} is chosen already", facts.disk.name));
                return false;
            }
            match hints.check(&candidate(facts)) {
                Ok(()) => true,
                Err(reason) => {
                    why.push(format!("{}: {reason}", facts.disk.name));
                    false
                }
            }
        });
        match found {
            Some(facts) => chosen.push(facts),
            None => {
                let why = if why.is_empty() { "there is no disk".to_owned() } else { why.join("; ") };
                return Err(RaidError::NoDisk { hints: hints.to_string(), why });
            }
        }
    }
    Ok(chosen)
}

impl Layout {
    /// Adds a partition to a disk and returns its place.
    fn place(&mut self, facts: &DiskFacts, size: Size, table: Table) -> Result<usize, String> {
        let name = &facts.disk.name;
        let at = match self.disks.iter().position(|plan| plan.disk == *name) {
            Some(at) => at,
            None => {
                let system = (table == Table::Gpt { uefi: true }).then_some((MIB, UEFI_START));
                self.disks.push(DiskPlan { disk: name.clone(), partitions: Vec::new(), system });
                self.disks.len() - 1
            }
        };
        let Some(plan) = self.disks.get_mut(at) else { return Err("it was lost".to_owned()) };
        let (start, base) = match plan.partitions.last() {
            Some((_, end)) => (*end, *end),
            None => (first_byte(table), 0),
        };
        let limit = last_byte(facts, table);
        let end = match size {
            Size::Gib(gib) => gib.checked_mul(GIB).and_then(|size| base.checked_add(size)),
            Size::Rest => Some(limit),
        };
        match end.filter(|end| *end > start && *end <= limit) {
            Some(end) => {
                plan.partitions.push((start, end));
                Ok(plan.partitions.len() - 1)
            }
            None => Err(format!(
                "of its {} up to byte {limit} can be used, from byte {start} on",
                ByteCount(facts.disk.size)
            )),
        }
    }
}

fn first_byte(table: Table) -> u64 {
    match table {
        Table::Gpt { uefi: true } => UEFI_START,
        Table::Gpt { uefi: false } => BIOS_GPT_START,
        Table::Mbr => MBR_START,
    }
}

/// The last MiB stays free: there is the backup of a GPT.
fn last_byte(facts: &DiskFacts, table: Table) -> u64 {
    let end = facts.disk.size.saturating_sub(MIB) / MIB * MIB;
    let sector = u64::from(facts.disk.logical_sectors.max(512));
    match table {
        Table::Gpt { .. } => end,
        Table::Mbr => end.min(MBR_SECTORS * sector / MIB * MIB),
    }
}
