//! Which disks are erased, which are left alone and why. Looks at all of them before any is touched.

use super::ata;
use super::nvme::{Abilities, drive_of};
use super::paths;
use super::plan::{Kind, Plan, plan};
use super::settings::Settings;
use crate::disk::choose::candidate;
use crate::disk::holders::{self, Held};
use crate::disk::kept::{self, Kept};
use crate::disk::look::{self, Device, Look};
use crate::disk::member::{self, Fate};
use crate::disk::stays::{Stays, Tie};
use crate::disk::wipe::EraseError;
use crate::platform::machine::{DiskFacts, Machine};
use ferric_common::hints::SkipList;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A disk, or a partition beside an array that stays, and how it is erased.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    /// Or a partition by itself.
    pub is_disk: bool,
    pub plan: Plan,
    /// What seems to be the same disk by other paths.
    pub paths: Vec<Target>,
}

/// All disks of the machine, but for those that the node's skip list hides.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pub erase: Vec<Target>,
    /// Name and reason.
    pub left: Vec<(String, String)>,
    pub failures: Vec<(String, String)>,
}

enum Verdict {
    Erase,
    Left(String),
    /// It stays under kept arrays; these partitions of it are in none.
    Under {
        why: String,
        beside: Vec<String>,
    },
    Failed(String),
}

/// Chooses. Mappings and leftover arrays on the disks are taken down on the way.
///
/// # Errors
/// [`EraseError`]: nothing may be erased at all.
pub fn choose(machine: &dyn Machine, node: &Value, settings: &Settings) -> Result<Targets, EraseError> {
    let empty = Map::new();
    let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let skip = SkipList::parse(properties).map_err(EraseError::SkipList)?;
    let rules = holders::Rules {
        keeps_arrays: look::keeps_arrays(node, &skip.volume_names),
        insists: look::insists(node),
    };
    kept::run_arrays(machine, rules)?;
    let mut targets = Targets::default();
    let (mut chosen, mut beside, mut stays) = (Vec::new(), Vec::new(), Stays::default());
    let disks = machine.disks().map_err(EraseError::List)?;
    let kept = Kept { machine, disks: &disks, volume_names: &skip.volume_names };
    for facts in &disks {
        let name = facts.disk.name.clone();
        if skip.skips(&candidate(facts)) || look::is_kept_array(machine, &name, &skip.volume_names) {
            tracing::info!(disk = name, "left alone: in skip_block_devices");
            stays.add(facts);
            continue;
        }
        if !rules.keeps_arrays && look::is_array(&name) {
            // A leftover: it goes with the first of its members.
            continue;
        }
        match judge(&kept, facts, settings, rules)? {
            Verdict::Erase => chosen.push(facts),
            Verdict::Left(why) => {
                stays.add(facts);
                targets.left.push((name, why));
            }
            Verdict::Under { why, beside: partitions } => {
                stays.add(facts);
                targets.left.push((name, why));
                beside.extend(partitions);
            }
            Verdict::Failed(why) => {
                stays.add(facts);
                targets.failures.push((name, why));
            }
        }
    }
    let free = untied(machine, chosen, &mut stays, &mut targets);
    targets.erase = grouped(machine, &free, settings, &stays);
    // A drive's own command would take its array along.
    let partition = |name| {
        let plan = plan(&Kind::Plain, settings);
        Target { name, plan, is_disk: false, paths: Vec::new() }
    };
    targets.erase.extend(beside.into_iter().map(partition));
    Ok(targets)
}

/// Those that are no paths to disks that stay, as far as anybody can tell; the others stay, too.
fn untied<'a>(
    machine: &dyn Machine,
    chosen: Vec<&'a DiskFacts>,
    stays: &mut Stays<'a>,
    targets: &mut Targets,
) -> Vec<&'a DiskFacts> {
    let (mut free, mut tied) = (Vec::new(), Vec::new());
    for facts in chosen {
        let name = facts.disk.name.clone();
        match stays.tie(machine, facts) {
            Tie::Free => {
                free.push(facts);
                continue;
            }
            Tie::Path(why) => targets.left.push((name, why)),
            Tie::Unclear(why) => targets.failures.push((name, why)),
        }
        tied.push(facts);
    }
    tied.into_iter().for_each(|facts| stays.add(facts));
    free
}

/// One target for what seem to be the paths to one disk.
fn grouped(
    machine: &dyn Machine,
    free: &[&DiskFacts],
    settings: &Settings,
    stays: &Stays<'_>,
) -> Vec<Target> {
    let (mut erase, mut groups): (Vec<Target>, BTreeMap<_, usize>) = (Vec::new(), BTreeMap::new());
    for facts in free {
        let (name, identity) = (facts.disk.name.clone(), paths::identity(facts));
        let plan = plan(&kind(machine, facts, settings, stays), settings);
        let target = Target { plan, name, is_disk: true, paths: Vec::new() };
        let group = identity.map(|identity| *groups.entry(identity).or_insert(erase.len()));
        match group.and_then(|group| erase.get_mut(group)) {
            Some(first) => first.paths.push(target),
            None => erase.push(target),
        }
    }
    erase
}

fn judge(
    kept: &Kept<'_>,
    facts: &DiskFacts,
    settings: &Settings,
    rules: holders::Rules,
) -> Result<Verdict, EraseError> {
    let (machine, name) = (kept.machine, &facts.disk.name);
    if look::is_virtual_media(facts) {
        return Ok(Verdict::Left("it is virtual media of the BMC".into()));
    }
    if facts.read_only {
        return Ok(match settings.skip_read_only {
            true => Verdict::Left("it is read-only".into()),
            false => Verdict::Failed(format!(
                "Failed to invoke erase of device {name} as the device is flagged read-only, and the conductor has not \
                 signaled this is a permitted case (erase_skip_read_only)"
            )),
        });
    }
    match holders::take_down(machine, name, rules) {
        Ok(arrays) if arrays.is_empty() => {}
        Ok(arrays) => {
            return Ok(match kept.asleep(&arrays) {
                Some(array) => Verdict::Failed(kept::not_running(name, array)),
                None => under(kept, name, &arrays, rules)?,
            });
        }
        Err(Held::Stop(error)) => return Err(error),
        Err(Held::Busy(why)) => return Ok(Verdict::Failed(why)),
    }
    // Nothing can be read from a drive that an interrupted erase left locked.
    if settings.ata
        && is_ata(facts)
        && let Ok(drive) = machine.ata(name)
        && drive.identify().is_ok()
        && let Err(error) = ata::open(name, drive.as_ref())
    {
        return Ok(Verdict::Failed(super::chain(&error)));
    }
    let partitions = machine.partitions(name).map_err(EraseError::List)?;
    let devices = std::iter::once(Device::disk(name, &partitions))
        .chain(partitions.iter().cloned().map(Device::partition));
    for device in devices {
        if let Some(verdict) = hindrance(kept, device, rules)? {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Erase)
}

/// Of a disk under arrays that are kept.
fn under(
    kept: &Kept<'_>,
    name: &str,
    arrays: &[String],
    rules: holders::Rules,
) -> Result<Verdict, EraseError> {
    let partitions = kept.machine.partitions(name).map_err(EraseError::List)?;
    let mut why = kept.words(arrays);
    let mut beside = Vec::new();
    for partition in kept::beside(kept.machine, name, partitions).map_err(EraseError::List)? {
        match hindrance(kept, Device::partition(partition.clone()), rules)? {
            None => beside.push(partition),
            Some(Verdict::Left(stays)) => why.push_str(&format!("; {partition} is left alone, {stays}")),
            Some(verdict) => return Ok(verdict),
        }
    }
    if !beside.is_empty() {
        why.push_str(&format!("; its other partitions are erased by themselves: {}", beside.join(", ")));
    }
    Ok(Verdict::Under { why, beside })
}

/// Why a disk or partition is not erased, by what is on it.
fn hindrance(kept: &Kept<'_>, device: Device, rules: holders::Rules) -> Result<Option<Verdict>, EraseError> {
    Ok(match device.look(kept.machine) {
        Ok(Look::Protected(what)) if !rules.insists => {
            return Err(EraseError::Protected { what, device: device.name });
        }
        Ok(Look::RaidMember) if rules.keeps_arrays => {
            let name = &device.name;
            match member::fate(kept.machine, kept.disks, kept.volume_names, name) {
                Fate::Named(why) => Some(Verdict::Left(why)),
                // By itself; its array goes on without it.
                Fate::Lost(_) => None,
                Fate::Wanted => Some(Verdict::Failed(kept::not_running(name, "a software RAID array"))),
            }
        }
        Ok(Look::VirtualFloppy) => Some(Verdict::Left("it is the conductor's virtual floppy".into())),
        Ok(_) => None,
        Err(why) => Some(Verdict::Failed(why)),
    })
}

/// SATA drives, also behind SAS adapters. Not behind USB: bridges forward some of the commands and hang on others.
fn is_ata(facts: &DiskFacts) -> bool {
    let tran = facts.disk.tran.as_deref();
    tran == Some("sata") || facts.disk.vendor.as_deref() == Some("ATA") && tran != Some("usb")
}

fn kind(machine: &dyn Machine, facts: &DiskFacts, settings: &Settings, stays: &Stays<'_>) -> Kind {
    let name = &facts.disk.name;
    if let Some(drive) = drive_of(name)
        && settings.nvme
    {
        let neighbours_stay = stays.names().any(|other| drive_of(other) == Some(drive));
        return Kind::Nvme { abilities: abilities(machine, name), neighbours_stay };
    }
    if is_ata(facts)
        && settings.ata
        && let Ok(block) =
            machine.ata(name).map_err(|_| ()).and_then(|drive| drive.identify().map_err(|_| ()))
    {
        return Kind::Ata(ata::AtaState::parse(&block));
    }
    Kind::Plain
}

/// What an NVMe drive can do; or why it does not say so, which is as if it could nothing.
fn abilities(machine: &dyn Machine, name: &str) -> Result<Abilities, String> {
    let refused = |why: String| format!("Failed to fetch NVMe capabilities for device {name}: {why}");
    let drive = machine.nvme(name).map_err(|error| refused(super::chain(&error)))?;
    let bytes = drive.identify_controller().map_err(|error| refused(error.to_string()))?;
    Abilities::parse(&bytes).ok_or_else(|| refused("the answer to Identify Controller is cut off".to_owned()))
}
