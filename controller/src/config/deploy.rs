//! The table `[deploy]`. Names of the keys for erasing are those of Ironic's configuration.

use crate::domain::clean::{Erasure, Priorities};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeployTable {
    /// Seconds of silence before a waiting deployment (cleaning) fails.
    pub callback_timeout: u64,
    pub clean_callback_timeout: u64,
    pub automated_clean: bool,
    pub power_off_after_failure: bool,
    pub default_boot_mode: String,
    /// Places of the two steps in an automated cleaning, the higher first; 0: not done. Other steps keep the agent's.
    pub erase_devices_priority: u32,
    pub erase_devices_metadata_priority: u32,
    /// Passes of random bytes over a disk that is overwritten, and whether zeros are written last.
    pub shred_random_overwrite_iterations: u32,
    pub shred_final_overwrite_with_zeros: bool,
    /// A disk whose own erase command failed is overwritten; else the cleaning fails.
    pub continue_if_disk_secure_erase_fails: bool,
    pub enable_nvme_secure_erase: bool,
    pub enable_ata_secure_erase: bool,
    /// Disks that are erased at once.
    pub disk_erasure_concurrency: u32,
    /// Read-only disks are left alone; else they fail the step `erase_devices`.
    pub erase_skip_read_only: bool,
}

impl Default for DeployTable {
    fn default() -> DeployTable {
        DeployTable {
            callback_timeout: 1800,
            clean_callback_timeout: 1800,
            automated_clean: true,
            power_off_after_failure: true,
            default_boot_mode: "uefi".into(),
            // Erasing takes hours on spinning disks: `provide` stays quick until the operator asks for it.
            erase_devices_priority: 0,
            erase_devices_metadata_priority: 10,
            shred_random_overwrite_iterations: 1,
            shred_final_overwrite_with_zeros: true,
            continue_if_disk_secure_erase_fails: false,
            enable_nvme_secure_erase: true,
            enable_ata_secure_erase: true,
            disk_erasure_concurrency: 4,
            erase_skip_read_only: false,
        }
    }
}

impl DeployTable {
    pub fn priorities(&self) -> Priorities {
        Priorities {
            erase_devices: self.erase_devices_priority,
            erase_devices_metadata: self.erase_devices_metadata_priority,
        }
    }

    pub fn erasure(&self) -> Erasure {
        Erasure {
            random_passes: self.shred_random_overwrite_iterations,
            zeros_last: self.shred_final_overwrite_with_zeros,
            continue_if_failed: self.continue_if_disk_secure_erase_fails,
            nvme: self.enable_nvme_secure_erase,
            ata: self.enable_ata_secure_erase,
            at_once: self.disk_erasure_concurrency,
            skip_read_only: self.erase_skip_read_only,
        }
    }
}
