//! A switch's voice: the real `lldpd` on one interface, speaking each second.

use crate::process::{Background, call, tail};
use crate::wait;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What it says of itself.
pub const NAME: &str = "switch-7";
pub const DESCRIPTION: &str = "a switch of the tests";
pub const PORT: &str = "Eth1/7";
pub const PORT_DESCRIPTION: &str = "rack 4";

/// A running daemon; ends with its handle.
#[derive(Debug)]
pub struct Lldpd {
    socket: PathBuf,
    _process: Background,
}

impl Lldpd {
    /// Starts it in this thread's network; its files go into `folder`.
    pub fn start(interface: &str, folder: &Path) -> Result<Self> {
        let folder = folder.join("lldpd");
        fs::create_dir_all(&folder)?;
        let (socket, log) = (folder.join("socket"), folder.join("log"));
        let mut command = Command::new("/usr/sbin/lldpd");
        command.args(["-d", "-I", interface, "-S", DESCRIPTION, "-O", "/dev/null"]);
        command.arg("-u").arg(&socket).arg("-p").arg(folder.join("pid"));
        let process = Background::spawn("lldpd", &mut command, &log)?;
        let there = || Ok(socket.exists().then_some(()));
        wait::until("lldpd to listen", Duration::from_secs(20), there, || tail(&log, 20))?;
        let daemon = Self { socket, _process: process };
        daemon.tell(&["configure", "system", "hostname", NAME])?;
        daemon.tell(&[
            "configure",
            "ports",
            interface,
            "lldp",
            "portidsubtype",
            "local",
            PORT,
            "description",
            PORT_DESCRIPTION,
        ])?;
        daemon.tell(&["configure", "lldp", "tx-interval", "1"])?;
        Ok(daemon)
    }

    /// Has it name a VLAN of the port, as a switch does: by an entry of IEEE 802.1 of subtype 3. It does so by itself for tagged
    /// interfaces of this host, which not every kernel can make.
    pub fn name_vlan(&self, interface: &str, id: u16, name: &str) -> Result<()> {
        let [high, low] = id.to_be_bytes();
        let length = u8::try_from(name.len())?;
        let bytes = [high, low, length].into_iter().chain(name.bytes());
        let bytes: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
        let words =
            ["configure", "ports", interface, "lldp", "custom-tlv", "oui", "00,80,c2", "subtype", "3"];
        self.tell(&[&words[..], &["oui-info", &bytes.join(",")]].concat())?;
        Ok(())
    }

    /// The chassis as the daemon itself shows it.
    pub fn chassis(&self) -> Result<Value> {
        let shown: Value = serde_json::from_str(&self.tell(&["-f", "json", "show", "chassis"])?)?;
        Ok(shown["local-chassis"]["chassis"][NAME].clone())
    }

    fn tell(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket.to_str().context("the socket's path")?;
        call("/usr/sbin/lldpcli", &[&["-u", socket], words].concat())
    }
}
