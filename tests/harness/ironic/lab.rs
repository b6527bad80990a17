//! A machine with our ramdisk, driven by the real Ironic: BMC, DHCP, image server, and an operator's requests.

use super::setup::{Release, Settings};
use super::{Ironic, netboot};
use crate::artifacts::{self, run_folder, target};
use crate::bmc::{self, Bmc};
use crate::debian::Image;
use crate::httpd::{Fault, Httpd};
use crate::machine::{Bus, Disk, Firmware, Machine, Spec, blank_disk};
use crate::netns::{self, Netns};
use crate::process::{Background, call, tail};
use crate::scene::{BMC_PORT, MAC};
use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The node's name.
pub const NODE: &str = "judged";
/// How long one change of state may take on an emulated processor.
pub const WITHIN: Duration = Duration::from_secs(240);
/// The disk that hints pick, and the one that is smaller and so would be taken without hints.
pub const ROOT: LabDisk = LabDisk { name: "root", serial: "ROOT-0001", bus: Bus::Virtio, bytes: 8 << 30 };
pub const OTHER: LabDisk = LabDisk { name: "other", serial: "OTHER-0002", bus: Bus::Nvme, bytes: 5 << 30 };

/// A disk of the machine.
#[derive(Clone, Copy, Debug)]
pub struct LabDisk {
    pub name: &'static str,
    pub serial: &'static str,
    pub bus: Bus,
    pub bytes: u64,
}

/// What differs from lab to lab.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub name: &'a str,
    pub release: &'static Release,
    pub firmware: Firmware,
    pub disks: &'a [LabDisk],
    pub memory_mib: u32,
    /// Another ramdisk than ours; the kernel stays the same.
    pub ramdisk: Option<&'a Path>,
    pub kernel_parameters: &'a str,
    /// More of Ironic's configuration, sections and all.
    pub more: &'a str,
}

impl Plan<'_> {
    /// A BIOS machine with [`ROOT`] and [`OTHER`].
    pub fn new<'a>(name: &'a str, release: &'static Release) -> Plan<'a> {
        Plan {
            name,
            release,
            firmware: Firmware::Bios,
            disks: &[ROOT, OTHER],
            memory_mib: 512,
            ramdisk: None,
            kernel_parameters: "console=ttyS0",
            more: "",
        }
    }
}

/// The parts end in this order: first what drives, last what is driven.
#[derive(Debug)]
pub struct Lab {
    pub ironic: Ironic,
    pub bmc: Bmc,
    pub images: Httpd,
    pub machine: Machine,
    _dhcp: Background,
    pub folder: PathBuf,
    kernel: PathBuf,
    ramdisk: PathBuf,
    _network: Netns,
}

impl Lab {
    /// Installs and builds what is needed, then moves this thread into a network of its own and starts everything but
    /// the machine.
    pub fn open(plan: &Plan) -> Result<Self> {
        let release = plan.release;
        super::install(release)?;
        artifacts::agent()?;
        artifacts::chassis()?;
        let profile = Profile::Server;
        let built = artifacts::ramdisk(profile, &target()?.join("ramdisk").join(profile.to_string()))?;
        let folder = run_folder(plan.name)?;
        let network = Netns::enter()?;
        network.tap("tap0")?;
        let settings = Settings {
            folder: folder.clone(),
            address: netns::CONTROLLER.to_owned(),
            kernel_parameters: plan.kernel_parameters.to_owned(),
            more: format!("[conductor]\nfile_url_allowed_paths = {}\n{}", folder.display(), plan.more),
        };
        // Ironic links or copies what it serves, so both must lie where it may read.
        let (kernel, ramdisk) = (folder.join("kernel"), folder.join("ramdisk"));
        fs::copy(&built.kernel, &kernel)?;
        fs::copy(plan.ramdisk.unwrap_or(&built.ramdisk), &ramdisk)?;
        let machine = machine(&folder, plan, settings.http_root())?;
        let bmc =
            Bmc::start(netns::BMC, BMC_PORT, &machine, &target()?.join("debug/ferric-chassis"), &folder)?;
        Ok(Self {
            ironic: Ironic::start(release, &settings)?,
            bmc,
            images: Httpd::start(netns::CONTROLLER)?,
            machine,
            _dhcp: dhcp(&folder)?,
            folder,
            kernel,
            ramdisk,
            _network: network,
        })
    }

    /// Enrols the machine; it is `manageable` then.
    pub fn enrol(&self, properties: Value) -> Result<()> {
        let image = |path: &Path| format!("file://{}", path.display());
        let node = json!({
            "name": NODE,
            "driver": "ipmi",
            "driver_info": {
                "ipmi_address": netns::BMC,
                "ipmi_port": BMC_PORT,
                "ipmi_username": bmc::USER,
                "ipmi_password": bmc::PASSWORD,
                "ipmi_cipher_suite": "3",
                "deploy_kernel": image(&self.kernel),
                "deploy_ramdisk": image(&self.ramdisk),
                "rescue_kernel": image(&self.kernel),
                "rescue_ramdisk": image(&self.ramdisk),
            },
            "properties": properties,
        });
        let uuid = self.ironic.expect("POST", "/v1/nodes", Some(&node))?["uuid"].clone();
        let port = json!({"node_uuid": uuid, "address": MAC});
        self.ironic.expect("POST", "/v1/ports", Some(&port))?;
        self.ironic.bring(NODE, "manage", json!({}), "manageable", WITHIN).map(drop)
    }

    /// Puts a step of an operator's own into the ramdisk, by an archive after it; before enrolment.
    pub fn add_step(&self, name: &str, program: &str, manifest: &Value) -> Result<()> {
        let above = self.folder.join("steps");
        let folder = above.join("usr/lib/ferric/steps.d");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), program)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
        fs::write(folder.join(name).with_extension("json"), manifest.to_string())?;
        self.add_files(&above)
    }

    /// Puts what is below a folder into the ramdisk, as root's, by an archive after it; before enrolment.
    pub fn add_files(&self, above: &Path) -> Result<()> {
        let archive = above.with_extension("cpio.gz");
        let (from, to) = (above.display().to_string(), archive.display().to_string());
        let owner = ["--uid", "0", "--gid", "0"];
        let words = [&["-C", &from, "-cz", "--format=newc"][..], &owner, &["-f", &to, "."]].concat();
        call("bsdtar", &words)?;
        let mut ramdisk = fs::OpenOptions::new().append(true).open(&self.ramdisk)?;
        ramdisk.write_all(&fs::read(archive)?).context("appending to the ramdisk")
    }

    /// Sets fields of the node; a path without a value is removed.
    pub fn set(&self, fields: &[(&str, Value)]) -> Result<()> {
        let patch: Vec<Value> = fields
            .iter()
            .map(|(path, value)| match value {
                Value::Null => json!({"op": "remove", "path": path}),
                value => json!({"op": "add", "path": path, "value": value}),
            })
            .collect();
        self.ironic.expect("PATCH", &format!("/v1/nodes/{NODE}"), Some(&Value::Array(patch))).map(drop)
    }

    /// Tells the node which image to take; it is served by this lab.
    pub fn choose(&self, image: &Image, format: &str) -> Result<()> {
        let url = self.images.offer(&format!("image.{format}"), &image.path, Fault::None);
        self.set(&[
            ("/instance_info/image_source", json!(url)),
            ("/instance_info/image_checksum", json!(image.sha256)),
            ("/instance_info/image_disk_format", json!(format)),
        ])
    }

    pub fn disk(&self, disk: LabDisk) -> PathBuf {
        self.folder.join(disk.name)
    }

    /// Waits until the machine, booted from its disk, says `text` on the console after byte `from`.
    pub fn expect_console(&self, text: &str, from: usize) -> Result<usize> {
        self.machine.wait_for_console(text, from, Duration::from_secs(120))
    }

    /// Where the machine was last seen.
    pub fn address(&self) -> Result<String> {
        netns::neighbour(MAC)?.context("nobody in this network knows the machine's card")
    }

    /// The command line with which the ramdisk was started last, as its kernel printed it.
    pub fn command_line(&self) -> Result<String> {
        let console = self.machine.console_text();
        let line = console.lines().rev().find_map(|line| line.split_once("Command line: "));
        Ok(line.context("the console shows no command line")?.1.trim().to_owned())
    }

    /// Puts what a person needs to see before the error of a test; the error itself stays last.
    pub fn explain<T>(&self, told: Result<T>) -> Result<T> {
        told.map_err(|error| error.context(self.evidence()))
    }

    fn evidence(&self) -> String {
        let node = match self.ironic.request("GET", &format!("/v1/nodes/{NODE}"), None) {
            Ok((_, node)) => node.to_string(),
            Err(error) => format!("(no answer: {error:#})"),
        };
        format!(
            "everything is in {}\n-- the BMC was told\n{}\n-- the console ends\n{}\n-- Ironic's log ends\n{}\n\
             -- the machine\n{:?}\n-- the node\n{node}",
            self.folder.display(),
            self.bmc.orders().join("\n"),
            tail(&self.machine.console(), 40),
            self.ironic.told(60),
            self.machine.state(),
        )
    }
}

fn machine(folder: &Path, plan: &Plan, http_root: PathBuf) -> Result<Machine> {
    let disks = (0..)
        .zip(plan.disks)
        .map(|(rank, disk)| {
            let path = folder.join(disk.name);
            blank_disk(&path, disk.bytes)?;
            Ok(Disk { path, serial: disk.serial.to_owned(), bus: disk.bus, rank, logged: false })
        })
        .collect::<Result<_>>()?;
    let spec = Spec {
        name: "machine".to_owned(),
        firmware: plan.firmware,
        memory_mib: plan.memory_mib,
        processors: 2,
        mac: MAC.to_owned(),
        tap: Some("tap0".to_owned()),
        disks,
        direct: None,
        clock: None,
        bmc: None,
        folder: folder.to_owned(),
    };
    Machine::with_network_boot(spec, Box::new(move || netboot::of(&http_root, MAC)))
}

/// Addresses for the machine, by busybox.
fn dhcp(folder: &Path) -> Result<Background> {
    let config = folder.join("udhcpd.conf");
    let leases = folder.join("leases");
    fs::write(&leases, "")?;
    let (first, last, bridge) = (netns::FIRST_LEASE, netns::LAST_LEASE, netns::BRIDGE);
    let (leases, pid) = (leases.display(), folder.join("udhcpd.pid").display().to_string());
    let text = format!(
        "start {first}\nend {last}\ninterface {bridge}\nlease_file {leases}\npidfile {pid}\n\
         option subnet 255.255.255.0\noption lease 3600\n"
    );
    fs::write(&config, text)?;
    let mut command = Command::new("busybox");
    command.args(["udhcpd", "-f"]).arg(&config);
    let mut dhcp = Background::spawn("udhcpd", &mut command, &folder.join("udhcpd.log"))?;
    ensure!(dhcp.ended()?.is_none(), "udhcpd ended at once: {}", tail(dhcp.log(), 5));
    Ok(dhcp)
}
