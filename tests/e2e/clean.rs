//! A machine with disks of three kinds, full of a former tenant's data, is cleaned by the operator's words; the host reads
//! every byte of them afterwards.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::arrays::{Mdadm, Part, partitions};
use ferric_tests::artifacts::Artifacts;
use ferric_tests::diskcheck;
use ferric_tests::machine::{Bus, Firmware};
use ferric_tests::scene::{DiskScript, NODE, Scene, Script, borrowed};
use ferric_tests::stock::{self, Baremetal};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
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

/// What the stock client asks for is made by our controller's steps and recorded, and taken away again.
#[test]
fn arrays_that_the_stock_client_asks_for_are_made_and_deleted() -> Result<()> {
    let (client, mdadm) = (stock::install()?, Mdadm::obtain()?);
    let mut script = Script::new("clean-raid", Firmware::Bios);
    let disk = |(name, serial)| DiskScript { name, serial, bus: Bus::Virtio, bytes: 2048 * MIB };
    script.disks = [("one", "RAID-0001"), ("two", "RAID-0002")].map(disk).to_vec();
    let scene = Scene::open(&Artifacts::obtain(Profile::Server)?, script)?;
    let baremetal = Baremetal::new(client, scene.operator());
    scene.explain(arrays(&scene, &baremetal, &mdadm))
}

fn arrays(scene: &Scene, baremetal: &Baremetal, mdadm: &Mdadm) -> Result<()> {
    enrol(scene)?;
    let wanted = json!({"logical_disks": [
        {"size_gb": 1, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true},
        {"size_gb": "MAX", "raid_level": "0", "controller": "software", "volume_name": "data"},
    ]});
    let file = scene.folder.join("raid.json");
    fs::write(&file, wanted.to_string())?;
    baremetal.run(&["node", "set", NODE, "--raid-interface", "agent"])?;
    baremetal.run(&["node", "set", NODE, "--target-raid-config", &file.display().to_string()])?;
    let node = scene.operator().node(NODE)?;
    ensure!(node["target_raid_config"] == wanted, "{node}");

    let node = raid_steps(scene, baremetal, &["delete_configuration", "create_configuration"])?;
    ensure!(node["raid_config"]["logical_disks"] == wanted["logical_disks"], "{}", node["raid_config"]);
    let told = &node["properties"];
    ensure!(told["local_gb"] == 1 && told["capabilities"].to_string().contains("raid_level:1"), "{told}");
    let members = made(scene, mdadm)?;

    baremetal.run(&["node", "unset", NODE, "--target-raid-config"])?;
    let node = raid_steps(scene, baremetal, &["delete_configuration"])?;
    for name in ["raid_config", "target_raid_config"] {
        ensure!(node[name] == json!({}), "{name} is {}", node[name]);
    }
    for (disk, parts) in members {
        diskcheck::expect_blank_ends(&disk)?;
        parts.iter().try_for_each(|part| mdadm.expect_nothing(&disk, part))?;
    }
    Ok(())
}

/// Runs these steps of the RAID interface; the node afterwards.
fn raid_steps(scene: &Scene, baremetal: &Baremetal, names: &[&str]) -> Result<Value> {
    let steps: Vec<Value> = names.iter().map(|step| json!({"interface": "raid", "step": step})).collect();
    let (steps, wait) = (json!(steps).to_string(), CLEANING.as_secs().to_string());
    baremetal.run(&["node", "clean", NODE, "--clean-steps", &steps, "--wait", &wait])?;
    let node = scene.operator().node(NODE)?;
    ensure!(node["provision_state"] == "manageable" && node["last_error"].is_null(), "{node}");
    Ok(node)
}

/// The members of both arrays, disk by disk, each what mdadm says it must be.
fn made(scene: &Scene, mdadm: &Mdadm) -> Result<Vec<(PathBuf, Vec<Part>)>> {
    let mut members = Vec::new();
    for (nth, name) in ["one", "two"].iter().enumerate() {
        let disk = scene.folder.join(name);
        let (table, parts) = partitions(&disk)?;
        ensure!(table == "dos" && parts.len() == 2, "{table}: {parts:?}");
        for (part, (level, name)) in parts.iter().zip([("raid1", "system"), ("raid0", "data")]) {
            let told = mdadm.examine(&disk, part)?;
            let role = format!("Active device {nth}");
            told.expect(&[("Raid Level", level), ("Raid Devices", "2"), ("Device Role", &role)])?;
            told.expect_name(name)?;
        }
        members.push((disk, parts));
    }
    Ok(members)
}
