//! The machine the agent runs on, as the other rooms see it.

use super::block::BlockDevice;
use super::drive::{ArrayOrder, Ata, Holder, Nvme};
use super::efi::EfiVariables;
use super::files::Files;
use crate::inventory::bmc::Bmc;
use ferric_common::wire::inventory::{Disk, Inventory};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What went wrong between the agent and its machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("{action} {what}")]
    Io {
        action: &'static str,
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} is in use: {by}")]
    Busy { what: String, by: String },
    /// Guards a developer's workstation: outside the ramdisk the agent touches only what was named to it.
    #[error("refused to {action} {what}: this is not the ramdisk and the device was not named with --disk")]
    NotOurs { action: &'static str, what: String },
}

/// A disk as hint matching sees it: the wire's 14 fields, plus every serial and WWN under which it may be known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskFacts {
    pub disk: Disk,
    /// Candidates for a `serial` hint: lsblk's, udev's short and long forms. The first is `disk.serial`.
    pub serials: Vec<String>,
    pub wwns: Vec<String>,
    pub read_only: bool,
}

/// How far the drivers of the devices are that were found at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drivers {
    /// Not the ramdisk: somebody else cares for them.
    #[default]
    NotOurs,
    Loading,
    Loaded,
}

/// One member of the log archive.
#[derive(Clone, Debug)]
pub struct LogFile {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Reads a mounted folder.
pub type Look<'a> = &'a mut dyn FnMut(&Path) -> std::io::Result<()>;

/// Changes a mounted file system.
pub type Change<'a> = &'a mut dyn FnMut(&dyn Files) -> std::io::Result<()>;

/// Everything the agent asks of its machine. Calls may block for up to a second; async callers use a blocking thread.
pub trait Machine: Send + Sync {
    fn inventory(&self) -> Inventory;
    fn drivers(&self) -> Drivers {
        Drivers::NotOurs
    }
    /// Whole disks that could hold an operating system, in the kernel's order: no partitions, loops, ROMs, floppies,
    /// RAM disks, nothing of size 0.
    fn disks(&self) -> Result<Vec<DiskFacts>, MachineError>;
    /// Block devices of a disk's partitions (`/dev/sda1`, …), in order.
    fn partitions(&self, disk: &str) -> Result<Vec<String>, MachineError>;
    /// Opens a disk exclusively, for direct I/O. Refuses one that is mounted or held (md, LVM, dm).
    fn open_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError>;
    /// Opens a disk to be read alone, by direct I/O, also one that is in use. Writing to it is an error.
    ///
    /// # Errors
    /// It cannot be opened, or is not ours.
    fn peek_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        Err(MachineError::NotOurs { action: "read", what: name.to_owned() })
    }
    /// The first MiB of a disk, also of one that is in use.
    ///
    /// # Errors
    /// It cannot be opened or read.
    fn head(&self, disk: &str) -> Result<Vec<u8>, MachineError> {
        Err(MachineError::NotOurs { action: "read", what: disk.to_owned() })
    }
    /// Asks the kernel to read the partition table again; a kernel that cannot is not an error.
    fn reread_partitions(&self, disk: &str) -> Result<(), MachineError>;
    /// The erase commands of an NVMe namespace.
    ///
    /// # Errors
    /// No such device, or one that is not ours.
    fn nvme(&self, disk: &str) -> Result<Box<dyn Nvme>, MachineError> {
        Err(MachineError::NotOurs { action: "send commands to", what: disk.to_owned() })
    }
    /// The security commands of a drive behind SATA or SAS. That it answers to them is not known yet.
    ///
    /// # Errors
    /// As [`Machine::nvme`].
    fn ata(&self, disk: &str) -> Result<Box<dyn Ata>, MachineError> {
        Err(MachineError::NotOurs { action: "send commands to", what: disk.to_owned() })
    }
    /// What stands directly on a device or on its partitions.
    fn holders(&self, device: &str) -> Result<Vec<Holder>, MachineError> {
        let _ = device;
        Ok(Vec::new())
    }
    /// Stops an array, removes a mapping. What it held is untouched.
    ///
    /// # Errors
    /// The kernel's refusal: it is in use, or of a kind that cannot be ended so.
    fn release(&self, holder: &Holder) -> Result<(), MachineError> {
        Err(MachineError::NotOurs { action: "take down", what: holder.name.clone() })
    }
    /// The name that a running software RAID array was given when it was made.
    fn array_name(&self, array: &str) -> Option<String> {
        let _ = array;
        None
    }
    /// Software RAID arrays that run, or that lack what they need to run.
    fn arrays(&self) -> Vec<String> {
        Vec::new()
    }
    /// The disks and partitions that an array is made of.
    fn array_members(&self, array: &str) -> Vec<String> {
        let _ = array;
        Vec::new()
    }
    /// Runs all arrays whose members are there. Arrays that cannot run are no error.
    ///
    /// # Errors
    /// mdadm cannot be started; outside the ramdisk always.
    fn assemble_arrays(&self) -> Result<(), MachineError> {
        Err(MachineError::NotOurs { action: "assemble", what: "arrays".to_owned() })
    }
    /// Makes an array and runs it. What its members held is lost.
    ///
    /// # Errors
    /// What mdadm said; outside the ramdisk always.
    fn make_array(&self, order: &ArrayOrder) -> Result<(), MachineError> {
        Err(MachineError::NotOurs { action: "make", what: order.device.clone() })
    }
    /// Removes what the kernel kept of crashes in the firmware's memory. The names of what was there.
    ///
    /// # Errors
    /// A file that does not go; outside the ramdisk always.
    fn clear_pstore(&self) -> Result<Vec<String>, MachineError> {
        Err(MachineError::NotOurs { action: "clear", what: "the kernel's crash records".to_owned() })
    }
    /// Mounts a partition read-only, has `look` read the folder, and unmounts it again. `kind` is the kernel's name of the
    /// file system. Outside the ramdisk: an error.
    ///
    /// # Errors
    /// The mount's, or the one that `look` returned.
    fn look_into(&self, partition: &str, kind: &'static str, look: Look<'_>) -> Result<(), MachineError> {
        let (_, _) = (kind, look);
        Err(MachineError::NotOurs { action: "mount", what: partition.to_owned() })
    }
    /// Mounts a partition, has `change` work on it, flushes and unmounts it again. The kernel finds out which file system it is.
    ///
    /// # Errors
    /// As [`Machine::look_into`]; a flush that failed.
    fn change(&self, partition: &str, change: Change<'_>) -> Result<(), MachineError> {
        let _ = change;
        Err(MachineError::NotOurs { action: "mount", what: partition.to_owned() })
    }
    /// The firmware's variables.
    ///
    /// # Errors
    /// A machine without UEFI, a kernel that does not show them. Outside the ramdisk always.
    fn efi_variables(&self) -> Result<Arc<dyn EfiVariables>, MachineError> {
        Err(MachineError::NotOurs { action: "change", what: "the firmware's boot entries".to_owned() })
    }
    /// The address the kernel would use as source towards `target`, link-local ones left out.
    fn source_address(&self, target: IpAddr) -> Option<IpAddr>;
    /// sync(2), then drops caches.
    fn sync(&self) -> Result<(), MachineError>;
    /// Powers off or reboots at once. The caller has synced. Outside the ramdisk: an error, never the workstation.
    fn power_off(&self) -> Result<(), MachineError>;
    fn reboot(&self) -> Result<(), MachineError>;
    /// Makes the user `rescue` with this password hash, and has process 1 hand the machine over once the agent has ended.
    ///
    /// # Errors
    /// Account files that cannot be written. Outside the ramdisk always.
    fn open_to_rescuer(&self, hash: &str) -> Result<(), MachineError> {
        let _ = hash;
        Err(MachineError::NotOurs { action: "make a rescue user on", what: "this machine".to_owned() })
    }
    /// Has process 1 cut the machine off from every network once the agent has ended.
    ///
    /// # Errors
    /// As [`Machine::open_to_rescuer`].
    fn lock_down(&self) -> Result<(), MachineError> {
        Err(MachineError::NotOurs { action: "lock down", what: "this machine".to_owned() })
    }
    /// Time servers that the network named (DHCP option 42).
    fn time_servers(&self) -> Vec<IpAddr> {
        Vec::new()
    }
    /// Sets the machine's clock (system and hardware).
    ///
    /// # Errors
    /// Outside the ramdisk always: a workstation's clock is not ours to set.
    fn set_clock(&self, to: SystemTime) -> Result<(), MachineError> {
        let _ = to;
        Err(MachineError::NotOurs { action: "set", what: "the clock".to_string() })
    }
    /// Writes the machine's time to its battery clock.
    ///
    /// # Errors
    /// A machine without one, or one that refuses; always outside the ramdisk.
    fn keep_clock(&self) -> Result<(), MachineError> {
        Err(MachineError::NotOurs { action: "set", what: "the battery clock".to_string() })
    }
    /// The addresses of the BMC. Slow: asks it over its own bus; waits some seconds for one that is slow to answer.
    fn bmc(&self) -> Bmc {
        Bmc::default()
    }
    /// The first LLDP data unit that each interface hears. Blocks until all have heard one, at most for `wait`. The firmware of
    /// the cards at the PCI addresses `keepers` is told first to hand LLDP out.
    fn hear_lldp(
        &self,
        interfaces: &[String],
        keepers: &[String],
        wait: Duration,
    ) -> BTreeMap<String, Vec<u8>> {
        let (_, _, _) = (interfaces, keepers, wait);
        BTreeMap::new()
    }
    /// Kernel log, agent log, mounts, disks, addresses: what a person would look at first.
    fn logs(&self) -> Vec<LogFile>;
}
