//! What this machine must have: Debian packages, listed before anything is installed.

use crate::artifacts::MUSL;
use crate::process::run;
use anyhow::{Result, bail};
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Command;

/// A Debian package and a file that shows it is there.
pub type Package = (&'static str, &'static str);

/// What the tests and the demonstration need.
pub const NEEDED: &[Package] = &[
    ("musl-tools", "/usr/bin/musl-gcc"),
    // libFuzzer is C++
    ("g++", "/usr/bin/g++"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("qemu-utils", "/usr/bin/qemu-img"),
    ("xz-utils", "/usr/bin/xz"),
    ("zstd", "/usr/bin/zstd"),
    ("bzip2", "/bin/bzip2"),
    ("ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
    ("ipxe-qemu", "/usr/lib/ipxe/qemu/pxe-virtio.rom"),
    ("ipxe", "/usr/lib/ipxe/undionly.kpxe"),
    ("openipmi", "/usr/bin/ipmi_sim"),
    ("ipmitool", "/usr/bin/ipmitool"),
    ("genisoimage", "/usr/bin/genisoimage"),
    ("lldpd", "/usr/sbin/lldpd"),
    ("busybox", "/bin/busybox"),
    ("curl", "/usr/bin/curl"),
    ("libarchive-tools", "/usr/bin/bsdtar"),
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("mtools", "/usr/bin/mformat"),
    ("dosfstools", "/sbin/fsck.vfat"),
    ("e2fsprogs", "/sbin/mke2fs"),
    ("fdisk", "/sbin/sfdisk"),
    ("iproute2", "/sbin/ip"),
    ("dnsmasq-base", "/usr/sbin/dnsmasq"),
    ("openssl", "/usr/bin/openssl"),
    ("openssh-client", "/usr/bin/ssh"),
    ("python3-venv", "/usr/share/doc/python3-venv"),
];

/// Whether to ask before installing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    Ask,
    Given,
}

/// What CI=true says; otherwise to ask.
pub fn consent() -> Consent {
    if std::env::var_os("CI").is_some_and(|value| value == "true") { Consent::Given } else { Consent::Ask }
}

/// Installs what the tests and the demonstration lack, after saying what that is.
///
/// # Errors
/// The operator says no, apt or rustup fails, or the system is no Debian.
pub fn prepare(consent: Consent) -> Result<()> {
    prepare_for(NEEDED, consent)
}

/// As [`prepare`], for who needs other packages.
///
/// # Errors
/// The operator says no, apt or rustup fails, or the system is no Debian.
pub fn prepare_for(packages: &[Package], consent: Consent) -> Result<()> {
    install(packages, consent)?;
    rust_target()
}

/// The agent's target. `rust-toolchain.toml` names it, but rustup adds what that file names only to a toolchain that it
/// installs, not to one that was there before.
fn rust_target() -> Result<()> {
    let folder = run(Command::new("rustc").args(["--print", "target-libdir", "--target", MUSL]))?;
    if Path::new(folder.trim()).exists() {
        return Ok(());
    }
    println!("adding the Rust target {MUSL}");
    run(Command::new("rustup").args(["target", "add", MUSL])).map(drop)
}

fn install(packages: &[Package], consent: Consent) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Debian packages to install: {}", missing.join(" "));
    if consent == Consent::Ask {
        print!("Install them now? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("not installed; say --yes, or run: apt-get install {}", missing.join(" "));
        }
    }
    run(Command::new("apt-get").args(["-q", "update"]))?;
    let mut install = Command::new("apt-get");
    install
        .args(["-q", "-y", "--no-install-recommends", "--allow-downgrades", "install"])
        .args(versions(&missing))
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install).map(drop)
}

/// Package arguments for apt. A qemu-utils that came from backports conflicts with the stable QEMU: then it is taken
/// back to the stable suite, which is the one downgrade that is ever asked for.
fn versions(missing: &[&str]) -> Vec<String> {
    let mut packages: Vec<String> = missing.iter().map(|p| (*p).to_owned()).collect();
    let installed =
        run(Command::new("dpkg-query").args(["-W", "-f=${Version}", "qemu-utils"])).unwrap_or_default();
    if missing.contains(&"qemu-system-x86") && installed.contains("~bpo") {
        println!(
            "qemu-utils {installed} is from backports; taking it back to bookworm, as QEMU needs the same version"
        );
        packages.push("qemu-utils/bookworm".to_owned());
    }
    packages
}
