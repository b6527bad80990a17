//! In-memory and faulty versions of the traits, for tests.

pub mod block;
pub mod drive;
pub mod efi;
pub mod machine;
