//! Deployments of one image by the real Ironic: how long they take, what memory is used, and with how little they succeed.

use super::memory::{Sampler, Used};
use super::{Contender, GIB};
use anyhow::{Context, Result, ensure};
use ferric_tests::artifacts::target;
use ferric_tests::debian::Image;
use ferric_tests::ironic::lab::{Lab, LabDisk, NODE, Plan, WITHIN};
use ferric_tests::ironic::setup::IRONIC_39;
use ferric_tests::machine::Bus;
use ferric_tests::process::call;
use ferric_tests::{images, wait};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the machines whose deployments are timed, in MiB: more than the image three times over.
pub const MEMORY: u32 = 12_288;
/// Smaller sizes of memory that are tried, in MiB.
const SIZES: [u32; 10] = [128, 192, 256, 512, 1024, 2048, 4096, 6144, 8192, 10240];
/// What the host needs beside the machine, in MiB.
const HOST: u64 = 2048;
/// How long a deployment may take.
const DEPLOY: Duration = Duration::from_secs(1800);
/// Bytes of the image that no compression makes smaller, and where they begin.
const DATA: u64 = 4 * GIB;
const BEGIN: u64 = GIB;
const DISK: LabDisk = LabDisk { name: "root", serial: "ROOT-0001", bus: Bus::Virtio, bytes: 8 * GIB };

/// A deployment that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Seconds from `available` to `active`, both boots of the machine included.
    pub seconds: f64,
    pub used: Used,
}

impl Deployment {
    /// KiB of all of the agent's programs, as if all peaks had come together.
    pub fn resident(&self) -> f64 {
        self.used.programs.values().sum::<u64>() as f64
    }
}

/// What is deployed.
#[derive(Debug)]
struct Noise {
    image: Image,
    /// Bytes of the bootable disk at the front, whose partition tables an agent may rewrite.
    disk: u64,
}

/// What became of one.
#[derive(Debug)]
enum Outcome {
    Active(Deployment),
    /// Why not, in Ironic's or the machine's words.
    Failed(String),
}

/// Deploys by each contender in turns, `runs` times, then looks for the least memory of each.
pub fn measure(contenders: &mut [Contender], runs: usize) -> Result<()> {
    expect_room()?;
    let noise = image()?;
    for round in 1..=runs {
        for contender in &mut *contenders {
            match deploy(contender, &noise, MEMORY)? {
                Outcome::Active(deployment) => {
                    eprintln!(
                        "run {round} of {runs}, {}: active after {:.0} s",
                        contender.name, deployment.seconds
                    );
                    contender.deployments.push(deployment);
                }
                Outcome::Failed(why) => eprintln!("run {round} of {runs}, {}: failed: {why}", contender.name),
            }
        }
    }
    for contender in &mut *contenders {
        if !contender.deployments.is_empty() {
            let succeeds = |memory| is_enough(contender, &noise, memory);
            contender.least_memory = Some(least(&SIZES, succeeds)?.unwrap_or(MEMORY));
        }
    }
    Ok(())
}

fn is_enough(contender: &Contender, noise: &Noise, memory: u32) -> Result<bool> {
    let outcome = deploy(contender, noise, memory)?;
    match &outcome {
        Outcome::Active(_) => eprintln!("{} with {memory} MiB: active", contender.name),
        Outcome::Failed(why) => eprintln!("{} with {memory} MiB: failed: {why}", contender.name),
    }
    Ok(matches!(outcome, Outcome::Active(_)))
}

/// The least of `sizes` with which `succeeds`, by halving: what succeeds with little memory does with more. None: not even
/// the largest is enough.
fn least(sizes: &[u32], mut succeeds: impl FnMut(u32) -> Result<bool>) -> Result<Option<u32>> {
    let (mut low, mut high) = (0_usize, sizes.len());
    while let Some(size) = sizes.get(low.midpoint(high)).filter(|_| low < high) {
        match succeeds(*size)? {
            true => high = low.midpoint(high),
            false => low = low.midpoint(high) + 1,
        }
    }
    Ok(sizes.get(low).copied())
}

fn expect_room() -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) / 1024;
    let wanted = u64::from(MEMORY) + HOST;
    ensure!(
        free >= wanted,
        "machines of {MEMORY} MiB need {wanted} MiB of free memory; there are {free} MiB"
    );
    Ok(())
}

/// A qcow2 of a bootable disk with 4 GiB of noise behind its partitions; made once.
fn image() -> Result<Noise> {
    let probe = images::probe()?;
    let folder = target()?.join("bench-agent");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("noise-{}.qcow2", probe.raw.sha256.get(..16).unwrap_or_default()));
    if !path.exists() {
        let work = tempfile::Builder::new().prefix("noise-").tempdir_in(&folder)?;
        let (raw, qcow2) = (work.path().join("raw"), work.path().join("qcow2"));
        fs::copy(&probe.raw.path, &raw)?;
        let mut file = File::options().write(true).open(&raw)?;
        file.seek(SeekFrom::Start(BEGIN))?;
        let mut noise = File::open("/dev/urandom")?.take(DATA);
        std::io::copy(&mut noise, &mut file).context("making 4 GiB of noise")?;
        convert(&raw, "raw", "qcow2", &qcow2)?;
        fs::rename(qcow2, &path)?;
    }
    Ok(Noise { image: Image::of(&path)?, disk: fs::metadata(&probe.raw.path)?.len() })
}

fn convert(from: &Path, from_format: &str, format: &str, to: &Path) -> Result<()> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    call("qemu-img", &["convert", "-f", from_format, "-O", format, &from, &to]).map(drop)
}

fn deploy(contender: &Contender, noise: &Noise, memory: u32) -> Result<Outcome> {
    let key = contender.key.public_text()?.replace(' ', ":");
    let parameters = format!("console=ttyS0 ferric-ssh-key={key}");
    let lab = Lab::open(&Plan {
        disks: &[DISK],
        memory_mib: memory,
        ramdisk: Some(&contender.ramdisk),
        kernel_parameters: &parameters,
        more: "[conductor]\nautomated_clean = false\n",
        ..Plan::new("bench-agent-deploy", &IRONIC_39)
    })?;
    if let Some(login) = &contender.login {
        lab.add_files(login)?;
    }
    lab.enrol(json!({"cpu_arch": "x86_64"}))?;
    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    lab.choose(&noise.image, "qcow2")?;
    let start = Instant::now();
    lab.ironic.provision(NODE, "active", json!({}))?;
    // Looking on takes memory itself, so it is done only where there is plenty.
    let mut sampler = (memory == MEMORY).then(|| Sampler::new(&contender.key, contender.user, &lab.folder));
    let ended = || {
        if let (Some(sampler), Ok(address)) = (&mut sampler, lab.address()) {
            sampler.go_on(&address)?;
        }
        why_not(&lab, start)
    };
    let failed = wait::until("the deployment to end", 2 * DEPLOY, ended, || "nothing".to_owned())?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(why) = failed {
        return Ok(Outcome::Failed(why));
    }
    let used = sampler.map(|sampler| sampler.used(contender.programs)).transpose()?.unwrap_or_default();
    expect_written(&lab, noise)?;
    Ok(Outcome::Active(Deployment { seconds, used }))
}

/// None while the deployment goes on, then why it failed, if it did.
fn why_not(lab: &Lab, start: Instant) -> Result<Option<Option<String>>> {
    let node = lab.ironic.node(NODE)?;
    let field = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default();
    let state = field("provision_state");
    if state == "active" && field("target_provision_state").is_empty() {
        return Ok(Some(None));
    }
    if state.ends_with("failed") || state == "error" {
        return Ok(Some(Some(format!("'{state}': {}", field("last_error")))));
    }
    let console = lab.machine.console_text();
    if let Some(panic) = console.lines().find(|line| line.contains("Kernel panic")) {
        return Ok(Some(Some(panic.trim().to_owned())));
    }
    let late = start.elapsed() > DEPLOY;
    Ok(late.then(|| Some(format!("'{state}' after {} s", DEPLOY.as_secs()))))
}

/// A quick deployment of the wrong bytes is none.
fn expect_written(lab: &Lab, noise: &Noise) -> Result<()> {
    let converted = lab.folder.join("converted");
    convert(&noise.image.path, "qcow2", "raw", &converted)?;
    let table = 34 * 512;
    let except = [(0, table), (noise.disk - table, noise.disk)];
    ferric_tests::diskcheck::expect_image(&lab.disk(DISK), &converted, &except)?;
    fs::remove_file(converted).context("removing the converted image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_memory_is_found_in_few_tries() {
        for (needed, found) in [(0, Some(128)), (200, Some(256)), (9000, Some(10240)), (20000, None)] {
            let mut tries = 0;
            let size = least(&SIZES, |size| {
                tries += 1;
                Ok(size >= needed)
            });
            assert_eq!(size.unwrap(), found);
            assert!(tries <= 4, "{tries}");
        }
    }
}
