//! Waits for the disk that the operating system goes to: an adapter of many disks may take half a minute to show them, and a
//! machine without disks can neither be inspected nor cleaned truthfully.
//!
//! Upstream behaviour: ironic-python-agent 13.0.0, `wait_for_disks`: at its start for any suitable disk, then for the one that the
//! node's hints name, each at most (attempts - 1) times the delay, and on without it. Here looks come more often, drivers that are
//! still loading are waited for first, within the same time, and nothing is waited for twice or in vain.

use super::choose::{self, ChooseError};
use super::patience::{Patience, SHORTEST_PAUSE};
use super::wipe::chain;
use crate::platform::machine::{Drivers, Machine};
use serde_json::{Map, Value};
use std::time::Duration;

/// Drivers of most machines are loaded sooner.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// What a node says of its disks; of a node that nobody knows yet, nothing.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub instance_info: Map<String, Value>,
    pub properties: Map<String, Value>,
}

impl Wanted {
    /// Whether it is another disk than the first that is large enough, for which the agent waited when it started. An array is
    /// no disk that comes by itself: the command that needs it runs it.
    pub fn is_particular(&self) -> bool {
        let hints = |fields: &Map<String, Value>| fields.get("root_device").cloned().unwrap_or_default();
        let hints = [hints(&self.instance_info), hints(&self.properties)];
        let is_array = |name: &str| name.contains("/dev/md");
        let names_array =
            hints.iter().any(|hints| hints.get("name").and_then(Value::as_str).is_some_and(is_array));
        let is_empty = |value: &Value| {
            value.as_object().is_none_or(Map::is_empty) && value.as_array().is_none_or(Vec::is_empty)
        };
        let skips = self.properties.get("skip_block_devices").is_some_and(|list| !is_empty(list));
        !names_array && (skips || hints.iter().any(|hints| !is_empty(hints)))
    }
}

/// Waits, for drivers and disks together at most [`Patience::whole`]; for drivers only while the agent is younger than that (`age`).
/// The disk, or none: then the agent goes on without, and whoever needs the disk says that it is missing.
pub fn root_disk(
    machine: &dyn Machine,
    wanted: &Wanted,
    patience: Patience,
    age: Duration,
    pause: &dyn Fn(Duration),
) -> Option<String> {
    if patience.attempts == 0 || machine.drivers() == Drivers::NotOurs {
        return None;
    }
    let whole = patience.whole();
    let (mut waited, mut told) = (drivers(machine, whole.saturating_sub(age), pause), String::new());
    loop {
        let why = match look(machine, wanted) {
            Ok(name) => {
                if !waited.is_zero() {
                    tracing::info!("{name} is there after {:.1} s", waited.as_secs_f64());
                }
                return Some(name);
            }
            Err(NotThere::Never) => return None,
            Err(NotThere::Yet(why)) => why,
        };
        let left = whole.saturating_sub(waited);
        if left.is_zero() {
            let seconds = whole.as_secs();
            tracing::warn!("no disk for the operating system within {seconds} s, going on without: {why}");
            return None;
        }
        if why != told {
            let seconds = left.as_secs();
            tracing::info!("waiting up to {seconds} s for a disk for the operating system: {why}");
            told = why;
        }
        let next = patience.pause().min(left);
        pause(next);
        waited = waited.saturating_add(next);
    }
}

/// How long that took.
fn drivers(machine: &dyn Machine, longest: Duration, pause: &dyn Fn(Duration)) -> Duration {
    let mut waited = Duration::ZERO;
    while machine.drivers() == Drivers::Loading && waited < longest {
        if waited == WORTH_SAYING {
            tracing::info!("waiting for the drivers of this machine's devices");
        }
        let next = SHORTEST_PAUSE.min(longest.saturating_sub(waited));
        pause(next);
        waited = waited.saturating_add(next);
    }
    if !longest.is_zero() && machine.drivers() == Drivers::Loading {
        let seconds = waited.as_secs();
        tracing::warn!(
            "drivers of this machine are still loading after {seconds} s; going on with what is there"
        );
    }
    waited
}

enum NotThere {
    Yet(String),
    /// What the node says cannot be read: the command that needs the disk tells.
    Never,
}

fn look(machine: &dyn Machine, wanted: &Wanted) -> Result<String, NotThere> {
    let disks = machine.disks().map_err(|error| NotThere::Yet(chain(&error)))?;
    match choose::root_disk(&wanted.instance_info, &wanted.properties, &disks) {
        Ok(facts) => Ok(facts.disk.name),
        Err(ChooseError::BadHints { .. } | ChooseError::SkipList(_)) => Err(NotThere::Never),
        Err(error) => Err(NotThere::Yet(chain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::machine::{FakeMachine, facts};
    use ferric_common::units::GIB;
    use serde_json::json;
    use std::cell::RefCell;

    const PATIENCE: Patience = Patience { attempts: 10, delay: Duration::from_secs(3) };

    fn wanted(instance_info: Value, properties: Value) -> Wanted {
        let fields = |value: Value| value.as_object().unwrap().clone();
        Wanted { instance_info: fields(instance_info), properties: fields(properties) }
    }

    /// Waits on a machine to which `happens` does something as time goes by; the disk, and the seconds that it took.
    fn wait(
        wanted: &Wanted,
        patience: Patience,
        happens: impl Fn(f64, &FakeMachine),
    ) -> (Option<String>, f64) {
        wait_at(Duration::ZERO, wanted, patience, happens)
    }

    fn wait_at(
        age: Duration,
        wanted: &Wanted,
        patience: Patience,
        happens: impl Fn(f64, &FakeMachine),
    ) -> (Option<String>, f64) {
        let machine = FakeMachine::new();
        machine.set_drivers(Drivers::Loaded);
        happens(0.0, &machine);
        let passed = RefCell::new(Duration::ZERO);
        let found = root_disk(&machine, wanted, patience, age, &|pause| {
            *passed.borrow_mut() += pause;
            happens(passed.borrow().as_secs_f64(), &machine);
        });
        (found, passed.into_inner().as_secs_f64())
    }

    /// At this second the disks are these: `sda` of 8 GiB, `sdb` of 16 GiB, `sdc` of 1 GiB.
    fn come(machine: &FakeMachine, names: &[&str]) {
        let size = |name: &str| match name {
            "sda" => 8 * GIB,
            "sdb" => 16 * GIB,
            _ => GIB,
        };
        machine
            .set_disks(names.iter().map(|name| facts(&format!("/dev/{name}"), size(name), name)).collect());
    }

    #[test]
    fn a_disk_that_is_there_costs_nothing_and_one_that_comes_is_taken_at_once() {
        let any = Wanted::default();
        assert_eq!(wait(&any, PATIENCE, |_, m| come(m, &["sda"])), (Some("/dev/sda".into()), 0.0));
        // One that is too small is none.
        let late =
            |at: f64, m: &FakeMachine| if at < 20.0 { come(m, &["sdc"]) } else { come(m, &["sdc", "sdb"]) };
        assert_eq!(wait(&any, PATIENCE, late), (Some("/dev/sdb".into()), 20.0));
    }

    #[test]
    fn the_disk_that_the_node_names_is_waited_for() {
        let named = wanted(json!({}), json!({"root_device": {"serial": "sdb"}}));
        let late =
            |at: f64, m: &FakeMachine| if at < 12.0 { come(m, &["sda"]) } else { come(m, &["sda", "sdb"]) };
        assert_eq!(wait(&named, PATIENCE, late), (Some("/dev/sdb".into()), 12.0));
        let skipped = wanted(json!({}), json!({"skip_block_devices": [{"serial": "sda"}]}));
        assert_eq!(wait(&skipped, PATIENCE, late), (Some("/dev/sdb".into()), 12.0));
    }

    #[test]
    fn a_machine_without_disks_waits_no_longer_than_upstream() {
        assert_eq!(wait(&Wanted::default(), PATIENCE, |_, _| {}), (None, 27.0));
        let once = Patience { attempts: 1, ..PATIENCE };
        assert_eq!(wait(&Wanted::default(), once, |_, _| {}), (None, 0.0));
        let never = Patience { attempts: 0, ..PATIENCE };
        assert_eq!(wait(&Wanted::default(), never, |_, m| m.set_drivers(Drivers::Loading)), (None, 0.0));
        // Hints that mean nothing do not come true by waiting.
        let wrong = wanted(json!({"root_device": {"colour": "red"}}), json!({}));
        assert_eq!(wait(&wrong, PATIENCE, |_, _| {}), (None, 0.0));
        let elsewhere = FakeMachine::new();
        let pause = |_| panic!("a workstation's disks are not waited for");
        assert_eq!(root_disk(&elsewhere, &Wanted::default(), PATIENCE, Duration::ZERO, &pause), None);
    }

    #[test]
    fn drivers_are_waited_for_before_disks_are_and_not_for_ever() {
        let loading = |until: f64| {
            move |at: f64, m: &FakeMachine| {
                come(m, &["sda"]);
                m.set_drivers(if at < until { Drivers::Loading } else { Drivers::Loaded });
            }
        };
        let (found, took) = wait(&Wanted::default(), PATIENCE, loading(14.95));
        assert_eq!((found.as_deref(), (took * 10.0).round()), (Some("/dev/sda"), 150.0));
        let (found, took) = wait(&Wanted::default(), PATIENCE, loading(1e9));
        assert_eq!((found.as_deref(), took.round()), (Some("/dev/sda"), 27.0));
    }

    #[test]
    fn drivers_and_disks_share_one_time_and_drivers_are_given_up_once() {
        let never = |_: f64, m: &FakeMachine| m.set_drivers(Drivers::Loading);
        let (found, took) = wait(&Wanted::default(), PATIENCE, never);
        assert_eq!((found, took.round()), (None, 27.0));
        let half = |at: f64, m: &FakeMachine| {
            m.set_drivers(if at < 19.95 { Drivers::Loading } else { Drivers::Loaded });
        };
        let (found, took) = wait(&Wanted::default(), PATIENCE, half);
        assert_eq!((found, took.round()), (None, 27.0));
        // The node's own disk, after the lookup.
        let named = wanted(json!({}), json!({"root_device": {"serial": "sda"}}));
        let there = |at: f64, m: &FakeMachine| {
            come(m, &["sda"]);
            never(at, m);
        };
        let age = PATIENCE.whole();
        assert_eq!(wait_at(age, &named, PATIENCE, there), (Some("/dev/sda".into()), 0.0));
    }

    #[test]
    fn only_what_the_agents_start_did_not_wait_for_is_particular() {
        let hint = |hints: Value| json!({ "root_device": hints });
        for (instance_info, properties, is) in [
            (json!({}), json!({}), false),
            (hint(json!({})), hint(json!(null)), false),
            (json!({}), json!({"skip_block_devices": []}), false),
            (hint(json!({"serial": "A"})), json!({}), true),
            (json!({}), hint(json!({"size": ">= 10"})), true),
            (json!({}), json!({"skip_block_devices": [{"serial": "A"}]}), true),
            (json!({}), hint(json!({"name": "s== /dev/md0"})), false),
        ] {
            assert_eq!(
                wanted(instance_info.clone(), properties.clone()).is_particular(),
                is,
                "{instance_info} {properties}"
            );
        }
    }
}
