//! The client against OpenIPMI's `ipmi_sim` (suite 3), and beside it what `ipmitool` says about the same BMC.
//!
//! Both are Debian packages (`openipmi`, `ipmitool`) that the test command installs; without them the test fails.

use super::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

/// Keeps power and boot device in files, as a chassis would.
const CHASSIS: &str = r#"#!/bin/sh
dir=$(dirname "$0")
op=$1; shift
case $op in
get) while [ $# -gt 0 ]; do echo "$1:$(cat "$dir/$1" 2>/dev/null || echo 0)"; shift; done ;;
set) while [ $# -gt 0 ]; do case $1 in shutdown) echo 0 >"$dir/power" ;; *) echo "$2" >"$dir/$1" ;; esac; shift 2; done ;;
esac
"#;

struct Sim {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sim {
    /// Starts a simulator on a free port of the loopback and waits until it answers.
    async fn start() -> Sim {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let chassis = at.join("chassis.sh");
        fs::write(&chassis, CHASSIS).unwrap();
        fs::set_permissions(&chassis, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at.join("boot"), "default").unwrap();
        fs::create_dir(at.join("state")).unwrap();
        let emu = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nmc_enable 0x20\n";
        fs::write(at.join("sim.emu"), emu).unwrap();
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let auths = ["callback", "user", "operator", "admin"]
            .map(|p| format!("    allowed_auths_{p} none md2 md5 straight\n"));
        let config = format!(
            "name \"ferric\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n{}    \
             guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control \"{}\"\n  \
             user 2 true \"admin\" \"right\" admin 10 none md2 md5 straight\n  \
             user 3 true \"guest\" \"guest\" user 10 none md2 md5 straight\n",
            auths.concat(),
            chassis.display()
        );
        fs::write(at.join("lan.conf"), config).unwrap();
        let child = Command::new("/usr/bin/ipmi_sim")
            .args(["-n", "-c", "lan.conf", "-f", "sim.emu", "-s", "state"])
            .current_dir(at)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim (Debian package openipmi) must be installed");
        let sim = Sim { dir, port, child };
        // The first question may come before the simulator listens; the client asks again by itself.
        let patient =
            IpmiSettings { tries: 20, first_wait: Duration::from_millis(100), ..IpmiSettings::default() };
        Ipmi::new(patient).power_state(&sim.info("admin", "right")).await.expect("the simulator answers");
        sim
    }

    fn info(&self, user: &str, password: &str) -> DriverInfo {
        let value = json!({"ipmi_address": "127.0.0.1", "ipmi_port": self.port.to_string(), "ipmi_username": user,
            "ipmi_password": password});
        value.as_object().unwrap().clone()
    }

    fn ipmitool(&self, user: &str, password: &str, args: &[&str]) -> Output {
        let file = self.dir.path().join("password");
        fs::write(&file, password).unwrap();
        Command::new("/usr/bin/ipmitool")
            .args([
                "-I",
                "lanplus",
                "-C",
                "3",
                "-H",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                user,
                "-f",
            ])
            .arg(&file)
            .args(args)
            .output()
            .expect("ipmitool must be installed")
    }

    fn says(&self, args: &[&str]) -> String {
        String::from_utf8(self.ipmitool("admin", "right", args).stdout).unwrap()
    }
}

fn ipmi() -> Ipmi {
    Ipmi::new(IpmiSettings { first_wait: Duration::from_secs(1), ..IpmiSettings::default() })
}

#[tokio::test]
async fn power_and_boot_device_are_what_ipmitool_sees() {
    let sim = Sim::start().await;
    let (ipmi, info) = (ipmi(), sim.info("admin", "right"));
    for (action, state, words) in [
        (PowerAction::On, PowerState::On, "is on"),
        (PowerAction::SoftOff, PowerState::Off, "is off"),
        (PowerAction::On, PowerState::On, "is on"),
        (PowerAction::Off, PowerState::Off, "is off"),
    ] {
        ipmi.power(&info, action).await.unwrap();
        assert_eq!(ipmi.power_state(&info).await.unwrap(), state, "{action:?}");
        assert!(sim.says(&["power", "status"]).contains(words), "{action:?}");
    }
    assert!(sim.says(&["power", "on"]).contains("Up/On"));
    assert_eq!(ipmi.power_state(&info).await.unwrap(), PowerState::On, "as ipmitool left it");
    let was_reset = || sim.dir.path().join("reset").exists();
    assert!(!was_reset());
    ipmi.power(&info, PowerAction::Reset).await.unwrap();
    assert!(was_reset(), "the chassis was told");
    assert_eq!(ipmi.power_state(&info).await.unwrap(), PowerState::On, "a reset takes no power away");
    ipmi.power(&info, PowerAction::Cycle).await.unwrap();

    for (device, mode, words, file) in [
        (BootDevice::Pxe, BootMode::Bios, "Force PXE", "pxe"),
        (BootDevice::Disk, BootMode::Uefi, "Force Boot from default Hard-Drive", "default"),
        (BootDevice::Cdrom, BootMode::Uefi, "Force Boot from CD/DVD", "cdrom"),
        (BootDevice::Pxe, BootMode::Uefi, "Force PXE", "pxe"),
        (BootDevice::Bios, BootMode::Bios, "Force Boot into BIOS Setup", "bios"),
    ] {
        ipmi.set_boot_device(&info, device, Persistence::Once, mode).await.unwrap();
        let told = sim.says(&["chassis", "bootparam", "get", "5"]);
        let kept = fs::read_to_string(sim.dir.path().join("boot")).unwrap();
        // The simulator's chassis has one word for "disk" and "no override", and reads both back as the latter.
        if file == "default" {
            assert_eq!(kept.trim(), "default");
            continue;
        }
        assert_eq!(kept.trim(), file);
        assert!(told.contains(words), "{device:?} {mode:?}: {told}");
        assert_eq!(ipmi.boot_device(&info).await.unwrap().0, Some(device));
    }
    let said = ipmi.verify(&info).await.unwrap();
    assert!(
        said.contains("manufacturer 4753") && said.contains("firmware 9.08, IPMI 2.0, cipher suite 3"),
        "{said}"
    );
    assert!(sim.says(&["mc", "info"]).contains("Manufacturer ID           : 4753"));
}

#[tokio::test]
async fn wrong_logins_fail_as_they_do_for_ipmitool() {
    let sim = Sim::start().await;
    for (user, password) in [("admin", "wrong"), ("nobody", "right")] {
        let said = ipmi().power_state(&sim.info(user, password)).await.unwrap_err();
        assert!(matches!(said, DriverError::Credentials { .. }), "{user}: {said}");
        assert!(!sim.ipmitool(user, password, &["power", "status"]).status.success());
    }
    // In a session of the lowest level one may look but not switch. (The simulator would grant any user any level
    // that is asked for, to ipmitool too; that a BMC refuses the level itself is tested with the test BMC.)
    let mut guest = sim.info("guest", "guest");
    guest.insert("ipmi_priv_level".into(), json!("USER"));
    assert_eq!(ipmi().power_state(&guest).await.unwrap(), PowerState::Off);
    let said = ipmi().power(&guest, PowerAction::On).await.unwrap_err();
    assert!(matches!(said, DriverError::Privilege { .. }), "{said}");
    assert!(!sim.ipmitool("guest", "guest", &["-L", "USER", "power", "on"]).status.success());
}
