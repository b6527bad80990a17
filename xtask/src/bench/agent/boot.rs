//! From power-on to the lookup, without a network boot: the kernel and ramdisk are given to QEMU.

use super::{Contender, GIB};
use anyhow::{Result, bail};
use ferric_tests::artifacts::run_folder;
use ferric_tests::dnsmasq::Dnsmasq;
use ferric_tests::lookup::{Lookup, PORT};
use ferric_tests::machine::{Bus, DirectBoot, Disk, Firmware, Machine, Spec, blank_disk};
use ferric_tests::netns::{CONTROLLER, FIRST_LEASE, LAST_LEASE, Netns};
use ferric_tests::scene::MAC;
use ferric_tests::wait;
use std::time::{Duration, Instant};

/// Of every machine, in MiB: what the larger ramdisk needs with room to spare.
pub const MEMORY: u32 = 3072;
const DISK: u64 = 8 * GIB;
/// How long a lookup is waited for.
pub const LOOKUP: Duration = Duration::from_secs(600);

/// Seconds from QEMU's start to the lookup's arrival at the controller, of each contender in turns; none if that takes
/// longer than [`LOOKUP`].
pub fn measure(contenders: &mut [Contender], runs: usize) -> Result<()> {
    let network = Netns::enter()?;
    network.tap("tap0")?;
    for round in 1..=runs {
        for contender in &mut *contenders {
            let took = power_on_to_lookup(contender)?;
            let told = took.map_or_else(|| "did not come".to_owned(), |took| format!("{took:.1} s"));
            eprintln!("run {round} of {runs}, {}: lookup {told}", contender.name);
            contender.lookups.push(took);
        }
    }
    Ok(())
}

fn power_on_to_lookup(contender: &Contender) -> Result<Option<f64>> {
    let folder = run_folder("bench-agent")?;
    let disk = folder.join("disk");
    blank_disk(&disk, DISK)?;
    let parameters =
        format!("console=ttyS0 ipa-api-url=http://{CONTROLLER}:{PORT} BOOTIF=01-{}", MAC.replace(':', "-"));
    let machine = Machine::new(Spec {
        name: "machine".to_owned(),
        firmware: Firmware::Bios,
        memory_mib: MEMORY,
        processors: 2,
        mac: MAC.to_owned(),
        tap: Some("tap0".to_owned()),
        disks: vec![Disk { path: disk, serial: "ROOT".to_owned(), bus: Bus::Virtio, rank: 0, logged: false }],
        direct: Some(DirectBoot {
            kernel: contender.kernel.clone(),
            ramdisk: contender.ramdisk.clone(),
            parameters,
        }),
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
            bail!("{failure}; dnsmasq said {}", dhcp.said());
        }
        let came = controller.requests().iter().any(|line| line.contains("/v1/lookup"));
        let took = start.elapsed();
        Ok((came || took > LOOKUP).then(|| came.then_some(took.as_secs_f64())))
    };
    wait::until("a lookup", 2 * LOOKUP, arrived, || format!("nothing; see {}", folder.display()))
}
