//! Builds the ramdisk, byte for byte reproducible: Debian's kernel and a cpio archive of agent, busybox, SSH server and
//! kernel modules, as `manifest.toml` says.
//!
//! The agent is built by the caller. Nothing is installed and nothing of the building machine goes in, but for
//! firmware where no package offers it (see [`build::firmware`]).

pub mod build;
pub mod elf;
pub mod manifest;
pub mod modules;
pub mod packages;

pub use build::{Built, build};
pub use manifest::{Manifest, Profile};
