//! The program in the ramdisk: process 1, finds its node, serves the command API, writes the image.

pub mod api;
pub mod bootloader;
pub mod commands;
pub mod conductor;
pub mod config;
pub mod disk;
pub mod executor;
pub mod fetch;
pub mod image;
pub mod init;
pub mod inject;
pub mod inspection;
pub mod inventory;
pub mod logging;
pub mod media;
pub mod network;
pub mod outside;
pub mod platform;
pub mod run;
pub mod state;
#[cfg(test)]
mod testing;
pub mod timeline;
