//! Reads and checks a RAID configuration. Texts in upper case are upstream's.

use super::ESP;
use ferric_common::hints::{self, Hints};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Zero,
    One,
    Five,
    Six,
    Ten,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "0" => Level::Zero,
            "1" => Level::One,
            "5" => Level::Five,
            "6" => Level::Six,
            "1+0" => Level::Ten,
            _ => return None,
        })
    }
    /// As mdadm calls it.
    pub fn number(self) -> &'static str {
        match self {
            Level::Zero => "0",
            Level::One => "1",
            Level::Five => "5",
            Level::Six => "6",
            Level::Ten => "10",
        }
    }
    /// Disks without which there is no such array.
    pub fn least_disks(self) -> usize {
        match self {
            Level::Zero | Level::One | Level::Ten => 2,
            Level::Five => 3,
            Level::Six => 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// GiB of each disk.
    Gib(u64),
    /// What is left.
    Rest,
}

/// One wanted array.
#[derive(Clone, Debug)]
pub struct Volume {
    pub name: Option<String>,
    pub level: Level,
    pub size: Size,
    /// One choice of a disk each; all disks if there are none.
    pub disks: Option<Vec<Hints>>,
    /// As it came.
    pub given: Value,
}

/// The wanted arrays, the one that takes the rest last; `None` if no logical disk is for software RAID.
///
/// # Errors
/// Every rule that the configuration breaks, in words. With `names_needed` (the node's skip list goes by the names of
/// arrays) each array must have one.
pub fn parse(config: &Value, names_needed: bool) -> Result<Option<Vec<Volume>>, Vec<String>> {
    let Some(logical) = config.get("logical_disks").and_then(Value::as_array).filter(|list| !list.is_empty())
    else {
        return match config.as_object().is_none_or(serde_json::Map::is_empty) {
            true => Ok(None),
            false => Err(vec!["RAID config contains no logical disks".to_owned()]),
        };
    };
    let is_software = |disk: &&Value| disk.get("controller").and_then(Value::as_str) == Some("software");
    match logical.iter().filter(is_software).count() {
        0 => return Ok(None),
        some if some < logical.len() => {
            return Err(vec![
                "Software RAID configuration requires all logical disks to have 'controller'='software'"
                    .to_owned(),
            ]);
        }
        _ => {}
    }
    let mut faults = Vec::new();
    let mut volumes: Vec<Volume> =
        logical.iter().enumerate().filter_map(|(nth, disk)| volume(nth, disk, &mut faults)).collect();
    together(logical, names_needed, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    volumes.sort_by_key(|volume| volume.size == Size::Rest);
    Ok(Some(volumes))
}

fn volume(nth: usize, disk: &Value, faults: &mut Vec<String>) -> Option<Volume> {
    let shown = |key: &str| disk.get(key).map_or("nothing".to_owned(), hints::python);
    let before = faults.len();
    let level = disk.get("raid_level").and_then(Value::as_str).and_then(Level::parse);
    if level.is_none() {
        faults
            .push(format!("Software RAID configuration does not support RAID level {}", shown("raid_level")));
    }
    if nth == 0 && level != Some(Level::One) {
        faults.push("Software RAID Configuration requires RAID-1 for the first logical disk".to_owned());
    }
    let size = size(disk.get("size_gb"));
    if size.is_none() {
        faults.push(format!("size_gb is {}, it must be a number of GiB above 0 or 'MAX'", shown("size_gb")));
    }
    let name = match disk.get("volume_name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name == ESP => {
            faults
                .push(format!("volume_name '{ESP}' is that of the EFI system partitions, another is needed"));
            None
        }
        Some(Value::String(name)) if is_name(name) => Some(name.clone()),
        Some(other) => {
            faults.push(format!(
                "volume_name is {}, it must be 1 to 32 letters, digits and any of . _ -, beginning with no -",
                hints::python(other)
            ));
            None
        }
    };
    let disks = match disk.get("physical_disks") {
        None | Some(Value::Null) => None,
        Some(list) => choices(list, faults),
    };
    let (Some(level), Some(size)) = (level, size) else { return None };
    (faults.len() == before).then(|| Volume { name, level, size, disks, given: disk.clone() })
}

fn size(given: Option<&Value>) -> Option<Size> {
    match given? {
        Value::String(text) if text == "MAX" => Some(Size::Rest),
        Value::String(text) => text.parse().ok().filter(|gib| *gib > 0).map(Size::Gib),
        number => number.as_u64().filter(|gib| *gib > 0).map(Size::Gib),
    }
}

/// What a superblock has room for, and mdadm takes for a name and nothing else.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=32).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(allowed)
}

fn choices(list: &Value, faults: &mut Vec<String>) -> Option<Vec<Hints>> {
    let Some(list) = list.as_array().filter(|list| list.len() >= 2) else {
        faults.push(
            "The physical_disks parameter for software RAID must be a list with at least 2 items, each specifying a disk \
             in the device hints format"
                .to_owned(),
        );
        return None;
    };
    let mut choices = Vec::new();
    for choice in list {
        match Hints::parse(choice) {
            Ok(Some(hints)) => choices.push(hints),
            Ok(None) => faults.push(
                "The physical_disks parameter for software RAID must be a list of device hints (dictionaries)".to_owned(),
            ),
            Err(error) => faults.push(format!("physical_disks: {error}")),
        }
    }
    Some(choices)
}

/// The rules that no logical disk can break alone.
fn together(logical: &[Value], names_needed: bool, faults: &mut Vec<String>) {
    if logical.len() > 2 {
        faults.push("Software RAID configuration requires one or two logical disks".to_owned());
    }
    let count = |is: &dyn Fn(&Value) -> bool| logical.iter().filter(|disk| is(disk)).count();
    if count(&|disk| disk.get("size_gb").and_then(Value::as_str) == Some("MAX")) > 1 {
        faults.push("Software RAID can have only one RAID device with size 'MAX'".to_owned());
    }
    if count(&|disk| disk.get("is_root_volume") == Some(&Value::Bool(true))) > 1 {
        faults.push(
            "Software RAID configuration allows only one logical disk to be marked as is_root_volume"
                .to_owned(),
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for name in logical.iter().map(|disk| disk.get("volume_name").and_then(Value::as_str)) {
        match name {
            Some(name) if names.contains(&name) => {
                faults.push(format!("Duplicate software RAID device name {name} detected"));
            }
            Some(name) => names.push(name),
            None if names_needed => faults.push(
                "All logical disks are required to have a volume name specified as a volume name is mentioned in the \
                 property skip block devices."
                    .to_owned(),
            ),
            None => {}
        }
    }
}
