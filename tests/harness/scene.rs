//! Everything one deploy needs, in one network: controller, machine, BMC, image server, key.

use crate::artifacts::{Artifacts, run_folder};
use crate::bmc::{Bmc, PASSWORD};
use crate::controller::Controller;
use crate::debian::Image;
use crate::httpd::{Fault, Httpd};
use crate::machine::{Bus, DirectBoot, Disk, Firmware, Machine, Spec, blank_disk};
use crate::netns::{self, Netns};
use crate::operator::{Operator, create_arguments};
use crate::process::tail;
use crate::ssh::{self, Key};
use crate::wait;
use anyhow::Result;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub const MAC: &str = "52:54:00:77:00:01";
/// The node's name.
pub const NODE: &str = "demo";
/// The disk that the root device hint picks: the larger one, by serial.
pub const ROOT_SERIAL: &str = "BIG-0002";
pub const OTHER_SERIAL: &str = "SMALL-0001";
/// Sizes in bytes: a disk that must stay as it is, and the one that is deployed to.
pub const OTHER_BYTES: u64 = 5 << 30;
pub const ROOT_BYTES: u64 = 8 << 30;
/// The port at which IPMI is by rule.
pub const BMC_PORT: u16 = 623;

/// What may differ between scenes.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub firmware: Firmware,
    pub memory_mib: u32,
    pub processors: u32,
    pub bus: Bus,
    /// Other disks than the two by which most tests deploy.
    pub disks: Vec<DiskScript>,
    /// Kernel and ramdisk given to the machine directly.
    pub direct: Option<DirectBoot>,
    /// Size of the disk that is deployed to.
    pub root_bytes: u64,
    /// Whether all writes to it are logged.
    pub logged: bool,
    /// What the machine's battery clock says at power-on.
    pub clock: Option<String>,
    /// Further lines and tables of the controller's configuration.
    pub top: String,
    pub tables: String,
}

impl Script {
    pub fn new(name: &str, firmware: Firmware) -> Self {
        Self {
            name: name.to_owned(),
            firmware,
            memory_mib: 1024,
            processors: 2,
            bus: Bus::Virtio,
            disks: Vec::new(),
            direct: None,
            root_bytes: ROOT_BYTES,
            logged: false,
            clock: None,
            top: String::new(),
            tables: String::new(),
        }
    }
}

/// A disk: the name of its file, its serial, and how it is attached.
#[derive(Clone, Debug)]
pub struct DiskScript {
    pub name: &'static str,
    pub serial: &'static str,
    pub bus: Bus,
    pub bytes: u64,
}

/// Whether a machine is cleaned before it becomes available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    Automated,
    None,
}

impl Script {
    fn all_disks(&self) -> Vec<DiskScript> {
        let standard = |name, serial, bytes| DiskScript { name, serial, bus: self.bus, bytes };
        match self.disks.is_empty() {
            true => {
                vec![
                    standard("small", OTHER_SERIAL, OTHER_BYTES),
                    standard("big", ROOT_SERIAL, self.root_bytes),
                ]
            }
            false => self.disks.clone(),
        }
    }
}

/// The parts end in this order: first what drives, last what is driven.
#[derive(Debug)]
pub struct Scene {
    pub controller: Controller,
    pub bmc: Bmc,
    pub images: Httpd,
    pub machine: Machine,
    pub key: Key,
    pub folder: PathBuf,
    pub script: Script,
    pub network: Netns,
}

impl Scene {
    /// Moves this thread into a new network and starts everything but the machine.
    pub fn open(artifacts: &Artifacts, script: Script) -> Result<Self> {
        let network = Netns::enter()?;
        network.tap("tap0")?;
        let folder = run_folder(&script.name)?;
        let all = script.all_disks();
        // The last is the first of the firmware's.
        let ranks = (0..all.len() as u32).rev();
        let disks = all.iter().zip(ranks).map(|(disk, rank)| -> Result<Disk> {
            let path = folder.join(disk.name);
            blank_disk(&path, disk.bytes)?;
            let logged = script.logged && disk.serial == ROOT_SERIAL;
            Ok(Disk { path, serial: disk.serial.to_owned(), bus: disk.bus, rank, logged })
        });
        let machine = Machine::new(Spec {
            name: "machine".to_owned(),
            firmware: script.firmware,
            memory_mib: script.memory_mib,
            processors: script.processors,
            mac: MAC.to_owned(),
            tap: Some("tap0".to_owned()),
            disks: disks.collect::<Result<Vec<_>>>()?,
            direct: script.direct.clone(),
            clock: script.clock.clone(),
            bmc: None,
            folder: folder.clone(),
        })?;
        let bmc = Bmc::start(netns::BMC, BMC_PORT, &machine, &artifacts.chassis, &folder)?;
        let password = folder.join("bmc-password");
        fs::write(&password, PASSWORD)?;
        Ok(Self {
            controller: Controller::start_with(artifacts, &folder, &script.top, &script.tables)?,
            bmc,
            images: Httpd::start(netns::CONTROLLER)?,
            machine,
            key: Key::generate(&folder)?,
            folder,
            script,
            network,
        })
    }

    pub fn operator(&self) -> &Operator {
        self.controller.operator()
    }

    /// Puts what a person needs to see before the error of a test; the error itself stays last.
    pub fn explain<T>(&self, told: Result<T>) -> Result<T> {
        told.map_err(|error| error.context(self.evidence()))
    }

    fn evidence(&self) -> String {
        let node = match self.operator().request("GET", &format!("/v1/nodes/{NODE}"), None) {
            Ok((_, node)) => node.to_string(),
            Err(error) => format!("(no answer: {error:#})"),
        };
        format!(
            "the scene '{}' failed; everything is in {}\n-- the BMC was told\n{}\n-- the console ends\n{}\n\
             -- the controller's log ends\n{}\n-- the machine\n{:?}\n-- the node\n{node}",
            self.script.name,
            self.folder.display(),
            self.bmc.orders().join("\n"),
            tail(&self.machine.console(), 30),
            tail(self.controller.log(), 40),
            self.machine.state(),
        )
    }

    /// Arguments of `ferric` that enrol the machine.
    pub fn create(&self) -> Vec<String> {
        let hint = format!(r#"{{"serial": "{ROOT_SERIAL}"}}"#);
        let password = self.folder.join("bmc-password");
        create_arguments(NODE, (netns::BMC, BMC_PORT), &password, MAC, &hint, self.mode())
    }

    /// Enrols the machine and makes it available.
    pub fn enrol(&self, cleaning: Cleaning) -> Result<()> {
        let operator = self.operator();
        operator.ferric(&borrowed(&self.create()))?;
        if cleaning == Cleaning::None {
            let patch = json!([{"op": "add", "path": "/automated_clean", "value": false}]);
            operator.expect("PATCH", &format!("/v1/nodes/{NODE}"), Some(&patch))?;
        }
        operator.ferric(&["node", "manage", NODE, "--wait", "120"])?;
        operator.ferric(&["node", "provide", NODE, "--wait", "600"]).map(drop)
    }

    /// Arguments of `ferric` that deploy an image served by this scene. `wait`: seconds to follow it; none returns at once.
    pub fn deploy(
        &self,
        image: &Image,
        format: &str,
        fault: Fault,
        hostname: &str,
        wait: Option<u32>,
    ) -> Vec<String> {
        let url = self.images.offer(&format!("image.{format}"), &image.path, fault);
        let checksum = format!("sha256:{}", image.sha256);
        let key = self.key.public.display().to_string();
        let arguments = [
            "node",
            "deploy",
            NODE,
            "--image",
            &url,
            "--checksum",
            &checksum,
            "--format",
            format,
            "--hostname",
            hostname,
            "--user",
            "demo",
            "--ssh-key",
            &key,
        ];
        let wait = wait.into_iter().flat_map(|seconds| ["--wait".to_owned(), seconds.to_string()]);
        arguments.map(str::to_owned).into_iter().chain(wait).collect()
    }

    /// The address at which the machine was last seen in this network.
    pub fn address(&self) -> Result<Option<String>> {
        netns::neighbour(MAC)
    }

    /// Runs a command on the machine as soon as it lets us in.
    pub fn ssh(&self, user: &str, command: &str, within: Duration) -> Result<String> {
        let found = || self.address();
        let address =
            wait::until("the machine to have an address", within, found, || "no neighbour".to_owned())?;
        ssh::run(&self.key, user, &address, command, within)
    }

    pub fn root_disk(&self) -> PathBuf {
        self.folder.join("big")
    }

    /// The logs of what was written to the root disk, one of each power-on.
    pub fn write_logs(&self) -> Vec<PathBuf> {
        let disk = self.machine.spec().disks.iter().find(|disk| disk.serial == ROOT_SERIAL);
        disk.map(Disk::logs).unwrap_or_default()
    }

    pub fn other_disk(&self) -> PathBuf {
        self.folder.join("small")
    }

    fn mode(&self) -> &'static str {
        match self.script.firmware {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
        }
    }
}

/// `&[String]` as `&[&str]`.
pub fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
