//! The harness proven alone, before anything of ours is in the picture: machines boot what they should, the BMC switches
//! them, the image server breaks as told.

use anyhow::Result;
use ferric_tests::artifacts::{run_folder, target};
use ferric_tests::bmc::{self, Bmc};
use ferric_tests::httpd::{Fault, Httpd};
use ferric_tests::machine::{Bus, Disk, Firmware, Machine, Spec};
use ferric_tests::{Netns, accel::Accel, images, netns, wait};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

fn spec(name: &str, folder: &Path, firmware: Firmware) -> Spec {
    Spec {
        name: name.into(),
        firmware,
        memory_mib: 512,
        processors: 1,
        mac: "52:54:00:77:00:01".into(),
        tap: None,
        disks: Vec::new(),
        direct: None,
        clock: None,
        bmc: None,
        folder: folder.to_owned(),
    }
}

#[test]
fn the_probe_boots_on_every_firmware_and_bus() -> Result<()> {
    let probe = images::probe()?;
    println!("machines run under {:?}", Accel::choose());
    for (firmware, bus) in [
        (Firmware::Bios, Bus::Virtio),
        (Firmware::Uefi, Bus::Virtio),
        (Firmware::Bios, Bus::Sata),
        (Firmware::Uefi, Bus::Nvme),
    ] {
        let folder = run_folder(&format!("probe-{firmware:?}-{bus:?}"))?;
        let disk = folder.join("disk");
        fs::copy(&probe.raw.path, &disk)?;
        let mut spec = spec("probe", &folder, firmware);
        spec.disks.push(Disk { path: disk, serial: "PROBE1".into(), bus, rank: 0, logged: false });
        let machine = Machine::new(spec)?;
        machine.power_on()?;
        machine.wait_for_console(images::PROBE_SAYS, 0, Duration::from_secs(90))?;
    }
    Ok(())
}

#[test]
fn the_bmc_switches_the_machine_and_knows_its_boot_device() -> Result<()> {
    let _network = Netns::enter()?;
    let folder = run_folder("bmc")?;
    let machine = Machine::new(spec("switched", &folder, Firmware::Bios))?;
    let mut bmc = Bmc::start(netns::BMC, 623, &machine, &target()?.join("debug/ferric-chassis"), &folder)?;
    let ipmi = |command: &[&str]| {
        let mut arguments =
            vec!["-I", "lanplus", "-C", "3", "-H", netns::BMC, "-U", bmc::USER, "-P", bmc::PASSWORD];
        arguments.extend(command);
        ferric_tests::process::call("ipmitool", &arguments)
    };
    assert!(ipmi(&["power", "status"])?.contains("off"));
    ipmi(&["chassis", "bootdev", "pxe"])?;
    assert!(ipmi(&["chassis", "bootparam", "get", "5"])?.contains("Force PXE"));
    ipmi(&["power", "on"])?;
    assert!(machine.state()?.on);
    assert!(ipmi(&["power", "status"])?.contains("on"));
    // One-shot: used up by the start.
    assert_eq!(machine.state()?.next, None);
    ipmi(&["power", "reset"])?;
    assert_eq!(machine.state()?.boots, 2);
    ipmi(&["power", "off"])?;
    assert!(!machine.state()?.on);
    assert_eq!(bmc.orders().iter().filter(|o| o.starts_with("set boot")).count(), 1);
    bmc.silence();
    Ok(())
}

#[test]
fn the_image_server_breaks_as_told() -> Result<()> {
    let _network = Netns::enter()?;
    let folder = run_folder("httpd")?;
    let file = folder.join("file");
    fs::write(&file, vec![7_u8; 300_000])?;
    let server = Httpd::start(netns::CONTROLLER)?;
    let fetch = |fault: Fault, range: &str| -> (String, Result<usize, std::io::Error>) {
        let url = server.offer("file", &file, fault);
        let host = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        write!(stream, "GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{range}\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 65536];
        let end = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break Ok(0),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) => break Err(error),
            }
        };
        let head = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
        let text = String::from_utf8_lossy(&all[..head]).into_owned();
        (text, end.map(|_| all.len() - head))
    };
    let (head, body) = fetch(Fault::None, "Range: bytes=100-199\r\n");
    assert!(head.starts_with("HTTP/1.1 206") && head.contains("bytes 100-199/300000"), "{head}");
    assert_eq!(body?, 100);
    assert_eq!(fetch(Fault::NoRanges, "Range: bytes=100-199\r\n").1?, 300_000);
    assert_eq!(fetch(Fault::Truncate(1000), "").1?, 1000);
    assert!(fetch(Fault::Reset(200_000), "").1.is_err());
    assert_eq!(fetch(Fault::Stall(10), "").1.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(fetch(Fault::NotFound, "").0.starts_with("HTTP/1.1 404"));
    assert_eq!(server.requests().len(), 6);
    Ok(())
}

#[test]
fn a_wait_ends_and_says_what_for() {
    let error =
        wait::until("the tide", Duration::from_millis(150), || Ok(None::<()>), || "low".into()).unwrap_err();
    assert_eq!(error.to_string(), "waited 150ms for the tide; now: low");
}
