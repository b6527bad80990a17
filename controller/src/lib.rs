//! The service: enrolment, the provision state machine, BMCs, network boot, and Ironic's REST API.

pub mod api;
pub mod boot;
pub mod conductor;
pub mod config;
pub mod configdrive;
pub mod domain;
pub mod drivers;
pub mod images;
pub mod ramdisk;
pub mod run;
mod stall;
pub mod store;
