//! Harness of the black-box tests and of the demonstration: networks, virtual machines, BMCs, image servers, disk
//! images, and the built programs.
//!
//! Nothing here is a mock of something of ours: programs are started as an operator starts them and are asked over the
//! wire. Everything started ends with its handle, also when a test panics or the process is killed.

pub mod accel;
pub mod arrays;
pub mod artifacts;
pub mod bmc;
pub mod bootsector;
pub mod commander;
pub mod controller;
pub mod corpus;
pub mod debian;
pub mod diskcheck;
pub mod dnsmasq;
pub mod host;
pub mod httpd;
pub mod images;
pub mod inspector;
pub mod ironic;
pub mod lldpd;
pub mod lookup;
pub mod machine;
pub mod mutants;
pub mod netns;
pub mod operator;
pub mod powercut;
pub mod process;
pub mod qemu;
pub mod scene;
pub mod ssh;
pub mod stock;
pub mod timeserver;
pub mod wait;
pub mod write;
pub mod writelog;

pub use machine::{Firmware, Machine};
pub use netns::Netns;
