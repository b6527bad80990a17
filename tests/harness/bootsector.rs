//! Disk images that boot on BIOS and UEFI, made without mounting or loop devices: partition table by sfdisk, file
//! systems by `mke2fs -d` and mtools, GRUB's BIOS part put in place here.
//!
//! `grub-install` is no help: it wants a block device with partitions, which not every kernel or container offers. What
//! it writes is small and documented in GRUB's `boot.S` and `diskboot.S`.

use crate::process::{call, run};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

pub const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Partition 1, for GRUB's BIOS part; ends where partition 2 starts.
const GRUB_START: u64 = MIB;
/// Partition 2, the EFI system partition.
const ESP_START: u64 = 2 * MIB;
/// GRUB's modules that both firmwares' images need: find the file system, read the configuration, start Linux.
const GRUB_MODULES: &[&str] = &[
    "part_gpt",
    "part_msdos",
    "fat",
    "ext2",
    "search",
    "search_label",
    "search_fs_file",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
    "echo",
    "test",
];

/// Sizes of an image.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub total: u64,
    pub esp: u64,
    /// Whether partition 3 takes the rest.
    pub root: bool,
}

impl Layout {
    pub fn root_start(&self) -> u64 {
        ESP_START + self.esp
    }

    /// The last MiB stays free for the second partition table.
    pub fn root_bytes(&self) -> u64 {
        self.total - self.root_start() - MIB
    }
}

/// Makes a sparse image with a GPT: BIOS boot partition, EFI system partition, and root if wanted.
pub fn partition(image: &Path, layout: Layout) -> Result<()> {
    let file = File::create(image).with_context(|| format!("making {}", image.display()))?;
    file.set_len(layout.total)?;
    let mut script = format!(
        "label: gpt\nlabel-id: 6A1F0C5E-0000-4000-8000-000000000001\n\
         start={}, size={}, type=21686148-6449-6E6F-744E-656564454649, uuid=6A1F0C5E-0000-4000-8000-000000000011\n\
         start={}, size={}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=6A1F0C5E-0000-4000-8000-000000000012\n",
        GRUB_START / SECTOR,
        MIB / SECTOR,
        ESP_START / SECTOR,
        layout.esp / SECTOR
    );
    if layout.root {
        script.push_str(&format!(
            "start={}, size={}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=6A1F0C5E-0000-4000-8000-000000000013\n",
            layout.root_start() / SECTOR,
            layout.root_bytes() / SECTOR
        ));
    }
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting sfdisk")?;
    std::io::Write::write_all(&mut child.stdin.take().context("sfdisk takes no input")?, script.as_bytes())?;
    if !child.wait()?.success() {
        bail!("sfdisk could not partition {}", image.display());
    }
    Ok(())
}

/// Formats the EFI system partition and copies files into it: (path in the partition, file).
pub fn fill_esp(image: &Path, layout: Layout, files: &[(&str, &Path)]) -> Result<()> {
    let esp = image.with_extension("esp");
    File::create(&esp)?.set_len(layout.esp)?;
    call("mformat", &["-i", &path(&esp), "-F", "-v", "ESP", "-N", "6A1F0C5E", "::"])?;
    for (name, file) in files {
        let mut folder = String::from("::");
        for part in name.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            folder = format!("{folder}/{part}");
            // It may be there already.
            call("mmd", &["-D", "s", "-i", &path(&esp), &folder]).ok();
        }
        call("mcopy", &["-D", "o", "-i", &path(&esp), &path(file), &format!("::/{name}")])?;
    }
    copy_into(image, &esp, ESP_START)?;
    fs::remove_file(&esp).context("removing the partition's own file")
}

/// Makes GRUB's two images with an unpacked GRUB of Debian; `embedded` is run first.
pub fn make_grub(
    mkimage: &Path,
    bios_modules: &Path,
    uefi_modules: &Path,
    embedded: &str,
    bios: &Path,
    uefi: &Path,
) -> Result<()> {
    let first = bios.with_extension("cfg");
    fs::write(&first, embedded)?;
    for (format, disk, modules, out) in
        [("i386-pc", Some("biosdisk"), bios_modules, bios), ("x86_64-efi", None, uefi_modules, uefi)]
    {
        let mut make = Command::new(mkimage);
        make.args(["-O", format, "-p", "/boot/grub", "-d"])
            .arg(modules)
            .arg("-o")
            .arg(out)
            .arg("-c")
            .arg(&first)
            .args(GRUB_MODULES)
            .args(disk);
        run(&mut make)?;
    }
    Ok(())
}

/// Puts GRUB's first sector and core image where a BIOS finds them. `boot` is `boot.img` of the same GRUB.
pub fn install_bios_grub(image: &Path, boot: &Path, core: &Path) -> Result<()> {
    let mut boot = fs::read(boot).with_context(|| format!("reading {}", boot.display()))?;
    let mut core = fs::read(core).with_context(|| format!("reading {}", core.display()))?;
    core.resize(core.len().next_multiple_of(usize::try_from(SECTOR)?), 0);
    let sectors = u64::try_from(core.len())? / SECTOR;
    if boot.len() != 512 || core.len() < 1024 || core.len() as u64 > MIB {
        bail!("GRUB's images have unexpected sizes: {} and {} bytes", boot.len(), core.len());
    }
    let first = GRUB_START / SECTOR;
    // boot.S: where the core's first sector is, and no check for a floppy's wrong drive number.
    boot[0x5C..0x64].copy_from_slice(&first.to_le_bytes());
    boot[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    // diskboot.S, the core's first sector: where the rest is, how long, and the segment it goes to.
    core[0x1F4..0x1FC].copy_from_slice(&(first + 1).to_le_bytes());
    core[0x1FC..0x1FE].copy_from_slice(&u16::try_from(sectors - 1)?.to_le_bytes());
    core[0x1FE..0x200].copy_from_slice(&0x0820_u16.to_le_bytes());
    let file = File::options().write(true).open(image)?;
    // The protective MBR's table and signature stay.
    file.write_all_at(&boot[..440], 0)?;
    file.write_all_at(&core, GRUB_START)?;
    Ok(())
}

/// Makes an ext4 file system with a folder's content as partition 3.
pub fn fill_root(image: &Path, layout: Layout, root: &Path, label: &str) -> Result<()> {
    let kib = format!("{}k", layout.root_bytes() / 1024);
    let options = format!("offset={},lazy_itable_init=1,lazy_journal_init=1", layout.root_start());
    call(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-L", label, "-E", &options, "-d", &path(root), &path(image), &kib],
    )
    .map(drop)
}

/// Copies a file's data (not its holes) to a place in another.
fn copy_into(image: &Path, part: &Path, at: u64) -> Result<()> {
    let from = fs::read(part)?;
    let to = File::options().write(true).open(image)?;
    for (number, block) in from.chunks(64 << 10).enumerate() {
        if block.iter().any(|b| *b != 0) {
            to.write_all_at(block, at + (number as u64) * (64 << 10))?;
        }
    }
    Ok(())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
