//! Takes down what stands on a disk (arrays, LVM, dm-crypt), top first, so that the disk can be opened exclusively. Content
//! is not touched; what other machines share is looked for on each before it goes.

use super::look::{Device, Look};
use super::wipe::{EraseError, chain};
use crate::platform::drive::{Holder, HolderKind};
use crate::platform::machine::Machine;

/// Mappings upon mappings that are followed.
const DEEPEST: u32 = 16;

/// What may be taken down.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Running software RAID arrays stay.
    pub keeps_arrays: bool,
    /// Shared file systems are no reason to stop.
    pub insists: bool,
}

/// Why a device is still held.
#[derive(Debug)]
pub enum Held {
    /// Nothing may be erased.
    Stop(EraseError),
    /// This disk cannot be erased, and why.
    Busy(String),
}

/// Frees a device and its partitions. Returns the arrays that it or they stay members of, if arrays are kept.
///
/// # Errors
/// [`Held`].
pub fn take_down(machine: &dyn Machine, device: &str, rules: Rules) -> Result<Vec<String>, Held> {
    free(machine, device, rules, DEEPEST)
}

fn free(machine: &dyn Machine, device: &str, rules: Rules, depth: u32) -> Result<Vec<String>, Held> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Held::Busy(format!("more than {DEEPEST} mappings stand on each other above {device}")));
    };
    let mut kept = Vec::new();
    for holder in machine.holders(device).map_err(|error| Held::Busy(chain(&error)))? {
        match holder.kind {
            HolderKind::Array if rules.keeps_arrays => kept.push(holder.name),
            HolderKind::Multipath => return Err(Held::Busy(format!("it is a path of {}", holder.name))),
            _ => {
                if let Some(array) = free(machine, &holder.name, rules, depth)?.first() {
                    return Err(Held::Busy(format!("{} is part of {array}, which is kept", holder.name)));
                }
                release(machine, &holder, rules)?;
            }
        }
    }
    Ok(kept)
}

fn release(machine: &dyn Machine, holder: &Holder, rules: Rules) -> Result<(), Held> {
    let partitions = machine.partitions(&holder.name).map_err(|error| Held::Busy(chain(&error)))?;
    let devices = std::iter::once(Device::disk(&holder.name, &partitions))
        .chain(partitions.iter().cloned().map(Device::partition));
    for device in devices {
        match device.look(machine) {
            Ok(Look::Protected(what)) if !rules.insists => {
                return Err(Held::Stop(EraseError::Protected { what, device: device.name }));
            }
            Ok(_) => {}
            Err(why) => return Err(Held::Busy(why)),
        }
    }
    machine.release(holder).map_err(|error| Held::Busy(chain(&error)))?;
    tracing::info!("took down {}", holder.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::FileDisk;
    use crate::platform::block::BlockDevice;
    use crate::platform::fake::machine::{Call, FakeMachine, facts};
    use crate::platform::machine::MachineError;
    use std::sync::Arc;

    /// `sda1` is in `md0`, on which stands `dm-1`; `sda2` is `dm-0`.
    fn machine(content: &[u8]) -> FakeMachine {
        let mut machine = FakeMachine::new().with_partitions("/dev/sda", &["/dev/sda1", "/dev/sda2"]);
        for name in ["/dev/md0", "/dev/dm-0", "/dev/dm-1"] {
            let disk = Arc::new(FileDisk::new(4 << 20, 512));
            if name == "/dev/dm-1" {
                disk.put(65_536, content);
            }
            machine = machine
                .with_disk(facts(name, 4 << 20, "x"), move || Ok(Arc::clone(&disk) as Arc<dyn BlockDevice>));
        }
        machine
            .with_holder("/dev/sda", "/dev/md0", HolderKind::Array)
            .with_holder("/dev/sda", "/dev/dm-0", HolderKind::Mapping)
            .with_holder("/dev/md0", "/dev/dm-1", HolderKind::Mapping)
    }

    fn released(machine: &FakeMachine) -> Vec<String> {
        let name = |call| match call {
            Call::Released(name) => Some(name),
            _ => None,
        };
        machine.calls().into_iter().filter_map(name).collect()
    }

    #[test]
    fn the_top_goes_first() {
        let machine = machine(b"");
        let rules = Rules { keeps_arrays: false, insists: false };
        assert!(take_down(&machine, "/dev/sda", rules).unwrap().is_empty());
        assert_eq!(released(&machine), ["/dev/dm-1", "/dev/md0", "/dev/dm-0"]);
        assert!(machine.holders("/dev/sda").unwrap().is_empty());
    }

    #[test]
    fn a_kept_array_stays_and_is_named() {
        let machine = machine(b"");
        let rules = Rules { keeps_arrays: true, insists: false };
        assert_eq!(take_down(&machine, "/dev/sda", rules).unwrap(), ["/dev/md0"]);
        assert_eq!(released(&machine), ["/dev/dm-0"]);
    }

    #[test]
    fn a_shared_file_system_on_top_stops_everything() {
        let gfs2 = b"\x01\x16\x19\x70\0\0\0\x01";
        let shared = machine(gfs2);
        let rules = Rules { keeps_arrays: false, insists: false };
        let Err(Held::Stop(error)) = take_down(&shared, "/dev/sda", rules) else { panic!("it went") };
        assert!(error.to_string().contains("(GFS2) located on device /dev/dm-1"), "{error}");
        assert!(released(&shared).is_empty());
        take_down(&machine(gfs2), "/dev/sda", Rules { insists: true, ..rules }).unwrap();
    }

    #[test]
    fn what_cannot_be_taken_down_is_told() {
        let rules = Rules { keeps_arrays: false, insists: false };
        let path = FakeMachine::new().with_holder("/dev/sda", "/dev/dm-0", HolderKind::Multipath);
        let Err(Held::Busy(why)) = take_down(&path, "/dev/sda", rules) else { panic!("it went") };
        assert_eq!(why, "it is a path of /dev/dm-0");
        let busy = FakeMachine::new()
            .with_holder("/dev/sda", "/dev/dm-0", HolderKind::Mapping)
            .with_disk(facts("/dev/dm-0", 1, "x"), || {
                Err(MachineError::Busy { what: "/dev/dm-0".into(), by: "it is mounted on /srv".into() })
            });
        let Err(Held::Busy(why)) = take_down(&busy, "/dev/sda", rules) else { panic!("it went") };
        assert_eq!(why, "/dev/dm-0 is in use: it is mounted on /srv");
        let circle = FakeMachine::new()
            .with_holder("/dev/sda", "/dev/dm-0", HolderKind::Mapping)
            .with_holder("/dev/dm-0", "/dev/dm-0", HolderKind::Mapping);
        assert!(
            matches!(take_down(&circle, "/dev/sda", rules), Err(Held::Busy(why)) if why.contains("more than 16"))
        );
    }
}
