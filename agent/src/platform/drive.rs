//! What a drive can be told beyond reading and writing: the erase commands of NVMe and of ATA, as values and bytes of
//! their specifications. What to ask for, and in which order, is `crate::disk::erase`.

use std::io;
use std::time::Duration;

/// Bytes of an answer to Identify (NVMe Base Specification, 5.17).
pub const NVME_IDENTIFY: usize = 4096;
/// Bytes of the Sanitize Status log page (5.16.1.25).
pub const NVME_SANITIZE_LOG: usize = 512;
/// Bytes of one block of ATA PIO data.
pub const ATA_BLOCK: usize = 512;

/// One namespace of an NVMe drive, and the controller behind it.
pub trait Nvme: Send + Sync {
    fn identify_controller(&self) -> io::Result<Vec<u8>>;
    fn identify_namespace(&self) -> io::Result<Vec<u8>>;
    /// Format NVM of this namespace; `settings` is command dword 10. Returns when it is done.
    fn format(&self, settings: u32) -> io::Result<()>;
    /// Starts Sanitize on the whole drive; `action` is command dword 10. Returns at once.
    fn sanitize(&self, action: u32) -> io::Result<()>;
    /// How far a sanitize operation is.
    fn sanitize_log(&self) -> io::Result<Vec<u8>>;
}

/// Commands of the ATA security feature set (ACS-4, 4.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    SetPassword,
    Unlock,
    ErasePrepare,
    EraseUnit,
    DisablePassword,
}

impl Security {
    /// The command's code.
    pub fn code(self) -> u8 {
        match self {
            Security::SetPassword => 0xf1,
            Security::Unlock => 0xf2,
            Security::ErasePrepare => 0xf3,
            Security::EraseUnit => 0xf4,
            Security::DisablePassword => 0xf6,
        }
    }
}

/// A drive that takes ATA commands, through whatever adapter.
pub trait Ata: Send + Sync {
    /// IDENTIFY DEVICE.
    fn identify(&self) -> io::Result<[u8; ATA_BLOCK]>;
    /// One security command; all but [`Security::ErasePrepare`] carry a block of data. Returns when it is done.
    ///
    /// # Errors
    /// The drive's refusal ("aborted"), or that of the way to it.
    fn security(
        &self,
        command: Security,
        data: Option<&[u8; ATA_BLOCK]>,
        patience: Duration,
    ) -> io::Result<()>;
}

/// A software RAID array to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayOrder {
    /// `/dev/md0`.
    pub device: String,
    /// What its superblocks call it.
    pub name: String,
    /// `0`, `1`, `5`, `6` or `10`.
    pub level: &'static str,
    /// Version of the superblocks: `1.2` (4 KiB behind the start), `1.0` (at the end).
    pub metadata: &'static str,
    pub members: Vec<String>,
}

/// What stands on top of a disk or partition and holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `/dev/md127`, `/dev/dm-0`.
    pub name: String,
    pub kind: HolderKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    /// A software RAID array.
    Array,
    /// A device mapper's mapping: LVM, dm-crypt, partitions of a multipath device.
    Mapping,
    /// Several paths to one disk: this is the disk.
    Multipath,
    Other,
}
