//! The disks that an erase leaves alone, and what may be another path to one of them, which must stay, too. Nothing may
//! be written to find that out: samples are compared as they stand.

use super::aligned;
use super::erase::fault::DeviceFault;
use super::erase::noise;
use super::erase::paths::identity;
use super::erase::proof::Marks;
use super::wipe::chain;
use crate::platform::block::BlockDevice;
use crate::platform::machine::{DiskFacts, Machine};

/// Disks that stay.
#[derive(Debug, Default)]
pub struct Stays<'a> {
    disks: Vec<&'a DiskFacts>,
}

/// What a disk that is to be erased has to do with those that stay. Why, in words.
#[derive(Debug, PartialEq, Eq)]
pub enum Tie {
    Free,
    /// It stays with the other.
    Path(String),
    /// Nobody knows: it stays, and that is a failure.
    Unclear(String),
}

/// Two devices that have their names in common.
enum Compared {
    Same,
    Different,
    /// Equal, as all blank disks are.
    Blank,
}

impl<'a> Stays<'a> {
    pub fn add(&mut self, facts: &'a DiskFacts) {
        self.disks.push(facts);
    }

    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.disks.iter().map(|facts| facts.disk.name.as_str())
    }

    /// Some makers give all their drives one name: only what stands on a disk tells that it is another one.
    pub fn tie(&self, machine: &dyn Machine, facts: &DiskFacts) -> Tie {
        let Some(own) = identity(facts) else { return Tie::Free };
        let name = &facts.disk.name;
        let mut tie = Tie::Free;
        for other in self.disks.iter().filter(|other| identity(other) == Some(own)) {
            let other = &other.disk.name;
            let why = match compare(machine, other, name) {
                Ok(Compared::Different) => {
                    tracing::warn!("{name} has the names of {other} and is not the same disk");
                    continue;
                }
                Ok(Compared::Same) => {
                    return Tie::Path(format!("it is another path to {other}, which is not erased"));
                }
                Ok(Compared::Blank) => "both look blank".to_owned(),
                Err(why) => why,
            };
            tie = Tie::Unclear(format!(
                "{name} cannot be told apart from {other}, which stays: their world-wide names, serials and sizes are \
                 equal, and {why}. If it is a path to {other}, name it in skip_block_devices, too"
            ));
        }
        tie
    }
}

/// # Errors
/// Why one of them cannot be read, in one line.
fn compare(machine: &dyn Machine, stays: &str, name: &str) -> Result<Compared, String> {
    let open = |name: &str| machine.peek_disk(name).map_err(|error| chain(&error));
    let (stays, disk) = (open(stays)?, open(name)?);
    let mut found = Compared::Blank;
    for (at, length) in Marks::new(stays.size().0, noise::seed()).samples() {
        let read = |disk: &dyn BlockDevice| {
            let bytes = aligned::read(disk, at, length);
            bytes.map_err(DeviceFault::at("reading a sample of", disk, at.0)).map_err(|error| chain(&error))
        };
        let (bytes, others) = (read(stays.as_ref())?, read(disk.as_ref())?);
        if bytes != others {
            // An array, a file system may be writing to what stays: a difference counts if that held still meanwhile.
            if read(stays.as_ref())? == bytes {
                return Ok(Compared::Different);
            }
        } else if bytes.iter().any(|byte| Some(byte) != bytes.first()) {
            found = Compared::Same;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::block::{Fault, MemDisk};
    use crate::platform::fake::machine::{FakeMachine, facts};
    use ferric_common::units::MIB;
    use std::sync::Arc;

    const SIZE: u64 = 8 * MIB;

    /// What `sdb` has to do with `sda`, which stays.
    fn tie(stays: MemDisk, disk: MemDisk, wwns: [&str; 2]) -> Tie {
        let mut machine = FakeMachine::new();
        let mut all = Vec::new();
        for ((name, disk), wwn) in [("/dev/sda", stays), ("/dev/sdb", disk)].into_iter().zip(wwns) {
            let mut facts = facts(name, SIZE, "SN1");
            facts.wwns = Some(wwn.to_owned()).filter(|wwn| !wwn.is_empty()).into_iter().collect();
            all.push(facts.clone());
            let disk = Arc::new(disk.named(name));
            machine = machine.with_disk(facts, move || Ok(Arc::clone(&disk) as Arc<dyn BlockDevice>));
        }
        let stays = Stays { disks: vec![&all[0]] };
        stays.tie(&machine, &all[1])
    }

    #[test]
    fn only_what_stands_on_disks_of_one_name_tells_them_apart() {
        let blank = || MemDisk::new(SIZE);
        let with = |bytes: &[u8]| blank().holding(bytes);
        let one = ["0x5000"; 2];
        assert_eq!(tie(with(b"A"), with(b"A"), ["0x5000", "0x6000"]), Tie::Free);
        assert_eq!(tie(with(b"A"), with(b"A"), [""; 2]), Tie::Free);
        assert_eq!(tie(with(b"A"), with(b"B"), one), Tie::Free);
        assert_eq!(tie(blank(), with(b"B"), one), Tie::Free);
        let path = "it is another path to /dev/sda, which is not erased";
        assert_eq!(tie(with(b"A"), with(b"A"), one), Tie::Path(path.into()));
        let unreadable = || with(b"A").with_fault(Fault::Read(SIZE - 1));
        for (stays, disk, why) in [
            (blank(), blank(), "equal, and both look blank. If"),
            (
                unreadable(),
                with(b"A"),
                "equal, and reading a sample of /dev/sda at byte 7340032: medium error. If",
            ),
            (
                with(b"A"),
                unreadable(),
                "equal, and reading a sample of /dev/sdb at byte 7340032: medium error. If",
            ),
        ] {
            let Tie::Unclear(words) = tie(stays, disk, one) else { panic!("{why}") };
            assert!(
                words.starts_with("/dev/sdb cannot be told apart from /dev/sda, which stays: "),
                "{words}"
            );
            assert!(words.contains(why), "{words}");
        }
    }
}
