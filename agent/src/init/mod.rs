//! Process 1 of the ramdisk: mounts, console, children, and the end of the machine. Everything that could surprise (drivers,
//! network, the agent's work) runs in children that this starts again when they die.
//!
//! Nothing here may panic, as the kernel halts with its process 1; should it happen all the same, the machine reboots.

pub mod devices;
mod handover;
pub mod modules;
pub mod ssh;
pub mod supervise;

use crate::platform::linux::handover::Handover;
use crate::platform::linux::netlink::Netlink;
use crate::platform::linux::process::{self, Mount, Signals, Wake};
use crate::platform::linux::{RAMDISK_MARKER, STATE_DIR, clock, efivars, pstore};
use crate::{logging, timeline};
use nix::sys::reboot::RebootMode;
use std::fs;
use std::path::Path;
use std::time::Duration;
use supervise::{Service, Supervisor};

const MOUNTS: &[Mount] = &[
    Mount { kind: "proc", on: "/proc", options: "", trusted: false },
    Mount { kind: "sysfs", on: "/sys", options: "", trusted: false },
    Mount { kind: "devtmpfs", on: "/dev", options: "mode=0755", trusted: true },
    Mount { kind: "devpts", on: "/dev/pts", options: "mode=0620,gid=5,ptmxmode=0666", trusted: true },
    Mount { kind: "tmpfs", on: "/run", options: "mode=0755,size=25%", trusted: false },
    Mount { kind: "tmpfs", on: "/tmp", options: "mode=1777,size=25%", trusted: false },
];

const AGENT: &str = "/proc/self/exe";
const DEVICES: Service = Service { name: "devices", program: AGENT, arguments: &["devices"] };
const NETWORK: Service = Service { name: "network", program: AGENT, arguments: &["network"] };
const RUN: Service = Service { name: "agent", program: AGENT, arguments: &["run"] };

/// Seconds after which a kernel that panicked reboots: long enough to read the screen.
const PANIC_REBOOT: &str = "60";
const HOST_NAME: &str = "ferric";
const LOOPBACK: u32 = 1;

/// Lives until the machine ends.
pub fn run() -> ! {
    let ending = std::panic::catch_unwind(life).unwrap_or(RebootMode::RB_AUTOBOOT);
    loop {
        let refused = process::end(ending);
        logging::say(&format!("process 1: the kernel refused to end: {refused}; trying again"));
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn life() -> RebootMode {
    let command_line = set_up();
    let mut services = vec![DEVICES, NETWORK, RUN];
    services.extend(developer_ssh(&command_line));
    let mut children = Supervisor::new(services);
    let signals = loop {
        match Signals::take() {
            Ok(signals) => break signals,
            Err(error) => {
                logging::say(&format!("process 1: taking signals failed: {error}; trying again"));
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    };
    loop {
        let now = clock::since_boot();
        for service in children.due(now) {
            start(&mut children, &service);
        }
        match signals.wait(children.idle(now)) {
            Wake::Reboot => return ending("reboot", RebootMode::RB_AUTOBOOT),
            Wake::PowerOff => return ending("power off", RebootMode::RB_POWER_OFF),
            // Several children may hide behind one signal, so all are reaped each time.
            Wake::ChildEnded | Wake::Timeout => reap(&mut children),
        }
    }
}

fn ending(what: &str, how: RebootMode) -> RebootMode {
    logging::say(&format!("process 1: asked to {what}"));
    how
}

fn start(children: &mut Supervisor, service: &Service) {
    let now = clock::since_boot();
    match process::start(Path::new(service.program), service.arguments) {
        Ok(pid) => children.started(service.name, pid, now),
        Err(error) => {
            let pause = children.not_started(service.name, now).as_secs();
            let (name, program) = (service.name, service.program);
            logging::say(&format!("{name}: starting {program} failed: {error}; again in {pause} s"));
        }
    }
}

fn reap(children: &mut Supervisor) {
    while let Some(ended) = process::reap() {
        if let Some((name, pause)) = children.ended(ended.pid, clock::since_boot()) {
            if name == RUN.name
                && let Some(order) = Handover::ordered()
            {
                handover::carry_out(order, children);
                continue;
            }
            logging::say(&format!("{name} {}; starting it again in {} s", ended.how, pause.as_secs()));
        }
    }
}

/// Makes the machine ready for children; answers the kernel command line. Whatever fails is said, and the rest goes on.
fn set_up() -> String {
    let began = clock::since_boot();
    let mut failures = Vec::new();
    for what in MOUNTS {
        if let Err(error) = process::mount_one(what) {
            failures.push(format!("mounting {} failed: {error}", what.on));
        }
    }
    if let Err(error) = process::take_console() {
        failures.push(format!("opening /dev/console failed: {error}"));
    }
    if let Err(error) =
        process::folder(Path::new(STATE_DIR), 0o700).and_then(|()| write_private(RAMDISK_MARKER))
    {
        failures.push(format!("making {STATE_DIR} failed: {error}"));
    }
    timeline::mark_at(timeline::INIT_STARTED, began);
    // The kernel asks this program for modules that only it knows it needs: a file system, a checksum.
    drop(fs::write("/proc/sys/kernel/modprobe", "/init"));
    for optional in [efivars::MOUNT, pstore::MOUNT] {
        if Path::new(optional.on).is_dir()
            && let Err(error) = process::mount_one(&optional)
        {
            failures.push(format!("mounting {} failed: {error}", optional.on));
        }
    }
    match clock::not_before_build() {
        Ok(false) => {}
        Ok(true) => logging::say(
            "the clock was before this program was built and is set to that until the conductor tells the time",
        ),
        Err(error) => failures.push(format!("setting the clock failed: {error}")),
    }
    if let Err(error) = process::set_host_name(HOST_NAME) {
        failures.push(format!("setting the host name failed: {error}"));
    }
    if let Err(error) = Netlink::open(0).and_then(|mut kernel| kernel.set_up(LOOPBACK)) {
        failures.push(format!("switching the loopback interface on failed: {error}"));
    }
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !command_line.split_whitespace().any(|word| word.starts_with("panic=")) {
        drop(fs::write("/proc/sys/kernel/panic", PANIC_REBOOT));
    }
    for failure in failures {
        logging::say(&format!("process 1: {failure}"));
    }
    timeline::mark(timeline::INIT_READY);
    command_line
}

fn write_private(path: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map(drop)
}

/// The SSH server, if the command line names a good key.
fn developer_ssh(command_line: &str) -> Option<Service> {
    let (keys, refused) = ssh::keys(command_line);
    for error in refused {
        logging::say(&error.to_string());
    }
    if keys.is_empty() {
        return None;
    }
    if let Err(error) = ssh::prepare(Path::new("/"), &keys) {
        logging::say(&format!("developer ssh: writing its files failed: {error}; it stays off"));
        return None;
    }
    logging::say(&format!("developer ssh is on for {} key(s): user dev, port 22", keys.len()));
    Some(ssh::SERVICE)
}
