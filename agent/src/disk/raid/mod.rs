//! Software RAID as a node's `target_raid_config` wants it: `wanted` reads and checks it, `plan` lays it out (both pure),
//! `build` makes it, `remove` takes all arrays away, `root` finds the volume that the operating system goes to, `boot` has
//! firmware start it.
//!
//! Rules and layout of ironic-python-agent 13.0.0, so that its arrays and ours are the same to Ironic and to the installed
//! system. The arrays themselves are made by mdadm.

mod boot;
mod build;
mod plan;
mod remove;
mod root;
mod wanted;

pub use boot::boot_entries;
pub use build::{apply, create, free_name};
pub use remove::delete;
pub use root::root_volume;

use crate::platform::machine::{Machine, MachineError};
use ferric_common::hints::HintError;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Name of the array of EFI system partitions.
const ESP: &str = "esp";

/// Why a step of software RAID did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum RaidError {
    #[error("Could not validate Software RAID config for {node}: {faults}")]
    Invalid { node: String, faults: String },
    #[error("skip_block_devices of the node cannot be read, so no disk is touched")]
    SkipList(#[source] HintError),
    #[error("No candidates for physical disk {hints}: {why}")]
    NoDisk { hints: String, why: String },
    #[error(
        "Partitions detected on devices {0} during RAID config: run delete_configuration or erase_devices_metadata first"
    )]
    Partitions(String),
    #[error("{device} is in use by {by}: run delete_configuration first")]
    InUse { device: String, by: String },
    #[error("volume {volume} does not fit onto {disk}: {why}")]
    NoRoom { volume: String, disk: String, why: String },
    #[error("partitioning {disk}: {why}")]
    Partitioning { disk: String, why: String },
    #[error("making {device} of {members}")]
    Making {
        device: String,
        members: String,
        #[source]
        source: MachineError,
    },
    #[error("Unable to clean all softraid correctly. Remaining {0}")]
    Remaining(String),
    #[error("looking for the disks of the arrays")]
    Listing(#[source] MachineError),
    #[error(
        "the array '{name}', which the node's raid_config marks for the operating system (is_root_volume), is not there, and no \
         other disk is taken for it. Arrays of this machine: {found}. Make the arrays again (delete_configuration, \
         create_configuration), or look for the disks that are missing"
    )]
    NoRoot { name: String, found: String },
}

/// What a node says that software RAID depends on.
pub struct Node<'a> {
    pub uuid: &'a str,
    /// The node object, as the conductor sends it.
    pub fields: &'a Value,
    /// Whether the machine was started by UEFI.
    pub uefi: bool,
}

/// How long the kernel's devices may take to show what was written.
const SETTLE: Duration = Duration::from_secs(10);

/// Waits until a disk has so many partitions; their names in order.
fn partitions(machine: &dyn Machine, disk: &str, count: usize) -> Result<Vec<String>, RaidError> {
    let until = Instant::now() + SETTLE;
    loop {
        let found = machine.partitions(disk).map_err(RaidError::Listing)?;
        if found.len() == count {
            return Ok(found);
        }
        if Instant::now() >= until {
            let why = format!("the kernel shows {} partitions of {count}: {}", found.len(), found.join(", "));
            return Err(RaidError::Partitioning { disk: disk.to_owned(), why });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests;
