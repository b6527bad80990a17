//! What a freshly started ramdisk knows of its disks: an array that the node keeps survives cleaning in a later boot, and the next
//! image goes to it; a disk that appears late is waited for.
//!
//! The least of a controller hands out the token; commands are sent as a conductor sends them. The host reads the disks.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::{Artifacts, run_folder};
use ferric_tests::commander::Agent;
use ferric_tests::dnsmasq::Dnsmasq;
use ferric_tests::httpd::{Fault, Httpd};
use ferric_tests::lookup::{self, Lookup};
use ferric_tests::machine::{Bus, Disk, Firmware, Machine, Spec, blank_disk};
use ferric_tests::process::{call, tail};
use ferric_tests::scene::MAC;
use ferric_tests::{Netns, diskcheck, images, netns};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Room for the system partition of UEFI and for the probe image; the array is marked, so it need not have 4 GiB.
const BYTES: u64 = 1280 * MIB;
const BOOT: Duration = Duration::from_secs(180);
const STEP: Duration = Duration::from_secs(180);
/// Magic and version of a superblock, 4 KiB behind a member's start (linux/raid/md_p.h).
const SUPERBLOCK: [u8; 8] = [0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0];

/// Each step in a boot of its own, as a conductor has it: what the ramdisk before knew is gone.
#[test]
fn a_kept_array_survives_cleaning_and_gets_the_next_image() -> Result<()> {
    let (probe, lab) = (images::probe()?, Lab::open("disks-kept", &["disk0", "disk1"])?);
    let images = Httpd::start(netns::CONTROLLER)?;
    let url = images.offer("probe.raw", &probe.raw.path, Fault::None);
    let info = json!({"id": "probe", "urls": [url], "disk_format": "raw", "os_hash_algo": "sha256",
                      "os_hash_value": probe.raw.sha256, "node_uuid": lookup::NODE, "image_type": "whole-disk"});
    let raid = json!({"logical_disks": [{"size_gb": "MAX", "raid_level": "1", "controller": "software",
                                         "volume_name": "system", "is_root_volume": true}]});
    let node = |raid: &Value, skip: Value| {
        let properties = json!({"skip_block_devices": skip});
        json!({"uuid": lookup::NODE, "properties": properties, "raid_config": raid})
    };
    let write = |raid: &Value| Step {
        kind: "deploy",
        interface: "deploy",
        name: "write_image",
        args: json!({ "image_info": info }),
        node: node(raid, json!([])),
    };
    let erase = |raid: &Value, skip: Value| Step {
        kind: "clean",
        interface: "deploy",
        name: "erase_devices_metadata",
        args: json!({}),
        node: node(raid, skip),
    };
    let make = Step {
        kind: "deploy",
        interface: "raid",
        name: "apply_configuration",
        args: json!({ "raid_config": raid }),
        node: node(&json!({}), json!([])),
    };
    lab.boot(&[make, write(&raid)])?;
    let made = lab.members()?;
    for (file, member) in &made {
        member.expect(file, &probe.raw.path, &lab.folder)?;
    }

    // Named in the skip list alone: nothing of it changes.
    lab.boot(&[erase(&json!({}), json!([{"volume_name": "system"}]))])?;
    for (file, member) in &lab.members()? {
        member.expect(file, &probe.raw.path, &lab.folder)?;
    }
    // The node's own: blank, but there.
    lab.boot(&[erase(&raid, json!([]))])?;
    let cleaned = lab.members()?;
    for ((_, before), (file, after)) in made.iter().zip(&cleaned) {
        ensure!(before == after, "the member at {} lies at {} now", before.data, after.data);
        after.expect_blank(file)?;
    }
    lab.boot(&[write(&raid)])?;
    for (file, member) in &lab.members()? {
        member.expect(file, &probe.raw.path, &lab.folder)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_appears_late_is_waited_for_and_cleaned() -> Result<()> {
    let lab = Lab::open("disks-late", &[])?;
    let disk = lab.folder.join("late");
    blank_disk(&disk, 5 << 30)?;
    File::options().write(true).open(&disk)?.write_all_at(b"old", 4096)?;
    let agent = lab.start(|lookup| {
        let seen = lab.machine.wait_for_console("for a disk for the operating system", 0, BOOT)?;
        ensure!(lookup.requests().is_empty(), "the controller was asked before: {:?}", lookup.requests());
        lab.machine.plug_disk(&disk, "LATE-0001")?;
        lab.machine.wait_for_console("/dev/sda is there after", seen, BOOT).map(drop)
    })?;
    let node = json!({"uuid": lookup::NODE, "properties": {}});
    let told =
        Step { kind: "clean", interface: "deploy", name: "erase_devices_metadata", args: json!({}), node }
            .run(&agent)?;
    ensure!(told["command_status"] == "SUCCEEDED", "{told}");
    lab.machine.power_off()?;
    diskcheck::expect_blank_ends(&disk)
}

struct Step {
    kind: &'static str,
    interface: &'static str,
    name: &'static str,
    args: Value,
    node: Value,
}

impl Step {
    fn run(&self, agent: &Agent) -> Result<Value> {
        let Step { kind, interface, name, args, node } = self;
        let step = json!({"interface": interface, "step": name, "args": args});
        let params = json!({"step": step, "node": node, "ports": []});
        let started = agent.send(&format!("{kind}.execute_{kind}_step"), params)?;
        agent.ended(&started, STEP, |_| {}).with_context(|| format!("{name}: {started}"))
    }
}

struct Lab {
    machine: Machine,
    folder: PathBuf,
    disks: Vec<PathBuf>,
    dhcp: String,
    _network: Netns,
}

impl Lab {
    fn open(name: &str, disks: &[&str]) -> Result<Lab> {
        let artifacts = Artifacts::obtain(Profile::Server)?;
        let network = Netns::enter()?;
        network.tap("tap0")?;
        let folder = run_folder(name)?;
        let disks: Vec<PathBuf> = disks.iter().map(|disk| folder.join(disk)).collect();
        disks.iter().try_for_each(|disk| blank_disk(disk, BYTES))?;
        let machine = machine(&artifacts, &folder, &disks)?;
        let (first, last) = (netns::FIRST_LEASE, netns::LAST_LEASE);
        let dhcp = format!("--dhcp-range={first},{last},255.255.255.0,10m");
        Ok(Lab { machine, folder, disks, dhcp, _network: network })
    }

    /// A boot in which these steps succeed, one after the other; then the power is cut.
    fn boot(&self, steps: &[Step]) -> Result<()> {
        let agent = self.start(|_| Ok(()))?;
        for step in steps {
            let told = step.run(&agent).with_context(|| tail(&self.machine.console(), 40))?;
            ensure!(told["command_status"] == "SUCCEEDED", "{told}\n{}", tail(&self.machine.console(), 40));
        }
        self.machine.power_off().map(drop)
    }

    /// Boots the ramdisk; `meanwhile` sees whom it asks before its first heartbeat.
    fn start(&self, meanwhile: impl FnOnce(&Lookup) -> Result<()>) -> Result<Agent> {
        let (lookup, mut dhcp) = (Lookup::start()?, Dnsmasq::start(&self.folder, &[&self.dhcp])?);
        self.machine.power_on()?;
        meanwhile(&lookup)?;
        let said = || tail(&self.machine.console(), 40);
        let beat = lookup.heartbeat(BOOT, said).with_context(|| dhcp.said())?;
        Agent::of(&beat, &self.folder)
    }

    /// The array's member on each disk, by the disk's table and the superblock.
    fn members(&self) -> Result<Vec<(File, Member)>> {
        self.disks.iter().map(|disk| Ok((File::open(disk)?, member(disk)?))).collect()
    }
}

/// Where the content of an array lies on a disk. Bytes.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    data: u64,
    size: u64,
}

impl Member {
    /// It holds the image, but for the table, whose second copy moved to the end of the array.
    fn expect(&self, disk: &File, image: &Path, folder: &Path) -> Result<()> {
        let copy = folder.join("read");
        let file = File::create(&copy)?;
        let size = image.metadata()?.len();
        for at in (0..size).step_by(MIB as usize) {
            let mut bytes = vec![0; usize::try_from((size - at).min(MIB))?];
            disk.read_exact_at(&mut bytes, self.data + at)?;
            file.write_all_at(&bytes, at)?;
        }
        diskcheck::expect_image(&copy, image, &[(0, 1024), (size - 33 * 512, size)])?;
        let mut signature = [0; 8];
        disk.read_exact_at(&mut signature, self.data + 512)?;
        ensure!(&signature == b"EFI PART", "no GPT at {}", self.data);
        Ok(())
    }

    fn expect_blank(&self, disk: &File) -> Result<()> {
        for (what, at) in [("start", self.data), ("end", self.data + self.size - MIB)] {
            let mut bytes = vec![0; usize::try_from(MIB)?];
            disk.read_exact_at(&mut bytes, at)?;
            ensure!(bytes.iter().all(|byte| *byte == 0), "the {what} of the array is not blank");
        }
        Ok(())
    }
}

/// By `sfdisk`, and by fields of `struct mdp_superblock_1`: `data_offset` at 128, `size` (what each member gives) at 80, both in
/// sectors.
fn member(disk: &Path) -> Result<Member> {
    let table: Value = serde_json::from_str(&call("sfdisk", &["--json", &disk.display().to_string()])?)?;
    let part = &table["partitiontable"]["partitions"][0];
    let start = part["start"].as_u64().with_context(|| format!("no partition on {}", disk.display()))? * 512;
    let mut superblock = [0; 256];
    File::open(disk)?.read_exact_at(&mut superblock, start + 4096)?;
    ensure!(superblock.starts_with(&SUPERBLOCK), "no superblock on {}", disk.display());
    let field = |at: usize| -> Result<u64> {
        let bytes = superblock.get(at..at + 8).context("a short superblock")?;
        Ok(u64::from_le_bytes(bytes.try_into()?) * 512)
    };
    Ok(Member { data: start + field(128)?, size: field(80)? })
}

fn machine(artifacts: &Artifacts, folder: &Path, disks: &[PathBuf]) -> Result<Machine> {
    let disk = |(path, rank): (&PathBuf, u32)| Disk {
        path: path.clone(),
        serial: format!("DISK-{rank}"),
        bus: Bus::Virtio,
        rank,
        logged: false,
    };
    // Disks of less than 4 GiB are none for the agent, until it is told of the array.
    let attempts = if disks.is_empty() { 10 } else { 1 };
    let (host, port) = (netns::CONTROLLER, lookup::PORT);
    let words = format!("ipa-api-url=http://{host}:{port} ipa-disk-wait-attempts={attempts}");
    Machine::new(Spec {
        firmware: Firmware::Uefi,
        disks: disks.iter().zip(0..).map(disk).collect(),
        ..Spec::of_ramdisk(artifacts, MAC, &words, folder)
    })
}
