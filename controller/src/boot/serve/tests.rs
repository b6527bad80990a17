//! The servers with real clients (curl, busybox), on their real ports, in a network namespace that lives as long as the
//! test's thread and so never needs a clean-up. Needs root, as the servers do.

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

#[test]
fn scripts_are_served() {
    in_namespace(|| async {
        let world = World::start();
        assert!(
            fetch("/boot.ipxe").await.contains("chain --replace --autofree http://10.77.0.1:6180/boot/${net")
        );
        let script = fetch("/boot/52-54-00-00-00-01").await;
        assert!(
            script.contains(&format!("/boot/node/{NODE}/kernel console=ttyS0 BOOTIF=01-52-54-00-00-00-01 "))
        );
        world.saw("52:54:00:00:00:01 node fetched its boot script").await;
        let idle = fetch("/boot/52-54-00-00-00-02").await;
        assert!(idle.contains("echo Ferric boots nothing here: the node is active\n"), "{idle}");
        assert_eq!(status(&["http://10.77.0.1:6180/boot/52-54-00-00-00-99"]).await, "404");
        for what in ["kernel", "ramdisk"] {
            let url = format!("http://10.77.0.1:6180/boot/node/{NODE}/{what}");
            let output = curl(&["--fail", &url]).await;
            let file = if what == "kernel" { "vmlinuz" } else { "initramfs.img" };
            assert!(output.stdout == world.content(file), "{what}");
            world.saw(&format!("- node fetched the {what}")).await;
        }
        let other = format!("http://10.77.0.1:6180/boot/node/{}/kernel", NODE.replace('1', "9"));
        assert_eq!(status(&[&other]).await, "404");
        assert_eq!(status(&["--request", "POST", "http://10.77.0.1:6180/boot.ipxe"]).await, "405");
    });
}

#[test]
fn images_are_served_in_parts() {
    in_namespace(|| async {
        let world = World::start();
        let image = world.content("images/disk.qcow2");
        let url = "http://10.77.0.1:6180/images/disk.qcow2";
        assert!(curl(&["--fail", url]).await.stdout == image);
        world.saw("- - fetched image disk.qcow2").await;
        assert!(curl(&["--range", "100-70000", url]).await.stdout == image[100..=70_000]);
        assert!(curl(&["--range", "-10", url]).await.stdout == image[999_990..]);
        assert_eq!(status(&["--range", "1000000-", url]).await, "416");
        let head = String::from_utf8(curl(&["--head", url]).await.stdout).unwrap().to_lowercase();
        for line in ["content-length: 1000000\r\n", "accept-ranges: bytes\r\n", "last-modified: "] {
            assert!(head.contains(line), "{line:?} in {head}");
        }
        let line = |name: &str| {
            let start = head.find(name).unwrap() + name.len();
            head[start..].split("\r\n").next().unwrap().to_owned()
        };
        let tag = line("etag: ");
        assert_eq!(status(&["--header", &format!("If-None-Match: {tag}"), url]).await, "304");
        let if_range = |tag: &str| format!("If-Range: {tag}");
        assert_eq!(status(&["--range", "0-9", "--header", &if_range(&tag), url]).await, "206");
        assert_eq!(status(&["--range", "0-9", "--header", &if_range("\"other\""), url]).await, "200");
        // A download that continues sees that the file was replaced.
        std::fs::write(world.folder.path().join("images/disk.qcow2"), b"new").unwrap();
        assert_eq!(status(&["--range", "0-1", "--header", &if_range(&tag), url]).await, "200");
    });
}

#[test]
fn nothing_outside_the_tables_is_served() {
    in_namespace(|| async {
        let _world = World::start();
        for path in [
            "/",
            "/images",
            "/images/",
            "/images/../secret",
            "/images/..%2fsecret",
            "/images/%2e%2e/secret",
            "/ipxe/../secret",
            "/ipxe/ipxe.lkrn",
            "/boot/node/../kernel",
            "/secret",
            "//secret",
        ] {
            assert_eq!(status(&[&format!("http://10.77.0.1:6180{path}")]).await, "404", "{path}");
        }
        for path in ["../secret", "//etc/passwd", "vmlinuz", "ipxe/undionly.kpxe"] {
            let output = curl(&["--path-as-is", &format!("tftp://10.77.0.1/{path}")]).await;
            assert!(!output.status.success() && output.stdout.is_empty(), "{path}: {output:?}");
        }
        let huge = format!("X-Long: {}", "x".repeat(40_000));
        assert_eq!(status(&["--header", &huge, "http://10.77.0.1:6180/boot.ipxe"]).await, "431");
    });
}

#[test]
fn tftp_serves_real_clients() {
    in_namespace(|| async {
        let world = World::start();
        for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi"] {
            let whole = world.content(&format!("ipxe/{name}"));
            for block in ["512", "1428", "8192"] {
                let url = format!("tftp://10.77.0.1/{name}");
                let output = curl(&["--tftp-blksize", block, &url]).await;
                assert!(output.stdout == whole, "{name} by blocks of {block}: {}", output.stdout.len());
            }
            let output = curl(&["--tftp-no-options", &format!("tftp://10.77.0.1/{name}")]).await;
            assert!(output.stdout == whole, "{name} without options");
            let copy = world.folder.path().join("copy");
            let copy = copy.to_str().unwrap();
            let got =
                client("busybox", &["tftp", "-g", "-b", "1468", "-r", name, "-l", copy, "10.77.0.1"]).await;
            assert!(got.status.success() && world.content("copy") == whole, "{name}: {got:?}");
            world.saw(&format!("- - fetched {name}")).await;
        }
        let put = client("curl", &["-sS", "-T", "/etc/hostname", "tftp://10.77.0.1/undionly.kpxe"]).await;
        // curl's "permission problem on TFTP server".
        assert_eq!(put.status.code(), Some(69), "{put:?}");
    });
}

/// A TFTP client that behaves as it is told.
struct Tftp(UdpSocket);

impl Tftp {
    fn ask(name: &str, mode: &str, options: &[(&str, &str)]) -> Tftp {
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let request = Packet::Read { file: name.to_owned(), mode: mode.to_owned(), options };
        socket.send_to(&request.encode(), "10.77.0.1:69").unwrap();
        Tftp(socket)
    }
    fn next(&self) -> Packet {
        let mut buffer = [0u8; 2048];
        let (length, peer) = self.0.recv_from(&mut buffer).unwrap();
        self.0.connect(peer).unwrap();
        Packet::parse(&buffer[..length]).unwrap()
    }
    fn acknowledge(&self, block: u16) {
        self.0.send(&Packet::Ack { block }.encode()).unwrap();
    }
    /// Takes the whole file, losing the packets that `lose` names by their count.
    fn take(&self, block_size: usize, window: u64, lose: &[u64]) -> Vec<u8> {
        let (mut content, mut count, mut block, mut since) = (Vec::new(), 0u64, 0u64, 0u64);
        loop {
            let Packet::Data { block: number, bytes } = self.next() else { continue };
            count += 1;
            if lose.contains(&count) {
                continue;
            }
            if number != (block + 1) as u16 {
                // Out of order: say what was last in order (RFC 7440).
                self.acknowledge(block as u16);
                since = 0;
                continue;
            }
            block += 1;
            since += 1;
            content.extend_from_slice(&bytes);
            if bytes.len() < block_size {
                self.acknowledge(block as u16);
                return content;
            }
            if since == window {
                self.acknowledge(block as u16);
                since = 0;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(work)).await.unwrap().unwrap()
}

#[test]
fn tftp_windows_losses_and_rollover() {
    in_namespace(|| async {
        let world = World::start();
        let file = world.content("ipxe/ipxe.efi");
        let expected = file.clone();
        blocking(move || {
            let client =
                Tftp::ask("ipxe.efi", "octet", &[("windowsize", "64"), ("blksize", "9000"), ("tsize", "0")]);
            let Packet::OptionAck(answer) = client.next() else { panic!("no option acknowledgement") };
            let answer: Vec<_> = answer.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(answer, [("windowsize", "8"), ("blksize", "1468"), ("tsize", "700001")]);
            client.acknowledge(0);
            assert!(client.take(1468, 8, &[3, 9, 40, 41]) == expected, "with losses in windows of 8");
        })
        .await;
        let expected = file.clone();
        blocking(move || {
            let client = Tftp::ask("ipxe.efi", "octet", &[("windowsize", "8"), ("blksize", "8")]);
            client.next();
            client.acknowledge(0);
            assert!(client.take(8, 8, &[]) == expected, "87,501 blocks: the numbers roll over");
        })
        .await;
        blocking(move || {
            // Acknowledges everything twice: nothing may come twice.
            let client = Tftp::ask("undionly.kpxe", "octet", &[]);
            for expected in 1u16..=20 {
                let Packet::Data { block, .. } = client.next() else { panic!() };
                assert_eq!(block, expected);
                client.acknowledge(block);
                client.acknowledge(block);
            }
            client.0.send(&Packet::Error { code: 0, text: "enough".into() }.encode()).unwrap();
        })
        .await;
    });
}

#[test]
fn tftp_refuses_and_gives_up() {
    in_namespace(|| async {
        let _world = World::start();
        blocking(|| {
            let answer = Tftp::ask("undionly.kpxe", "netascii", &[]).next();
            let text = "mode netascii is not served, only octet".to_owned();
            assert_eq!(answer, Packet::Error { code: 4, text });
            let answer = Tftp::ask("a", "octet", &[]).next();
            let text = "a is not served; there are undionly.kpxe, snponly.efi, ipxe.efi".to_owned();
            assert_eq!(answer, Packet::Error { code: 1, text });
            // A client that never answers gets the first block six times, of one window, and no more.
            let silent = Tftp::ask("undionly.kpxe", "octet", &[]);
            for _ in 0..6 {
                assert!(matches!(silent.next(), Packet::Data { block: 1, .. }));
            }
            silent.0.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
            assert!(silent.0.recv(&mut [0; 600]).is_err(), "five resends");
        })
        .await;
    });
}

#[test]
fn a_broken_store_sends_no_machine_away() {
    in_namespace(|| async {
        let world = World::start();
        world.directory.broken.store(true, Ordering::SeqCst);
        for mac in ["01", "02", "99"] {
            let script = fetch(&format!("/boot/52-54-00-00-00-{mac}")).await;
            assert!(
                script.contains("echo Ferric cannot say now what this machine boots: the disk is full\n")
            );
            assert!(
                script
                    .contains("\nchain --replace --autofree http://10.77.0.1:6180/boot.ipxe || goto again\n"),
                "{script}"
            );
        }
        let kernel = format!("http://10.77.0.1:6180/boot/node/{NODE}/kernel");
        assert_eq!(status(&[&kernel]).await, "503", "not the 404 of a node that has nothing to boot");
        assert_eq!(udhcpc(&world, &["-t", "1"]).await, None, "silence, and no refusal");
        assert!(!world.folder.path().join("leases.json").exists(), "nobody was taken for a stranger");
        world.directory.broken.store(false, Ordering::SeqCst);
        assert_eq!(status(&[&kernel]).await, "200");
        assert!(udhcpc(&world, &[]).await.is_some(), "the same machine, asking again");
    });
}

#[test]
fn a_broken_store_makes_nobody_a_stranger_where_strangers_are_served() {
    in_namespace(|| async {
        let world = World::start_with(DhcpConfig { discovery: true, ..World::dhcp() });
        world.directory.broken.store(true, Ordering::SeqCst);
        assert_eq!(udhcpc(&world, &["-t", "1"]).await, None);
        world.directory.broken.store(false, Ordering::SeqCst);
        assert!(udhcpc(&world, &[]).await.is_some());
    });
}

#[test]
fn a_client_that_takes_nothing_loses_its_place() {
    use crate::stall::Stallable;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = World::files();
        let directory = Directory::new(folder.path());
        let boot = World::boot(folder.path());
        let context = Arc::new(Context { boot, directory, leases: None, discovery: false });
        let (mut client, server) = tokio::io::duplex(4096);
        let stream = Stallable::new(server, Duration::from_millis(100));
        let served = tokio::spawn(http::serve(stream, "10.0.0.1:9".parse().unwrap(), context));
        client.write_all(b"GET /images/disk.qcow2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        // From here on it reads no more, and does not hang up.
        tokio::time::timeout(Duration::from_secs(30), served).await.expect("the connection ends").unwrap();
    });
}

#[test]
fn an_interface_that_is_made_anew_is_served_again() {
    in_namespace(|| async {
        let world = World::start();
        assert!(udhcpc(&world, &[]).await.is_some());
        must("ip", &["link", "del", "srv"]);
        must("ip", &["link", "add", "srv", "type", "veth", "peer", "name", "cli"]);
        must("ip", &["link", "set", "cli", "address", KNOWN]);
        for link in ["srv", "cli"] {
            must("ip", &["link", "set", link, "up"]);
        }
        // Its address comes later than the interface, as with most tools.
        assert_eq!(udhcpc(&world, &["-t", "3", "-T", "1"]).await, None);
        must("ip", &["addr", "add", "10.77.0.1/24", "dev", "srv"]);
        assert!(udhcpc(&world, &["-t", "20", "-T", "1"]).await.is_some());
    });
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
fn dhcp_serves_a_real_client() {
    in_namespace(|| async {
        let world = World::start();
        let all =
            ["-O", "bootfile", "-O", "tftp", "-O", "serverid", "-O", "dns", "-O", "router", "-O", "ntpsrv"];
        let told = udhcpc(&world, &all).await.expect("an enrolled machine gets a lease");
        for line in [
            "subnet=255.255.255.0",
            "router=10.77.0.254",
            "dns=10.77.0.2",
            "ntpsrv=10.77.0.3",
            "serverid=10.77.0.1",
            "lease=3600",
        ] {
            assert!(told.lines().any(|l| l == line), "{line} in\n{told}");
        }
        let ip = told.lines().find(|l| l.starts_with("ip=10.77.0.")).unwrap().to_owned();
        world.saw(&format!("{KNOWN} - DHCP answered {} to an operating system", &ip[3..])).await;

        // Again as a boot ROM, which gets the same address and its boot file; with and without the broadcast flag.
        let bios = [&all[..], &["-V", "PXEClient:Arch:00000", "-x", "0x5d:0000"]].concat();
        let told = udhcpc(&world, &bios).await.unwrap();
        for line in [ip.as_str(), "boot_file=undionly.kpxe", "siaddr=10.77.0.1", "tftp=10.77.0.1"] {
            assert!(told.lines().any(|l| l == line), "{line} in\n{told}");
        }
        let uefi = [&all[..], &["-B", "-V", "PXEClient:Arch:00007", "-x", "0x5d:0007"]].concat();
        let told = udhcpc(&world, &uefi).await.unwrap();
        assert!(told.contains("boot_file=snponly.efi"), "{told}");
        let stored = std::fs::read_to_string(world.folder.path().join("leases.json")).unwrap();
        assert!(stored.contains(&ip[3..]) && stored.contains(KNOWN), "{stored}");

        // TFTP and HTTP know the machine by the address that it was given.
        must("ip", &["addr", "add", &format!("{}/24", &ip[3..]), "dev", "cli"]);
        curl(&["--interface", &ip[3..], "tftp://10.77.0.1/undionly.kpxe", "-o", "/dev/null"]).await;
        world.saw(&format!("{KNOWN} - fetched undionly.kpxe")).await;
    });
}

#[test]
fn dhcp_leaves_strangers_alone_and_survives_a_restart() {
    in_namespace(|| async {
        let world = World::start();
        let ip = |told: String| told.lines().find(|l| l.starts_with("ip=")).unwrap().to_owned();
        let before = ip(udhcpc(&world, &[]).await.unwrap());
        must("ip", &["link", "set", "cli", "down"]);
        must("ip", &["link", "set", "cli", "address", STRANGER]);
        must("ip", &["link", "set", "cli", "up"]);
        assert_eq!(udhcpc(&world, &["-t", "1"]).await, None, "a machine that is not enrolled");

        let World { folder, directory, _services: services } = world;
        services.shutdown().await;
        let boot = World::boot(folder.path());
        let open = DhcpConfig { discovery: true, ..World::dhcp() };
        let services = spawn(boot, Some(open), folder.path(), directory.clone()).unwrap();
        let world = World { folder, directory, _services: services };
        // The stranger asks for the machine's own address first, and must not get it.
        let stranger = ip(udhcpc(&world, &["-r", &before[3..]]).await.expect("discovery is on"));
        assert_ne!(stranger, before);
        must("ip", &["link", "set", "cli", "down"]);
        must("ip", &["link", "set", "cli", "address", KNOWN]);
        must("ip", &["link", "set", "cli", "up"]);
        assert_eq!(ip(udhcpc(&world, &[]).await.unwrap()), before);
    });
}

#[test]
fn a_machine_hears_at_once_that_there_is_no_ipv6_router() {
    use socket2::{Domain, Protocol, Socket, Type};
    in_namespace(|| async {
        let _world = World::start();
        blocking(|| {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
            socket.bind_device(Some(b"cli")).unwrap();
            socket.set_multicast_hops_v6(255).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let socket: UdpSocket = socket.into();
            let index = nix::net::if_::if_nametoindex("cli").unwrap();
            let routers = std::net::SocketAddrV6::new("ff02::2".parse().unwrap(), 0, 0, index);
            // Asks until there is an answer: the kernel needs a moment for its link-local address.
            let answered = |mac: &str, tries: u32| {
                let mac: MacAddress = mac.parse().unwrap();
                let question = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1], &mac.0[..]].concat();
                (0..tries).any(|_| {
                    let _ = socket.send_to(&question, routers);
                    let mut buffer = [0u8; 256];
                    let end = Instant::now() + Duration::from_millis(200);
                    while Instant::now() < end {
                        if let Ok((16, _)) = socket.recv_from(&mut buffer)
                            && buffer[0] == 134
                        {
                            assert_eq!(buffer[4..16], [0; 12], "it offers nothing");
                            return true;
                        }
                    }
                    false
                })
            };
            assert!(answered(KNOWN, 50));
            // Of 50 questions more than one may be answered, some late: until nothing comes any more.
            while socket.recv_from(&mut [0u8; 256]).is_ok() {}
            assert!(!answered(STRANGER, 3));
        })
        .await;
    });
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
