//! `cargo xtask demo`: a blank machine becomes an installed Debian, by the commands an operator would type.

use anyhow::{Result, bail, ensure};
use ferric_initramfs::Profile;
use ferric_tests::accel::Accel;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::host::{self, Consent};
use ferric_tests::httpd::Fault;
use ferric_tests::machine::Firmware;
use ferric_tests::scene::{NODE, Scene, Script, borrowed};
use ferric_tests::{debian, ssh};
use std::time::{Duration, Instant};

const HOSTNAME: &str = "ferric-demo";

pub fn run(words: &[&str]) -> Result<()> {
    let (mut firmware, mut keep, mut consent) = (Firmware::Bios, false, host::consent());
    for word in words {
        match *word {
            "--bios" => firmware = Firmware::Bios,
            "--uefi" => firmware = Firmware::Uefi,
            "--keep" => keep = true,
            "--yes" => consent = Consent::Given,
            other => bail!("cargo xtask demo does not know '{other}'"),
        }
    }
    host::prepare(consent)?;
    step("building agent, ramdisk and controller");
    let artifacts = Artifacts::obtain(Profile::Server)?;
    step("the Debian 12 image");
    let image = debian::image()?;
    println!("{} ({} bytes, sha256 {})", image.path.display(), image.bytes, image.sha256);

    step(&format!("network, controller, BMC and machine ({firmware:?}, {:?})", Accel::choose()));
    let start = Instant::now();
    let scene = Scene::open(&artifacts, Script::new(&format!("demo-{firmware:?}"), firmware))?;
    println!("logs and disks: {}", scene.folder.display());
    println!("console: {}", scene.machine.console().display());
    let outcome = play(&scene, &image, start);
    if keep {
        if let Err(error) = &outcome {
            println!("error: {error:#}");
        }
        stay(&scene)?;
    }
    outcome
}

fn play(scene: &Scene, image: &debian::Image, start: Instant) -> Result<()> {
    let operator = scene.operator();
    step("enrol");
    operator.ferric_shown(&borrowed(&scene.create()))?;
    step("manage: is the BMC there?");
    operator.ferric_shown(&["node", "manage", NODE, "--wait", "120"])?;
    step("provide: blank the disks' ends");
    operator.ferric_shown(&["node", "provide", NODE, "--wait", "900"])?;
    step("deploy");
    let deploy = Instant::now();
    operator.ferric_shown(&borrowed(&scene.deploy(image, "qcow2", Fault::None, HOSTNAME, Some(1800))))?;
    println!("deployed in {:.0?}", deploy.elapsed());
    step("ssh into the installed system");
    let answer = scene.ssh("demo", "hostname", Duration::from_secs(300))?;
    println!("$ ssh demo@{} hostname\n{answer}", scene.address()?.unwrap_or_default());
    ensure!(answer == HOSTNAME, "the host name is '{answer}', the config drive says '{HOSTNAME}'");
    println!("done in {:.0?} from an empty network to ssh", start.elapsed());
    Ok(())
}

/// Leaves everything running until Ctrl-C.
fn stay(scene: &Scene) -> Result<()> {
    let door = scene.network.door();
    println!("\nEverything runs until Ctrl-C. From another terminal:");
    println!("  {door} {} --url {} node list", scene.operator().program.display(), scene.operator().url);
    if let Some(address) = scene.address()? {
        println!("  {door} ssh {} demo@{address}", ssh::options(&scene.key).join(" "));
    }
    println!("  tail -f {}", scene.machine.console().display());
    loop {
        std::thread::park();
    }
}

fn step(what: &str) {
    println!("\n== {what}");
}
