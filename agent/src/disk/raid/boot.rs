//! A system on a software RAID array: no firmware reads an array, so each disk under it has an EFI system partition, and
//! together these are an array of their own, `esp`, whose superblock lies at the end (version 1.0), where firmware does not
//! look. The image's own system partition is moved there.
//!
//! Upstream behaviour: ironic-python-agent 13.0.0, `raid_utils.py`; it copies files into a new file system, here the file
//! system is copied whole, so its volume identifier, by which the system finds it, stays the same anyway.

use super::{ESP, free_name};
use crate::bootloader::entry::{Entry, Place};
use crate::bootloader::{self, BootError, table};
use crate::disk::{aligned, look, wipe};
use crate::platform::drive::ArrayOrder;
use crate::platform::machine::Machine;
use ferric_common::units::{ByteCount, DiskOffset, MIB, SectorSize};

/// A disk under the array.
struct Holder {
    place: Place,
    partition: String,
}

/// As [`bootloader::install`], for a disk that is an array: one entry of each loader for each disk under it.
///
/// # Errors
/// [`BootError`]. The original is blanked only when its copy and the boot entries are complete.
pub fn boot_entries(
    machine: &dyn Machine,
    array: &str,
    head: &[u8],
    sector: SectorSize,
) -> Result<Vec<Entry>, BootError> {
    let holders = holders(machine, array)?;
    let place = table::system_partition(head, sector)
        .map_err(|source| BootError::Table { disk: array.to_owned(), source })?
        .ok_or_else(|| BootError::NoSystemPartition { disk: array.to_owned() })?;
    let original = bootloader::wait_for_partition(machine, array, place.number)?;
    let (mirror, is_new) = mirror(machine, &holders)?;
    let loaders = match bootloader::find_loaders(machine, &original) {
        Ok(loaders) => {
            copy(machine, &original, &mirror)?;
            loaders
        }
        // Moved before, by a command whose answer was lost. Anything else that cannot be read is no reason to boot what an earlier
        // system left in the copy.
        Err(_) if !is_new && is_blank(machine, &original)? => bootloader::find_loaders(machine, &mirror)?,
        Err(error) => return Err(error),
    };
    let entries: Vec<Entry> = loaders
        .iter()
        .flat_map(|loader| {
            holders.iter().enumerate().map(|(nth, holder)| Entry {
                description: format!("{} (RAID, part{} of disk {nth})", loader.label, holder.place.number),
                place: holder.place,
                loader: loader.path.clone(),
            })
        })
        .collect();
    if !entries.is_empty() {
        bootloader::write(machine.efi_variables()?.as_ref(), &entries)?;
    }
    // Two file systems of one identifier would be mounted as chance has it.
    let disk = machine.open_disk(&original)?;
    wipe::metadata(disk.as_ref()).map_err(|error| failed("blanking", &original, &error))?;
    Ok(entries)
}

fn failed(action: &'static str, device: &str, error: &dyn std::error::Error) -> BootError {
    BootError::Mirror { action, device: device.to_owned(), why: wipe::chain(error) }
}

/// The disks under the array, each with its system partition.
fn holders(machine: &dyn Machine, array: &str) -> Result<Vec<Holder>, BootError> {
    let members = machine.array_members(array);
    let mut holders = Vec::new();
    for facts in machine.disks()? {
        let disk = facts.disk.name;
        if look::is_array(&disk) || !machine.partitions(&disk)?.iter().any(|part| members.contains(part)) {
            continue;
        }
        let head = machine.head(&disk)?;
        let found = table::system_partition(&head, SectorSize(facts.disk.logical_sectors))
            .map_err(|source| BootError::Table { disk: disk.clone(), source })?;
        let place =
            found.ok_or_else(|| BootError::NoRoomUnder { array: array.to_owned(), disk: disk.clone() })?;
        holders.push(Holder { place, partition: table::partition_name(&disk, place.number) });
    }
    match holders.is_empty() {
        true => Err(BootError::NoRoomUnder { array: array.to_owned(), disk: "none of its disks".to_owned() }),
        false => Ok(holders),
    }
}

fn is_blank(machine: &dyn Machine, device: &str) -> Result<bool, BootError> {
    let disk = machine.open_disk(device)?;
    let length = ByteCount(disk.size().0.min(MIB));
    let start = aligned::read(disk.as_ref(), DiskOffset(0), length)
        .map_err(|error| failed("reading", device, &error))?;
    Ok(start.iter().all(|byte| *byte == 0))
}

/// The array of these system partitions, and whether it was made just now.
fn mirror(machine: &dyn Machine, holders: &[Holder]) -> Result<(String, bool), BootError> {
    let is_theirs = |name: &String| {
        let members = machine.array_members(name);
        let is_one = |member: &String| holders.iter().any(|holder| holder.partition == *member);
        machine.array_name(name).as_deref() == Some(ESP) && members.iter().all(is_one)
    };
    if let Some(there) = machine.arrays().into_iter().find(is_theirs) {
        return Ok((there, false));
    }
    let device = free_name(machine);
    let members = holders.iter().map(|holder| holder.partition.clone()).collect();
    let order =
        ArrayOrder { device: device.clone(), name: ESP.to_owned(), level: "1", metadata: "1.0", members };
    machine.make_array(&order)?;
    tracing::info!("made {device} of the EFI system partitions {}", order.members.join(", "));
    Ok((device, true))
}

/// Copies a file system whole; behind it the old content of the larger device stays.
fn copy(machine: &dyn Machine, from: &str, to: &str) -> Result<(), BootError> {
    let (source, target) = (machine.open_disk(from)?, machine.open_disk(to)?);
    let (size, room) = (source.size(), target.size());
    if size > room {
        return Err(BootError::Mirror {
            action: "copying",
            device: from.to_owned(),
            why: format!("it has {size}, the partitions for it on the disks have {room}"),
        });
    }
    for at in (0..size.0).step_by(MIB as usize) {
        let length = ByteCount((size.0 - at).min(MIB));
        let bytes = aligned::read(source.as_ref(), DiskOffset(at), length)
            .map_err(|error| failed("reading", from, &error))?;
        aligned::write(target.as_ref(), DiskOffset(at), &bytes)
            .map_err(|error| failed("writing", to, &error))?;
    }
    target.flush().map_err(|error| failed("flushing", to, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{FileDisk, run};
    use crate::platform::block::BlockDevice;
    use crate::platform::fake::efi::MemVariables;
    use crate::platform::fake::machine::{Call, FakeMachine, facts};
    use std::fs;
    use std::sync::Arc;

    /// An array over two disks that have room for a system partition each; its own is a file.
    #[test]
    fn a_system_on_an_array_boots_from_each_of_its_disks() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("EFI/BOOT")).unwrap();
        fs::write(folder.path().join("EFI/BOOT/BOOTX64.EFI"), b"loader").unwrap();
        let disk = |name: &str, size: u64, script: Option<&str>| {
            let disk = Arc::new(FileDisk::new(size, 512));
            if let Some(script) = script {
                run("sfdisk", &["--quiet"], disk.path(), script);
            }
            (name.to_owned(), disk)
        };
        let under = "label: gpt\nstart=60M, size=100M, type=R\nstart=1M, size=50M, type=U\n";
        let devices = [
            disk("/dev/md0", 90 * MIB, Some("label: gpt\n1M 2M L\n4M 40M U\n")),
            disk("/dev/md0p2", 40 * MIB, None),
            disk("/dev/md1", 50 * MIB, None),
            disk("/dev/vda", 200 * MIB, Some(under)),
            disk("/dev/vdb", 200 * MIB, Some(under)),
        ];
        let original: Vec<u8> = (0..40 * MIB).map(|byte| (byte % 251) as u8).collect();
        devices[1].1.put(0, &original);
        let head = &devices[0].1.bytes(0, 1 << 20);
        let mut machine = FakeMachine::new();
        for (name, device) in &devices {
            let device = Arc::clone(device);
            let open = move || Ok(Arc::clone(&device) as Arc<dyn BlockDevice>);
            machine = machine.with_disk(facts(name, 1, name), open);
        }
        machine
            .set_disks(["/dev/md0", "/dev/vda", "/dev/vdb"].map(|name| facts(name, 200 * MIB, name)).into());
        let order = |device: &str, name: &str, members: &[&str]| ArrayOrder {
            device: device.into(),
            name: name.into(),
            level: "1",
            metadata: if name == "esp" { "1.0" } else { "1.2" },
            members: members.iter().map(|member| (*member).to_owned()).collect(),
        };
        let variables = Arc::new(MemVariables::default());
        machine.efi = Some(variables.clone());
        machine.folders.insert("/dev/md0p2".into(), folder.path().to_owned());
        let machine = machine
            .with_array(order("/dev/md0", "system", &["/dev/vda1", "/dev/vdb1"]))
            .with_partitions("/dev/md0", &["/dev/md0p1", "/dev/md0p2"])
            .with_partitions("/dev/vda", &["/dev/vda1", "/dev/vda2"])
            .with_partitions("/dev/vdb", &["/dev/vdb1", "/dev/vdb2"]);
        let entries = boot_entries(&machine, "/dev/md0", head, SectorSize(512)).unwrap();
        let shown: Vec<_> =
            entries.iter().map(|e| (e.description.as_str(), e.place.number, e.place.first)).collect();
        assert_eq!(
            shown,
            [("ironic1 (RAID, part2 of disk 0)", 2, 2048), ("ironic1 (RAID, part2 of disk 1)", 2, 2048)]
        );
        assert_ne!(entries[0].place.signature, entries[1].place.signature);
        assert!(machine.calls().contains(&Call::Made(order("/dev/md1", "esp", &["/dev/vda2", "/dev/vdb2"]))));
        assert!(devices[2].1.bytes(0, original.len()) == original, "the file system was not copied");
        assert!(devices[1].1.bytes(0, 1 << 20).iter().all(|byte| *byte == 0), "the original is still there");
        assert_eq!(variables.snapshot().len(), 3);
        // Again, as after an answer that was lost: the copy is what counts then.
        let mut again = machine;
        again.folders = [("/dev/md1".to_owned(), folder.path().to_owned())].into();
        assert_eq!(boot_entries(&again, "/dev/md0", head, SectorSize(512)).unwrap(), entries);
        assert!(devices[2].1.bytes(0, original.len()) == original, "the copy was overwritten");
        // A new image whose system partition cannot be read must not boot what the last one left in the copy.
        devices[1].1.put(0, b"no file system");
        let before = variables.snapshot();
        assert!(boot_entries(&again, "/dev/md0", head, SectorSize(512)).is_err());
        assert_eq!(variables.snapshot(), before);
    }
}
