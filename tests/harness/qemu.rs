//! One run of QEMU: the command line, and the little of QMP that tells how the run ended.

use crate::accel::Accel;
use crate::artifacts::Artifacts;
use crate::process::Background;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs in a machine's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS with the network card's iPXE.
    Bios,
    /// OVMF with its own PXE, which fetches iPXE by TFTP.
    Uefi,
}

/// From where firmware boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    Network,
    Disk,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Virtio,
    /// With sectors of 4096 bytes.
    VirtioLargeSectors,
    Sata,
    Nvme,
    /// A read-only medium in an optical drive on USB, as a BMC shows its virtual media.
    Cdrom,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub path: PathBuf,
    pub serial: String,
    pub bus: Bus,
    /// Place in the firmware's order of disks, from 0. A BIOS tries the first only.
    pub rank: u32,
    /// Whether all that is written is logged beside the disk, from each power-on in a file of its own.
    pub logged: bool,
}

impl Disk {
    /// The logs of all power-ons so far, in their order.
    pub fn logs(&self) -> Vec<PathBuf> {
        (1..).map(|boot| self.log(boot)).take_while(|path| path.exists()).collect()
    }

    fn log(&self, boot: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".log{boot}"));
        path.into()
    }

    /// Words for `-blockdev`: the disk, with its flushes ending in the log, where they are looked at.
    fn nodes(&self, number: usize) -> Result<Vec<String>> {
        let log = self.log(u32::try_from(self.logs().len())? + 1);
        fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let (disk, log) = (self.path.display(), log.display());
        let file = "cache.no-flush=on,discard=unmap,driver=file";
        Ok(vec![
            format!("node-name=file{number},filename={disk},{file}"),
            format!("node-name=log{number},filename={log},{file}"),
            format!("node-name=raw{number},driver=raw,file=file{number},discard=unmap"),
            format!(
                "node-name=disk{number},driver=blklogwrites,file=raw{number},log=log{number},log-sector-size=512,\
                 log-super-update-interval=1,discard=unmap"
            ),
        ])
    }
}

/// Kernel and ramdisk given to QEMU directly, without firmware's network boot.
#[derive(Clone, Debug)]
pub struct DirectBoot {
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    pub parameters: String,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub firmware: Firmware,
    pub memory_mib: u32,
    pub processors: u32,
    pub mac: String,
    /// Tap device made before; none: no network card.
    pub tap: Option<String>,
    pub disks: Vec<Disk>,
    pub direct: Option<DirectBoot>,
    /// What the battery clock says at power-on (`2005-06-07T08:09:10`); the host's time if none.
    pub clock: Option<String>,
    /// Port at which a simulated BMC listens on loopback for the machine's own IPMI device; none: there is no device.
    pub bmc: Option<u16>,
    /// Serial console, QMP socket and firmware variables go here.
    pub folder: PathBuf,
}

impl Spec {
    /// A machine of 512 MiB without disks that boots our ramdisk directly at `tap0`, by BIOS. `words` are kernel parameters besides
    /// those that every such machine has.
    pub fn of_ramdisk(artifacts: &Artifacts, mac: &str, words: &str, folder: &Path) -> Spec {
        Spec {
            name: "machine".into(),
            firmware: Firmware::Bios,
            memory_mib: 512,
            processors: 2,
            mac: mac.into(),
            tap: Some("tap0".into()),
            disks: Vec::new(),
            direct: Some(DirectBoot {
                kernel: artifacts.kernel.clone(),
                ramdisk: artifacts.ramdisk.clone(),
                parameters: format!("console=ttyS0 BOOTIF=01-{} {words}", mac.replace(':', "-")),
            }),
            clock: None,
            bmc: None,
            folder: folder.to_owned(),
        }
    }

    pub fn console(&self) -> PathBuf {
        self.folder.join(format!("{}.console", self.name))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.qmp", self.name))
    }

    /// The command line for one power-on.
    fn command(&self, boot: BootDevice) -> Result<Command> {
        let mut command = Command::new("qemu-system-x86_64");
        let mut add = |option: &str, value: String| {
            command.args([option, value.as_str()]);
        };
        add("-name", self.name.clone());
        // graphics=off: BIOS programs speak to the serial port.
        add("-machine", "q35,graphics=off".to_owned());
        add("-m", self.memory_mib.to_string());
        add("-smp", self.processors.to_string());
        add("-display", "none".to_owned());
        add("-vga", "none".to_owned());
        add("-chardev", format!("file,id=console,path={},append=on", self.console().display()));
        add("-serial", "chardev:console".to_owned());
        add("-qmp", format!("unix:{},server=on,wait=off", self.socket().display()));
        // A reset ends the run, so that the one who holds the power decides what boots next.
        add("-action", "reboot=shutdown".to_owned());
        if let Some(clock) = &self.clock {
            add("-rtc", format!("base={clock}"));
        }
        add("-device", "virtio-rng-pci".to_owned());
        if let Some(port) = self.bmc {
            add("-chardev", format!("socket,id=bmc,host=127.0.0.1,port={port},reconnect=1"));
            add("-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc".to_owned());
            add("-device", "isa-ipmi-kcs,bmc=bmc0".to_owned());
        }
        add("-device", "qemu-xhci".to_owned());
        // A kernel given directly comes first by itself, and QEMU refuses a second first.
        let (network_index, disk_index) = match boot {
            _ if self.direct.is_some() => (9, 1),
            BootDevice::Network => (0, 1),
            BootDevice::Disk => (9, 0),
        };
        match &self.tap {
            None => add("-nic", "none".to_owned()),
            Some(tap) => {
                add("-netdev", format!("tap,id=net,ifname={tap},script=no,downscript=no"));
                // OVMF would start the card's iPXE too; without it, its own PXE must do the work.
                let rom = if self.firmware == Firmware::Uefi { ",romfile=" } else { "" };
                let mac = &self.mac;
                add("-device", format!("virtio-net-pci,netdev=net,mac={mac},bootindex={network_index}{rom}"));
            }
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let (path, serial) = (disk.path.display(), &disk.serial);
            if disk.bus == Bus::Cdrom {
                let medium =
                    format!("if=none,id=disk{number},file={path},format=raw,media=cdrom,readonly=on");
                add("-drive", medium);
                add("-device", format!("usb-storage,drive=disk{number},serial={serial}"));
                continue;
            }
            let cache = if disk.logged {
                disk.nodes(number)?.into_iter().for_each(|node| add("-blockdev", node));
                ",write-cache=on"
            } else {
                let options = "format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap";
                add("-drive", format!("if=none,id=disk{number},file={path},{options}"));
                ""
            };
            let device = match disk.bus {
                Bus::Virtio | Bus::Cdrom => "virtio-blk-pci".to_owned(),
                Bus::VirtioLargeSectors => {
                    "virtio-blk-pci,logical_block_size=4096,physical_block_size=4096".to_owned()
                }
                // Each port of the controller takes one disk.
                Bus::Sata => format!("ide-hd,bus=ide.{number}"),
                Bus::Nvme => "nvme".to_owned(),
            };
            let index = disk_index + disk.rank;
            add("-device", format!("{device},drive=disk{number},serial={serial},bootindex={index}{cache}"));
        }
        if self.firmware == Firmware::Uefi {
            let variables = self.folder.join(format!("{}.vars", self.name));
            if !variables.exists() {
                fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
                    .context("copying OVMF's variables")?;
            }
            add("-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd".to_owned());
            add("-drive", format!("if=pflash,format=raw,file={}", variables.display()));
        }
        if let Some(direct) = &self.direct {
            add("-kernel", direct.kernel.display().to_string());
            add("-initrd", direct.ramdisk.display().to_string());
            add("-append", direct.parameters.clone());
        }
        command.arg("-nodefaults").args(Accel::choose().qemu_arguments());
        Ok(command)
    }
}

/// How a guest ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It switched its power off.
    Off,
    /// It asked for a reset.
    Reset,
    /// QEMU itself failed.
    Failed,
}

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    process: Background,
    socket: PathBuf,
    qmp: Option<UnixStream>,
    heard: Vec<u8>,
    end: Option<End>,
}

impl Qemu {
    pub fn start(spec: &Spec, boot: BootDevice) -> Result<Self> {
        let socket = spec.socket();
        fs::remove_file(&socket).ok();
        let log = spec.folder.join(format!("{}.qemu", spec.name));
        let process = Background::spawn(&spec.name, &mut spec.command(boot)?, &log)?;
        Ok(Self { process, socket, qmp: None, heard: Vec::new(), end: None })
    }

    /// None while the guest runs.
    pub fn poll(&mut self) -> Result<Option<End>> {
        // First the process, then the socket: what it said before it ended is still there.
        let ended = self.process.ended()?;
        self.listen();
        Ok(ended.map(|status| match self.end {
            Some(end) => end,
            None if status.success() => End::Off,
            None => End::Failed,
        }))
    }

    /// Presses the power button: the guest decides.
    pub fn press_button(&mut self) {
        self.listen();
        if let Some(qmp) = &mut self.qmp {
            qmp.write_all(b"{\"execute\":\"system_powerdown\"}\n").ok();
        }
    }

    /// Plugs the network cable in or out. Answers whether QEMU was there to be told.
    pub fn set_link(&mut self, up: bool) -> bool {
        self.listen();
        let order = format!("{{\"execute\":\"set_link\",\"arguments\":{{\"name\":\"net\",\"up\":{up}}}}}\n");
        self.qmp.as_mut().is_some_and(|qmp| qmp.write_all(order.as_bytes()).is_ok())
    }

    /// Plugs a disk into USB. Answers whether QEMU was there to be told.
    pub fn plug(&mut self, disk: &Path, serial: &str) -> bool {
        self.listen();
        let file = json!({"driver": "file", "filename": disk});
        let medium = json!({"node-name": "plugged", "driver": "raw", "file": file});
        let device = json!({"id": "plugged", "driver": "usb-storage", "drive": "plugged", "serial": serial});
        let orders = [("blockdev-add", medium), ("device_add", device)];
        let words =
            orders.map(|(order, words)| format!("{}\n", json!({"execute": order, "arguments": words})));
        self.qmp.as_mut().is_some_and(|qmp| qmp.write_all(words.concat().as_bytes()).is_ok())
    }

    pub fn log(&self) -> &Path {
        self.process.log()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn listen(&mut self) {
        if self.qmp.is_none()
            && let Ok(mut stream) = UnixStream::connect(&self.socket)
        {
            let ready =
                stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").and(stream.set_nonblocking(true));
            self.qmp = ready.is_ok().then_some(stream);
        }
        if let Some(qmp) = &mut self.qmp {
            qmp.read_to_end(&mut self.heard).ok();
        }
        while let Some(at) = self.heard.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=at).collect();
            let Ok(said) = serde_json::from_slice::<Value>(&line) else { continue };
            if said["event"] == "SHUTDOWN" {
                self.end = Some(match said["data"]["reason"].as_str() {
                    Some("guest-reset") => End::Reset,
                    _ => End::Off,
                });
            }
        }
    }
}
