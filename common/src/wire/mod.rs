//! Shapes of the HTTP contract with Ironic, one file per exchange. They stay at the rim of both programs.

pub mod command;
pub mod error;
pub mod heartbeat;
pub mod inventory;
pub mod lookup;
pub mod version;
