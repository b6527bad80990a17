//! A machine that exists in memory: disks and what opening them gives are set by the test, power is only written down.

use super::drive::{FakeAta, FakeNvme};
use crate::inventory::bmc::Bmc;
use crate::platform::block::BlockDevice;
use crate::platform::drive::{ArrayOrder, Ata, Holder, HolderKind, Nvme};
use crate::platform::efi::EfiVariables;
use crate::platform::linux::tree::Tree;
use crate::platform::machine::{Change, DiskFacts, Drivers, LogFile, Look, Machine, MachineError};
use ferric_common::units::DiskOffset;
use ferric_common::wire::inventory::{Disk, Inventory};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What was asked of the machine, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Opened(String),
    Reread(String),
    Released(String),
    Mounted(String, &'static str),
    Synced,
    PowerOff,
    Reboot,
    ClockSet(SystemTime),
    Assembled,
    Made(ArrayOrder),
}

type Opener = Box<dyn Fn() -> Result<Arc<dyn BlockDevice>, MachineError> + Send + Sync>;

/// Built with [`FakeMachine::with_disk`] and its like; shared by reference with what is tested.
#[derive(Default)]
pub struct FakeMachine {
    pub inventory: Inventory,
    pub address: Option<IpAddr>,
    pub logs: Vec<LogFile>,
    pub bmc: Bmc,
    /// Heard on interfaces.
    pub lldp: BTreeMap<String, Vec<u8>>,
    pub time_servers: Vec<IpAddr>,
    /// What is found on a partition when it is mounted.
    pub folders: BTreeMap<String, PathBuf>,
    pub efi: Option<Arc<dyn EfiVariables>>,
    pub nvme: BTreeMap<String, FakeNvme>,
    pub ata: BTreeMap<String, FakeAta>,
    /// Names of running arrays.
    pub arrays: BTreeMap<String, String>,
    /// Crash records in the firmware's memory.
    pub records: Mutex<Vec<String>>,
    holders: Mutex<Vec<(String, Holder)>>,
    disks: Mutex<Vec<DiskFacts>>,
    openers: BTreeMap<String, Opener>,
    partitions: Mutex<BTreeMap<String, Vec<String>>>,
    /// Partitions that are there once the disk was read again.
    later: BTreeMap<String, Vec<String>>,
    made: Mutex<Vec<ArrayOrder>>,
    /// Arrays that nobody has run yet, and the disks that they are then.
    asleep: Mutex<Vec<(ArrayOrder, DiskFacts)>>,
    drivers: Mutex<Drivers>,
    /// How often somebody asked about drivers.
    pub waits: AtomicUsize,
    /// Arrays cannot be run.
    pub no_mdadm: bool,
    calls: Mutex<Vec<Call>>,
}

impl FakeMachine {
    /// No disks; reached at 127.0.0.1.
    pub fn new() -> FakeMachine {
        FakeMachine { address: Some(Ipv4Addr::LOCALHOST.into()), ..FakeMachine::default() }
    }

    /// Adds a disk; `open` runs at each opening, so it may hand out the same disk again, a fresh one, or an error.
    #[must_use]
    pub fn with_disk(
        mut self,
        facts: DiskFacts,
        open: impl Fn() -> Result<Arc<dyn BlockDevice>, MachineError> + Send + Sync + 'static,
    ) -> FakeMachine {
        self.inventory.disks.push(facts.disk.clone());
        self.openers.insert(facts.disk.name.clone(), Box::new(open));
        lock(&self.disks).push(facts);
        self
    }

    #[must_use]
    pub fn with_partitions(self, disk: &str, partitions: &[&str]) -> FakeMachine {
        lock(&self.partitions).insert(disk.to_owned(), owned(partitions));
        self
    }

    /// These show when the disk's table is read again.
    #[must_use]
    pub fn with_partitions_later(mut self, disk: &str, partitions: &[&str]) -> FakeMachine {
        self.later.insert(disk.to_owned(), owned(partitions));
        self
    }

    /// An array that runs.
    #[must_use]
    pub fn with_array(self, order: ArrayOrder) -> FakeMachine {
        lock(&self.made).push(order);
        self
    }

    /// An array that runs, and is a disk, once arrays were assembled.
    #[must_use]
    pub fn with_sleeping_array(self, order: ArrayOrder, facts: DiskFacts) -> FakeMachine {
        lock(&self.asleep).push((order, facts));
        self
    }

    /// Something that stands on a disk until it is released.
    #[must_use]
    pub fn with_holder(self, device: &str, name: &str, kind: HolderKind) -> FakeMachine {
        lock(&self.holders).push((device.to_owned(), Holder { name: name.to_owned(), kind }));
        self
    }

    /// Replaces the list of disks, as when a disk appears late or vanishes.
    pub fn set_disks(&self, disks: Vec<DiskFacts>) {
        *lock(&self.disks) = disks;
    }

    /// Drivers load, or have loaded.
    pub fn set_drivers(&self, drivers: Drivers) {
        *lock(&self.drivers) = drivers;
    }

    /// What was asked so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    fn open(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        match self.openers.get(name) {
            Some(open) => open(),
            None => Err(MachineError::NotOurs { action: "open", what: name.to_owned() }),
        }
    }

    fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }
}

/// A disk with a name, a size in bytes and a serial, the rest empty.
pub fn facts(name: &str, size: u64, serial: &str) -> DiskFacts {
    let disk = Disk {
        name: name.to_owned(),
        size,
        serial: Some(serial.to_owned()),
        logical_sectors: 512,
        physical_sectors: 512,
        ..Disk::default()
    };
    DiskFacts { disk, serials: vec![serial.to_owned()], ..DiskFacts::default() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine for FakeMachine {
    fn inventory(&self) -> Inventory {
        self.inventory.clone()
    }
    fn drivers(&self) -> Drivers {
        self.waits.fetch_add(1, Ordering::Relaxed);
        *lock(&self.drivers)
    }
    fn disks(&self) -> Result<Vec<DiskFacts>, MachineError> {
        Ok(lock(&self.disks).clone())
    }
    fn partitions(&self, disk: &str) -> Result<Vec<String>, MachineError> {
        Ok(lock(&self.partitions).get(disk).cloned().unwrap_or_default())
    }
    fn open_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        self.note(Call::Opened(name.to_owned()));
        self.open(name)
    }
    fn peek_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        self.open(name)
    }
    fn head(&self, disk: &str) -> Result<Vec<u8>, MachineError> {
        let device = self.open(disk)?;
        let length = device.size().0.min(1 << 20) as usize;
        let mut memory = vec![0; length + 4096];
        let shift = memory.as_ptr().align_offset(4096);
        let head = memory.get_mut(shift..shift + length).unwrap_or_default();
        let read = device.read_at(DiskOffset(0), head);
        read.map_err(|source| MachineError::Io { action: "reading", what: disk.to_owned(), source })?;
        Ok(head.to_vec())
    }
    fn reread_partitions(&self, disk: &str) -> Result<(), MachineError> {
        self.note(Call::Reread(disk.to_owned()));
        if let Some(later) = self.later.get(disk) {
            lock(&self.partitions).insert(disk.to_owned(), later.clone());
        }
        Ok(())
    }
    fn nvme(&self, disk: &str) -> Result<Box<dyn Nvme>, MachineError> {
        match self.nvme.get(disk) {
            Some(drive) => Ok(Box::new(drive.clone())),
            None => Err(MachineError::NotOurs { action: "send commands to", what: disk.to_owned() }),
        }
    }
    fn ata(&self, disk: &str) -> Result<Box<dyn Ata>, MachineError> {
        match self.ata.get(disk) {
            Some(drive) => Ok(Box::new(drive.clone())),
            None => Err(MachineError::NotOurs { action: "send commands to", what: disk.to_owned() }),
        }
    }
    fn holders(&self, device: &str) -> Result<Vec<Holder>, MachineError> {
        let parts = self.partitions(device)?;
        let is_on = |order: &&ArrayOrder| order.members.iter().any(|on| on == device || parts.contains(on));
        let made = lock(&self.made);
        let arrays =
            made.iter().filter(is_on).map(|o| Holder { name: o.device.clone(), kind: HolderKind::Array });
        let all = lock(&self.holders);
        Ok(all
            .iter()
            .filter(|(on, _)| on == device)
            .map(|(_, holder)| holder.clone())
            .chain(arrays)
            .collect())
    }
    fn release(&self, holder: &Holder) -> Result<(), MachineError> {
        self.note(Call::Released(holder.name.clone()));
        lock(&self.holders).retain(|(_, other)| other != holder);
        lock(&self.disks).retain(|facts| facts.disk.name != holder.name);
        lock(&self.made).retain(|order| order.device != holder.name);
        Ok(())
    }
    fn array_name(&self, array: &str) -> Option<String> {
        let made = lock(&self.made);
        let order = made.iter().find(|order| order.device == array);
        order.map(|order| order.name.clone()).or_else(|| self.arrays.get(array).cloned())
    }
    fn arrays(&self) -> Vec<String> {
        lock(&self.made).iter().map(|order| order.device.clone()).collect()
    }
    fn array_members(&self, array: &str) -> Vec<String> {
        let made = lock(&self.made);
        made.iter().find(|order| order.device == array).map(|order| order.members.clone()).unwrap_or_default()
    }
    fn assemble_arrays(&self) -> Result<(), MachineError> {
        self.note(Call::Assembled);
        if self.no_mdadm {
            return Err(MachineError::NotOurs { action: "assemble", what: "arrays".to_owned() });
        }
        for (order, facts) in std::mem::take(&mut *lock(&self.asleep)) {
            lock(&self.made).push(order);
            lock(&self.disks).push(facts);
        }
        Ok(())
    }
    fn make_array(&self, order: &ArrayOrder) -> Result<(), MachineError> {
        self.note(Call::Made(order.clone()));
        lock(&self.made).push(order.clone());
        Ok(())
    }
    fn clear_pstore(&self) -> Result<Vec<String>, MachineError> {
        Ok(std::mem::take(&mut *lock(&self.records)))
    }
    fn look_into(&self, partition: &str, kind: &'static str, look: Look<'_>) -> Result<(), MachineError> {
        self.note(Call::Mounted(partition.to_owned(), kind));
        let folder = self.folders.get(partition).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        folder.and_then(|folder| look(folder)).map_err(|source| MachineError::Io {
            action: "reading",
            what: partition.to_owned(),
            source,
        })
    }
    fn change(&self, partition: &str, change: Change<'_>) -> Result<(), MachineError> {
        self.note(Call::Mounted(partition.to_owned(), "any"));
        let folder = self.folders.get(partition).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let changed = folder.and_then(|folder| Tree::open(folder)).and_then(|tree| change(&tree));
        changed.map_err(|source| MachineError::Io { action: "changing", what: partition.to_owned(), source })
    }
    fn efi_variables(&self) -> Result<Arc<dyn EfiVariables>, MachineError> {
        let none = || MachineError::NotOurs { action: "change", what: "boot entries".to_owned() };
        self.efi.clone().ok_or_else(none)
    }
    fn source_address(&self, _target: IpAddr) -> Option<IpAddr> {
        self.address
    }
    fn sync(&self) -> Result<(), MachineError> {
        self.note(Call::Synced);
        Ok(())
    }
    fn power_off(&self) -> Result<(), MachineError> {
        self.note(Call::PowerOff);
        Ok(())
    }
    fn reboot(&self) -> Result<(), MachineError> {
        self.note(Call::Reboot);
        Ok(())
    }
    fn time_servers(&self) -> Vec<IpAddr> {
        self.time_servers.clone()
    }
    fn set_clock(&self, to: SystemTime) -> Result<(), MachineError> {
        self.note(Call::ClockSet(to));
        Ok(())
    }
    fn bmc(&self) -> Bmc {
        self.bmc.clone()
    }
    fn hear_lldp(&self, _: &[String], _: &[String], _: Duration) -> BTreeMap<String, Vec<u8>> {
        self.lldp.clone()
    }
    fn logs(&self) -> Vec<LogFile> {
        self.logs.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_remembered_in_order() {
        let busy = || Err(MachineError::Busy { what: "/dev/sda".into(), by: "a test".into() });
        let machine = FakeMachine::new().with_disk(facts("/dev/sda", 1 << 30, "ABC"), busy);
        assert_eq!(machine.disks().unwrap()[0].disk, machine.inventory().disks[0]);
        assert!(matches!(machine.open_disk("/dev/sda"), Err(MachineError::Busy { .. })));
        assert!(matches!(machine.open_disk("/dev/sdb"), Err(MachineError::NotOurs { .. })));
        machine.sync().unwrap();
        machine.power_off().unwrap();
        assert_eq!(
            machine.calls(),
            [Call::Opened("/dev/sda".into()), Call::Opened("/dev/sdb".into()), Call::Synced, Call::PowerOff]
        );
        machine.set_disks(vec![]);
        assert!(machine.disks().unwrap().is_empty());
    }
}
