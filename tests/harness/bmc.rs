//! A BMC for a virtual machine: OpenIPMI's `ipmi_sim` speaks RMCP+, and what it wants done to the chassis comes back here.
//!
//! `ipmi_sim` knows the boot devices none, pxe, default (the disk), cdrom and bios, and drops the flags for persistence
//! and UEFI. So a device set here is taken for the next start alone, and a machine left to itself boots its disk.

use crate::machine::{BootDevice, Machine};
use crate::netns;
use crate::process::Background;
use crate::wait;
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub const USER: &str = "operator";
pub const PASSWORD: &str = "correct-horse";
/// Address of the BMC's network card, where the machine can ask for it.
pub const MAC: &str = "02:77:00:00:00:02";

/// A running BMC; ends with its handle, the machine does not.
#[derive(Debug)]
pub struct Bmc {
    simulator: Background,
    orders: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bmc {
    /// Starts a BMC at `address`:`port` that controls `machine`; `chassis` is the built `ferric-chassis`.
    pub fn start(address: &str, port: u16, machine: &Machine, chassis: &Path, folder: &Path) -> Result<Self> {
        let name = &machine.spec().name;
        let folder = folder.join(format!("{name}.bmc"));
        fs::create_dir_all(folder.join("state"))?;
        let socket = folder.join("chassis");
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let (orders, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (machine, orders, stop) = (machine.clone(), orders.clone(), stop.clone());
            std::thread::Builder::new()
                .name(format!("chassis of {name}"))
                .spawn(move || serve(&listener, &machine, &orders, &stop))?
        };
        let auth = "none md2 md5 straight";
        let program = format!("\"{} {}\"", chassis.display(), socket.display());
        // From inside, by the machine's own device, it also tells its address.
        let (lan, serial) = match machine.spec().bmc {
            Some(port) => (
                format!("    lan_config_program {program}\n"),
                format!("  serial 15 127.0.0.1 {port} codec VM\n"),
            ),
            None => Default::default(),
        };
        fs::write(
            folder.join("lan.conf"),
            format!(
                "name \"{name}\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} {port}\n    priv_limit admin\n    \
                 allowed_auths_callback {auth}\n    allowed_auths_user {auth}\n    allowed_auths_operator {auth}\n    \
                 allowed_auths_admin {auth}\n    guid a123456789abcdefa123456789abcdef\n{lan}  endlan\n{serial}  \
                 chassis_control {program}\n  user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 {auth}\n  \
                 user 3 true \"onlooker\" \"{PASSWORD}\" user 10 {auth}\n"
            ),
        )?;
        fs::write(
            folder.join("emu"),
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nsel_enable 0x20 1000 0x0a\nmc_enable 0x20\n",
        )?;
        let mut command = Command::new("ipmi_sim");
        command
            .arg("-c")
            .arg(folder.join("lan.conf"))
            .arg("-f")
            .arg(folder.join("emu"))
            .arg("-s")
            .arg(folder.join("state"))
            .arg("-n");
        let log = folder.join("log");
        let mut simulator = Background::spawn("ipmi_sim", &mut command, &log)?;
        wait::until(
            "the BMC to answer a ping",
            Duration::from_secs(10),
            || {
                simulator.expect_running()?;
                Ok(answers(address, port)?.then_some(()))
            },
            String::new,
        )?;
        Ok(Self { simulator, orders, stop, thread: Some(thread) })
    }

    /// What the BMC was told so far, power state queries left out: `set boot pxe`, `set power 1`.
    pub fn orders(&self) -> Vec<String> {
        self.orders.lock().map(|o| o.clone()).unwrap_or_default()
    }

    /// The BMC goes dark; the machine does not notice.
    pub fn silence(&mut self) {
        self.simulator.kill();
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.simulator.kill();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// RMCP presence ping (ASF), which asks for no session.
fn answers(address: &str, port: u16) -> Result<bool> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let ping = [0x06, 0x00, 0xFF, 0x06, 0x00, 0x00, 0x11, 0xBE, 0x80, 0x00, 0x00, 0x00];
    // Refused while nobody listens yet.
    Ok(socket.send_to(&ping, (address, port)).is_ok() && socket.recv(&mut [0; 64]).is_ok())
}

fn serve(listener: &UnixListener, machine: &Machine, orders: &Mutex<Vec<String>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(answer(stream, machine, orders)),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn answer(mut stream: UnixStream, machine: &Machine, orders: &Mutex<Vec<String>>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let line = line.trim();
    if line.starts_with("set")
        && let Ok(mut orders) = orders.lock()
    {
        orders.push(line.to_owned());
    }
    let reply = obey(line, machine).unwrap_or_else(|error| format!("error: {error:#}\n"));
    stream.write_all(reply.as_bytes()).context("answering the BMC")
}

fn lan(name: &str) -> Result<String> {
    let value = match name {
        "ip_addr" => netns::BMC,
        "ip_addr_src" => "static",
        "mac_addr" => MAC,
        "subnet_mask" => "255.255.255.0",
        "default_gw_ip_addr" | "backup_gw_ip_addr" => netns::CONTROLLER,
        "default_gw_mac_addr" | "backup_gw_mac_addr" => "02:77:00:00:00:01",
        _ => anyhow::bail!("the chassis does not know '{name}'"),
    };
    Ok(format!("{name}:{value}\n"))
}

fn obey(line: &str, machine: &Machine) -> Result<String> {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["get", "power"] => return Ok(format!("power:{}\n", u8::from(machine.state()?.on))),
        ["get", "boot"] => {
            let device = match machine.state()?.next {
                None => "none",
                Some(BootDevice::Network) => "pxe",
                Some(BootDevice::Disk) => "default",
            };
            return Ok(format!("boot:{device}\n"));
        }
        // All of one question: what ipmi_sim wants to know of its network interface.
        ["get", names @ ..] => return names.iter().map(|name| lan(name)).collect(),
        ["set", "power", "1"] => machine.power_on()?,
        ["set", "power", _] => machine.power_off()?,
        ["set", "reset", _] => machine.reset()?,
        ["set", "shutdown", _] => machine.press_button()?,
        ["set", "boot", "pxe"] => machine.boot_next(Some(BootDevice::Network))?,
        ["set", "boot", "default"] => machine.boot_next(Some(BootDevice::Disk))?,
        ["set", "boot", _] => machine.boot_next(None)?,
        ["set", "identify", ..] => machine.state()?,
        _ => anyhow::bail!("the chassis does not know '{line}'"),
    };
    Ok(String::new())
}
