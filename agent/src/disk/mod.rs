//! The machine's disks: choose the root disk, lay out its partition table, wipe what was there.

pub mod aligned;
pub mod choose;
pub mod layout;
#[cfg(test)]
pub(crate) mod testing;
pub mod wipe;
