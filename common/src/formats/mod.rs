//! Bytes in, values out, and back. Every parser here meets hostile input: bounded, checked, refused in words.

pub mod cpio;
pub mod dhcp;
pub mod dhcp6;
pub mod fat;
pub mod gpt;
pub mod iso9660;
pub mod lldp;
pub mod mbr;
pub mod ndp;
pub mod ntp;
pub mod qcow2;
pub mod signatures;
pub mod tftp;
pub mod tree;
pub mod volume;
pub mod zstd;
