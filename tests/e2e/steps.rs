//! A ramdisk with a step that an operator brought along: the example of `docs/steps.md` installs a package, made here, into a Debian
//! on the machine's disk. The same machine is locked down afterwards. The least of a controller hands out the token; commands are
//! sent as a conductor sends them.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::{Artifacts, run_folder, workspace};
use ferric_tests::bmc::{self, Bmc};
use ferric_tests::bootsector::{Layout, MIB};
use ferric_tests::commander::Agent;
use ferric_tests::dnsmasq::Dnsmasq;
use ferric_tests::httpd::{Fault, Httpd};
use ferric_tests::inspector::{self, Inspector};
use ferric_tests::lookup::{self, Lookup};
use ferric_tests::machine::{Bus, Disk, Machine, Spec, blank_disk};
use ferric_tests::process::{call, tail};
use ferric_tests::scene::{BMC_PORT, MAC};
use ferric_tests::{Netns, debian, netns, ssh, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[path = "steps/large_sectors.rs"]
mod large_sectors;

const BOOT: Duration = Duration::from_secs(120);
const INSTALLING: Duration = Duration::from_secs(480);
/// Where the simulated BMC takes the machine's own device.
const BMC_SERIAL: u16 = 9002;
const INSPECTOR: u16 = 6399;
const PACKAGE: &str = "ferric-greeting";
const GREETING: &str = "a package made by the test";

#[test]
fn a_step_brought_along_installs_a_package_and_a_lockdown_cuts_the_machine_off() -> Result<()> {
    let artifacts = Artifacts::obtain(Profile::Server)?;
    let network = Netns::enter()?;
    network.tap("tap0")?;
    let folder = run_folder("steps")?;
    let images = Httpd::start(netns::CONTROLLER)?;
    let disk = debian_on_a_disk(&folder, &repository(&folder, &images)?)?;
    let key = ssh::Key::generate(&folder)?;
    let machine = machine(&artifacts, &folder, &disk, &key)?;
    let _bmc = Bmc::start(netns::BMC, BMC_PORT, &machine, &artifacts.chassis, &folder)?;
    let inspector = Inspector::start(netns::CONTROLLER, INSPECTOR, lookup::NODE)?;
    let (lookup, mut dhcp) = (Lookup::start()?, dhcp(&folder)?);
    machine.power_on()?;
    let said = || tail(&machine.console(), 30);
    let beat = lookup.heartbeat(BOOT, said).with_context(|| dhcp.said())?;
    let agent = Agent::of(&beat, &folder)?;

    the_bmc_told_its_address(&inspector).with_context(said)?;
    let told = install(&agent);
    told.with_context(said)?;
    the_package_is_on_the_disk(&disk)?;
    let large = folder.join("large");
    large_sectors::deploy(&agent, &images, &folder, &large).with_context(said)?;
    lock_down(&agent, &machine, &key).with_context(said)
}

/// What the machine was told by its own IPMI device is what the simulated BMC says of itself.
fn the_bmc_told_its_address(inspector: &Inspector) -> Result<()> {
    let posted = inspector.posted();
    let inventory = &posted.last().context("nothing was posted")?.body["inventory"];
    let told = (&inventory["bmc_address"], &inventory["bmc_mac"]);
    ensure!(told == (&json!(netns::BMC), &json!(bmc::MAC)), "{told:?}");
    Ok(())
}

/// Lists the step, runs it, and holds what was told of it against what was asked for.
fn install(agent: &Agent) -> Result<()> {
    let (node, ports) = (json!({"uuid": "n", "properties": {}}), json!([]));
    let listed = agent.command("deploy.get_deploy_steps", json!({"node": node, "ports": ports}))?;
    let steps = listed["command_result"]["deploy_steps"]["GenericHardwareManager"].as_array();
    let step = steps.and_then(|steps| steps.iter().find(|step| step["step"] == "install_packages"));
    let step = step.with_context(|| format!("the step is not listed: {listed}"))?;
    ensure!(step["priority"] == 0 && step["argsinfo"]["packages"]["required"] == true, "{step}");
    let step = json!({"interface": "deploy", "step": "install_packages", "args": {"packages": [PACKAGE]}});
    let started =
        agent.send("deploy.execute_deploy_step", json!({"step": step, "node": node, "ports": ports}))?;
    let mut seen = BTreeSet::new();
    let ended = agent.ended(&started, INSTALLING, |running| {
        if let Some(note) = running["command_result"].get("progress") {
            seen.insert(note.to_string());
        }
    })?;
    ensure!(ended["command_status"] == "SUCCEEDED", "{ended}");
    let result = &ended["command_result"]["deploy_result"];
    ensure!(result["installed"] == PACKAGE && result["partition"] == "/dev/vda3", "{ended}");
    ensure!(seen.iter().any(|note| note.contains("installing")), "the progress was {seen:?}");
    println!("{result}; progress was told as {seen:?}");
    Ok(())
}

/// The answer comes first; then every door is shut, and the console says why.
fn lock_down(agent: &Agent, machine: &Machine, key: &ssh::Key) -> Result<()> {
    let address = agent.address();
    ensure!(knock(&address, 9999)? == Door::Open && knock(&address, 80)? == Door::Refused);
    let answer = ssh::run(key, "dev", &address, "echo open", BOOT)?;
    ensure!(answer == "open", "{answer}");
    let from = machine.console_text().len();
    let answer = agent.command("system.lockdown", json!({}))?;
    ensure!(answer["command_status"] == "SUCCEEDED", "{answer}");
    let why = "lockdown: the agent stays down and the network is switched off until this machine is reset";
    machine.wait_for_console(why, from, BOOT)?;
    for port in [22, 9999] {
        // Refused would mean that somebody is there to refuse.
        let cut_off = || Ok((knock(&address, port)? == Door::Silent).then_some(()));
        wait::until(&format!("port {port} to be cut off"), BOOT, cut_off, String::new)?;
    }
    let state = machine.state()?;
    ensure!(state.on && state.boots == 1, "the machine did not stay as it was: {state:?}");
    let text = machine.console_text();
    let after = text.get(from..).unwrap_or_default();
    ensure!(!after.contains("switching the network off failed"), "{after}");
    Ok(())
}

/// What is behind a port.
#[derive(Debug, PartialEq, Eq)]
enum Door {
    Open,
    Refused,
    /// Nobody says anything, not even who has the address.
    Silent,
}

fn knock(address: &str, port: u16) -> Result<Door> {
    // What this side knows of its neighbour would hide for a while that nobody answers any more.
    call("ip", &["neighbour", "flush", "dev", netns::BRIDGE])?;
    let door = SocketAddr::new(address.parse()?, port);
    Ok(match TcpStream::connect_timeout(&door, Duration::from_secs(5)) {
        Ok(_) => Door::Open,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Door::Refused,
        Err(_) => Door::Silent,
    })
}

fn machine(artifacts: &Artifacts, folder: &Path, disk: &Path, key: &ssh::Key) -> Result<Machine> {
    let shell = format!("ferric-ssh-key={}", key.public_text()?.replace(' ', ":"));
    let host = netns::CONTROLLER;
    let disk =
        Disk { path: disk.to_owned(), serial: "DEBIAN".into(), bus: Bus::Virtio, rank: 0, logged: false };
    let path = folder.join("large");
    blank_disk(&path, large_sectors::BYTES)?;
    let serial = large_sectors::SERIAL.into();
    let large = Disk { path, serial, bus: Bus::VirtioLargeSectors, rank: 1, logged: false };
    let words = format!(
        "ipa-api-url=http://{host}:6385 {shell} ipa-inspection-callback-url=http://{host}:{INSPECTOR}{} \
         ipa-inspection-collectors=default",
        inspector::PATH
    );
    let ramdisk = ramdisk_with_the_example(&artifacts.ramdisk, folder)?;
    let artifacts = Artifacts { ramdisk, ..artifacts.clone() };
    Machine::new(Spec {
        memory_mib: 1024,
        disks: vec![disk, large],
        bmc: Some(BMC_SERIAL),
        ..Spec::of_ramdisk(&artifacts, MAC, &words, folder)
    })
}

fn dhcp(folder: &Path) -> Result<Dnsmasq> {
    let range = format!("--dhcp-range={},{},255.255.255.0,10m", netns::FIRST_LEASE, netns::LAST_LEASE);
    Dnsmasq::start(folder, &[&range])
}

/// As `docs/steps.md` says: an archive of the folder behind the ramdisk.
fn ramdisk_with_the_example(ramdisk: &Path, folder: &Path) -> Result<PathBuf> {
    let (extra, archive) = (folder.join("extra"), folder.join("steps.cpio.gz"));
    let shelf = extra.join("usr/lib/ferric/steps.d");
    fs::create_dir_all(&shelf)?;
    for name in ["install_packages", "install_packages.json"] {
        fs::copy(workspace().join("docs/examples/steps.d").join(name), shelf.join(name))?;
    }
    let (from, to) = (extra.display().to_string(), archive.display().to_string());
    call("bsdtar", &["-czf", &to, "--format", "newc", "--uid", "0", "--gid", "0", "-C", &from, "usr"])?;
    let both = folder.join("initramfs-with-steps.img");
    fs::write(&both, [fs::read(ramdisk)?, fs::read(&archive)?].concat())?;
    Ok(both)
}

/// A repository of one package; the line of `sources.list` that names it.
fn repository(folder: &Path, images: &Httpd) -> Result<String> {
    let root = folder.join("package");
    fs::create_dir_all(root.join("DEBIAN"))?;
    fs::create_dir_all(root.join("etc"))?;
    let control = format!(
        "Package: {PACKAGE}\nVersion: 1.0\nArchitecture: all\nMaintainer: The Test <test@example.org>\n\
         Description: says that it was installed\n"
    );
    fs::write(root.join("DEBIAN/control"), &control)?;
    fs::write(root.join(format!("etc/{PACKAGE}")), GREETING)?;
    let file = folder.join("greeting.deb");
    call(
        "dpkg-deb",
        &["--root-owner-group", "--build", &root.display().to_string(), &file.display().to_string()],
    )?;
    let package = debian::Image::of(&file)?;
    let index = folder.join("Packages");
    let place = format!("Filename: ./greeting.deb\nSize: {}\nSHA256: {}\n", package.bytes, package.sha256);
    fs::write(&index, format!("{control}{place}"))?;
    images.offer("repository/./greeting.deb", &file, Fault::None);
    images.offer("repository/greeting.deb", &file, Fault::None);
    let url = images.offer("repository/./Packages", &index, Fault::None);
    let base = url.trim_end_matches("./Packages");
    Ok(format!("deb [trusted=yes] {base} ./\n"))
}

/// The Debian of the other tests on a disk of 5 GiB, with `sources` for its only source of packages.
fn debian_on_a_disk(folder: &Path, sources: &str) -> Result<PathBuf> {
    let (disk, list) = (folder.join("disk"), folder.join("sources.list"));
    let image = debian::image()?.path.display().to_string();
    call("qemu-img", &["convert", "-O", "raw", &image, &disk.display().to_string()])?;
    File::options().write(true).open(&disk)?.set_len(5 << 30)?;
    fs::write(&list, sources)?;
    for order in
        ["rm /etc/apt/sources.list".to_owned(), format!("write {} /etc/apt/sources.list", list.display())]
    {
        debugfs(&disk, &["-w", "-R", &order])?;
    }
    Ok(disk)
}

/// What the tools of the host find: the package's file, and dpkg's own note of it.
fn the_package_is_on_the_disk(disk: &Path) -> Result<()> {
    let greeting = debugfs(disk, &["-R", &format!("cat /etc/{PACKAGE}")])?;
    ensure!(greeting == GREETING, "{greeting}");
    let status = debugfs(disk, &["-R", "cat /var/lib/dpkg/status"])?;
    let noted = format!("Package: {PACKAGE}\nStatus: install ok installed\n");
    ensure!(status.contains(&noted), "dpkg does not know the package");
    Ok(())
}

/// The file system of the third partition, without mounting it.
fn debugfs(disk: &Path, orders: &[&str]) -> Result<String> {
    let layout = Layout { total: debian::SMALL.virtual_bytes, esp: 40 * MIB, root: true };
    let place = format!("{}?offset={}", disk.display(), layout.root_start());
    call("debugfs", &[orders, &[&place]].concat())
}
