//! A machine with disks of three kinds, full of a former tenant's data, is cleaned by the operator's words; the host reads
//! every byte of them afterwards.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::diskcheck;
use ferric_tests::machine::{Bus, Firmware};
use ferric_tests::scene::{DiskScript, NODE, Scene, Script, borrowed};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What the former tenant left in every sector.
const SECRET: &[u8] = b"the former tenant's secret, sector ";
const CLEANING: Duration = Duration::from_secs(900);

const DISKS: [DiskScript; 3] = [
    DiskScript { name: "nvme", serial: "NVME-0001", bus: Bus::Nvme, bytes: 160 * MIB },
    DiskScript { name: "sata", serial: "SATA-0002", bus: Bus::Sata, bytes: 64 * MIB + 512 },
    DiskScript { name: "virtio", serial: "VIRT-0003", bus: Bus::Virtio, bytes: 96 * MIB },
];

fn script(name: &str) -> Script {
    let mut script = Script::new(name, Firmware::Bios);
    script.disks = DISKS.to_vec();
    script.tables = "[deploy]\ndisk_erasure_concurrency = 3\n".to_owned();
    script
}

/// Every sector says whose it was; the first sectors of the disks say more.
fn fill(scene: &Scene) -> Result<()> {
    for disk in &DISKS {
        let file = File::options().write(true).open(scene.folder.join(disk.name))?;
        for at in (0..disk.bytes).step_by(MIB as usize) {
            let sectors = (at..disk.bytes.min(at + MIB)).step_by(512);
            let bytes: Vec<u8> = sectors.flat_map(|at| sector(at / 512)).collect();
            file.write_all_at(&bytes, at)?;
        }
    }
    // A leftover of an array, whose other members are gone: no reason to leave the data.
    let virtio = File::options().write(true).open(scene.folder.join("virtio"))?;
    virtio.write_all_at(b"\xfc\x4e\x2b\xa9\x01\0\0\0", 4096)?;
    Ok(())
}

fn sector(number: u64) -> Vec<u8> {
    let mut sector = SECRET.to_vec();
    sector.extend(number.to_string().bytes());
    sector.resize(512, b'.');
    sector
}

fn clean(scene: &Scene, step: &str) -> Result<Value> {
    let operator = scene.operator();
    let body = json!({"target": "clean", "clean_steps": [{"interface": "deploy", "step": step}]});
    operator.expect("PUT", &format!("/v1/nodes/{NODE}/states/provision"), Some(&body))?;
    operator.wait_for_state(NODE, &["clean wait"], CLEANING)?;
    operator.wait_for_state(NODE, &["manageable"], CLEANING)
}

fn enrol(scene: &Scene) -> Result<()> {
    scene.operator().ferric(&borrowed(&scene.create()))?;
    scene.operator().ferric(&["node", "manage", NODE, "--wait", "120"]).map(drop)
}

#[test]
fn no_byte_of_the_former_tenant_is_left() -> Result<()> {
    let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script("clean-all"))?;
    scene.explain(erase_everything(&scene))
}

fn erase_everything(scene: &Scene) -> Result<()> {
    fill(scene)?;
    enrol(scene)?;
    let node = clean(scene, "erase_devices")?;
    ensure!(node["last_error"].is_null(), "{node}");
    scene.machine.power_off()?;
    let console = scene.machine.console_text();
    for (disk, method) in [
        ("/dev/nvme0n1", "NVMe format (user data erase), "),
        ("/dev/sda", "overwriting (1 random passes, zeros last), "),
        ("/dev/vda", "overwriting (1 random passes, zeros last), "),
    ] {
        let told = format!("{disk} is erased: {method}");
        let line =
            console.lines().find(|line| line.contains(&told)).with_context(|| format!("no '{told}'"))?;
        ensure!(line.contains("proof: "), "{line}");
        println!("{}", line.trim());
    }
    for disk in &DISKS {
        let path = scene.folder.join(disk.name);
        ensure!(fs::metadata(&path)?.len() == disk.bytes, "{} changed its size", disk.name);
        diskcheck::expect_zeros(&path)?;
    }
    Ok(())
}

/// What stands on a disk goes first: an array that was started in the ramdisk, as another program there may do. The node is
/// in maintenance meanwhile, so that the controller waits.
#[test]
fn an_array_on_a_disk_is_taken_down_first() -> Result<()> {
    let mut script = script("clean-array");
    script.disks.retain(|disk| disk.name == "virtio");
    let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script)?;
    scene.explain(erase_below_an_array(&scene))
}

fn erase_below_an_array(scene: &Scene) -> Result<()> {
    let path = scene.folder.join("virtio");
    File::options().write(true).open(&path)?.write_all_at(&sector(0), 40 * MIB)?;
    enrol(scene)?;
    let operator = scene.operator();
    let words = format!("%default% ferric-ssh-key={}", scene.key.public_text()?.replace(' ', ":"));
    let patch = json!([{"op": "add", "path": "/driver_info/kernel_append_params", "value": words}]);
    operator.expect("PATCH", &format!("/v1/nodes/{NODE}"), Some(&patch))?;
    let body = json!({"target": "clean", "clean_steps": [{"interface": "deploy", "step": "erase_devices_metadata"},
                      {"interface": "deploy", "step": "erase_devices"}]});
    operator.expect("PUT", &format!("/v1/nodes/{NODE}/states/provision"), Some(&body))?;
    operator.wait_for_state(NODE, &["clean wait"], CLEANING)?;
    let maintenance = format!("/v1/nodes/{NODE}/maintenance");
    operator.expect("PUT", &maintenance, Some(&json!({"reason": "making an array"})))?;
    // The kernel's own interface to arrays (Documentation/admin-guide/md.rst): an array without superblocks.
    let array = "set -e; /init -q -- md_mod; echo md127 > /sys/module/md_mod/parameters/new_array; \
                 cd /sys/block/md127/md; echo none > metadata_version; echo raid1 > level; echo 1 > raid_disks; \
                 cat /sys/block/vda/dev > new_dev; echo 65536 > component_size; echo 0 > dev-vda/slot; \
                 echo active > array_state; ls /sys/block/vda/holders";
    let holders = scene.ssh("dev", array, CLEANING)?;
    ensure!(holders == "md127", "{holders}");
    operator.expect("DELETE", &maintenance, None)?;
    operator.wait_for_state(NODE, &["manageable"], CLEANING)?;
    scene.machine.power_off()?;
    let console = scene.machine.console_text();
    ensure!(console.contains("took down /dev/md127"), "nothing was taken down");
    diskcheck::expect_zeros(&path)
}

/// Boot entries that match go from the firmware's memory and its order; a second look finds none.
#[test]
fn boot_entries_are_taken_from_real_firmware() -> Result<()> {
    let mut script = script("clean-nvram");
    script.firmware = Firmware::Uefi;
    script.disks.truncate(1);
    let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script)?;
    scene.explain(clean_firmware(&scene))
}

fn clean_firmware(scene: &Scene) -> Result<()> {
    enrol(scene)?;
    // OVMF makes entries for its network cards by itself.
    let step = json!({"interface": "deploy", "step": "clean_uefi_nvram", "args": {"match_patterns": ["^pciroot.*/mac\\("]}});
    let body = json!({"target": "clean", "clean_steps": [step, step]});
    let operator = scene.operator();
    operator.expect("PUT", &format!("/v1/nodes/{NODE}/states/provision"), Some(&body))?;
    operator.wait_for_state(NODE, &["clean wait"], CLEANING)?;
    operator.wait_for_state(NODE, &["manageable"], CLEANING)?;
    scene.machine.power_off()?;
    let console = scene.machine.console_text();
    let told: Vec<&str> = console
        .lines()
        .filter_map(|line| line.split_once("boot entries removed: "))
        .map(|(_, what)| what.trim())
        .collect();
    println!("{told:?}");
    let [first, second] = told.as_slice() else { anyhow::bail!("two steps told {told:?}") };
    ensure!(first.contains("PciRoot(0x0)/Pci(") && first.contains("/MAC(525400770001,1)"), "{first}");
    ensure!(*second == "[]", "still there: {second}");
    Ok(())
}
