//! The service as its clients and machines see it: the real API, conductor and store in one process, a BMC in memory and an
//! agent that speaks the real wire over TLS. Sockets on loopback only.

// The bench is test code outside of #[test] functions: a failed unwrap there is a failed test too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod api;
mod bmc;
mod crash;
mod deploy;
mod faults;
mod fuse;
mod identity;
mod machine;
mod power;
mod power_sync;
mod raid;
mod replay;
mod restart;
mod rig;
