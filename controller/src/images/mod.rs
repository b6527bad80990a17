//! What is known of images and boot files before a machine is powered on.

pub mod boot_file;
pub mod source;
