//! A blank machine becomes an installed Debian, on BIOS and on UEFI, by the operator's commands; and again with little memory.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::httpd::Fault;
use ferric_tests::machine::Firmware;
use ferric_tests::scene::{Cleaning, NODE, Scene, Script, borrowed};
use ferric_tests::{debian, diskcheck, process};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Peak resident memory the agent may take, in KiB (48 MiB).
const AGENT_MEMORY: u64 = 48 << 10;
const LOGIN: Duration = Duration::from_secs(300);

#[test]
fn bios_from_blank_to_ssh() -> Result<()> {
    from_blank_to_ssh(Script::new("deploy-bios", Firmware::Bios), Profile::Server)
}

#[test]
fn uefi_from_blank_to_ssh() -> Result<()> {
    from_blank_to_ssh(Script::new("deploy-uefi", Firmware::Uefi), Profile::Vm)
}

/// The firmware booted the entry that the agent wrote, which is the first in its order and the only one of its name.
fn expect_boot_entry(scene: &Scene) -> Result<()> {
    let command = "cd /sys/firmware/efi/efivars && for v in Boot*-8be4df61-93ca-11d2-aa0d-00e098032b8c; \
                   do echo ${v%%-*} $(od -An -v -tx1 $v | tr -d ' \\n'); done";
    let answer = scene.ssh("demo", command, LOGIN)?;
    let variables: BTreeMap<&str, Vec<u8>> = answer
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, hex)| (name, bytes(hex)))
        .collect();
    // Four bytes of attributes stand before each value.
    let number = |name: &str| -> Result<u16> {
        let value = variables.get(name).with_context(|| format!("no {name} in {answer}"))?;
        Ok(u16::from_le_bytes(value.get(4..6).context("it is empty")?.try_into()?))
    };
    let current = format!("Boot{:04X}", number("BootCurrent")?);
    ensure!(
        number("BootOrder")? == number("BootCurrent")?,
        "the entry that was booted is not the first: {answer}"
    );
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let label = utf16("ironic1\0");
    let ours: Vec<_> =
        variables.iter().filter(|(_, value)| value.get(10..10 + label.len()) == Some(&label)).collect();
    ensure!(ours.len() == 1 && *ours[0].0 == current, "{current} was booted, ours are {ours:?}");
    // 6A1F0C5E-0000-4000-8000-000000000012, the image's EFI system partition, as a disk has it.
    let partition = [0x5e, 0x0c, 0x1f, 0x6a, 0, 0, 0, 0x40, 0x80, 0, 0, 0, 0, 0, 0, 0x12];
    let loader = utf16("\\EFI\\BOOT\\BOOTX64.EFI\0");
    for part in [partition.as_slice(), loader.as_slice()] {
        ensure!(ours[0].1.windows(part.len()).any(|window| window == part), "{ours:02x?} lacks {part:02x?}");
    }
    Ok(())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().as_chunks::<2>().0.iter();
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[test]
fn a_machine_of_256_mib_deploys_an_image_of_4_gib() -> Result<()> {
    let mut script = Script::new("deploy-small", Firmware::Bios);
    script.memory_mib = 256;
    let image = debian::image()?;
    let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script)?;
    let arguments = scene.deploy(&image, "qcow2", Fault::None, "small", Some(900));
    scene
        .explain(scene.enrol(Cleaning::None).and_then(|()| scene.operator().ferric(&borrowed(&arguments))))?;
    let console = scene.machine.console_text();
    let peak = peak_memory(&console).context("the console does not say the agent's peak memory")?;
    println!("the agent's peak resident memory: {peak} KiB of {AGENT_MEMORY} KiB");
    ensure!(peak <= AGENT_MEMORY, "the agent took {peak} KiB");
    Ok(())
}

fn from_blank_to_ssh(script: Script, profile: Profile) -> Result<()> {
    let artifacts = Artifacts::obtain(profile)?;
    let image = debian::image()?;
    let scene = Scene::open(&artifacts, script)?;
    scene.explain(deploy_and_log_in(&scene, &image))
}

fn deploy_and_log_in(scene: &Scene, image: &debian::Image) -> Result<()> {
    let hostname = scene.script.name.clone();
    let start = Instant::now();
    scene.enrol(Cleaning::Automated)?;
    println!("available after {:.0?}", start.elapsed());
    let deploy = Instant::now();
    let said = scene.operator().ferric(&borrowed(&scene.deploy(
        image,
        "qcow2",
        Fault::None,
        &hostname,
        Some(900),
    )))?;
    println!("deployed in {:.0?}; ferric said:\n{}", deploy.elapsed(), said.trim());
    let account = said.lines().find(|line| line.starts_with("image: ")).context("no account of the write")?;
    ensure!(account.contains(" MiB received at ") && account.contains("; limited by "), "{account}");
    println!("qemu-img convert of the same image takes {:.1?}", convert(scene, image)?);
    let answer = scene.ssh("demo", "hostname", LOGIN)?;
    ensure!(answer == hostname, "the host name is '{answer}', the config drive says '{hostname}'");
    println!("ssh answered after {:.0?} in all", start.elapsed());
    if scene.script.firmware == Firmware::Uefi {
        expect_boot_entry(scene)?;
    }
    let node = scene.operator().node(NODE)?;
    ensure!(node["provision_state"] == "active" && node["last_error"].is_null(), "{node}");
    let file = fs::metadata(&image.path)?.len();
    ensure!(node["driver_internal_info"]["image_write"]["bytes_received"] == file, "{file} bytes: {node}");
    diskcheck::expect_untouched(&scene.other_disk())
        .or_else(|_| diskcheck::expect_blank_ends(&scene.other_disk()))
}

fn convert(scene: &Scene, image: &debian::Image) -> Result<Duration> {
    let (from, to) = (image.path.display().to_string(), scene.folder.join("converted").display().to_string());
    let start = Instant::now();
    process::call("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &from, &to])?;
    let took = start.elapsed();
    fs::remove_file(scene.folder.join("converted"))?;
    Ok(took)
}

/// The largest `VmHWM: N kB` (or `VmHWM=NkB`) that the console shows.
fn peak_memory(console: &str) -> Option<u64> {
    console
        .split("VmHWM")
        .skip(1)
        .filter_map(|rest| {
            let digits: String =
                rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .max()
}
