//! A network of its own: a namespace with a bridge, gone with the last process in it.
//!
//! The namespace has no name and no door to the outside. It belongs to the thread that made it and to all threads and
//! programs started by it afterwards, so nothing has to be cleaned up.

use crate::process::call;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;

/// The controller's side of the provisioning network.
pub const CONTROLLER: &str = "10.77.0.1";
/// Where the BMC listens.
pub const BMC: &str = "10.77.0.2";
/// An address of the network at which nobody is.
pub const NOBODY: &str = "10.77.0.66";
pub const FIRST_LEASE: &str = "10.77.0.100";
pub const LAST_LEASE: &str = "10.77.0.150";
pub const BRIDGE: &str = "br0";
/// This side of the line to a far end; the other side is [`FAR`].
pub const NEAR: &str = "10.78.0.1";
pub const FAR: &str = "10.78.0.2";

/// The address at which the card `mac` was last seen from this network, if it was.
pub fn neighbour(mac: &str) -> Result<Option<String>> {
    let seen = call("ip", &["-4", "neighbour", "show", "dev", BRIDGE])?;
    Ok(seen
        .lines()
        .find(|line| line.contains(mac) && !line.contains("FAILED"))
        .and_then(|line| line.split_whitespace().next().map(str::to_owned)))
}

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

    /// Moves this thread into a new namespace with loopback alone.
    pub fn enter_bare() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (needs root)")?;
        ip("link set lo up")?;
        Ok(Self { _private: () })
    }

    /// Makes a second namespace at the other end of a line that carries `rate` bits a second towards it, counted with
    /// Ethernet's headers. Needs the kernel's veth devices and token bucket filter.
    pub fn far_end(&self, mtu: u32, rate: u64) -> Result<FarEnd> {
        let entered = || -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (needs root)")?;
            File::open("/proc/thread-self/ns/net").context("opening the namespace")
        };
        let network = std::thread::scope(|scope| scope.spawn(entered).join())
            .map_err(|_| anyhow::anyhow!("making a network namespace panicked"))??;
        let far = FarEnd { network };
        let place = far.place();
        ip(&format!("link add near0 mtu {mtu} type veth peer name far0 mtu {mtu} netns {place}"))?;
        ip(&format!("address add {NEAR}/24 dev near0"))?;
        ip("link set near0 up")?;
        let door = format!("--net={place}");
        for line in ["link set lo up", &format!("address add {FAR}/24 dev far0"), "link set far0 up"] {
            let words = [&[door.as_str(), "ip"][..], &line.split_whitespace().collect::<Vec<_>>()].concat();
            call("nsenter", &words)?;
        }
        let shape = format!("qdisc add dev near0 root tbf rate {rate}bit burst 128kb latency 50ms");
        call("tc", &shape.split_whitespace().collect::<Vec<_>>())?;
        Ok(far)
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

/// A namespace behind a line; gone with this handle and the programs in it.
#[derive(Debug)]
pub struct FarEnd {
    network: File,
}

impl FarEnd {
    /// Put before a program and its arguments, this runs it there.
    pub fn door(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.place())]
    }

    fn place(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd())
    }
}

fn ip(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    call("ip", &words).map(drop)
}
