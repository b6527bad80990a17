//! Levels 5, 6 and 1+0 on a machine with four disks, in one boot: made by the deploy step `apply_configuration`, each taking the
//! former away; an image is written through each; the host reads it back from the disks by the layout that md(4) describes, with its
//! redundancy. Then the same with the partition tables of a machine that a BIOS starts, and nothing is left in the end.
//!
//! The least of a controller hands out the token; commands are sent as a conductor sends them.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::arrays::{Examined, Mdadm, partitions};
use ferric_tests::artifacts::{Artifacts, run_folder};
use ferric_tests::commander::Agent;
use ferric_tests::dnsmasq::Dnsmasq;
use ferric_tests::httpd::{Fault, Httpd};
use ferric_tests::lookup::{self, Lookup};
use ferric_tests::machine::{Bus, Disk, Firmware, Machine, Spec, blank_disk};
use ferric_tests::process::tail;
use ferric_tests::scene::MAC;
use ferric_tests::{Netns, diskcheck, images, netns};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const DISKS: usize = 4;
/// The mirror ends at 1 GiB, the other array has the rest.
const BYTES: u64 = 1280 * MIB;
/// mdadm's default.
const CHUNK: u64 = 512 << 10;
const BOOT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(120);

#[test]
fn arrays_of_more_disks_are_made_written_through_and_deleted() -> Result<()> {
    let (probe, mdadm) = (images::probe()?, Mdadm::obtain()?);
    let artifacts = Artifacts::obtain(Profile::Server)?;
    let network = Netns::enter()?;
    network.tap("tap0")?;
    let folder = run_folder("raid-levels")?;
    let images = Httpd::start(netns::CONTROLLER)?;
    let machine = machine(&artifacts, &folder)?;
    let range = format!("--dhcp-range={},{},255.255.255.0,10m", netns::FIRST_LEASE, netns::LAST_LEASE);
    let (lookup, mut dhcp) = (Lookup::start()?, Dnsmasq::start(&folder, &[&range])?);
    machine.power_on()?;
    let said = || tail(&machine.console(), 40);
    let beat = lookup.heartbeat(BOOT, said).with_context(|| dhcp.said())?;
    let lab = Lab { agent: Agent::of(&beat, &folder)?, mdadm, folder };
    lab.run(&images, &probe).with_context(said)
}

struct Lab {
    agent: Agent,
    mdadm: Mdadm,
    folder: PathBuf,
}

impl Lab {
    fn run(&self, images: &Httpd, probe: &images::Probe) -> Result<()> {
        let url = images.offer("probe.raw", &probe.raw.path, Fault::None);
        let info = json!({"id": "probe", "urls": [url], "disk_format": "raw", "os_hash_algo": "sha256",
                          "os_hash_value": probe.raw.sha256, "node_uuid": lookup::NODE, "image_type": "whole-disk"});
        for level in [Level::Five, Level::Six, Level::Ten] {
            self.level(level, &info, &probe.raw.path).with_context(|| format!("{level:?}"))?;
        }
        self.arrays_that_are_there_are_respected()?;
        self.with_an_mbr()
    }

    fn level(&self, level: Level, info: &Value, image: &Path) -> Result<()> {
        let wanted = wanted(level.asked());
        let args = json!({"raid_config": wanted, "delete_existing": true});
        let made = self.step("deploy", "raid", "apply_configuration", args, node(json!({})))?;
        ensure!(made["command_result"]["deploy_result"] == wanted, "{made}");
        let array = self.array("gpt", level)?;
        self.step("deploy", "deploy", "write_image", json!({"image_info": info}), node(wanted))?;
        array.expect(image, &self.folder.join("read"))?;
        self.command("image.install_bootloader", json!({"root_uuid": null, "target_boot_mode": "uefi"}))
            .map(drop)
    }

    fn arrays_that_are_there_are_respected(&self) -> Result<()> {
        let args = json!({"raid_config": wanted("5"), "delete_existing": false});
        let told = self.order("deploy", "raid", "apply_configuration", args, node(json!({})))?;
        let error = &told["command_error"];
        let words = error["details"].as_str().unwrap_or_default();
        ensure!(error["type"] == "SoftwareRAIDError" && words.contains("run delete_configuration"), "{told}");
        self.array("gpt", Level::Ten).map(drop)
    }

    /// The table that machines of a BIOS get unless they ask for another.
    fn with_an_mbr(&self) -> Result<()> {
        let mut node = node(json!({}));
        node["properties"]["capabilities"] = json!("boot_mode:bios");
        node["target_raid_config"] = wanted("5");
        self.step("clean", "raid", "delete_configuration", json!({}), node.clone())?;
        let made = self.step("clean", "raid", "create_configuration", json!({}), node.clone())?;
        ensure!(made["command_result"]["clean_result"] == node["target_raid_config"], "{made}");
        let disks: Vec<PathBuf> = self.disks().collect();
        self.array("dos", Level::Five)?;
        let parts: Vec<_> = disks.iter().map(|disk| partitions(disk)).collect::<Result<_>>()?;
        self.step("clean", "raid", "delete_configuration", json!({}), node)?;
        for (disk, (_, parts)) in disks.iter().zip(parts) {
            let places: Vec<_> = parts.iter().map(|part| (part.kind.as_str(), part.start)).collect();
            ensure!(places == [("fd", MIB), ("fd", 1024 * MIB)], "{places:?}");
            diskcheck::expect_blank_ends(disk)?;
            parts.iter().try_for_each(|part| self.mdadm.expect_nothing(disk, part))?;
        }
        Ok(())
    }

    /// Both arrays by mdadm's words, member by member; the second, to be read.
    fn array(&self, table: &str, level: Level) -> Result<Array> {
        let mut members = Vec::new();
        for (nth, disk) in self.disks().enumerate() {
            let (kind, parts) = partitions(&disk)?;
            ensure!(kind == table, "{} has a table of kind {kind}", disk.display());
            let [mirror, member, ..] = parts.as_slice() else { anyhow::bail!("{parts:?}") };
            let told = self.mdadm.examine(&disk, mirror)?;
            told.expect(&[("Version", "1.2"), ("Raid Level", "raid1"), ("Raid Devices", "4")])?;
            told.expect_name("system")?;
            let told = self.mdadm.examine(&disk, member)?;
            told.expect(&[("Version", "1.2"), ("Raid Level", level.shown()), ("Raid Devices", "4")])?;
            told.expect(&[("Layout", level.layout()), ("Chunk Size", "512K")])?;
            told.expect_name("data")?;
            expect_role(&told, level, nth)?;
            members.push((File::open(&disk)?, member.start + told.data_offset()?));
        }
        Ok(Array { level, members })
    }

    fn disks(&self) -> impl Iterator<Item = PathBuf> {
        let folder = self.folder.clone();
        (0..DISKS).map(move |nth| folder.join(format!("disk{nth}")))
    }

    /// A step that must succeed.
    fn step(&self, kind: &str, interface: &str, name: &str, args: Value, node: Value) -> Result<Value> {
        let told = self.order(kind, interface, name, args, node)?;
        ensure!(told["command_status"] == "SUCCEEDED", "{told}");
        Ok(told)
    }

    fn order(&self, kind: &str, interface: &str, name: &str, args: Value, node: Value) -> Result<Value> {
        let params =
            json!({"step": {"interface": interface, "step": name, "args": args}, "node": node, "ports": []});
        self.ended(&format!("{kind}.execute_{kind}_step"), params)
    }

    fn command(&self, name: &str, params: Value) -> Result<Value> {
        let told = self.ended(name, params)?;
        ensure!(told["command_status"] == "SUCCEEDED", "{told}");
        Ok(told)
    }

    fn ended(&self, name: &str, params: Value) -> Result<Value> {
        let started = self.agent.send(name, params)?;
        self.agent.ended(&started, STEP, |_| {}).with_context(|| format!("{name}: {started}"))
    }
}

/// A mirror first, as the rules want it, and the array that the system goes to.
fn wanted(level: &str) -> Value {
    json!({"logical_disks": [
        {"size_gb": 1, "raid_level": "1", "controller": "software", "volume_name": "system"},
        {"size_gb": "MAX", "raid_level": level, "controller": "software", "volume_name": "data", "is_root_volume": true},
    ]})
}

fn node(raid_config: Value) -> Value {
    json!({"uuid": lookup::NODE, "properties": {}, "raid_config": raid_config})
}

/// The last disk of level 5 is a spare until the kernel has begun to fill it.
fn expect_role(told: &Examined, level: Level, nth: usize) -> Result<()> {
    let role = told.field("Device Role")?;
    let is_filled = level == Level::Five && nth == DISKS - 1 && role == "spare";
    ensure!(is_filled || role == format!("Active device {nth}"), "disk {nth} is {role}");
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Five,
    Six,
    Ten,
}

impl Level {
    fn asked(self) -> &'static str {
        match self {
            Level::Five => "5",
            Level::Six => "6",
            Level::Ten => "1+0",
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Level::Five => "raid5",
            Level::Six => "raid6",
            Level::Ten => "raid10",
        }
    }

    fn layout(self) -> &'static str {
        match self {
            Level::Five | Level::Six => "left-symmetric",
            Level::Ten => "near=2",
        }
    }
}

/// An array of four members as md(4) lays it out; each with the place where its data begins.
struct Array {
    level: Level,
    members: Vec<(File, u64)>,
}

impl Array {
    /// It holds the image, but for what follows the size of the disk, and has what it takes to lose a disk.
    fn expect(&self, image: &Path, copy: &Path) -> Result<()> {
        let size = image.metadata()?.len();
        let mut file = File::create(copy)?;
        for number in 0..size / CHUNK {
            let chunk = match self.level {
                Level::Five => self.of_five(number),
                Level::Six => self.of_six(number),
                Level::Ten => self.of_ten(number),
            };
            file.write_all(&chunk.with_context(|| format!("chunk {number}"))?)?;
        }
        diskcheck::expect_image(copy, image, &[(446, 510), (512, 1024), (size - 33 * 512, size)])
    }

    /// As it is read when the last disk is lost, which is the one that the kernel fills first.
    fn of_five(&self, number: u64) -> Result<Vec<u8>> {
        let row = number / 3;
        let parity = 3 - row % 4;
        match (parity + 1 + number % 3) % 4 {
            3 => {
                let (a, b, c) = (self.chunk(0, row)?, self.chunk(1, row)?, self.chunk(2, row)?);
                Ok(xor(&xor(&a, &b), &c))
            }
            member => self.chunk(member, row),
        }
    }

    /// Both redundant chunks are what the two of data make them: P the sum, Q the sum with the second doubled in GF(2^8).
    fn of_six(&self, number: u64) -> Result<Vec<u8>> {
        let row = number / 2;
        let member = |after: u64| self.chunk((3 - row % 4 + after) % 4, row);
        let (p, q, first, second) = (member(0)?, member(1)?, member(2)?, member(3)?);
        ensure!(p == xor(&first, &second), "P of row {row} is wrong");
        let doubled: Vec<u8> = second.iter().map(|byte| (byte << 1) ^ ((byte >> 7) * 0x1d)).collect();
        ensure!(q == xor(&first, &doubled), "Q of row {row} is wrong");
        Ok(if number.is_multiple_of(2) { first } else { second })
    }

    fn of_ten(&self, number: u64) -> Result<Vec<u8>> {
        let (row, member) = (number / 2, number % 2 * 2);
        let (one, other) = (self.chunk(member, row)?, self.chunk(member + 1, row)?);
        ensure!(one == other, "the copies of row {row} differ");
        Ok(one)
    }

    fn chunk(&self, member: u64, row: u64) -> Result<Vec<u8>> {
        let (file, start) = self.members.get(usize::try_from(member)?).context("no such member")?;
        let mut bytes = vec![0; usize::try_from(CHUNK)?];
        file.read_exact_at(&mut bytes, start + row * CHUNK)?;
        Ok(bytes)
    }
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}

fn machine(artifacts: &Artifacts, folder: &Path) -> Result<Machine> {
    let disks = (0..DISKS).map(|nth| {
        let path = folder.join(format!("disk{nth}"));
        blank_disk(&path, BYTES)?;
        let serial = format!("RAID-{nth}");
        Ok(Disk { path, serial, bus: Bus::Virtio, rank: u32::try_from(nth)?, logged: false })
    });
    let address = format!("ipa-api-url=http://{}:{}", netns::CONTROLLER, lookup::PORT);
    Machine::new(Spec {
        firmware: Firmware::Uefi,
        disks: disks.collect::<Result<_>>()?,
        ..Spec::of_ramdisk(artifacts, MAC, &address, folder)
    })
}
