//! A real Debian 12 as a disk image: Debian's packages by mmdebstrap, the cloud kernel, GRUB for BIOS and UEFI,
//! cloud-init with a config drive, OpenSSH. The tests deploy [`SMALL`] as a compressed qcow2; others ask for more of it.
//!
//! Kept by the digest of its recipe (this file and the files laid over it), so that a day's runs make it once.

use crate::artifacts::cache_folder;
use crate::bootsector::{self, Layout, MIB};
use crate::process::{call, run};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What makes one Debian image differ from another.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub virtual_bytes: u64,
    /// Packages beside those that every image needs.
    pub more: &'static [&'static str],
    pub papers: Papers,
}

/// Whether manuals, translations and licences come with the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Papers {
    Left,
    Kept,
}

/// What the tests and the demonstration deploy: little, so that an emulated processor is soon done.
pub const SMALL: Recipe = Recipe { virtual_bytes: 4 << 30, more: &[], papers: Papers::Left };

impl Recipe {
    /// Names what the recipe makes: another key, another image (but for what Debian's mirror gives on the day).
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        for part in RECIPE {
            hash.update(part);
        }
        hash.update(format!("{self:?}"));
        hex(&hash.finalize())[..16].to_owned()
    }
}

const RECIPE: [&str; 3] =
    [include_str!("debian.rs"), include_str!("bootsector.rs"), include_str!("images/debian-files.toml")];
const PACKAGES: &str = "linux-image-cloud-amd64,grub-pc-bin,grub-efi-amd64-bin,grub2-common,initramfs-tools,zstd,\
systemd-sysv,udev,cloud-init,openssh-server,sudo,iproute2,ca-certificates";
/// Before the kernel is installed: a small ramdisk with what a disk's driver needs.
const SMALL_INITRAMFS: &str = r#"mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/small"
printf '#!/bin/sh\n[ "$1" = prereqs ] && exit 0\n. /usr/share/initramfs-tools/hook-functions\nmanual_add_modules virtio_pci virtio_blk virtio_scsi sd_mod\n' > "$1/etc/initramfs-tools/hooks/disks"
chmod 755 "$1/etc/initramfs-tools/hooks/disks""#;
/// Units that cost seconds and do nothing for a machine that lives for minutes.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-pstore.service",
    "systemd-networkd-wait-online.service",
    "cloud-init-hotplugd.socket",
];

/// An image file that is served to machines.
#[derive(Clone, Debug)]
pub struct Image {
    pub path: PathBuf,
    pub sha256: String,
    pub bytes: u64,
}

impl Image {
    pub fn of(path: &Path) -> Result<Self> {
        let mut file = fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let mut hash = Sha256::new();
        let bytes = std::io::copy(&mut file, &mut HashWriter(&mut hash))?;
        Ok(Self { path: path.to_owned(), sha256: hex(&hash.finalize()), bytes })
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The small image, made if this recipe's is not there yet (about three minutes).
pub fn image() -> Result<Image> {
    let path = cache_folder()?.join(format!("debian-12-{}.qcow2", SMALL.key()));
    if !path.exists() {
        eprintln!("making the Debian 12 image {} (a few minutes, once)", path.display());
        let work = tempfile::Builder::new().prefix("debian-").tempdir_in(cache_folder()?)?;
        let raw = make_raw(&SMALL, work.path())?;
        let packed = work.path().join("disk.qcow2");
        let (from, to) = (raw.display().to_string(), packed.display().to_string());
        call("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", &from, &to])?;
        fs::rename(&packed, &path).with_context(|| format!("moving the image to {}", path.display()))?;
    }
    Image::of(&path)
}

/// Makes a sparse raw image in the folder `work`.
pub fn make_raw(recipe: &Recipe, work: &Path) -> Result<PathBuf> {
    let root = work.join("root");
    debootstrap(recipe, &root)?;
    lay_over(&root)?;
    let (core, efi, raw) = (work.join("core.img"), work.join("grub.efi"), work.join("disk.raw"));
    let first = "search --no-floppy --label root --set=root\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n";
    let grub = crate::images::Grub::obtain()?;
    grub.make(first, &core, &efi)?;
    let layout = Layout { total: recipe.virtual_bytes, esp: 40 * MIB, root: true };
    bootsector::partition(&raw, layout)?;
    bootsector::fill_esp(&raw, layout, &[("EFI/BOOT/BOOTX64.EFI", &efi)])?;
    bootsector::install_bios_grub(&raw, &grub.boot_sector(), &core)?;
    bootsector::fill_root(&raw, layout, &root, "root")?;
    Ok(raw)
}

fn debootstrap(recipe: &Recipe, root: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=minbase", "--components=main"]);
    if recipe.papers == Papers::Left {
        for path in ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"] {
            command.arg(format!("--dpkgopt=path-exclude={path}"));
        }
    }
    let packages = [&[PACKAGES], recipe.more].concat().join(",");
    command
        .arg(format!("--include={packages}"))
        .arg(format!("--essential-hook={SMALL_INITRAMFS}"))
        .arg("bookworm")
        .arg(root);
    run(&mut command).map(drop)
}

fn lay_over(root: &Path) -> Result<()> {
    for (path, text) in files()? {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // resolv.conf and the like may be links to places that do not exist yet.
        fs::remove_file(&path).ok();
        fs::write(&path, text.trim_start()).with_context(|| format!("writing {}", path.display()))?;
    }
    for entry in fs::read_dir(root.join("etc/ssh"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path())?;
        }
    }
    let systemctl =
        |arguments: &[&str]| run(Command::new("chroot").arg(root).arg("systemctl").args(arguments));
    for unit in MASKED {
        systemctl(&["mask", unit])?;
    }
    systemctl(&["enable", "systemd-networkd.service"]).map(drop)
}

fn files() -> Result<Vec<(String, String)>> {
    let table: toml::Table = include_str!("images/debian-files.toml").parse()?;
    let files = table.get("file").and_then(|f| f.as_array()).context("no files in debian-files.toml")?;
    files
        .iter()
        .map(|file| {
            let field = |name| file.get(name).and_then(|v| v.as_str()).map(str::to_owned);
            field("path").zip(field("text")).context("a file without path or text in debian-files.toml")
        })
        .collect()
}
