//! What the superblock of a software RAID member says of its array, also when no array holds the member. Layouts:
//! linux/raid/md_p.h.

use super::aligned;
use super::look;
use super::wipe::scan;
use crate::platform::block::BlockDevice;
use crate::platform::machine::{DiskFacts, Machine};
use ferric_common::formats::signatures::{Kind, Spot};
use ferric_common::units::{ByteCount, DiskOffset};

/// Bytes that are read of a superblock.
const LENGTH: u64 = 64;

/// The array that a member was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Array {
    /// `set_uuid`
    id: Vec<u8>,
    /// Without the host's name before it. Metadata 0.90 has none.
    name: Option<String>,
}

impl Array {
    fn parse(what: &str, bytes: &[u8]) -> Option<Array> {
        if what == "md 0.90" {
            return Some(Array { id: [bytes.get(20..24)?, bytes.get(52..64)?].concat(), name: None });
        }
        let written = String::from_utf8_lossy(bytes.get(32..64)?);
        let written = written.trim_end_matches('\0');
        let name = written.rsplit_once(':').map_or(written, |(_, name)| name);
        Some(Array { id: bytes.get(16..32)?.to_vec(), name: Some(name.to_owned()) })
    }
}

/// Nothing where it cannot be read.
fn arrays_of(machine: &dyn Machine, device: &str) -> Vec<Array> {
    let Ok(disk) = machine.peek_disk(device) else { return Vec::new() };
    let disk: &dyn BlockDevice = disk.as_ref();
    let array = |spot: &Spot| {
        let bytes = aligned::read(disk, DiskOffset(spot.at), ByteCount(LENGTH)).ok()?;
        Array::parse(spot.what, &bytes)
    };
    let found = scan(disk).unwrap_or_default();
    found.iter().filter(|spot| spot.kind == Kind::RaidMember).filter_map(array).collect()
}

/// What a member that no array holds is to its array. Why, in words.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// The array is to stay as it is (`volume_names`).
    Named(String),
    /// The array runs without it, having lost it.
    Lost(String),
    /// The array does not run; only with this member may it.
    Wanted,
}

pub fn fate(machine: &dyn Machine, disks: &[DiskFacts], volume_names: &[String], member: &str) -> Fate {
    let own = arrays_of(machine, member);
    let named = own.iter().filter_map(|array| array.name.as_ref()).find(|name| volume_names.contains(name));
    if let Some(name) = named {
        return Fate::Named(format!("it is a member of {name}, which is in skip_block_devices"));
    }
    let has_lost_it = |array: &&str| {
        let members = machine.array_members(array);
        let ids: Vec<_> =
            members.iter().flat_map(|on| arrays_of(machine, on)).map(|array| array.id).collect();
        own.iter().any(|array| ids.contains(&array.id))
    };
    let mut running = disks.iter().map(|facts| facts.disk.name.as_str()).filter(|name| look::is_array(name));
    match running.find(has_lost_it) {
        Some(array) => Fate::Lost(format!("{array} was made with it and runs without it")),
        None => Fate::Wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_say_which_array_it_is() {
        let bytes: Vec<u8> = (0..32).chain(*b"host:data").chain([0; 23]).collect();
        let new = Array { id: (16..32).collect(), name: Some("data".into()) };
        assert_eq!(Array::parse("md 1.2", &bytes), Some(new));
        let bytes: Vec<u8> = (0..64).collect();
        let old = Array { id: (20..24).chain(52..64).collect(), name: None };
        assert_eq!(Array::parse("md 0.90", &bytes), Some(old));
        assert_eq!(Array::parse("md 1.2", &bytes[..63]), None);
    }
}
