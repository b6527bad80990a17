//! Whether a guest really runs under KVM here. A `/dev/kvm` that opens is no proof: nested machines often offer one on
//! which the first instruction of a guest fails.

use crate::process::die_with_us;
use crate::wait;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    /// QEMU's own translation; ten times slower, but runs everywhere.
    Tcg,
}

impl Accel {
    /// The best that works, found once per process by running a guest. `FERRIC_ACCEL=tcg` or `kvm` decides instead.
    pub fn choose() -> Self {
        static CHOSEN: OnceLock<Accel> = OnceLock::new();
        *CHOSEN.get_or_init(|| match std::env::var("FERRIC_ACCEL").as_deref() {
            Ok("tcg") => Self::Tcg,
            Ok("kvm") => Self::Kvm,
            _ if kvm_runs_a_guest() => Self::Kvm,
            _ => Self::Tcg,
        })
    }

    pub fn qemu_arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg", "-cpu", "max"],
        }
    }
}

/// A boot sector that says `ok` through QEMU's exit device: `mov al, 0x10; out 0xf4, al; hlt`.
const PROBE: [u8; 5] = [0xB0, 0x10, 0xE6, 0xF4, 0xF4];
/// QEMU's exit code for the value 0x10: (0x10 << 1) | 1.
const ANSWER: i32 = 0x21;

fn kvm_runs_a_guest() -> bool {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let Ok(folder) = tempfile::tempdir() else { return false };
    let disk = folder.path().join("probe");
    let mut sector = [0_u8; 512];
    for (to, from) in sector.iter_mut().zip(PROBE) {
        *to = from;
    }
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    if fs::write(&disk, sector).is_err() {
        return false;
    }
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(Accel::Kvm.qemu_arguments())
        .args(["-m", "32", "-nodefaults", "-display", "none"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-drive")
        .arg(format!("file={},format=raw", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = die_with_us(&mut command).spawn() else { return false };
    let ended = wait::until("the probe", Duration::from_secs(10), || Ok(child.try_wait()?), String::new);
    child.kill().ok();
    child.wait().ok();
    ended.is_ok_and(|status| status.code() == Some(ANSWER))
}
