//! Erases all disks of a machine (step `erase_devices`): by a drive's own command where it has one, else by overwriting;
//! several at once; each proven by reading back. Rules are ironic-python-agent's.
//!
//! `settings` and `plan` decide, `targets` looks, `one` acts by `nvme`, `ata` and `overwrite`, and `proof` checks that;
//! `fault` is a disk that failed meanwhile, `paths` a disk that is seen more than once.

pub mod ata;
pub mod board;
pub mod fault;
pub mod noise;
pub mod nvme;
pub mod one;
pub mod overwrite;
pub mod paths;
pub mod plan;
pub mod proof;
pub mod settings;
pub mod targets;

use super::wipe::{self, EraseError};
use crate::platform::machine::Machine;
use board::{Board, Watch};
use one::Work;
use paths::Fate;
use serde_json::{Map, Value, json};
use settings::Settings;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use targets::{Target, Targets};
pub(super) use wipe::chain;

/// Erases every disk. The result has an object for each: what was done, how long it took, the proof.
///
/// # Errors
/// [`EraseError`]: nothing was erased, or the list of disks that were not (the others were, the log says how).
pub fn erase_devices(machine: &dyn Machine, node: &Value, watch: &dyn Watch) -> Result<Value, EraseError> {
    let settings = settings_of(node);
    let targets = targets::choose(machine, node, &settings)?;
    let (result, failures) = run(machine, &targets, &settings, watch);
    match failures.is_empty() {
        true => Ok(Value::Object(result)),
        false => Err(EraseError::Disks(failures.join("; "))),
    }
}

/// The quick way (step `erase_devices_express`): NVMe drives by their own command, and the metadata of everything.
///
/// # Errors
/// As [`wipe::erase_devices_metadata`]. An NVMe drive that refuses is no error: its metadata is erased then.
pub fn erase_devices_express(
    machine: &dyn Machine,
    node: &Value,
    watch: &dyn Watch,
) -> Result<Value, EraseError> {
    let settings = Settings {
        overwrite_after_failure: false,
        discard_after_failure: false,
        skip_read_only: true,
        ..settings_of(node)
    };
    let mut targets = targets::choose(machine, node, &settings)?;
    targets.erase.retain(|target| !target.plan.secure.is_empty() && nvme::drive_of(&target.name).is_some());
    targets.left.clear();
    // What is not erased here is the metadata step's to erase, or to tell.
    targets.failures.clear();
    let (result, failures) = run(machine, &targets, &settings, watch);
    for failure in failures {
        tracing::warn!("erased by its metadata only: {failure}");
    }
    wipe::erase_devices_metadata(machine, node)?;
    Ok(Value::Object(result))
}

fn settings_of(node: &Value) -> Settings {
    let info = node.get("driver_internal_info").and_then(Value::as_object);
    info.map_or_else(|| Settings::read(&Map::new()), Settings::read)
}

/// Of one target: what became of its devices.
type Outcome = Option<Vec<(String, Result<Fate, String>)>>;

/// Several at once, as the settings say. The result's object, and a line for each disk that was not erased.
fn run(
    machine: &dyn Machine,
    targets: &Targets,
    settings: &Settings,
    watch: &dyn Watch,
) -> (Map<String, Value>, Vec<String>) {
    let board = Board::new(watch, targets.erase.iter().map(|target| target.name.clone()));
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(vec![None; targets.erase.len()]));
    std::thread::scope(|scope| {
        for _ in 0..settings.at_once.min(targets.erase.len()) {
            scope.spawn(|| {
                loop {
                    let line = next.fetch_add(1, Ordering::Relaxed);
                    let Some(target) = targets.erase.get(line) else { return };
                    let work = Work { machine, settings, board: &board, line };
                    let outcome = paths::erase(&work, target);
                    board.end(line);
                    reread(machine, target);
                    let mut all = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(place) = all.get_mut(line) {
                        *place = Some(outcome);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    gather(targets, outcomes)
}

fn reread(machine: &dyn Machine, target: &Target) {
    for device in std::iter::once(target).chain(&target.paths).filter(|device| device.is_disk) {
        if let Err(error) = machine.reread_partitions(&device.name) {
            tracing::warn!("the kernel keeps the old partitions of {}: {}", device.name, chain(&error));
        }
    }
}

fn gather(targets: &Targets, outcomes: Vec<Outcome>) -> (Map<String, Value>, Vec<String>) {
    let mut result: Map<String, Value> =
        targets.left.iter().map(|(name, why)| (name.clone(), json!({"left_alone": why}))).collect();
    let line = |name: &str, why: &str| format!("\"{name}\": {why}");
    let mut failures: Vec<String> = targets.failures.iter().map(|(name, why)| line(name, why)).collect();
    for (target, outcome) in targets.erase.iter().zip(outcomes) {
        let never = || vec![(target.name.clone(), Err("its turn never came".to_owned()))];
        for (name, fate) in outcome.unwrap_or_else(never) {
            match fate {
                Ok(Fate::Erased(done)) => {
                    let (method, seconds) = (&done.method, done.took.as_secs());
                    tracing::info!("{name} is erased: {method}, {seconds} s, proof: {}", done.proof);
                    result.insert(name, done.json());
                }
                Ok(Fate::Path(disk)) => {
                    let why = format!("it is another path to {disk}, which is erased");
                    result.insert(name, json!({ "left_alone": why }));
                }
                Err(why) => failures.push(line(&name, &why)),
            }
        }
    }
    (result, failures)
}

#[cfg(test)]
mod tests;
