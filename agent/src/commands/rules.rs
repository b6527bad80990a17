//! What a deployment allows, told apart from how it is asked for. Pure.

use crate::disk::patience;
use crate::image::{Patience, Verify};

/// What the configuration and the lookup answer allow.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub md5: bool,
    /// Lower case; empty: no restriction.
    pub permitted_formats: Vec<String>,
    pub image_user: Option<String>,
    pub image_password: Option<String>,
    pub ignore_bootloader_failure: bool,
    /// A config drive is made anew as FAT even where it could stay as it came.
    pub rebuild_drive: bool,
    pub verify: Verify,
    /// How an image is asked for.
    pub patience: Patience,
    /// File systems that other machines share may be erased.
    pub wipe_special_filesystems: bool,
    /// A disk whose own erase command failed may be discarded.
    pub discard_erase: bool,
    /// A machine whose clock could not be set is not ended.
    pub clock_required: bool,
    /// At which priority a deployment has files injected; 0: only where it is asked for.
    pub inject_priority: u32,
    /// How long a missing root disk is waited for.
    pub disk_wait: patience::Patience,
}
