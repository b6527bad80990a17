//! One disk by several paths (a SAN without multipathd, two cables to one shelf): it is erased once. That names of two devices are
//! equal is only a guess, as some makers give all their drives one name: what is written to the one must be read from the other.

use super::chain;
use super::noise;
use super::one::{Done, Work};
use super::proof::Marks;
use super::targets::Target;
use crate::platform::machine::DiskFacts;

/// What became of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Erased(Done),
    /// It is the disk of this name, which was erased.
    Path(String),
}

/// What all paths to a disk have in common: world-wide name, serial, size. None for a disk without a world-wide name.
pub fn identity(facts: &DiskFacts) -> Option<(&str, Option<&str>, u64)> {
    Some((facts.wwns.first()?, facts.disk.serial.as_deref(), facts.disk.size))
}

/// Erases a disk, and of what seems to be other paths to it those that turn out to be disks of their own. A line for each device;
/// none for the paths to a disk that could not be erased, as its own says why.
pub fn erase(work: &Work<'_>, target: &Target) -> Vec<(String, Result<Fate, String>)> {
    let (paths, others) = told_apart(work, target);
    let outcome = work.erase(target);
    let mut fates = Vec::new();
    if outcome.is_ok() {
        fates.extend(paths.iter().map(|path| (path.name.clone(), Ok(Fate::Path(target.name.clone())))));
    }
    fates.push((target.name.clone(), outcome.map(Fate::Erased)));
    for other in others {
        tracing::warn!("{} has the names of {} and is not the same disk", other.name, target.name);
        fates.push((other.name.clone(), work.erase(other).map(Fate::Erased)));
    }
    fates
}

/// Those that are paths to the disk, and those that are not, or of which nobody knows.
fn told_apart<'t>(work: &Work<'_>, target: &'t Target) -> (Vec<&'t Target>, Vec<&'t Target>) {
    if target.paths.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let open = |name: &str| work.machine.open_disk(name).map_err(|error| chain(&error));
    let marked = open(&target.name).and_then(|disk| {
        let marks = Marks::new(disk.size().0, noise::seed());
        marks.write(disk.as_ref()).map_err(|error| chain(&error))?;
        Ok(marks)
    });
    let is_path = |path: &&Target| match &marked {
        Ok(marks) => open(&path.name).is_ok_and(|disk| marks.are_on(disk.as_ref())),
        Err(why) => {
            tracing::warn!("whether {} is {}, too, is not known: {why}", path.name, target.name);
            false
        }
    };
    target.paths.iter().partition(is_path)
}
