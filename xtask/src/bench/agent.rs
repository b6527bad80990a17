//! `cargo xtask bench agent`: our ramdisk and one with the real ironic-python-agent, in turns in the same machine.

use super::machine;
use super::options::Options;
use super::python_ramdisk::{self, PythonRamdisk};
use super::table::markdown;
use anyhow::{Context, Result};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::{self, run_folder, target};
use ferric_tests::dnsmasq::Dnsmasq;
use ferric_tests::lookup::{Lookup, PORT};
use ferric_tests::machine::{Bus, DirectBoot, Disk, Firmware, Machine, Spec, blank_disk};
use ferric_tests::netns::{self, CONTROLLER, FIRST_LEASE, LAST_LEASE};
use ferric_tests::scene::MAC;
use ferric_tests::wait;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs of each without `--runs`.
pub const RUNS: usize = 3;
/// Of every machine, in MiB: what the larger ramdisk needs with room to spare.
const MEMORY: u32 = 3072;
const DISK: u64 = 8 << 30;
/// How long a lookup is waited for.
const LOOKUP: Duration = Duration::from_secs(600);
const MIB: f64 = 1_048_576.0;

/// One ramdisk and what it took.
#[derive(Debug)]
struct Contender {
    name: String,
    boot: DirectBoot,
    kernel_bytes: u64,
    ramdisk_bytes: u64,
    unpacked_bytes: u64,
    /// Seconds from QEMU's start to the lookup; none: it did not come.
    lookups: Vec<Option<f64>>,
}

pub fn run(options: &Options) -> Result<()> {
    let python = python_ramdisk::obtain()?;
    let mut contenders = contenders(&python)?;
    let machine = machine::describe()?;
    let network = netns::Netns::enter()?;
    network.tap("tap0")?;
    for round in 1..=options.runs {
        for contender in &mut contenders {
            let took = power_on_to_lookup(contender)?;
            eprintln!("run {round} of {}, {}: {}", options.runs, contender.name, seconds(took));
            contender.lookups.push(took);
        }
    }
    println!("{}\n", machine.join("\n"));
    print!("{}", table(&contenders));
    if let Some(path) = &options.json {
        fs::write(path, as_json(&machine, &contenders).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn contenders(python: &PythonRamdisk) -> Result<[Contender; 2]> {
    artifacts::agent()?;
    let ours = artifacts::ramdisk(Profile::Server, &target()?.join("ramdisk/server"))?;
    let parameters =
        format!("console=ttyS0 ipa-api-url=http://{CONTROLLER}:{PORT} BOOTIF=01-{}", MAC.replace(':', "-"));
    let contender = |name: String, ramdisk: &Path, ramdisk_bytes, unpacked_bytes| Contender {
        name,
        boot: DirectBoot {
            kernel: ours.kernel.clone(),
            ramdisk: ramdisk.to_owned(),
            parameters: parameters.clone(),
        },
        kernel_bytes: ours.kernel_bytes,
        ramdisk_bytes,
        unpacked_bytes,
        lookups: Vec::new(),
    };
    let theirs = format!("ironic-python-agent {}", python_ramdisk::VERSION);
    Ok([
        contender("ferric-agent".to_owned(), &ours.ramdisk, ours.ramdisk_bytes, ours.unpacked_bytes),
        contender(theirs, &python.path, python.bytes, python.unpacked_bytes),
    ])
}

/// Seconds from QEMU's start to the lookup's arrival at the controller; none if that takes too long.
fn power_on_to_lookup(contender: &Contender) -> Result<Option<f64>> {
    let folder = run_folder("bench-agent")?;
    let disk = folder.join("disk");
    blank_disk(&disk, DISK)?;
    let machine = Machine::new(Spec {
        name: "machine".to_owned(),
        firmware: Firmware::Bios,
        memory_mib: MEMORY,
        processors: 2,
        mac: MAC.to_owned(),
        tap: Some("tap0".to_owned()),
        disks: vec![Disk { path: disk, serial: "ROOT".to_owned(), bus: Bus::Virtio, rank: 0, logged: false }],
        direct: Some(contender.boot.clone()),
        clock: None,
        bmc: None,
        folder: folder.clone(),
    })?;
    let range = format!("--dhcp-range={FIRST_LEASE},{LAST_LEASE},255.255.255.0,1h");
    let mut dhcp = Dnsmasq::start(&folder, &["--port=0", &range])?;
    let controller = Lookup::start()?;
    let start = Instant::now();
    machine.power_on()?;
    let arrived = || {
        if let Some(failure) = machine.state()?.failure {
            anyhow::bail!("{failure}; dnsmasq said {}", dhcp.said());
        }
        let came = controller.requests().iter().any(|line| line.contains("/v1/lookup"));
        let took = start.elapsed();
        Ok((came || took > LOOKUP).then(|| came.then_some(took.as_secs_f64())))
    };
    wait::until("a lookup", 2 * LOOKUP, arrived, || format!("nothing; see {}", folder.display()))
}

fn seconds(took: Option<f64>) -> String {
    took.map_or_else(|| format!("did not come within {} s", LOOKUP.as_secs()), |took| format!("{took:.1} s"))
}

/// The middle one of all runs, those without an end as the longest; of an even number the later of the two.
fn median(runs: &[Option<f64>]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(|a, b| a.unwrap_or(f64::INFINITY).total_cmp(&b.unwrap_or(f64::INFINITY)));
    sorted.get(sorted.len() / 2).copied().flatten()
}

fn table(contenders: &[Contender; 2]) -> String {
    let [ours, theirs] = contenders;
    let bytes = |what: &str, of: &dyn Fn(&Contender) -> u64| {
        let (a, b) = (of(ours) as f64, of(theirs) as f64);
        vec![
            what.to_owned(),
            format!("{:.1} MiB", a / MIB),
            format!("{:.1} MiB", b / MIB),
            format!("{:.1}", b / a),
        ]
    };
    let (a, b) = (median(&ours.lookups), median(&theirs.lookups));
    let ratio = a.zip(b).map_or_else(|| "–".to_owned(), |(a, b)| format!("{:.1}", b / a));
    let runs = ours.lookups.len();
    let lines = [
        ["", &ours.name, &theirs.name, "theirs ÷ ours"].map(str::to_owned).to_vec(),
        bytes("kernel + ramdisk", &|c| c.kernel_bytes + c.ramdisk_bytes),
        bytes("ramdisk, unpacked", &|c| c.unpacked_bytes),
        vec![format!("power-on → lookup, median of {runs}"), seconds(a), seconds(b), ratio],
    ];
    markdown(&lines, &[0])
}

fn as_json(machine: &[String], contenders: &[Contender]) -> Value {
    let all = contenders.iter().map(|c| {
        json!({
            "name": c.name,
            "kernel_bytes": c.kernel_bytes,
            "ramdisk_bytes": c.ramdisk_bytes,
            "unpacked_bytes": c.unpacked_bytes,
            "power_on_to_lookup_s": c.lookups,
        })
    });
    json!({"machine": machine, "memory_mib": MEMORY, "contenders": all.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(name: &str, ramdisk_bytes: u64, lookups: &[Option<f64>]) -> Contender {
        let boot = DirectBoot { kernel: "k".into(), ramdisk: "r".into(), parameters: String::new() };
        let (name, lookups) = (name.to_owned(), lookups.to_vec());
        Contender { name, boot, kernel_bytes: 1 << 20, ramdisk_bytes, unpacked_bytes: 8 << 20, lookups }
    }

    #[test]
    fn the_table_sets_theirs_beside_ours() {
        let ours = contender("a", 1 << 20, &[Some(4.0), Some(9.0), Some(5.0)]);
        let text = table(&[ours, contender("b", 9 << 20, &[Some(50.0), None, Some(40.0)])]);
        assert!(text.contains("| 2.0 MiB | 10.0 MiB |           5.0 |"), "{text}");
        assert!(text.contains("median of 3 |   5.0 s |   50.0 s |          10.0 |"), "{text}");
    }

    #[test]
    fn a_lookup_that_does_not_come_has_a_bound_and_no_ratio() {
        let text = table(&[contender("a", 1, &[Some(4.0)]), contender("b", 1, &[None])]);
        assert!(text.contains("| did not come within 600 s |             – |"), "{text}");
    }
}
