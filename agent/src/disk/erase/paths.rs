//! One disk by several paths (a SAN without multipathd, two cables to one shelf): it is erased once. That names of two devices are
//! equal is only a guess, as some makers give all their drives one name: what is written to the one must be read from the other.

use super::chain;
use super::noise;
use super::one::{CANCELLED, Done, Work};
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

/// What marks on the first disk say of a device.
enum Told {
    Path,
    Another,
    /// And why that is not known.
    Unknown(String),
}

/// Erases a disk, and of what seems to be other paths to it those that turn out to be disks of their own, or may be. A line
/// for each device; none for the paths to a disk that could not be erased, as its own says why.
pub fn erase(work: &Work<'_>, target: &Target) -> Vec<(String, Result<Fate, String>)> {
    if work.board.is_cancelled() {
        let devices = std::iter::once(target).chain(&target.paths);
        return devices.map(|device| (device.name.clone(), Err(CANCELLED.to_owned()))).collect();
    }
    let told = told_apart(work, target);
    let outcome = work.erase(target);
    let is_erased = outcome.is_ok();
    let mut fates = vec![(target.name.clone(), outcome.map(Fate::Erased))];
    for (path, told) in target.paths.iter().zip(told) {
        let own = || work.erase(path).map(Fate::Erased);
        let fate = match told {
            Told::Path if is_erased => Ok(Fate::Path(target.name.clone())),
            Told::Path => continue,
            Told::Another => {
                tracing::warn!("{} has the names of {} and is not the same disk", path.name, target.name);
                own()
            }
            Told::Unknown(why) => {
                let words = format!("{} could not be told apart from {}: {why}", path.name, target.name);
                tracing::warn!("{words}");
                own().map_err(|error| format!("{error} ({words})"))
            }
        };
        fates.push((path.name.clone(), fate));
    }
    fates
}

/// For each of the paths. Marks are written only where an erase follows: what was there is lost.
fn told_apart(work: &Work<'_>, target: &Target) -> Vec<Told> {
    if target.paths.is_empty() {
        return Vec::new();
    }
    let open = |name: &str| work.machine.open_disk(name).map_err(|error| chain(&error));
    let marked = match target.plan.is_empty() {
        true => Err("it may not be written to, as there is no way to erase it".to_owned()),
        false => open(&target.name).and_then(|disk| {
            let marks = Marks::new(disk.size().0, noise::seed());
            marks.write(disk.as_ref()).map_err(|error| chain(&error))?;
            Ok(marks)
        }),
    };
    let told = |path: &Target| {
        let marks = marked.as_ref().map_err(Clone::clone)?;
        marks.are_on(open(&path.name)?.as_ref()).map_err(|error| chain(&error))
    };
    let paths = target.paths.iter();
    paths
        .map(|path| match told(path) {
            Ok(true) => Told::Path,
            Ok(false) => Told::Another,
            Err(why) => Told::Unknown(why),
        })
        .collect()
}
