//! Partitions by the names that mount(8) knows: those of their file systems and those in the partition table. Only the root disk is
//! searched: a file system of the same name on another disk, of an earlier system, is not the one that was deployed.

use super::{InjectError, numbered, why};
use crate::platform::machine::Machine;
use ferric_common::formats::gpt::{Gpt, Partition};
use ferric_common::formats::mbr;
use ferric_common::formats::volume::{self, Volume};
use ferric_common::units::SectorSize;
use std::fmt;
use uuid::Uuid;

/// Bytes of a name: btrfs has the longest labels.
const LENGTH: usize = 256;

/// What a partition is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Label(String),
    Uuid(String),
    PartLabel(String),
    PartUuid(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Label(value) => write!(f, "LABEL={value}"),
            Name::Uuid(value) => write!(f, "UUID={value}"),
            Name::PartLabel(value) => write!(f, "PARTLABEL={value}"),
            Name::PartUuid(value) => write!(f, "PARTUUID={value}"),
        }
    }
}

impl Name {
    /// Reads `TAG=value` or `TAG="value"`; nothing for a text that is none.
    ///
    /// # Errors
    /// A value that no partition can have.
    pub fn read(text: &str) -> Option<Result<Name, String>> {
        let (tag, value) = text.split_once('=')?;
        let make = match tag {
            "LABEL" => Name::Label,
            "UUID" => Name::Uuid,
            "PARTLABEL" => Name::PartLabel,
            "PARTUUID" => Name::PartUuid,
            _ => return None,
        };
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let is_possible = (1..=LENGTH).contains(&value.len()) && !value.chars().any(char::is_control);
        Some(match is_possible {
            true => Ok(make(value.to_owned())),
            false => Err(format!("{tag}= needs 1 to {LENGTH} bytes without control characters")),
        })
    }

    /// Labels to the letter, identifiers without regard to case.
    fn is_of(&self, facts: &Facts) -> bool {
        let same = |one: &Option<String>, other: &String| one.as_ref() == Some(other);
        let alike = |one: &Option<String>, other: &String| {
            one.as_ref().is_some_and(|one| one.eq_ignore_ascii_case(other))
        };
        match self {
            Name::Label(value) => same(&facts.label, value),
            Name::Uuid(value) => alike(&facts.uuid, value),
            Name::PartLabel(value) => same(&facts.part_label, value),
            Name::PartUuid(value) => alike(&facts.part_uuid, value),
        }
    }
}

/// What one partition is called.
#[derive(Default)]
struct Facts {
    device: String,
    label: Option<String>,
    uuid: Option<String>,
    part_label: Option<String>,
    part_uuid: Option<String>,
    /// Why its file system could not be looked at.
    unreadable: Option<String>,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            self.label.clone().map(Name::Label),
            self.uuid.clone().map(Name::Uuid),
            self.part_label.clone().map(Name::PartLabel),
            self.part_uuid.clone().map(Name::PartUuid),
        ];
        // An image's labels may hold anything; a line of a log must not.
        let mut words: Vec<String> =
            names.into_iter().flatten().map(|name| name.to_string().escape_debug().to_string()).collect();
        words.extend(self.unreadable.clone());
        match words.is_empty() {
            true => write!(f, "{} (without names)", self.device),
            false => write!(f, "{} ({})", self.device, words.join(" ")),
        }
    }
}

/// The one partition of the disk that is called so.
///
/// # Errors
/// The disk cannot be read; no partition, or more than one, is called so.
pub(super) fn find(
    machine: &dyn Machine,
    disk: &str,
    partitions: &[String],
    name: &Name,
) -> Result<String, InjectError> {
    let facts = all(machine, disk, partitions)?;
    let (disk, name_text) = (disk.to_owned(), name.to_string());
    let found: Vec<&str> = facts.iter().filter(|f| name.is_of(f)).map(|f| f.device.as_str()).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            let has: Vec<String> = facts.iter().map(ToString::to_string).collect();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            Err(InjectError::NotNamed { disk, name: name_text, has })
        }
        many => Err(InjectError::SeveralNamed { disk, name: name_text, which: many.join(", ") }),
    }
}

fn all(machine: &dyn Machine, disk: &str, partitions: &[String]) -> Result<Vec<Facts>, InjectError> {
    let head = machine.head(disk).map_err(|source| InjectError::List { disk: disk.to_owned(), source })?;
    let mut facts: Vec<Facts> = partitions.iter().map(|device| by_file_system(machine, device)).collect();
    for (number, label, uuid) in in_table(&head) {
        let Ok(device) = numbered(disk, partitions, number) else { continue };
        if let Some(facts) = facts.iter_mut().find(|facts| facts.device == device) {
            facts.part_label = Some(label).filter(|label| !label.is_empty());
            facts.part_uuid = Some(uuid);
        }
    }
    Ok(facts)
}

fn by_file_system(machine: &dyn Machine, device: &str) -> Facts {
    let facts = Facts { device: device.to_owned(), ..Facts::default() };
    match machine.head(device) {
        Ok(head) => {
            let Some(Volume { label, uuid, .. }) = volume::read(&head) else { return facts };
            Facts { label: Some(label).filter(|label| !label.is_empty()), uuid, ..facts }
        }
        Err(error) => Facts { unreadable: Some(why(&error)), ..facts },
    }
}

/// Number, name and identifier of each partition in the table. What an MBR's are called is its signature and their number.
fn in_table(head: &[u8]) -> Vec<(u32, String, String)> {
    let gpt = [512, 4096].into_iter().find_map(|sector| Gpt::parse(head, SectorSize(sector)).ok());
    if let Some(gpt) = gpt {
        let named = |p: Partition| (p.number, p.name, Uuid::from_bytes_le(p.guid).to_string());
        return gpt.partitions().map(named).collect();
    }
    let signature = head.get(440..444).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_le_bytes(*b));
    match signature {
        Some(signature) if signature != 0 && mbr::parse(head).is_some() => {
            // Logical partitions count from 5; how many there are is known to the kernel.
            let named = |number: u32| (number, String::new(), format!("{signature:08x}-{number:02x}"));
            (1..=u32::from(u8::MAX)).map(named).collect()
        }
        _ => Vec::new(),
    }
}
