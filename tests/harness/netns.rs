//! A network of its own: a namespace with a bridge, gone with the last process in it.
//!
//! The namespace has no name and no door to the outside. It belongs to the thread that made it and to all threads and
//! programs started by it afterwards, so nothing has to be cleaned up.

use crate::process::call;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

/// The controller's side of the provisioning network.
pub const CONTROLLER: &str = "10.77.0.1";
/// Where the BMC listens.
pub const BMC: &str = "10.77.0.2";
/// An address of the network at which nobody is.
pub const NOBODY: &str = "10.77.0.66";
pub const FIRST_LEASE: &str = "10.77.0.100";
pub const LAST_LEASE: &str = "10.77.0.150";
pub const BRIDGE: &str = "br0";

/// Proof that this thread is in its own network.
#[derive(Debug)]
pub struct Netns {
    _private: (),
}

impl Netns {
    /// Moves this thread into a new namespace with loopback and a bridge.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (needs root)")?;
        for line in [
            "link set lo up".to_owned(),
            format!("link add {BRIDGE} type bridge forward_delay 0 stp_state 0"),
            format!("link set {BRIDGE} address 02:77:00:00:00:01"),
            format!("address add {CONTROLLER}/24 dev {BRIDGE}"),
            format!("address add {BMC}/24 dev {BRIDGE}"),
            format!("link set {BRIDGE} up"),
        ] {
            ip(&line)?;
        }
        Ok(Self { _private: () })
    }

    /// Makes a tap device on the bridge for a virtual machine.
    pub fn tap(&self, name: &str) -> Result<()> {
        ip(&format!("tuntap add {name} mode tap"))?;
        ip(&format!("link set {name} master {BRIDGE} up"))
    }

    /// How a person's program is run in this network from outside.
    pub fn door(&self) -> String {
        format!("nsenter --net=/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())
    }
}

fn ip(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    call("ip", &words).map(drop)
}
