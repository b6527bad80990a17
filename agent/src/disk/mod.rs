//! The machine's disks: choose the root disk, lay out its partition table, wipe or erase what was there.

pub mod aligned;
pub mod choose;
pub mod erase;
pub mod holders;
mod kept;
pub mod layout;
pub mod look;
mod member;
pub mod patience;
pub mod raid;
mod stays;
#[cfg(test)]
pub(crate) mod testing;
pub mod wait;
pub mod wipe;
