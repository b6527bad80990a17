//! The servers with real clients (curl, busybox), on their real ports, in a network namespace that lives as long as the
//! test's thread and so never needs a clean-up. Needs root, as the servers do.

mod http;
mod network;
mod tftp;

use super::*;
use crate::boot::config::tests as config;
use crate::boot::{BootPlan, NoPlan};
use crate::images::boot_file::tests::kernel;
use ferric_common::formats::tftp::Packet;
use ferric_common::ids::NodeUuid;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NODE: &str = "11111111-2222-3333-4444-555555555555";
const KNOWN: &str = "52:54:00:00:00:01";
const IDLE: &str = "52:54:00:00:00:02";
const STRANGER: &str = "52:54:00:00:00:99";

/// Knows one machine that boots and one that does not; nothing while its store is broken.
struct Directory {
    folder: PathBuf,
    broken: AtomicBool,
    seen: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl BootDirectory for Directory {
    async fn knows(&self, mac: MacAddress) -> Result<bool, String> {
        self.works()?;
        Ok([KNOWN, IDLE].contains(&mac.to_string().as_str()))
    }
    async fn plan_for_mac(&self, mac: MacAddress) -> Result<BootPlan, NoPlan> {
        self.works().map_err(NoPlan::Unknown)?;
        match mac.to_string().as_str() {
            KNOWN => self.plan_for_node(NODE.parse().unwrap()).await,
            _ => Err(NoPlan::Nothing("the node is active".to_owned())),
        }
    }
    async fn plan_for_node(&self, node: NodeUuid) -> Result<BootPlan, NoPlan> {
        self.works().map_err(NoPlan::Unknown)?;
        if node.to_string() != NODE {
            return Err(NoPlan::Nothing("no such node".to_owned()));
        }
        Ok(BootPlan {
            node,
            kernel: self.folder.join("vmlinuz"),
            ramdisk: self.folder.join("initramfs.img"),
            extra_ramdisks: vec![],
            kernel_parameters: "console=ttyS0".to_owned(),
        })
    }
    async fn seen(&self, mac: Option<MacAddress>, node: Option<NodeUuid>, what: String) {
        let mac = mac.map_or("-".to_owned(), |m| m.to_string());
        let node = if node.is_some() { "node" } else { "-" };
        self.seen.lock().unwrap().push(format!("{mac} {node} {what}"));
    }
}

impl Directory {
    fn new(folder: &Path) -> Arc<Directory> {
        Arc::new(Directory {
            folder: folder.to_owned(),
            broken: AtomicBool::new(false),
            seen: Mutex::default(),
        })
    }
    fn works(&self) -> Result<(), String> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err("the disk is full".to_owned()),
            false => Ok(()),
        }
    }
}

struct World {
    folder: tempfile::TempDir,
    directory: Arc<Directory>,
    _services: BootServices,
}

impl World {
    fn boot(folder: &Path) -> BootConfig {
        BootConfig {
            interface: "srv".to_owned(),
            address: ADDRESS,
            kernel: folder.join("vmlinuz"),
            ramdisk: folder.join("initramfs.img"),
            ipxe_dir: folder.join("ipxe"),
            images_dir: Some(folder.join("images")),
            ..config::boot()
        }
    }
    fn dhcp() -> DhcpConfig {
        DhcpConfig {
            range_start: [10, 77, 0, 10].into(),
            range_end: [10, 77, 0, 20].into(),
            gateway: Some([10, 77, 0, 254].into()),
            dns: vec![[10, 77, 0, 2].into()],
            ntp: vec![[10, 77, 0, 3].into()],
            ..config::dhcp()
        }
    }
    fn files() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("vmlinuz", kernel(3_000_000)),
            ("initramfs.img", b"070701 and more".to_vec()),
            ("ipxe/undionly.kpxe", pattern(71_169)),
            ("ipxe/snponly.efi", pattern(512 * 300)),
            ("ipxe/ipxe.efi", pattern(700_001)),
            ("images/disk.qcow2", pattern(1_000_000)),
            ("secret", b"secret".to_vec()),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }
    fn start() -> World {
        World::start_with(World::dhcp())
    }
    fn start_with(dhcp: DhcpConfig) -> World {
        let folder = World::files();
        let directory = Directory::new(folder.path());
        let boot = World::boot(folder.path());
        let services = spawn(boot, Some(dhcp), folder.path(), directory.clone()).unwrap();
        World { folder, directory, _services: services }
    }
    fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap()
    }
    /// Waits until the directory was told something.
    async fn saw(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.directory.seen.lock().unwrap().iter().any(|s| s == what) {
            assert!(Instant::now() < end, "{what} not in {:?}", self.directory.seen.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn must(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output
}

/// Runs a program while the servers run.
async fn client(program: &str, arguments: &[&str]) -> Output {
    let (program, arguments) =
        (program.to_owned(), arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    let run = tokio::task::spawn_blocking(move || {
        Command::new(&program).args(&arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
    });
    tokio::time::timeout(Duration::from_secs(60), run).await.expect("the client ends").unwrap()
}

/// Runs a test in a network namespace of its own, with a pair of joined interfaces: `srv` for the servers, `cli` for clients.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        must("ip", &["link", "set", "lo", "up"]);
        must("ip", &["link", "add", "srv", "type", "veth", "peer", "name", "cli"]);
        must("ip", &["addr", "add", "10.77.0.1/24", "dev", "srv"]);
        must("ip", &["link", "set", "cli", "address", KNOWN]);
        for link in ["srv", "cli"] {
            must("ip", &["link", "set", link, "up"]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn curl(arguments: &[&str]) -> Output {
    let base = ["--silent", "--show-error", "--max-time", "30"];
    client("curl", &[&base, arguments].concat()).await
}

async fn fetch(path: &str) -> String {
    let output = curl(&["--fail", &format!("http://10.77.0.1:6180{path}")]).await;
    assert!(output.status.success(), "{path}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn status(arguments: &[&str]) -> String {
    let base = ["--path-as-is", "--output", "/dev/null", "--write-out", "%{http_code}"];
    String::from_utf8(curl(&[&base, arguments].concat()).await.stdout).unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(work)).await.unwrap().unwrap()
}

/// What udhcpc was told, as `name=value` lines; `None` when it got no lease.
async fn udhcpc(world: &World, arguments: &[&str]) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let script = world.folder.path().join("udhcpc.sh");
    let told = world.folder.path().join("told");
    let _ = std::fs::remove_file(&told);
    std::fs::write(&script, format!("#!/bin/sh\n[ $1 = bound ] && env > {}\nexit 0\n", told.display()))
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let base =
        ["udhcpc", "-i", "cli", "-n", "-q", "-f", "-t", "3", "-T", "1", "-s", script.to_str().unwrap()];
    client("busybox", &[&base, arguments].concat()).await;
    std::fs::read_to_string(told).ok()
}

#[test]
fn a_start_that_cannot_be_says_why() {
    in_namespace(|| async {
        let folder = World::files();
        let directory = Directory::new(folder.path());
        let check = |change: &dyn Fn(&mut BootConfig, &mut DhcpConfig), text: &str| {
            let (mut boot, mut dhcp) = (World::boot(folder.path()), World::dhcp());
            change(&mut boot, &mut dhcp);
            let error = spawn(boot, Some(dhcp), folder.path(), directory.clone()).unwrap_err().to_string();
            assert_eq!(error, text.replace("DIR", &folder.path().display().to_string()));
        };
        check(
            &|b, _| std::mem::swap(&mut b.kernel, &mut b.ramdisk),
            "DIR/initramfs.img is given as kernel, but it is a ramdisk (cpio archive); kernel and ramdisk seem to be swapped",
        );
        check(
            &|b, _| b.ipxe_dir = b.ipxe_dir.join("none"),
            "DIR/ipxe/none/undionly.kpxe is missing or cannot be read; install the Debian package ipxe or set [boot] ipxe_dir",
        );
        check(
            &|b, _| b.interface = "eth9".to_owned(),
            "binding the DHCP server to interface eth9; `ip link` lists the interfaces of this machine",
        );
        check(
            &|b, _| b.address = [10, 77, 0, 3].into(),
            "opening UDP port 69 on 10.77.0.3 for TFTP: 10.77.0.3 is not an address of this machine; see [boot] address",
        );
        let taken = std::net::TcpListener::bind("10.77.0.1:6180").unwrap();
        check(
            &|_, _| {},
            "opening TCP port 6180 on 10.77.0.1 for HTTP: another program uses it; `ss -lntup sport = :6180` names it",
        );
        drop(taken);
        let _taken = UdpSocket::bind("0.0.0.0:67").unwrap();
        check(
            &|_, _| {},
            "opening UDP port 67 on 10.77.0.1 for DHCP: another program uses it; `ss -lntup sport = :67` names it",
        );
    });
}
