//! The ramdisk inspects its machine: what it posts is held against what the reference agent posted, key by key, and what it heard
//! by LLDP against what a real `lldpd` says it sent.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use ferric_initramfs::Profile;
use ferric_tests::artifacts::{Artifacts, workspace};
use ferric_tests::inspector::{self, Inspector};
use ferric_tests::lldpd::{self, Lldpd};
use ferric_tests::machine::{DirectBoot, Firmware};
use ferric_tests::netns;
use ferric_tests::process::call;
use ferric_tests::scene::{MAC, OTHER_SERIAL, ROOT_SERIAL, Scene, Script, borrowed};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

const PORT: u16 = 6399;
const NODE: &str = "785cae8c-ebc6-4405-b5ac-92e4d182220f";
const BOOT: Duration = Duration::from_secs(240);
const COLLECTORS: &str = "default,logs,lldp,numa-topology,pci-devices,dmi-decode,usb-devices";

/// Keys that are not on both sides, and why that is meant so. A key below one of these is not looked at.
const DIFFERENCES: &[(&str, &str)] = &[(
    ".inventory.interfaces[].lldp",
    "recorded without ipa-collect-lldp and without a switch: null there, entries here",
)];

#[test]
fn an_inspection_posts_what_the_reference_agent_posts() -> Result<()> {
    let artifacts = Artifacts::obtain(Profile::Vm)?;
    let mut script = Script::new("inspection", Firmware::Bios);
    script.memory_mib = 512;
    let (host, bootif) = (netns::CONTROLLER, format!("01-{}", MAC.replace(':', "-")));
    script.direct = Some(DirectBoot {
        kernel: artifacts.kernel.clone(),
        ramdisk: artifacts.ramdisk.clone(),
        parameters: format!(
            "console=ttyS0 ipa-inspection-callback-url=http://{host}:{PORT}{} BOOTIF={bootif} \
             ipa-inspection-collectors={COLLECTORS} ipa-collect-lldp=1 ferric-test-token=hidden",
            inspector::PATH
        ),
    });
    let scene = Scene::open(&artifacts, script)?;
    let controller = Inspector::start(host, PORT, NODE)?;
    let switch = Lldpd::start("tap0", &scene.folder)?;
    // Only machines that are enrolled get an address.
    scene.operator().ferric(&borrowed(&scene.create()))?;
    scene.machine.power_on()?;
    let ended = scene.machine.wait_for_console("this is node", 0, BOOT);
    scene.explain(ended)?;
    scene.machine.wait_for_console("waiting for power-off", 0, BOOT)?;

    let posted = controller.posted();
    // The first was refused with 503.
    ensure!(posted.len() == 2, "{} posts", posted.len());
    ensure!(posted[0].body == posted[1].body, "the second post differs from the first");
    let (head, body) = (&posted[1].head, &posted[1].body);
    ensure!(head.starts_with(&format!("post {} http/1.1\r\n", inspector::PATH)), "{head}");
    ensure!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    ensure!(!head.contains("x-openstack-ironic-api-version"), "{head}");
    fs::write(scene.folder.join("posted.json"), serde_json::to_vec_pretty(body)?)?;

    the_shape_is_the_recorded_one(body)?;
    the_machine_is_this_one(body, &bootif)?;
    lldp_is_what_the_switch_sent(body, &switch.chassis()?)?;
    the_logs_tell_and_keep_secrets(body, &scene)?;
    let address = scene.address()?.context("the machine has no address")?;
    let status = ureq::get(format!("http://{address}:9999/v1/status")).call()?.body_mut().read_to_string()?;
    ensure!(status.contains("ferric-"), "{status}");
    Ok(())
}

fn recorded() -> Result<Value> {
    let trace = fs::read_to_string(workspace().join("tests/golden/traces/vm-inspect-all-collectors.jsonl"))?;
    let exchanges: Vec<Value> = trace.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let found = exchanges.into_iter().find(|exchange| exchange["url"] == inspector::PATH);
    Ok(found.context("no inspection in the trace")?["req_body"].take())
}

fn the_shape_is_the_recorded_one(body: &Value) -> Result<()> {
    let (mut theirs, mut ours) = (BTreeSet::new(), BTreeSet::new());
    shape("", &recorded()?, &mut theirs);
    shape("", body, &mut ours);
    let known = |path: &&String| DIFFERENCES.iter().any(|(prefix, _)| path.starts_with(prefix));
    let odd: Vec<String> =
        theirs.symmetric_difference(&ours).filter(|path| !known(path)).map(|path| path.to_string()).collect();
    ensure!(odd.is_empty(), "keys and kinds that only one side has: {odd:#?}");
    for (prefix, _) in DIFFERENCES {
        let stale = !theirs.symmetric_difference(&ours).any(|path| path.starts_with(prefix));
        ensure!(!stale, "{prefix} does not differ any more: take it out of the table");
    }
    Ok(())
}

/// Paths of all values, members of an array under one name. Null may stand for any kind, so kinds are not told apart where one
/// side has it: only the path is kept.
fn shape(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                // The names of interfaces are the machine's own.
                let name = if path == ".lldp_raw" { "*" } else { name };
                shape(&format!("{path}.{name}"), member, into);
            }
        }
        Value::Array(members) if !path.starts_with(".lldp_raw") => {
            into.insert(format!("{path}[]"));
            for member in members.iter().filter(|member| member.is_object()) {
                shape(&format!("{path}[]"), member, into);
            }
        }
        _ => drop(into.insert(path.to_owned())),
    }
}

fn the_machine_is_this_one(body: &Value, bootif: &str) -> Result<()> {
    let inventory = &body["inventory"];
    let nic = &inventory["interfaces"][0];
    for (value, expected) in [
        (&body["error"], Value::Null),
        (&body["boot_interface"], bootif.into()),
        (&body["root_disk"]["serial"], OTHER_SERIAL.into()),
        (&body["configuration"]["managers"][0]["version"], "1.2".into()),
        (&nic["mac_address"], MAC.into()),
        (&nic["has_carrier"], true.into()),
        (&nic["driver"], "virtio_net".into()),
        (&nic["vendor"], "0x1af4".into()),
        (&inventory["memory"]["physical_mb"], 512.into()),
        (&inventory["cpu"]["architecture"], "x86_64".into()),
        (&inventory["cpu"]["count"], 2.into()),
        (&inventory["boot"]["current_boot_mode"], "bios".into()),
        (&inventory["bmc_address"], Value::Null),
        (&inventory["system_vendor"]["manufacturer"], "QEMU".into()),
        (&body["dmi"]["memory"]["devices"][0]["Size"], "512 MB".into()),
        (&body["dmi"]["bios"]["Vendor"], "SeaBIOS".into()),
    ] {
        ensure!(*value == expected, "{value} instead of {expected}");
    }
    ensure!(nic["ipv4_address"].as_str().is_some_and(|address| address.starts_with("10.77.0.")), "{nic}");
    let serials: Vec<&str> = inventory["disks"]
        .as_array()
        .context("disks")?
        .iter()
        .filter_map(|disk| disk["serial"].as_str())
        .collect();
    ensure!(serials.contains(&OTHER_SERIAL) && serials.contains(&ROOT_SERIAL), "{serials:?}");
    let cards = body["pci_devices"].as_array().context("pci_devices")?;
    ensure!(cards.iter().any(|card| card["vendor_id"] == "1af4" && card["class"] == "020000"), "{cards:?}");
    let ram = body["numa_topology"]["ram"][0]["size_kb"].as_u64().context("size_kb")?;
    ensure!((300_000..512 * 1024).contains(&ram), "{ram}");
    Ok(())
}

fn lldp_is_what_the_switch_sent(body: &Value, chassis: &Value) -> Result<()> {
    let nic = body["inventory"]["interfaces"][0]["name"].as_str().context("name")?;
    let heard = &body["lldp_raw"][nic];
    ensure!(body["inventory"]["interfaces"][0]["lldp"] == *heard, "the inventory heard something else");
    let value = |kind: u64| -> Result<&str> {
        let entry = heard.as_array().and_then(|all| all.iter().find(|entry| entry[0] == kind));
        entry.and_then(|entry| entry[1].as_str()).with_context(|| format!("no entry {kind} in {heard}"))
    };
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mac = chassis["id"]["value"].as_str().context("the chassis has no id")?;
    for (kind, expected) in [
        (1, format!("04{}", mac.replace(':', ""))),
        (2, format!("07{}", hex(lldpd::PORT))),
        (4, hex(lldpd::PORT_DESCRIPTION)),
        (5, hex(lldpd::NAME)),
        (6, hex(chassis["descr"].as_str().context("descr")?)),
        (0, String::new()),
    ] {
        ensure!(value(kind)? == expected, "entry {kind}: {} instead of {expected}", value(kind)?);
    }
    Ok(())
}

fn the_logs_tell_and_keep_secrets(body: &Value, scene: &Scene) -> Result<()> {
    let packed = base64::engine::general_purpose::STANDARD.decode(body["logs"].as_str().context("logs")?)?;
    let path = scene.folder.join("logs.tar.gz");
    fs::write(&path, packed)?;
    let path = path.display().to_string();
    let names = call("tar", &["-tzf", &path])?;
    for (name, words) in [
        ("dmesg", "Linux version"),
        ("agent.log", "inspection: collecting"),
        ("ip_addr", MAC),
        ("lsblk", ROOT_SERIAL),
        ("mounts", "proc /proc"),
        ("ps", "kB init"),
        ("cmdline", "ferric-test-token=******"),
    ] {
        ensure!(names.lines().any(|line| line == name), "no {name} among {names}");
        let text = call("tar", &["-xzOf", &path, name])?;
        ensure!(text.contains(words), "{name} does not say '{words}'");
    }
    ensure!(
        !call("tar", &["-xzOf", &path, "cmdline"])?.contains("hidden"),
        "the command line's secret is in the logs"
    );
    Ok(())
}
