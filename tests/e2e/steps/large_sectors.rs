//! A disk with sectors of 4096 bytes: images made for it, with a config drive in a partition made for it or in the image's own. The drive
//! comes as ISO 9660 or as FAT of small sectors, neither of which can be mounted from such a disk, and stands there as FAT of large ones.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use ferric_tests::commander::Agent;
use ferric_tests::debian::Image;
use ferric_tests::httpd::{Fault, Httpd};
use ferric_tests::process::call;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const SERIAL: &str = "LARGE-4096";
pub const BYTES: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const IMAGE: u64 = 64 * MIB;
const META_DATA: &str = "openstack/latest/meta_data.json";
/// First MiB and MiBs of the partition with the system, and of the one that may be the config drive's.
const SYSTEM: (u64, u64) = (1, 16);
const OWN: (u64, u64) = (32, 8);

/// Writes two images, the second over the first, and reads the disk's file after each.
pub fn deploy(agent: &Agent, images: &Httpd, folder: &Path, disk: &Path) -> Result<()> {
    let (iso, fat) = (config_drive(folder)?, fat_of_small_sectors(folder)?);
    for (name, own, format, drive) in [("made", false, "raw", &iso), ("own", true, "qcow2", &fat)] {
        let raw = image(folder, name, own.then_some(&iso))?;
        let file = packed(&raw, format)?;
        write(agent, images, &file, format, drive).with_context(|| format!("image '{name}'"))?;
        let place = match own {
            true => OWN.0 * MIB,
            // The last whole MiBs before the backup table.
            false => BYTES - 65 * MIB,
        };
        check(disk, &raw, place)
            .and_then(|()| drive_is_fat(folder, disk, place))
            .and_then(|()| is_mounted_by_name(agent, folder, disk, place))
            .with_context(|| format!("image '{name}'"))?;
    }
    Ok(())
}

fn write(agent: &Agent, images: &Httpd, file: &Path, format: &str, drive: &[u8]) -> Result<()> {
    let url = images.offer(&format!("large.{format}"), file, Fault::None);
    let mut pack = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    pack.write_all(drive)?;
    let drive = base64::engine::general_purpose::STANDARD.encode(pack.finish()?);
    let info = json!({"id": "large", "urls": [url], "disk_format": format, "os_hash_algo": "sha256",
                      "os_hash_value": Image::of(file)?.sha256, "node_uuid": "n", "image_type": "whole-disk"});
    let args = json!({"image_info": info, "configdrive": drive});
    step(agent, "write_image", args)
}

fn step(agent: &Agent, name: &str, args: Value) -> Result<()> {
    let node = json!({"uuid": "n", "properties": {"root_device": {"serial": SERIAL}}});
    let step = json!({"interface": "deploy", "step": name, "args": args});
    let done =
        agent.command("deploy.execute_deploy_step", json!({"step": step, "node": node, "ports": []}))?;
    ensure!(done["command_status"] == "SUCCEEDED", "{done}");
    Ok(())
}

/// The table as fdisk reads it in sectors of 4096 bytes, the system's bytes, and no second drive.
fn check(disk: &Path, raw: &Path, place: u64) -> Result<()> {
    let path = disk.display().to_string();
    let listed = call("fdisk", &["-b", "4096", "-l", "-o", "Start", &path])?;
    ensure!(listed.contains("Disklabel type: gpt") && !listed.contains("corrupt"), "{listed}");
    let starts = listed.lines().filter_map(|line| line.trim().parse::<u64>().ok());
    let starts: Vec<u64> = starts.map(|sector| sector * 4096).collect();
    ensure!(
        starts == [SYSTEM.0 * MIB, place],
        "partitions begin at {starts:?}, the drive's should at {place}"
    );
    let verdict = fdisk(disk, "v\nq\n")?;
    ensure!(verdict.contains("No errors detected"), "{verdict}");
    let length = (SYSTEM.1 * MIB) as usize;
    ensure!(
        bytes(disk, SYSTEM.0 * MIB, length)? == bytes(raw, SYSTEM.0 * MIB, length)?,
        "the system differs"
    );
    Ok(())
}

/// The machine's kernel mounts the drive: a file of it is deleted there, in the file system that is called so.
fn is_mounted_by_name(agent: &Agent, folder: &Path, disk: &Path, place: u64) -> Result<()> {
    let file = json!({"path": META_DATA, "partition": "LABEL=CONFIG-2", "deleted": true});
    step(agent, "inject_files", json!({"files": [file]}))?;
    let image = copied(folder, disk, place)?;
    let listed = call("mdir", &["-/", "-b", "-i", &image, "::"])?;
    ensure!(listed.contains("::/openstack/latest/") && !listed.contains(META_DATA), "{listed}");
    Ok(())
}

/// The drive as a file.
fn copied(folder: &Path, disk: &Path, place: u64) -> Result<String> {
    let image = folder.join("drive.fat");
    fs::write(&image, bytes(disk, place, OWN.1 as usize * MIB as usize)?)?;
    Ok(image.display().to_string())
}

/// What the tools of dosfstools and mtools say of the drive, and its file.
fn drive_is_fat(folder: &Path, disk: &Path, place: u64) -> Result<()> {
    let path = copied(folder, disk, place)?;
    call("fsck.vfat", &["-n", "-v", &path])?;
    let said = call("blkid", &["-p", "-o", "export", &path])?;
    for line in ["LABEL=CONFIG-2", "TYPE=vfat", "BLOCK_SIZE=4096"] {
        ensure!(said.lines().any(|said| said == line), "{line} is not in {said}");
    }
    let read = call("mtype", &["-i", &path, &format!("::/{META_DATA}")])?;
    ensure!(read == meta_data(), "the drive's meta_data.json is {read}");
    Ok(())
}

fn meta_data() -> String {
    json!({"uuid": "n", "hostname": "large"}).to_string()
}

fn bytes(file: &Path, at: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    File::open(file)?.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// A GPT for large sectors, a partition full of bytes that tell where they stand, and, if `own` is one, a partition with a former
/// config drive.
fn image(folder: &Path, name: &str, own: Option<&Vec<u8>>) -> Result<PathBuf> {
    let path = folder.join(format!("large-{name}.raw"));
    let file = File::create(&path)?;
    file.set_len(IMAGE)?;
    let parts = [Some(SYSTEM), own.map(|_| OWN)];
    let lines = parts.iter().flatten().zip(1..).map(|((at, length), number)| {
        let (first, last) = (at * MIB / 4096, (at + length) * MIB / 4096 - 1);
        format!("n\n{number}\n{first}\n{last}\n")
    });
    let told = fdisk(&path, &format!("g\n{}w\n", lines.collect::<String>()))?;
    ensure!(told.contains("The partition table has been altered"), "{told}");
    let system: Vec<u8> =
        (0..SYSTEM.1 * MIB / 8).flat_map(|at| (at ^ u64::from(own.is_some())).to_le_bytes()).collect();
    file.write_all_at(&system, SYSTEM.0 * MIB)?;
    if let Some(drive) = own {
        // The former one has the same label and another content.
        let mut former = drive.clone();
        former.iter_mut().skip(40 << 10).for_each(|byte| *byte = !*byte);
        file.write_all_at(&former, OWN.0 * MIB)?;
    }
    Ok(path)
}

/// What fdisk answers to `orders` on a file whose sectors are large.
fn fdisk(path: &Path, orders: &str) -> Result<String> {
    let mut fdisk = Command::new("fdisk");
    fdisk.args(["-b", "4096"]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = fdisk.spawn().context("starting fdisk")?;
    child.stdin.take().context("fdisk takes no input")?.write_all(orders.as_bytes())?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

fn packed(raw: &Path, format: &str) -> Result<PathBuf> {
    let path = raw.with_extension(format);
    if path != raw {
        let (from, to) = (raw.display().to_string(), path.display().to_string());
        call("qemu-img", &["convert", "-c", "-f", "raw", "-O", format, &from, &to])?;
    }
    Ok(path)
}

/// As Ironic makes it.
fn config_drive(folder: &Path) -> Result<Vec<u8>> {
    let (root, iso) = (folder.join("drive"), folder.join("drive.iso"));
    fs::create_dir_all(root.join("openstack/latest"))?;
    fs::write(root.join(META_DATA), meta_data())?;
    let (from, to) = (root.display().to_string(), iso.display().to_string());
    let words =
        ["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", "config-2", "-o"];
    call("genisoimage", &[&words[..], &[&to, &from]].concat())?;
    Ok(fs::read(iso)?)
}

/// The same files in a file system of mkfs.vfat, which takes sectors of 512 bytes for a file.
fn fat_of_small_sectors(folder: &Path) -> Result<Vec<u8>> {
    let image = folder.join("small.fat");
    let (from, to) = (folder.join("drive/openstack").display().to_string(), image.display().to_string());
    call("mkfs.vfat", &["-C", "-n", "CONFIG-2", &to, "1024"])?;
    call("mcopy", &["-s", "-i", &to, &from, "::/"])?;
    Ok(fs::read(image)?)
}
