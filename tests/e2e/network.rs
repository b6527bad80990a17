//! Networks as machines meet them: IPv6 alone, a link and a DHCP server that come late, no DHCP but a boot medium. The other side is
//! dnsmasq, QEMU's link and the kernel of the ramdisk; the controller is the least that answers.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::{Artifacts, run_folder};
use ferric_tests::dnsmasq::Dnsmasq;
use ferric_tests::lldpd::Lldpd;
use ferric_tests::lookup::{self, Lookup};
use ferric_tests::machine::{Bus, Disk, Machine, Spec};
use ferric_tests::process::call;
use ferric_tests::scene::MAC;
use ferric_tests::{Netns, netns, ssh};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(120);
const CONTROLLER_SIX: &str = "fd77::1";

#[test]
fn a_network_of_ipv6_alone_and_a_link_that_comes_late() -> Result<()> {
    let scene = Scene::open("ipv6-late-link", "ipa-api-url=http://controller.test:6385", None)?;
    let mut server = Dnsmasq::start(
        &scene.folder,
        &[
            "--enable-ra",
            "--dhcp-range=fd77::100,fd77::1ff,64,10m",
            "--dhcp-option=option6:dns-server,[fd77::1]",
            "--dhcp-option=option6:domain-search,lab.test",
            "--host-record=controller.test,fd77::1",
            // What it does not know of this name it would ask elsewhere, and refuse.
            "--local=/test/",
        ],
    )?;
    scene.machine.power_on()?;
    scene.machine.set_link(false)?;
    let mut from = scene.machine.wait_for_console("eth0: waiting for carrier", 0, BOOT)?;
    // Said every 10 s: the link comes back when three times as long has passed.
    for _ in 0..3 {
        let waits = "waiting for an address and a route to the controller";
        from = scene.machine.wait_for_console(waits, from, BOOT)?;
    }
    scene.machine.set_link(true)?;
    scene.machine.wait_for_console("addresses and name servers by dhcpv6", from, BOOT)?;
    scene.machine.wait_for_console("eth0: address fd77::1", from, BOOT)?;
    let beat = scene.heartbeat().with_context(|| server.said())?;
    let callback = text(&beat, "callback_url");
    ensure!(callback.starts_with("https://[fd77::1") && callback.ends_with("]:9999"), "{callback}");
    let certificate = scene.folder.join("agent.pem");
    fs::write(&certificate, text(&beat, "agent_verify_ca"))?;
    status(&certificate, callback)
}

#[test]
fn a_dhcp_server_that_comes_late_and_tagged_interfaces() -> Result<()> {
    let key = ssh::Key::generate(&run_folder("late-dhcp-key")?)?;
    let shell = format!("ferric-ssh-key={}", key.public_text()?.replace(' ', ":"));
    let parameters = format!(
        "ipa-api-url=http://{}:6385 ipa-enable-vlan-interfaces={MAC}.100,all {shell}",
        netns::CONTROLLER
    );
    let scene = Scene::open("late-dhcp", &parameters, None)?;
    let switch = Lldpd::start("tap0", &scene.folder)?;
    switch.name_vlan("tap0", 200, "storage")?;
    scene.machine.power_on()?;
    scene.machine.wait_for_console("eth0: the switch names tags by LLDP: 200", 0, BOOT)?;
    // Both complain at pauses drawn by lot, and the untagged one again, as it goes on asking.
    scene.machine.wait_for_console("eth0.100: no answer from a dhcp server for ", 0, BOOT)?;
    let silence = "eth0: no answer from a dhcp server for ";
    let once = scene.machine.wait_for_console(silence, 0, BOOT)?;
    let from = scene.machine.wait_for_console(silence, once, BOOT)?;
    let (first, last) = (netns::FIRST_LEASE, netns::LAST_LEASE);
    let mut server = Dnsmasq::start(
        &scene.folder,
        &[
            "--port=0",
            &format!("--dhcp-range={first},{last},255.255.255.0,10m"),
            "--dhcp-option=option:mtu,1400",
            &format!("--dhcp-option=option:classless-static-route,10.99.0.0/16,{}", netns::BMC),
        ],
    )?;
    scene.machine.wait_for_console("eth0: address 10.77.0.1", from, BOOT).with_context(|| server.said())?;
    let beat = scene.heartbeat().with_context(|| server.said())?;
    let callback = text(&beat, "callback_url");
    let address = callback.trim_start_matches("https://").trim_end_matches(":9999");
    let seen =
        ssh::run(&key, "dev", address, "ip link show eth0; ip route; cat /proc/net/vlan/config", BOOT)?;
    ensure!(seen.contains("mtu 1400"), "option 26 was not followed: {seen}");
    ensure!(
        seen.contains(&format!("10.99.0.0/16 via {}", netns::BMC)),
        "option 121 was not followed: {seen}"
    );
    let tagged: Vec<String> = seen.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in ["eth0.100|100|eth0", "eth0.200|200|eth0"] {
        ensure!(tagged.iter().any(|tagged| tagged == line), "there is no {line}: {seen}");
    }
    Ok(())
}

/// Addresses, the certificate and the second of two controllers come from the medium alone; nobody answers DHCP, and at the first
/// controller's address is nobody.
#[test]
fn a_boot_medium_says_what_no_server_does() -> Result<()> {
    let folder = run_folder("medium")?;
    let medium = medium(&folder)?;
    let parameters =
        format!("boot_method=vmedia ipa-tls-min-version=1.3 ipa-api-url=http://{}:6385", netns::NOBODY);
    let scene = Scene::open("boot-medium", &parameters, Some(medium))?;
    scene.machine.power_on()?;
    scene.machine.wait_for_console("') was read", 0, BOOT)?;
    scene.machine.wait_for_console("eth0: address fd77::77/64 from the boot medium", 0, BOOT)?;
    let beat = scene.heartbeat()?;
    ensure!(text(&beat, "callback_url") == "https://[fd77::77]:9999", "{beat}");
    // The operator's own certificate: the controller is to know its issuer.
    ensure!(beat.get("agent_verify_ca").is_none_or(Value::is_null), "{beat}");
    status(&folder.join("own.pem"), text(&beat, "callback_url"))
}

struct Scene {
    machine: Machine,
    lookup: Lookup,
    folder: std::path::PathBuf,
    _network: Netns,
}

impl Scene {
    fn open(name: &str, parameters: &str, medium: Option<std::path::PathBuf>) -> Result<Self> {
        let artifacts = Artifacts::obtain(Profile::Server)?;
        let network = Netns::enter()?;
        call(
            "ip",
            &["-6", "address", "add", &format!("{CONTROLLER_SIX}/64"), "dev", netns::BRIDGE, "nodad"],
        )?;
        network.tap("tap0")?;
        let folder = run_folder(name)?;
        let disks = medium.map(|path| Disk {
            path,
            serial: "MEDIUM".into(),
            bus: Bus::Cdrom,
            rank: 0,
            logged: false,
        });
        let machine = Machine::new(Spec {
            disks: disks.into_iter().collect(),
            ..Spec::of_ramdisk(&artifacts, MAC, parameters, &folder)
        })?;
        Ok(Self { machine, lookup: Lookup::start()?, folder, _network: network })
    }

    fn heartbeat(&self) -> Result<Value> {
        let beat = self.lookup.heartbeat(BOOT, || {
            format!(
                "asked for {:?}; the console ends:\n{}",
                self.lookup.requests(),
                ferric_tests::process::tail(&self.machine.console(), 30)
            )
        })?;
        ensure!(text(&beat, "agent_token") == lookup::TOKEN, "{beat}");
        Ok(beat)
    }
}

fn text<'v>(beat: &'v Value, field: &str) -> &'v str {
    beat.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Asks the command API as a conductor does: by the address of the callback, believing this certificate alone.
fn status(certificate: &Path, callback: &str) -> Result<()> {
    let file = certificate.display().to_string();
    let url = format!("{callback}/v1/status");
    let said = call("curl", &["-sS", "--max-time", "20", "--tlsv1.3", "--cacert", &file, &url])?;
    ensure!(said.contains("\"version\""), "{said}");
    Ok(())
}

/// An ISO as Ironic makes one, here by bsdtar.
fn medium(folder: &Path) -> Result<std::path::PathBuf> {
    let (root, iso) = (folder.join("root"), folder.join("medium.iso"));
    let agent = root.join("etc/ironic-python-agent");
    fs::create_dir_all(&agent)?;
    fs::create_dir_all(root.join("etc/ironic-python-agent.d"))?;
    fs::create_dir_all(root.join("openstack/latest"))?;
    let path = |name: &str| agent.join(name).display().to_string();
    call(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=machine",
            "-addext",
            "subjectAltName=IP:fd77::77",
            "-keyout",
            &path("own.key"),
            "-out",
            &path("own.crt"),
        ],
    )?;
    fs::copy(agent.join("own.crt"), folder.join("own.pem"))?;
    fs::write(
        root.join("etc/ironic-python-agent.d/own.conf"),
        format!(
            "[DEFAULT]\napi_url = http://{}:6385,http://[{CONTROLLER_SIX}]:6385\nhttp_request_timeout = 5\n\
             listen_tls = true\ntls_cert_file = /etc/ironic-python-agent/own.crt\n\
             tls_key_file = /etc/ironic-python-agent/own.key\n",
            netns::NOBODY
        ),
    )?;
    let data = serde_json::json!({
        "links": [{"id": "nic", "type": "phy", "ethernet_mac_address": MAC, "mtu": 1450}],
        "networks": [
            {"id": "4", "type": "ipv4", "link": "nic", "ip_address": "10.77.0.77", "netmask": "255.255.255.0",
             "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": netns::CONTROLLER}]},
            {"id": "6", "type": "ipv6", "link": "nic", "ip_address": "fd77::77/64"}],
        "services": [{"type": "dns", "address": netns::CONTROLLER}]});
    fs::write(root.join("openstack/latest/network_data.json"), data.to_string())?;
    let (from, to) = (root.display().to_string(), iso.display().to_string());
    // As Ironic makes it; without these words the label would be CONFIG_2.
    let plain =
        ["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", "config-2", "-o"];
    call("genisoimage", &[&plain[..], &[&to, &from]].concat())?;
    Ok(iso)
}
