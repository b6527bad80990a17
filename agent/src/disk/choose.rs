//! Which disk the operating system goes to.
//!
//! Takes a node's fields and the machine's disks; matching itself is `ferric_common::hints`. Opening the disk, and
//! refusing a mounted one, is the platform's. Rules of ironic-python-agent 13.0.0; a volume that a RAID configuration
//! marks for the system comes before them (`raid::root_volume`).

use crate::platform::machine::DiskFacts;
use ferric_common::hints::{self, Candidate, HintError, Hints, NoMatch, SkipList};
use serde_json::{Map, Value};

/// Why no disk was chosen. Texts in upper case are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error(
        "No devices could be found using the root device hints {hints} because they failed to validate. Error: {error}"
    )]
    BadHints { hints: String, error: HintError },
    #[error("skip_block_devices of the node cannot be read, so no disk is touched")]
    SkipList(#[source] HintError),
    #[error("the chosen disk is not in the list of disks")]
    Lost,
    #[error("{0}")]
    NoMatch(NoMatch),
    #[error("{no_match} (not considered, being in skip_block_devices: {skipped})")]
    NoMatchLeft { no_match: NoMatch, skipped: String },
}

/// Chooses the root disk: hints of the instance, else of the node; without any, the smallest disk of at least 4 GiB.
///
/// `disks` are in the kernel's order; those in the node's `skip_block_devices` are invisible.
///
/// # Errors
/// [`ChooseError`]: hints that cannot be used; no disk that fits, with the reason for each disk.
pub fn root_disk(
    instance_info: &Map<String, Value>,
    properties: &Map<String, Value>,
    disks: &[DiskFacts],
) -> Result<DiskFacts, ChooseError> {
    let skip = SkipList::parse(properties).map_err(ChooseError::SkipList)?;
    let (skipped, visible): (Vec<_>, Vec<_>) =
        disks.iter().map(|facts| (facts, candidate(facts))).partition(|(_, c)| skip.skips(c));
    let (facts, candidates): (Vec<_>, Vec<_>) = visible.into_iter().unzip();
    let written = [instance_info, properties]
        .into_iter()
        .filter_map(|fields| fields.get("root_device"))
        .find(|hints| !is_empty(hints))
        .unwrap_or(&Value::Null);
    let hints = Hints::parse(written)
        .map_err(|error| ChooseError::BadHints { hints: hints::python(written), error })?;
    let place = match &hints {
        Some(hints) => hints::choose(hints, &candidates),
        None => hints::smallest(&candidates),
    };
    let none = |no_match| match skipped.is_empty() {
        true => ChooseError::NoMatch(no_match),
        false => {
            let skipped =
                skipped.iter().map(|(facts, _)| facts.disk.name.as_str()).collect::<Vec<_>>().join(", ");
            ChooseError::NoMatchLeft { no_match, skipped }
        }
    };
    let place = place.map_err(none)?;
    facts.get(place).map(|facts| DiskFacts::clone(facts)).ok_or(ChooseError::Lost)
}

/// A disk in the words of the matcher.
pub fn candidate(facts: &DiskFacts) -> Candidate {
    Candidate { disk: facts.disk.clone(), serials: facts.serials.clone(), wwns: facts.wwns.clone() }
}

fn is_empty(hints: &Value) -> bool {
    hints.is_null() || hints.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferric_common::units::GIB;
    use ferric_common::wire::inventory::Disk;
    use serde_json::json;

    fn disks() -> Vec<DiskFacts> {
        [("sda", 20, "A"), ("sdb", 10, "B"), ("sdc", 2, "C")]
            .map(|(name, gib, serial)| DiskFacts {
                disk: Disk {
                    name: format!("/dev/{name}"),
                    size: gib * GIB,
                    serial: Some(serial.into()),
                    ..Disk::default()
                },
                serials: vec![serial.into(), format!("QEMU_{serial}")],
                ..DiskFacts::default()
            })
            .into()
    }

    fn choose(instance_info: Value, properties: Value) -> Result<String, String> {
        let fields = |v: Value| v.as_object().unwrap().clone();
        root_disk(&fields(instance_info), &fields(properties), &disks())
            .map(|d| d.disk.name)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_instances_hints_come_before_the_nodes() {
        let hint = |serial: &str| json!({"root_device": {"serial": serial}});
        for (instance_info, properties, want) in [
            (json!({}), json!({}), "/dev/sdb"),
            (json!({}), hint("a"), "/dev/sda"),
            (hint("C"), hint("A"), "/dev/sdc"),
            (hint("qemu_c"), json!({}), "/dev/sdc"),
            (json!({"root_device": {}}), hint("A"), "/dev/sda"),
            (json!({"root_device": null}), json!({"root_device": null}), "/dev/sdb"),
            (json!({}), json!({"skip_block_devices": [{"serial": "B"}]}), "/dev/sda"),
        ] {
            assert_eq!(choose(instance_info, properties).as_deref(), Ok(want));
        }
    }

    #[test]
    fn a_refusal_says_what_was_asked_and_what_was_there() {
        let text = choose(json!({"root_device": {"colour": "red"}}), json!({})).unwrap_err();
        assert!(
            text.starts_with("No devices could be found using the root device hints {'colour': 'red'} because they failed to validate. Error: The hints \"colour\" are invalid."),
            "{text}"
        );
        let text =
            choose(json!({"root_device": {"serial": "Z"}}), json!({"skip_block_devices": [{"serial": "B"}]}));
        let text = text.unwrap_err();
        assert!(
            text.contains("/dev/sda (20.0 GiB, serial A): serial is 'A' or 'QEMU_A', wanted s== 'Z'"),
            "{text}"
        );
        assert!(text.ends_with("(not considered, being in skip_block_devices: /dev/sdb)"), "{text}");
        let skip_all = json!({"skip_block_devices": [{"size": "> 3"}]});
        let text = choose(json!({}), skip_all).unwrap_err();
        assert!(text.contains("are smaller than 4294967296B. (not considered"), "{text}");
        let text = choose(json!({}), json!({"skip_block_devices": [{"sise": 1}]})).unwrap_err();
        assert!(text.starts_with("skip_block_devices of the node cannot be read"), "{text}");
    }
}
