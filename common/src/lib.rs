//! What the agent and the controller agree on.
//!
//! Pure: no clock, no file, no socket (`no_std` + `alloc`). Whatever decides or parses and is needed by both programs
//! lives here; whatever acts lives in the programs.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod backoff;
pub mod events;
pub mod formats;
pub mod hints;
pub mod ids;
pub mod images;
pub mod limits;
pub mod report;
pub mod steps;
pub mod units;
pub mod wire;
