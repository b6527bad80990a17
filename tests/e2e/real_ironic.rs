//! The real Ironic drives our ramdisk: what a conductor that we did not write makes of it is the verdict.

use anyhow::{Context, Result, bail, ensure};
use ferric_tests::debian::{Image, hex};
use ferric_tests::httpd::Fault;
use ferric_tests::ironic::lab::{Lab, LabDisk, NODE, OTHER, Plan, ROOT, WITHIN};
use ferric_tests::ironic::setup::{IRONIC_21, IRONIC_39};
use ferric_tests::machine::{Bus, Firmware};
use ferric_tests::scene::MAC;
use ferric_tests::ssh::Password;
use ferric_tests::{diskcheck, images, process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[path = "real_ironic/fast_track.rs"]
mod fast_track;

const SECTOR: u64 = 512;
/// What a tenant asks to be rescued with.
const PASSWORD: &str = "correct horse, battery 'staple'";
const AGENT_PORT: u16 = 9999;

/// A BIOS machine is enrolled, cleaned, deployed from qcow2, rebuilt from raw with a config drive, and given back.
#[test]
fn ironic_39_takes_a_machine_through_its_life() -> Result<()> {
    let probe = images::probe()?;
    let lab = Lab::open(&Plan::new("real-ironic", &IRONIC_39))?;
    lab.explain(life(&lab, &probe))
}

fn life(lab: &Lab, probe: &images::Probe) -> Result<()> {
    let stages = Stages::default();
    lab.add_step(NOTE, NOTE_PROGRAM, &note_manifest())?;
    lab.enrol(properties("bios"))?;
    stages.end("enrol, manage");
    scribble(&lab.disk(OTHER))?;
    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    expect_parameters(lab)?;
    diskcheck::expect_blank_ends(&lab.disk(OTHER))?;
    stages.end("automated cleaning");
    deploy(lab, &probe.qcow2, "qcow2", "active", None)?;
    expect_converted(lab, &probe.qcow2, Drive::None)?;
    stages.end("deploy of a qcow2");
    deploy(lab, &probe.raw, "raw", "rebuild", Some("rebuilt"))?;
    expect_converted(lab, &probe.raw, Drive::Added)?;
    stages.end("rebuild from raw with a config drive");
    rescue(lab)?;
    stages.end("rescue");
    awake(lab, "unrescue", json!({}), "rebuilt")?;
    stages.end("end of the rescue");
    service(lab, &probe.qcow2)?;
    stages.end("service: another image, and a step of the operator's own");
    lab.ironic.bring(NODE, "deleted", json!({}), "available", WITHIN)?;
    for disk in [ROOT, OTHER] {
        diskcheck::expect_blank_ends(&lab.disk(disk))?;
    }
    stages.end("undeploy, cleaning included");
    Ok(())
}

/// The same image by UEFI, where the conductor also has the boot entry written; no cleaning before.
#[test]
fn ironic_39_deploys_a_uefi_machine_by_hints() -> Result<()> {
    let probe = images::probe()?;
    let lab = Lab::open(&Plan {
        firmware: Firmware::Uefi,
        more: "[conductor]\nautomated_clean = false\n",
        ..Plan::new("real-ironic-uefi", &IRONIC_39)
    })?;
    lab.explain(uefi(&lab, &probe))
}

fn uefi(lab: &Lab, probe: &images::Probe) -> Result<()> {
    let stages = Stages::default();
    lab.enrol(properties("uefi"))?;
    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    deploy(lab, &probe.raw, "raw", "active", Some("by-uefi"))?;
    expect_converted(lab, &probe.raw, Drive::Added)?;
    diskcheck::expect_untouched(&lab.disk(OTHER))?;
    ensure!(
        lab.machine.console_text().contains("command image.install_bootloader"),
        "the conductor did not ask for a boot entry"
    );
    stages.end("deploy by UEFI");
    Ok(())
}

/// Small enough that all of it can be overwritten; the NVMe drive only has to be told.
const OVERWRITTEN: LabDisk =
    LabDisk { name: "virtio", serial: "VIRT-0003", bus: Bus::Virtio, bytes: 96 << 20 };
const FORMATTED: LabDisk = LabDisk { name: "nvme", serial: "NVME-0004", bus: Bus::Nvme, bytes: 3 << 30 };
/// What Ironic is to make of an inspection beyond its defaults.
const INSPECTION: &str = "[inspector]\nkeep_ports = present\n\
    hooks = $default_hooks,boot-mode,cpus,memory,root-device\n\
    extra_kernel_params = ipa-inspection-collectors=default,logs,pci-devices,numa-topology\n\
    [agent]\ndeploy_logs_collect = always\n";
/// A port that an operator enrolled by mistake.
const MISTAKEN: &str = "52:54:00:00:00:99";

/// A machine of which nothing but the root disk is known is inspected, then all that is on its disks is erased.
#[test]
fn ironic_39_inspects_and_erases() -> Result<()> {
    let lab = Lab::open(&Plan {
        disks: &[OVERWRITTEN, FORMATTED],
        more: INSPECTION,
        ..Plan::new("real-ironic-erase", &IRONIC_39)
    })?;
    lab.explain(inspect_and_erase(&lab))
}

fn inspect_and_erase(lab: &Lab) -> Result<()> {
    let stages = Stages::default();
    lab.enrol(json!({"root_device": {"serial": FORMATTED.serial}}))?;
    let uuid = lab.ironic.node(NODE)?["uuid"].clone();
    lab.ironic.expect("POST", "/v1/ports", Some(&json!({"node_uuid": uuid, "address": MISTAKEN})))?;
    let node = lab.ironic.bring(NODE, "inspect", json!({}), "manageable", WITHIN)?;
    expect_properties(&node)?;
    expect_ports(lab)?;
    expect_inventory(lab)?;
    expect_logs(lab, "inspect")?;
    ensure!(!lab.machine.state()?.on, "the machine is still on after its inspection");
    stages.end("inspection");
    for disk in [OVERWRITTEN, FORMATTED] {
        mark(&lab.disk(disk))?;
    }
    let steps = json!({"clean_steps": [{"interface": "deploy", "step": "erase_devices"}]});
    let node = lab.ironic.bring(NODE, "clean", steps, "manageable", WITHIN)?;
    ensure!(node["last_error"].is_null(), "erased, yet the last error is {}", node["last_error"]);
    let console = lab.machine.console_text();
    for told in ["/dev/vda is erased: overwriting (", "/dev/nvme0n1 is erased: NVMe format ("] {
        ensure!(console.contains(told), "the console does not say '{told}'");
    }
    for disk in [OVERWRITTEN, FORMATTED] {
        diskcheck::expect_zeros(&lab.disk(disk))?;
    }
    stages.end("erasing all of both disks");
    Ok(())
}

/// What Ironic's hooks made of the inventory; nothing of it was enrolled.
fn expect_properties(node: &Value) -> Result<()> {
    let properties = &node["properties"];
    for (name, expected) in
        [("cpu_arch", json!("x86_64")), ("cpus", json!(2)), ("memory_mb", json!(512)), ("local_gb", json!(2))]
    {
        ensure!(properties[name] == expected, "{name} is not {expected} in {properties}");
    }
    ensure!(properties["capabilities"] == "boot_mode:bios", "{properties}");
    ensure!(!node["inspection_finished_at"].is_null(), "the inspection never finished");
    Ok(())
}

/// The card is known as the one that boots; the port that is no card's is gone.
fn expect_ports(lab: &Lab) -> Result<()> {
    let ports =
        lab.ironic.expect("GET", &format!("/v1/ports?node={NODE}&fields=address,pxe_enabled"), None)?;
    let ports = ports["ports"].as_array().context("no list of ports")?;
    let [port] = ports.as_slice() else { bail!("not one port: {ports:?}") };
    ensure!(port["address"] == MAC && port["pxe_enabled"] == true, "{port}");
    Ok(())
}

fn expect_inventory(lab: &Lab) -> Result<()> {
    let stored = lab.ironic.expect("GET", &format!("/v1/nodes/{NODE}/inventory"), None)?;
    let (inventory, more) = (&stored["inventory"], &stored["plugin_data"]);
    for disk in [OVERWRITTEN, FORMATTED] {
        let disks = inventory["disks"].as_array().context("no disks in the inventory")?;
        let known = disks.iter().any(|it| it["serial"] == disk.serial && it["size"] == disk.bytes);
        ensure!(known, "{} is not among {disks:?}", disk.serial);
    }
    ensure!(inventory["interfaces"][0]["mac_address"] == MAC, "{}", inventory["interfaces"]);
    ensure!(more["root_disk"]["serial"] == FORMATTED.serial, "{}", more["root_disk"]);
    for collected in ["pci_devices", "numa_topology"] {
        ensure!(!more[collected].is_null(), "nothing of {collected} was stored");
    }
    Ok(())
}

/// Ironic put a readable archive of logs aside.
fn expect_logs(lab: &Lab, label: &str) -> Result<()> {
    let label = format!("_{label}_");
    let stored = fs::read_dir(lab.folder.join("logs"))?
        .filter_map(|entry| Some(entry.ok()?.path().display().to_string()))
        .find(|path| path.contains(&label))
        .context("Ironic stored no logs")?;
    let text = process::call("tar", &["-xzOf", &stored, "agent.log"])?;
    ensure!(
        text.contains("inspection: collecting"),
        "the agent's log does not tell of the inspection: {text}"
    );
    Ok(())
}

/// Leaves a former tenant's words at both ends of a disk and at every MiB between.
fn mark(disk: &Path) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(disk)?;
    let size = file.metadata()?.len();
    for at in (0..size).step_by(1 << 20).chain([size - SECTOR]) {
        file.write_all_at(b"the former tenant was here", at)?;
    }
    Ok(())
}

/// The oldest conductor that can be had: it knows nothing of TLS 1.3 alone, sends no token when it reads results, and
/// takes its answers in older shapes.
#[test]
fn ironic_21_cleans_and_deploys() -> Result<()> {
    let probe = images::probe()?;
    let lab = Lab::open(&Plan::new("real-ironic-21", &IRONIC_21))?;
    lab.explain(core(&lab, &probe))
}

fn core(lab: &Lab, probe: &images::Probe) -> Result<()> {
    let stages = Stages::default();
    lab.enrol(properties("bios"))?;
    lab.ironic.bring(NODE, "provide", json!({}), "available", WITHIN)?;
    stages.end("automated cleaning by 21.4.4");
    deploy(lab, &probe.qcow2, "qcow2", "active", Some("by-21"))?;
    expect_converted(lab, &probe.qcow2, Drive::Added)?;
    stages.end("deploy by 21.4.4");
    Ok(())
}

/// The hint picks the larger disk; without hints the smaller one would be taken.
fn properties(boot_mode: &str) -> Value {
    json!({
        "cpu_arch": "x86_64",
        "capabilities": format!("boot_mode:{boot_mode}"),
        "root_device": {"serial": ROOT.serial},
    })
}

/// Deploys or rebuilds, then sees the image boot and find the host name of its config drive.
fn deploy(lab: &Lab, image: &Image, format: &str, target: &str, hostname: Option<&str>) -> Result<()> {
    lab.choose(image, format)?;
    let more = match hostname {
        Some(name) => json!({"configdrive": {"meta_data": {"hostname": name, "uuid": NODE}}}),
        None => json!({}),
    };
    let from = lab.machine.console_text().len();
    let node = lab.ironic.bring(NODE, target, more, "active", WITHIN)?;
    ensure!(node["last_error"].is_null(), "deployed, yet the last error is {}", node["last_error"]);
    let found = hostname.unwrap_or(images::NO_CONFIG_DRIVE);
    lab.expect_console(&format!("{}{found}", images::PROBE_SAYS), from).map(drop)
}

/// Brings the machine back to its own system, which shows by the host name of its config drive.
fn awake(lab: &Lab, target: &str, more: Value, hostname: &str) -> Result<()> {
    let from = lab.machine.console_text().len();
    let node = lab.ironic.bring(NODE, target, more, "active", WITHIN)?;
    ensure!(node["last_error"].is_null(), "after '{target}' the last error is {}", node["last_error"]);
    lab.expect_console(&format!("{}{hostname}", images::PROBE_SAYS), from).map(drop)
}

/// The tenant gets in by the password that was asked for, as one who may repair; nobody gets in by another. The agent is
/// down, so that the tenant cannot speak in its name.
fn rescue(lab: &Lab) -> Result<()> {
    lab.ironic.bring(NODE, "rescue", json!({"rescue_password": PASSWORD}), "rescue", WITHIN)?;
    let tenant = Password::new(PASSWORD, &lab.folder)?;
    let address = lab.address()?;
    let said = tenant.run("rescue", &address, "id -u; head -c 4194304 /dev/vda | sha256sum", WITHIN)?;
    let disk = Command::new("head").args(["-c", "4194304"]).arg(lab.disk(ROOT)).output()?.stdout;
    let expected = format!("0\n{}  -", hex(&Sha256::digest(disk)));
    ensure!(said == expected, "the tenant sees '{said}' instead of '{expected}'");
    let stranger = Password::new("not the one", &lab.folder)?.attempt("rescue", &address, "true")?;
    let told = String::from_utf8_lossy(&stranger.stderr).into_owned();
    ensure!(!stranger.status.success() && told.contains("Permission denied"), "{stranger:?}");
    let agent = TcpStream::connect((address.as_str(), AGENT_PORT)).map(drop);
    ensure!(
        matches!(&agent, Err(error) if error.kind() == ErrorKind::ConnectionRefused),
        "the agent's port in a rescue: {agent:?}"
    );
    Ok(())
}

/// Two steps on a machine in use: the agent's own, which here writes another image with another config drive, and one
/// that an operator put beside it, which leaves a note on the same disk.
fn service(lab: &Lab, image: &Image) -> Result<()> {
    let url = lab.images.offer("serviced.qcow2", &image.path, Fault::None);
    let info = json!({
        "id": "serviced", "urls": [url], "disk_format": "qcow2", "os_hash_algo": "sha256",
        "os_hash_value": image.sha256,
    });
    let steps = json!({"service_steps": [
        {"interface": "deploy", "step": "write_image", "args": {"image_info": info}},
        {"interface": "deploy", "step": NOTE, "args": {"words": "as the service asked"}},
    ]});
    awake(lab, "service", steps, images::NO_CONFIG_DRIVE)?;
    let mut note = vec![0; 21];
    fs::File::open(lab.disk(ROOT))?.read_exact_at(&mut note, NOTE_AT)?;
    ensure!(note == b"as the service asked\0", "the note is {:?}", String::from_utf8_lossy(&note));
    Ok(())
}

/// The step that an operator brings, and where on the root disk it leaves its words.
const NOTE: &str = "leave_note";
const NOTE_AT: u64 = 4 << 30;
const NOTE_PROGRAM: &str = r#"#!/bin/sh
set -eu
order=$(cat)
field() { printf '%s' "$order" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
disk=$(field root_disk)
field words | tr -d '\n' | dd of="$disk" bs=1M seek=4096 conv=notrunc,fsync
printf '{"result": {"disk": "%s"}}\n' "$disk"
"#;

fn note_manifest() -> Value {
    json!({
        "name": NOTE,
        "kinds": ["service"],
        "args": {"words": {"description": "what to leave on the disk", "required": true}},
    })
}

/// The kernel got what Ironic wrote, the request's own number included.
fn expect_parameters(lab: &Lab) -> Result<()> {
    let line = lab.command_line()?;
    for wanted in [format!("ipa-api-url={} ", lab.ironic.url()), "ipa-global-request-id=req-".to_owned()] {
        ensure!(line.contains(&wanted), "'{wanted}' is not among the kernel parameters: {line}");
    }
    Ok(())
}

/// Puts a boot signature at both ends of a disk: cleaning must remove it.
fn scribble(disk: &Path) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(disk)?;
    let size = file.metadata()?.len();
    for at in [510, size - 2] {
        file.write_all_at(&[0x55, 0xaa], at)?;
    }
    Ok(())
}

/// Whether a partition for a config drive was added to the image's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drive {
    None,
    Added,
}

/// The root disk holds what `qemu-img convert` makes of the image, byte for byte, but for what must follow the disk's
/// size: the protective entry, the GPT header, the second table at the image's end, and the list of partitions where
/// one was added.
fn expect_converted(lab: &Lab, image: &Image, drive: Drive) -> Result<()> {
    let (from, to) = (image.path.display().to_string(), lab.folder.join("converted"));
    process::call("qemu-img", &["convert", "-O", "raw", &from, &to.display().to_string()])?;
    let size = fs::metadata(&to)?.len();
    let table = if drive == Drive::Added { 34 } else { 2 };
    let except = [(446, 510), (SECTOR, table * SECTOR), (size - 33 * SECTOR, size)];
    diskcheck::expect_image(&lab.disk(ROOT), &to, &except)?;
    fs::remove_file(to).context("removing the converted image")
}

/// Prints how long each stage took.
struct Stages(Cell<Instant>);

impl Default for Stages {
    fn default() -> Self {
        Self(Cell::new(Instant::now()))
    }
}

impl Stages {
    fn end(&self, stage: &str) {
        println!("{stage}: {:.0?}", self.0.replace(Instant::now()).elapsed());
    }
}
