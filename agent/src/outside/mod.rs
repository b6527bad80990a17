//! Steps that an operator adds to the ramdisk without building the agent anew: a program and a manifest beside it.
//!
//! [`manifest`] and [`protocol`] decide and are pure; [`shelf`] reads the folder, [`run`] stays with a program until it has
//! ended. Which steps there are is told to conductors by [`crate::commands::steps`]. What an operator must know to write
//! one is in `docs/steps.md`.

pub mod manifest;
pub mod protocol;
pub mod run;
pub mod shelf;

pub use manifest::Manifest;
pub use run::{StepError, Stop, run};
pub use shelf::Shelf;

/// Where steps are looked for in the ramdisk.
pub const FOLDER: &str = "/usr/lib/ferric/steps.d";

#[cfg(test)]
pub(crate) mod tests;
