//! The real kernel.

pub mod addresses;
pub mod arrays;
pub mod ata;
pub mod block;
pub mod child;
pub mod clock;
pub mod efivars;
pub mod handover;
pub mod holders;
pub mod interrupt;
pub mod ioctl;
pub mod ipmi;
pub mod itself;
pub mod kmod;
pub mod kmsg;
pub mod lldp;
pub mod logs;
pub mod loops;
pub mod machine;
pub mod netlink;
pub mod nvme;
pub mod packet;
pub mod process;
pub mod pstore;
pub mod socket;
pub mod tree;
pub mod uevent;

/// Folder of the agent's own state in the ramdisk, mode 0700.
pub const STATE_DIR: &str = "/run/ferric";
/// Written by process 1 of the ramdisk alone: whoever finds it may power the machine off and open any of its disks.
pub const RAMDISK_MARKER: &str = "/run/ferric/ramdisk";
/// Exists once the drivers of all devices found at boot were loaded.
pub const SETTLED_MARKER: &str = "/run/ferric/devices-settled";

/// Whether this is the ramdisk, where the machine is ours.
pub fn in_ramdisk() -> bool {
    std::path::Path::new(RAMDISK_MARKER).exists()
}
