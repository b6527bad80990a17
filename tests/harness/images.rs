//! Small disk images for deploys that must be quick.
//!
//! The *probe* is a whole operating system in a few MiB: GRUB, Debian's kernel and busybox. It says on the serial port
//! that it booted and what host name its config drive gives, which is all that most tests ask.

use crate::artifacts::cache_folder;
use crate::bootsector::{self, Layout, MIB};
use crate::debian::{Image, hex};
use crate::process::call;
use anyhow::{Context, Result};
use ferric_common::formats::cpio::{Archive, Node};
use ferric_initramfs::{Manifest, Profile, build, modules::Catalogue};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The line the probe prints, followed by the host name.
pub const PROBE_SAYS: &str = "PROBE-OS hostname=";
/// What the probe prints where it finds no config drive.
pub const NO_CONFIG_DRIVE: &str = "none";

const INIT: &str = r#"#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
for module in virtio_pci virtio_blk ahci nvme sd_mod isofs; do modprobe $module 2>/dev/null; done
name=none
for try in 1 2 3 4 5 6 7 8 9 10; do
    for device in /dev/vd* /dev/sd* /dev/nvme*n*; do
        [ -b "$device" ] || continue
        mount -t iso9660 -o ro "$device" /mnt 2>/dev/null || continue
        found=$(sed -n 's/.*"hostname": *"\([^"]*\)".*/\1/p' /mnt/openstack/latest/meta_data.json)
        umount /mnt
        [ -n "$found" ] && name=$found
    done
    [ "$name" != none ] && break
    sleep 0.2
done
echo "PROBE-OS hostname=$name disks=$(cat /proc/partitions | awk 'NR>2 {printf "%s:%s ", $4, $3}')"
exec sh -c 'while true; do sleep 3600; done'
"#;
const GRUB_CONFIG: &str = "serial --unit=0 --speed=115200\nterminal_output serial console\n\
search --no-floppy --file /probe/vmlinuz --set=root\n\
linux /probe/vmlinuz console=ttyS0,115200 quiet panic=-1\ninitrd /probe/initrd\nboot\n";
const PROBE_LAYOUT: Layout = Layout { total: 64 * MIB, esp: 58 * MIB, root: false };

/// The probe as a raw whole-disk image, and the same as qcow2.
#[derive(Clone, Debug)]
pub struct Probe {
    pub raw: Image,
    pub qcow2: Image,
}

/// The probe, made if this recipe's is not there yet.
pub fn probe() -> Result<Probe> {
    let cache = cache_folder()?;
    let manifest = Manifest::builtin()?;
    let mut hash = Sha256::new();
    for part in [include_str!("images.rs"), include_str!("bootsector.rs")] {
        hash.update(part);
    }
    for package in build::packages_of(&manifest)? {
        hash.update(package);
    }
    let key = hex(&hash.finalize());
    let raw = cache.join(format!("probe-{}.raw", &key[..16]));
    let qcow2 = raw.with_extension("qcow2");
    if !raw.exists() || !qcow2.exists() {
        let work = tempfile::Builder::new().prefix("probe-").tempdir_in(&cache)?;
        make_probe(work.path(), &cache, &manifest)?;
        fs::rename(work.path().join("probe.qcow2"), &qcow2)?;
        fs::rename(work.path().join("probe.raw"), &raw)?;
    }
    Ok(Probe { raw: Image::of(&raw)?, qcow2: Image::of(&qcow2)? })
}

fn make_probe(work: &Path, cache: &Path, manifest: &Manifest) -> Result<()> {
    let kernel = build::kernel(manifest, cache)?;
    let initrd = work.join("initrd");
    fs::write(&initrd, probe_ramdisk(cache, manifest, &kernel)?)?;
    let (core, efi) = (work.join("core.img"), work.join("grub.efi"));
    let grub = Grub::obtain()?;
    grub.make(GRUB_CONFIG, &core, &efi)?;
    let raw = work.join("probe.raw");
    bootsector::partition(&raw, PROBE_LAYOUT)?;
    let files: [(&str, &Path); 3] =
        [("EFI/BOOT/BOOTX64.EFI", &efi), ("probe/vmlinuz", &kernel.image), ("probe/initrd", &initrd)];
    bootsector::fill_esp(&raw, PROBE_LAYOUT, &files)?;
    bootsector::install_bios_grub(&raw, &grub.boot_sector(), &core)?;
    let (from, to) = (raw.display().to_string(), work.join("probe.qcow2").display().to_string());
    call("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", &from, &to]).map(drop)
}

fn probe_ramdisk(cache: &Path, manifest: &Manifest, kernel: &build::Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    let packages = build::unpack(cache, &["busybox-static"])?;
    let busybox = packages.first().context("no busybox")?.join("bin/busybox");
    archive.add("bin/busybox", Node::File(0o755, fs::read(busybox)?))?;
    for applet in ["sh", "mount", "umount", "modprobe", "sed", "awk", "cat", "sleep", "echo", "["] {
        archive.add(&format!("bin/{applet}"), Node::Link("busybox".into()))?;
    }
    archive.add("init", Node::File(0o755, INIT.into()))?;
    for folder in ["dev", "proc", "sys", "mnt"] {
        archive.add(folder, Node::Folder(0o755))?;
    }
    archive.add("dev/console", Node::Device(0o600, 5, 1))?;
    archive.add("dev/null", Node::Device(0o666, 1, 3))?;
    let catalogue = Catalogue::read(&kernel.modules)?;
    let mut names: Vec<&str> = manifest
        .modules(Profile::Vm)
        .filter(|n| ["virtio_pci", "virtio_blk", "sd_mod"].contains(n))
        .collect();
    names.extend(["isofs", "ahci", "nvme"]);
    let folder = format!("lib/modules/{}", kernel.version);
    let chosen = catalogue.closure(names)?;
    for path in chosen.paths() {
        archive.add(&format!("{folder}/{path}"), Node::File(0o644, fs::read(kernel.modules.join(path))?))?;
    }
    archive.add(&format!("{folder}/modules.dep"), Node::File(0o644, chosen.dep_table().into_bytes()))?;
    archive.add(&format!("{folder}/modules.alias"), Node::File(0o644, chosen.alias_table().into_bytes()))?;
    build::compress(&archive.to_bytes()?)
}

/// Debian's GRUB, unpacked, not installed.
#[derive(Clone, Debug)]
pub struct Grub {
    packages: Vec<PathBuf>,
}

impl Grub {
    pub fn obtain() -> Result<Self> {
        let names = ["grub-common", "grub-pc-bin", "grub-efi-amd64-bin"];
        Ok(Self { packages: build::unpack(&cache_folder()?, &names)? })
    }

    /// Makes the core image of a BIOS disk and the program of an EFI system partition, which run `embedded` first.
    pub fn make(&self, embedded: &str, bios: &Path, uefi: &Path) -> Result<()> {
        bootsector::make_grub(
            &self.file("usr/bin/grub-mkimage"),
            &self.file("usr/lib/grub/i386-pc"),
            &self.file("usr/lib/grub/x86_64-efi"),
            embedded,
            bios,
            uefi,
        )
    }

    pub fn boot_sector(&self) -> PathBuf {
        self.file("usr/lib/grub/i386-pc/boot.img")
    }

    fn file(&self, path: &str) -> PathBuf {
        let found = self.packages.iter().map(|package| package.join(path)).find(|p| p.exists());
        // A missing one is named by whoever opens it.
        found.unwrap_or_else(|| PathBuf::from("/").join(path))
    }
}
