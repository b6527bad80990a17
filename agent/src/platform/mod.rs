//! The only room that calls the kernel or starts a process: small traits in our own words, each with a real version
//! (`linux/`) and, for tests, an in-memory and a faulty one (`fake/`).

pub mod block;
pub mod child;
pub mod drive;
pub mod efi;
pub mod fake;
pub mod files;
pub mod linux;
pub mod machine;
