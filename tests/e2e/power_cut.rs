//! Power cuts while a real machine writes an image: QEMU logs every write and flush of the disk, and every state that the log
//! allows the machine to wake up in is judged. None boots that is not complete and right; with a wrong checksum none boots at all.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::bootsector::{self, Layout};
use ferric_tests::debian::Image;
use ferric_tests::httpd::Fault;
use ferric_tests::machine::{Bus, DirectBoot, Firmware};
use ferric_tests::powercut::{Entry, Judged, Rule, judge};
use ferric_tests::scene::{Cleaning, MAC, NODE, Scene, Script, borrowed};
use ferric_tests::{diskcheck, images, netns, wait, writelog};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const DISK: u64 = 96 * MIB;
const DEPLOY: Duration = Duration::from_secs(240);
/// States that must be judged for each format.
const STATES: usize = 5000;
/// Random subsets of the open writes after each entry, of whole and of torn ones: at least so many, and more of a short log.
const SAMPLES: usize = 24;

#[test]
fn a_raw_image_on_a_virtio_disk_boots_whole_or_not_at_all() -> Result<()> {
    cut_everywhere("power-cut-raw", Bus::Virtio, "raw", &images::probe()?.raw)
}

#[test]
fn a_qcow2_image_on_a_sata_disk_boots_whole_or_not_at_all() -> Result<()> {
    cut_everywhere("power-cut-qcow2", Bus::Sata, "qcow2", &images::probe()?.qcow2)
}

fn cut_everywhere(name: &str, bus: Bus, format: &str, image: &Image) -> Result<()> {
    let artifacts = Artifacts::obtain(Profile::Server)?;
    let mut script = Script::new(name, Firmware::Bios);
    script.memory_mib = 512;
    script.bus = bus;
    script.root_bytes = DISK;
    script.logged = true;
    script.direct = Some(DirectBoot {
        kernel: artifacts.kernel.clone(),
        ramdisk: artifacts.ramdisk.clone(),
        parameters: format!(
            "console=ttyS0 ipa-api-url=http://{}:6385 BOOTIF=01-{}",
            netns::CONTROLLER,
            MAC.replace(':', "-")
        ),
    });
    let scene = Scene::open(&artifacts, script)?;
    scene.explain(deploy_and_judge(&scene, format, image))
}

fn deploy_and_judge(scene: &Scene, format: &str, image: &Image) -> Result<()> {
    scene.enrol(Cleaning::None)?;
    let wrong = Image { sha256: "0".repeat(64), ..image.clone() };
    let refused = Run::of(scene, format, &wrong, "deploy failed")?;
    diskcheck::expect_blank_ends(&scene.root_disk())?;
    report(format, "wrong checksum", refused.judge(false)?)?;
    let deployed = Run::of(scene, format, image, "active")?;
    let bootable = report(format, "right", deployed.judge(true)?)?;
    expect_image(&scene.root_disk(), images::probe()?.raw)?;
    ensure!(bootable > 0, "no state boots, not even the last: the judge is blind");
    Ok(())
}

/// What became of the disk in one deployment.
struct Run {
    old: Vec<u8>,
    now: Vec<u8>,
    logs: Vec<Vec<u8>>,
}

impl Run {
    /// Deploys over an old system until the node is in this state, and switches the machine off.
    fn of(scene: &Scene, format: &str, image: &Image, state: &str) -> Result<Run> {
        scene.machine.power_off()?;
        let before = scene.write_logs().len();
        let old = old_system(scene.root_disk())?;
        let arguments = scene.deploy(image, format, Fault::None, "cut", None);
        scene.operator().ferric(&borrowed(&arguments))?;
        let node = scene.operator().wait_for_state(NODE, &["active", "deploy failed"], DEPLOY)?;
        ensure!(
            node["provision_state"] == state,
            "the node is {}: {}",
            node["provision_state"],
            node["last_error"]
        );
        released(scene)?;
        scene.machine.power_off()?;
        let logs = scene.write_logs().split_off(before);
        ensure!(!logs.is_empty(), "the machine was never on");
        let logs = logs.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Run { old, now: fs::read(scene.root_disk())?, logs })
    }

    /// What a machine could wake up with at any instant of this run.
    fn judge(&self, right: bool) -> Result<Judged> {
        let mut log = Vec::new();
        for bytes in &self.logs {
            log.extend(writelog::parse(bytes)?);
        }
        ensure!(
            replayed(&self.old, &log)? == self.now,
            "the log does not lead from the old disk to the new one"
        );
        let samples = SAMPLES.max(5000 / log.len().max(1));
        let rule = Rule { right: right.then_some(&self.now), sector: 512, samples: u64::try_from(samples)? };
        judge(&self.old, &log, rule).map_err(anyhow::Error::msg)
    }
}

/// The disk holds the image, but for both partition tables: they know the whole disk and the config drive.
fn expect_image(disk: &Path, raw: Image) -> Result<()> {
    let (table, end) = (34 * 512, raw.bytes);
    diskcheck::expect_image(disk, &raw.path, &[(0, table), (end - table, end)])
}

/// The controller has nothing more to do with the node: it keeps the agent's logs before it switches the power off.
fn released(scene: &Scene) -> Result<()> {
    let is_free = || Ok(scene.operator().node(NODE)?["reservation"].is_null().then_some(()));
    wait::until("the controller to be done with the node", DEPLOY, is_free, String::new)
}

/// The disk after everything in the log.
fn replayed(old: &[u8], log: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut disk = old.to_vec();
    for entry in log {
        match entry {
            Entry::Write { at, bytes } => {
                disk.get_mut(*at..at + bytes.len()).context("a write behind the end")?.copy_from_slice(bytes);
            }
            Entry::Zero { at, length } => {
                disk.get_mut(*at..at + length).context("a discard behind the end")?.fill(0)
            }
            Entry::Flush => {}
        }
    }
    Ok(disk)
}

/// Puts a system that boots onto the disk, and old data everywhere between its tables.
fn old_system(disk: PathBuf) -> Result<Vec<u8>> {
    bootsector::partition(&disk, Layout { total: DISK, esp: 16 * MIB, root: true })?;
    let file = fs::File::options().write(true).open(&disk)?;
    let old = vec![0xa5; usize::try_from(MIB)?];
    for at in 1..DISK / MIB - 1 {
        file.write_all_at(&old, at * MIB)?;
    }
    Ok(fs::read(&disk)?)
}

/// Prints what was judged; how many states boot.
fn report(format: &str, what: &str, judged: Judged) -> Result<usize> {
    let Judged { states, bootable, entries, flushes } = judged;
    println!(
        "{format}, {what}: {states} states of {entries} log entries ({flushes} flushes), {bootable} of them boot"
    );
    ensure!(states >= STATES, "only {states} states were judged, {STATES} are wanted");
    Ok(bootable)
}
