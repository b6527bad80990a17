//! The real machine. What may be done to it depends on where this runs: in the ramdisk (process 1 left its marker) everything,
//! anywhere else only the disks named with `--disk` may be opened, and the power stays as it is.

use super::efivars::{self, EfiVars};
use super::handover::{self, Handover};
use super::{
    SETTLED_MARKER, STATE_DIR, addresses, clock, in_ramdisk, ioctl, ipmi, lldp, logs, netlink::Netlink,
    process,
};
use super::{arrays, ata::LinuxAta, holders, nvme::LinuxNvme, pstore};
use crate::inventory::bmc::{self, Bmc};
use crate::inventory::{self, Live, Roots, disks};
use crate::logging;
use crate::media;
use crate::network::settings;
use crate::platform::block::BlockDevice;
use crate::platform::drive::{ArrayOrder, Ata, Holder, HolderKind, Nvme};
use crate::platform::efi::EfiVariables;
use crate::platform::machine::{Change, DiskFacts, Drivers, LogFile, Look, Machine, MachineError};
use ferric_common::units::MIB;
use ferric_common::wire::inventory::{Disk, Inventory};
use nix::sys::reboot::{RebootMode, reboot};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const HARDWARE_CLOCK: &str = "/dev/rtc0";

/// A disk named on the command line: `PATH` or `PATH,serial=XYZ`. A block device or a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDisk {
    pub path: PathBuf,
    pub serial: Option<String>,
}

/// Why a `--disk` is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedDiskError {
    #[error("--disk needs an absolute path, not '{0}'")]
    Path(String),
    #[error("--disk takes PATH or PATH,serial=TEXT; '{0}' is neither")]
    Option(String),
}

impl FromStr for NamedDisk {
    type Err = NamedDiskError;
    fn from_str(text: &str) -> Result<NamedDisk, NamedDiskError> {
        let (path, serial) = match text.split_once(',') {
            None => (text, None),
            Some((path, option)) => match option.strip_prefix("serial=") {
                Some(serial) if !serial.is_empty() => (path, Some(serial.to_owned())),
                _ => return Err(NamedDiskError::Option(option.to_owned())),
            },
        };
        if !path.starts_with('/') {
            return Err(NamedDiskError::Path(path.to_owned()));
        }
        Ok(NamedDisk { path: path.into(), serial })
    }
}

pub struct LinuxMachine {
    roots: Roots,
    /// When not empty, the only disks there are.
    named: Vec<NamedDisk>,
    ramdisk: bool,
}

impl LinuxMachine {
    pub fn new(named: Vec<NamedDisk>) -> LinuxMachine {
        LinuxMachine { roots: Roots::default(), named, ramdisk: in_ramdisk() }
    }

    fn is_named(&self, name: &str) -> bool {
        self.named.iter().any(|disk| disk.path == Path::new(name))
    }

    /// Outside the ramdisk, only what was named; with anything named, only that.
    fn must_be_ours(&self, action: &'static str, name: &str) -> Result<(), MachineError> {
        if self.is_named(name) || (self.ramdisk && self.named.is_empty()) {
            Ok(())
        } else {
            Err(MachineError::NotOurs { action, what: name.to_owned() })
        }
    }

    /// Refuses a disk that anything uses: a file system, swap, md, LVM, dm-crypt.
    fn must_be_free(&self, name: &str) -> Result<(), MachineError> {
        let busy = |by: String| Err(MachineError::Busy { what: name.to_owned(), by });
        let Some(disk) = disks::kernel_name(name) else { return Ok(()) };
        if let Some(holder) = disks::holders(&self.roots.sys, &disk).first() {
            return busy(format!("it or a partition of it is part of /dev/{holder}"));
        }
        let mounts = fs::read_to_string(self.roots.proc.join("self/mountinfo")).unwrap_or_default();
        for (number, on) in mounts.lines().filter_map(mount_of) {
            if disks::disk_of(&self.roots.sys, number).as_deref() == Some(&disk) {
                return busy(format!("it or a partition of it is mounted on {on}"));
            }
        }
        let swaps = fs::read_to_string(self.roots.proc.join("swaps")).unwrap_or_default();
        let parts = disks::partitions(&self.roots.sys, &disk);
        for swap in swaps.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("/dev/")) {
            if swap == disk || parts.iter().any(|part| part == swap) {
                return busy(format!("/dev/{swap} is swap space"));
            }
        }
        Ok(())
    }

    fn end(&self, action: &'static str, how: RebootMode, key: &str) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action, what: "the machine".to_owned() });
        }
        let refused: io::Error = match reboot(how) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        };
        fs::write(self.roots.proc.join("sysrq-trigger"), key).map_err(|_| MachineError::Io {
            action,
            what: "the machine".to_owned(),
            source: refused,
        })
    }

    fn live() -> Live {
        let links = Netlink::open(0).and_then(|mut kernel| kernel.links()).unwrap_or_default();
        let names = nix::sys::utsname::uname();
        let text = |value: Option<&std::ffi::OsStr>| {
            value.map(|v| v.to_string_lossy().into_owned()).unwrap_or_default()
        };
        Live {
            permanent_macs: links.into_iter().filter_map(|link| Some((link.name, link.permanent?))).collect(),
            addresses: addresses::by_interface(),
            hostname: text(names.as_ref().ok().map(|n| n.nodename())),
            parameters: media::added(),
            architecture: text(names.as_ref().ok().map(|n| n.machine())),
        }
    }
}

impl Machine for LinuxMachine {
    fn inventory(&self) -> Inventory {
        let mut found = inventory::read(&self.roots, &Self::live());
        if !self.named.is_empty() {
            found.disks = self.disks().unwrap_or_default().into_iter().map(|facts| facts.disk).collect();
        }
        found
    }

    fn drivers(&self) -> Drivers {
        match (self.ramdisk, Path::new(SETTLED_MARKER).exists()) {
            (false, _) => Drivers::NotOurs,
            (true, false) => Drivers::Loading,
            (true, true) => Drivers::Loaded,
        }
    }

    fn disks(&self) -> Result<Vec<DiskFacts>, MachineError> {
        if self.named.is_empty() {
            Ok(disks::list(&self.roots.sys))
        } else {
            self.named.iter().map(named_facts).collect()
        }
    }

    fn partitions(&self, disk: &str) -> Result<Vec<String>, MachineError> {
        let Some(name) = disks::kernel_name(disk) else { return Ok(Vec::new()) };
        Ok(disks::partitions(&self.roots.sys, &name).iter().map(|part| disks::device(part)).collect())
    }

    fn open_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        self.must_be_ours("open", name)?;
        self.must_be_free(name)?;
        match open_block(Path::new(name)) {
            Ok(device) => Ok(device),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(MachineError::Busy {
                what: name.to_owned(),
                by: "another program or the kernel holds it".to_owned(),
            }),
            Err(source) => Err(MachineError::Io { action: "opening", what: name.to_owned(), source }),
        }
    }

    fn peek_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        self.must_be_ours("read", name)?;
        match super::block::peek(Path::new(name)) {
            Ok(device) => Ok(Arc::new(device)),
            Err(source) => Err(MachineError::Io { action: "opening", what: name.to_owned(), source }),
        }
    }

    fn head(&self, disk: &str) -> Result<Vec<u8>, MachineError> {
        self.must_be_ours("read", disk)?;
        let mut head = Vec::new();
        let read = File::open(disk).and_then(|file| file.take(MIB).read_to_end(&mut head));
        read.map_err(|source| MachineError::Io { action: "reading", what: disk.to_owned(), source })?;
        Ok(head)
    }

    fn reread_partitions(&self, disk: &str) -> Result<(), MachineError> {
        self.must_be_ours("read the partition table of", disk)?;
        let failed = |source| MachineError::Io {
            action: "reading the partition table of",
            what: disk.to_owned(),
            source,
        };
        let file = File::open(disk).map_err(failed)?;
        ioctl::reread_partitions(&file).map_err(failed)
    }

    fn nvme(&self, disk: &str) -> Result<Box<dyn Nvme>, MachineError> {
        self.must_be_ours("send commands to", disk)?;
        match LinuxNvme::open(Path::new(disk)) {
            Ok(drive) => Ok(Box::new(drive)),
            Err(source) => Err(MachineError::Io { action: "opening", what: disk.to_owned(), source }),
        }
    }

    fn ata(&self, disk: &str) -> Result<Box<dyn Ata>, MachineError> {
        self.must_be_ours("send commands to", disk)?;
        match LinuxAta::open(Path::new(disk)) {
            Ok(drive) => Ok(Box::new(drive)),
            Err(source) => Err(MachineError::Io { action: "opening", what: disk.to_owned(), source }),
        }
    }

    fn holders(&self, device: &str) -> Result<Vec<Holder>, MachineError> {
        Ok(disks::kernel_name(device).map(|name| holders::of(&self.roots.sys, &name)).unwrap_or_default())
    }

    fn release(&self, holder: &Holder) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action: "take down", what: holder.name.clone() });
        }
        let done = match holder.kind {
            HolderKind::Array => holders::stop_array(Path::new(&holder.name)),
            HolderKind::Mapping => disks::kernel_name(&holder.name)
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
                .and_then(|device| holders::mapping_name(&self.roots.sys, &device))
                .and_then(|name| holders::remove_mapping(&name)),
            HolderKind::Multipath | HolderKind::Other => Err(io::ErrorKind::Unsupported.into()),
        };
        done.map_err(|source| MachineError::Io { action: "taking down", what: holder.name.clone(), source })
    }

    fn array_name(&self, array: &str) -> Option<String> {
        holders::array_name(&self.roots.sys, &disks::kernel_name(array)?)
    }

    fn arrays(&self) -> Vec<String> {
        disks::arrays(&self.roots.sys).iter().map(|name| disks::device(name)).collect()
    }

    fn array_members(&self, array: &str) -> Vec<String> {
        let Some(name) = disks::kernel_name(array) else { return Vec::new() };
        disks::members(&self.roots.sys, &name).iter().map(|name| disks::device(name)).collect()
    }

    fn assemble_arrays(&self) -> Result<(), MachineError> {
        let what = "the arrays of this machine";
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action: "assemble", what: what.to_owned() });
        }
        arrays::assemble().map_err(|source| MachineError::Io {
            action: "assembling",
            what: what.to_owned(),
            source,
        })
    }

    fn make_array(&self, order: &ArrayOrder) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action: "make", what: order.device.clone() });
        }
        let what = order.device.clone();
        arrays::make(order).map_err(|source| MachineError::Io { action: "making", what, source })
    }

    fn clear_pstore(&self) -> Result<Vec<String>, MachineError> {
        if !self.ramdisk {
            let what = "the kernel's crash records".to_owned();
            return Err(MachineError::NotOurs { action: "clear", what });
        }
        pstore::clear().map_err(|source| MachineError::Io {
            action: "clearing",
            what: pstore::MOUNT.on.to_owned(),
            source,
        })
    }

    fn look_into(&self, partition: &str, kind: &'static str, look: Look<'_>) -> Result<(), MachineError> {
        self.must_be_ours("mount", partition)?;
        let on = Path::new(STATE_DIR).join("mounted");
        process::with_mounted(Path::new(partition), kind, &on, look).map_err(|source| MachineError::Io {
            action: "mounting and reading",
            what: partition.to_owned(),
            source,
        })
    }

    fn change(&self, partition: &str, change: Change<'_>) -> Result<(), MachineError> {
        self.must_be_ours("mount", partition)?;
        let on = Path::new(STATE_DIR).join("mounted");
        process::with_changeable(Path::new(partition), &on, change).map_err(|source| MachineError::Io {
            action: "mounting and changing",
            what: partition.to_owned(),
            source,
        })
    }

    fn efi_variables(&self) -> Result<Arc<dyn EfiVariables>, MachineError> {
        if !self.ramdisk {
            let what = "the firmware's boot entries".to_owned();
            return Err(MachineError::NotOurs { action: "change", what });
        }
        // Mounted at the start already, unless the kernel's module was late.
        process::mount_one(&efivars::MOUNT).map_err(|source| MachineError::Io {
            action: "mounting",
            what: efivars::MOUNT.on.to_owned(),
            source,
        })?;
        Ok(Arc::new(EfiVars::at(Path::new(efivars::MOUNT.on))))
    }

    fn source_address(&self, target: IpAddr) -> Option<IpAddr> {
        addresses::source_towards(target)
    }

    fn sync(&self) -> Result<(), MachineError> {
        nix::unistd::sync();
        if self.ramdisk {
            let path = self.roots.proc.join("sys/vm/drop_caches");
            fs::write(&path, "3").map_err(|source| MachineError::Io {
                action: "dropping caches by",
                what: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }

    fn power_off(&self) -> Result<(), MachineError> {
        self.end("power off", RebootMode::RB_POWER_OFF, "o")
    }

    fn reboot(&self) -> Result<(), MachineError> {
        self.end("reboot", RebootMode::RB_AUTOBOOT, "b")
    }

    fn open_to_rescuer(&self, hash: &str) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs {
                action: "make a rescue user on",
                what: "this machine".to_owned(),
            });
        }
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| MachineError::Io { action: "writing", what, source }
        };
        handover::add_user(Path::new("/"), hash).map_err(failed("the account of the user rescue"))?;
        Handover::Rescue.order().map_err(failed("the order for process 1"))
    }

    fn lock_down(&self) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action: "lock down", what: "this machine".to_owned() });
        }
        let what = "the order for process 1".to_owned();
        Handover::Lockdown.order().map_err(|source| MachineError::Io { action: "writing", what, source })
    }

    fn time_servers(&self) -> Vec<IpAddr> {
        settings::read().map(|network| network.ntp()).unwrap_or_default()
    }

    fn set_clock(&self, to: SystemTime) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action: "set", what: "the clock".to_owned() });
        }
        clock::set(to).map_err(|source| MachineError::Io {
            action: "setting",
            what: "the clock".to_owned(),
            source,
        })?;
        if let Err(error) = ioctl::set_hardware_clock(Path::new(HARDWARE_CLOCK), to) {
            logging::say(&format!("setting the battery clock failed: {error}"));
        }
        Ok(())
    }

    fn keep_clock(&self) -> Result<(), MachineError> {
        if !self.ramdisk {
            return Err(MachineError::NotOurs { action: "set", what: "the battery clock".to_owned() });
        }
        let set = ioctl::set_hardware_clock(Path::new(HARDWARE_CLOCK), clock::now());
        set.map_err(|source| MachineError::Io { action: "setting", what: HARDWARE_CLOCK.to_owned(), source })
    }

    fn bmc(&self) -> Bmc {
        match ipmi::find(self.ramdisk, &self.roots.sys) {
            Some(mut device) => bmc::read(&mut device),
            None => Bmc::default(),
        }
    }

    fn hear_lldp(
        &self,
        interfaces: &[String],
        keepers: &[String],
        wait: Duration,
    ) -> BTreeMap<String, Vec<u8>> {
        let unstopped = if self.ramdisk { lldp::stop_firmware_agents(keepers) } else { Vec::new() };
        let lldp::Heard { units, failed } = lldp::hear(interfaces, wait);
        for failed in unstopped.into_iter().chain(failed) {
            tracing::warn!("{failed}");
        }
        units
    }

    fn logs(&self) -> Vec<LogFile> {
        logs::collect(&self.roots, &self.inventory(), self.ramdisk)
    }
}

/// Device number and place of a line of mountinfo (proc(5)): `36 35 98:0 /mnt1 /mnt2 …`.
fn mount_of(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.nth(2)?, words.nth(1)?))
}

fn open_block(path: &Path) -> io::Result<Arc<dyn BlockDevice>> {
    Ok(Arc::new(super::block::open(path)?))
}

/// A named disk as hint matching sees it.
fn named_facts(named: &NamedDisk) -> Result<DiskFacts, MachineError> {
    let name = named.path.display().to_string();
    let failed = |source| MachineError::Io { action: "looking at", what: name.clone(), source };
    let found = fs::metadata(&named.path).map_err(failed)?;
    let size = if found.file_type().is_block_device() {
        File::open(&named.path).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(failed)?
    } else if found.is_file() {
        found.size()
    } else {
        return Err(failed(io::Error::other("neither a block device nor a regular file")));
    };
    let disk = Disk {
        name,
        size,
        serial: named.serial.clone(),
        logical_sectors: 512,
        physical_sectors: 512,
        ..Disk::default()
    };
    Ok(DiskFacts {
        serials: named.serial.iter().cloned().collect(),
        wwns: Vec::new(),
        read_only: false,
        disk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::golden::Tree;

    fn machine(tree: &Tree, ramdisk: bool, named: &[&str]) -> LinuxMachine {
        LinuxMachine {
            roots: Roots { sys: tree.root().into(), proc: tree.root().into() },
            named: named.iter().map(|text| text.parse().unwrap()).collect(),
            ramdisk,
        }
    }

    #[test]
    fn a_workstation_keeps_its_disks_power_and_clock() {
        let tree = Tree::new();
        let machine = machine(&tree, false, &[]);
        for (outcome, text) in [
            (machine.open_disk("/dev/null").map(drop), "open /dev/null"),
            (machine.reread_partitions("/dev/null"), "read the partition table of /dev/null"),
            (machine.power_off(), "power off the machine"),
            (machine.reboot(), "reboot the machine"),
            (machine.set_clock(SystemTime::UNIX_EPOCH), "set the clock"),
            (machine.keep_clock(), "set the battery clock"),
        ] {
            assert_eq!(
                outcome.unwrap_err().to_string(),
                format!(
                    "refused to {text}: this is not the ramdisk and the device was not named with --disk"
                )
            );
        }
    }

    #[test]
    fn named_disks_are_all_there_is() {
        let tree = Tree::new();
        tree.file("big", vec![0u8; 8192]).file("small", vec![0u8; 4096]);
        let path = |name: &str| tree.root().join(name).display().to_string();
        for ramdisk in [false, true] {
            let machine = machine(&tree, ramdisk, &[&format!("{},serial=BIG", path("big")), &path("small")]);
            let disks = machine.disks().unwrap();
            assert_eq!(disks.iter().map(|d| d.disk.size).collect::<Vec<_>>(), [8192, 4096]);
            assert_eq!(disks[0].serials, ["BIG"]);
            assert_eq!(
                (disks[0].disk.name.as_str(), disks[1].disk.serial.as_ref()),
                (path("big").as_str(), None)
            );
            assert_eq!(machine.inventory().disks.len(), 2);
            assert!(matches!(machine.open_disk("/dev/null"), Err(MachineError::NotOurs { .. })));
        }
        let gone = machine(&tree, false, &["/nonexistent/disk"]).disks().unwrap_err();
        assert_eq!(gone.to_string(), "looking at /nonexistent/disk");
    }

    #[test]
    fn a_disk_in_use_is_refused_by_what_uses_it() {
        let tree = Tree::new();
        for name in ["sda", "sdb", "sdc", "sdd"] {
            tree.file(&format!("block/{name}/size"), "9");
        }
        tree.folder("block/sda/holders/md0")
            .file("block/sdb/sdb1/partition", "1")
            .link("dev/block/8:17", "block/sdb/sdb1")
            .file("self/mountinfo", "24 1 8:17 / /srv rw - ext4 /dev/sdb1 rw\n")
            .file("swaps", "Filename Type\n/dev/sdc partition 1 2\n");
        let machine = machine(&tree, true, &[]);
        for (disk, by) in [
            ("sda", "it or a partition of it is part of /dev/md0"),
            ("sdb", "it or a partition of it is mounted on /srv"),
            ("sdc", "/dev/sdc is swap space"),
        ] {
            let error = machine.must_be_free(&format!("/dev/{disk}")).unwrap_err();
            assert_eq!(error.to_string(), format!("/dev/{disk} is in use: {by}"));
        }
        assert!(machine.must_be_free("/dev/sdd").is_ok());
    }

    #[test]
    fn a_disk_argument_is_a_path_with_or_without_serial() {
        let parsed: NamedDisk = "/tmp/a,serial=X,Y".parse().unwrap();
        assert_eq!((parsed.path.to_str(), parsed.serial.as_deref()), (Some("/tmp/a"), Some("X,Y")));
        for (bad, text) in [
            ("disk", "--disk needs an absolute path, not 'disk'"),
            ("/d,serial=", "--disk takes PATH or PATH,serial=TEXT; 'serial=' is neither"),
            ("/d,size=3", "--disk takes PATH or PATH,serial=TEXT; 'size=3' is neither"),
        ] {
            assert_eq!(bad.parse::<NamedDisk>().unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn logs_hold_no_secret_of_the_command_line() {
        let tree = Tree::new();
        tree.file("cmdline", "ipa-agent-token=secret")
            .file("modules", "virtio 1\n")
            .file("self/mounts", "proc /proc\n");
        let logs = machine(&tree, false, &[]).logs();
        assert!(
            logs.iter().any(|log| log.name == "mounts")
                && logs.iter().any(|log| log.name == "inventory.json")
        );
        let secret = |log: &LogFile| log.bytes.windows(6).any(|window| window == b"secret");
        assert!(!logs.iter().filter(|log| log.name != "dmesg").any(secret));
    }
}
