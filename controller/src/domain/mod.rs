//! What a node is and what may happen to it. Pure: no clock, no socket, no store, no driver; time comes in as `now`.

pub mod clean;
pub mod decide;
pub mod deploy;
pub mod fields;
pub mod interfaces;
pub mod names;
pub mod node;
pub mod patch;
pub mod power;
pub mod provision;
pub mod raid;
pub mod state;
pub mod validate;
