//! A real DHCP, DHCPv6, router advertisement and name server that is not ours: dnsmasq.

use crate::netns::BRIDGE;
use crate::process::{Background, tail};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running dnsmasq; ends with its handle.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Background,
    log: PathBuf,
}

impl Dnsmasq {
    /// Serves on the bridge of this thread's network, with these options beside the usual ones.
    pub fn start(folder: &Path, options: &[&str]) -> Result<Self> {
        let log = folder.join("dnsmasq.log");
        let leases = folder.join("dnsmasq.leases");
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
                "--no-resolv",
                "--log-dhcp",
            ])
            .args(["--log-facility=-", "--user=root", "--pid-file=", "--bind-interfaces"])
            .arg(format!("--interface={BRIDGE}"))
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .args(options);
        let mut process = Background::spawn("dnsmasq", &mut command, &log)?;
        process.expect_running()?;
        Ok(Self { process, log })
    }

    /// The end of what it said, for the words of a failure.
    pub fn said(&mut self) -> String {
        let alive =
            self.process.expect_running().map_or_else(|error| format!("{error:#}"), |()| String::new());
        format!("{}{alive}", tail(&self.log, 30))
    }
}
