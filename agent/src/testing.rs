//! For this program's tests: a small machine, an image writer that does as it is told, and a conductor on loopback.

use crate::commands::image_info::Image;
use crate::commands::rooms::{ImageWriter, WriteOrder};
use crate::commands::{Context, Failure, Job, NodeView, Rules};
use crate::config::Trust;
use crate::image::WriteReport;
use crate::platform::block::BlockDevice;
use crate::platform::machine::{DiskFacts, LogFile, Machine, MachineError};
use ferric_common::events::Progress;
use ferric_common::units::{ByteCount, DiskOffset, GIB, SectorSize};
use ferric_common::wire::inventory::{Disk, Interface, Inventory};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

pub const TOKEN: &str = "ITLK99NsJamtziNUKfxurgwI3eUpuAyMhsibEP9D_kM";
pub const NODE: &str = "785cae8c-ebc6-4405-b5ac-92e4d182220f";

/// A sparse disk in memory: only the sectors that were written exist.
#[derive(Default)]
pub struct SparseDisk {
    pub name: String,
    pub size: u64,
    /// Reads, and panics at a write: what a defect in the agent comes to.
    pub is_trap: bool,
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
}

const BLOCK: u64 = 4096;

impl SparseDisk {
    pub fn new(name: &str, size: u64) -> Arc<SparseDisk> {
        Arc::new(SparseDisk { name: name.into(), size, ..SparseDisk::default() })
    }
    pub fn trap(name: &str, size: u64) -> Arc<SparseDisk> {
        Arc::new(SparseDisk { name: name.into(), size, is_trap: true, ..SparseDisk::default() })
    }
}

impl BlockDevice for SparseDisk {
    fn name(&self) -> &str {
        &self.name
    }
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }
    fn sector_size(&self) -> SectorSize {
        SectorSize(512)
    }
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()> {
        let blocks = self.blocks.lock().unwrap();
        for (index, chunk) in buffer.chunks_mut(BLOCK as usize).enumerate() {
            match blocks.get(&(at.0 / BLOCK + index as u64)) {
                Some(block) => chunk.copy_from_slice(&block[..chunk.len()]),
                None => chunk.fill(0),
            }
        }
        Ok(())
    }
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.is_trap, "told to");
        let mut blocks = self.blocks.lock().unwrap();
        for (index, chunk) in bytes.chunks(BLOCK as usize).enumerate() {
            let mut block = chunk.to_vec();
            block.resize(BLOCK as usize, 0);
            blocks.insert(at.0 / BLOCK + index as u64, block);
        }
        Ok(())
    }
    fn zero(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        assert!(!self.is_trap, "told to");
        let range = at.0 / BLOCK..(at.0 + length.0) / BLOCK;
        self.blocks.lock().unwrap().retain(|block, _| !range.contains(block));
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine with one NIC and the disks that it was given; keeps what it was asked to do.
#[derive(Default)]
pub struct SmallMachine {
    pub disks: Vec<Arc<SparseDisk>>,
    pub done: Mutex<Vec<&'static str>>,
    pub logs: Vec<LogFile>,
    pub boot_mode: &'static str,
    pub has_no_battery_clock: bool,
}

impl SmallMachine {
    pub fn with_disks(disks: &[(&str, u64)]) -> SmallMachine {
        let disks = disks.iter().map(|(name, gib)| SparseDisk::new(name, gib * GIB)).collect();
        SmallMachine { disks, ..SmallMachine::default() }
    }
    pub fn done(&self) -> Vec<&'static str> {
        self.done.lock().unwrap().clone()
    }
    fn note(&self, what: &'static str) -> Result<(), MachineError> {
        self.done.lock().unwrap().push(what);
        Ok(())
    }
}

impl Machine for SmallMachine {
    fn inventory(&self) -> Inventory {
        let nic = Interface {
            name: "eth0".into(),
            mac_address: "52:54:00:ab:cd:01".into(),
            ..Interface::default()
        };
        let mut inventory =
            Inventory { interfaces: vec![nic], hostname: "small".into(), ..Inventory::default() };
        inventory.boot.current_boot_mode =
            if self.boot_mode.is_empty() { "bios" } else { self.boot_mode }.into();
        inventory
    }
    fn disks(&self) -> Result<Vec<DiskFacts>, MachineError> {
        let facts = |disk: &Arc<SparseDisk>| DiskFacts {
            disk: Disk { name: disk.name.clone(), size: disk.size, ..Disk::default() },
            ..DiskFacts::default()
        };
        Ok(self.disks.iter().map(facts).collect())
    }
    fn partitions(&self, _disk: &str) -> Result<Vec<String>, MachineError> {
        Ok(Vec::new())
    }
    fn open_disk(&self, name: &str) -> Result<Arc<dyn BlockDevice>, MachineError> {
        match self.disks.iter().find(|disk| disk.name == name) {
            Some(disk) => Ok(Arc::clone(disk) as Arc<dyn BlockDevice>),
            None => Err(MachineError::Busy { what: name.into(), by: "nobody knows it".into() }),
        }
    }
    fn reread_partitions(&self, _disk: &str) -> Result<(), MachineError> {
        self.note("reread")
    }
    fn source_address(&self, target: IpAddr) -> Option<IpAddr> {
        Some(target)
    }
    fn sync(&self) -> Result<(), MachineError> {
        self.note("sync")
    }
    fn power_off(&self) -> Result<(), MachineError> {
        self.note("power off")
    }
    fn reboot(&self) -> Result<(), MachineError> {
        self.note("reboot")
    }
    fn open_to_rescuer(&self, hash: &str) -> Result<(), MachineError> {
        self.note(if hash.starts_with("$6$") { "rescue by a sha512 hash" } else { "rescue by another hash" })
    }
    fn lock_down(&self) -> Result<(), MachineError> {
        self.note("lockdown")
    }
    fn set_clock(&self, _to: SystemTime) -> Result<(), MachineError> {
        self.note("clock")
    }
    fn keep_clock(&self) -> Result<(), MachineError> {
        if self.has_no_battery_clock {
            return Err(MachineError::NotOurs { action: "set", what: "no battery clock".into() });
        }
        self.note("battery clock")
    }
    fn logs(&self) -> Vec<LogFile> {
        self.logs.clone()
    }
}

/// A time server on loopback that always tells the same time, in seconds since 1900, after a call of `asked`. Its port.
pub async fn time_server(seconds: u32, asked: impl Fn() + Send + 'static) -> u16 {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut question = [0u8; 48];
        loop {
            let (_, from) = socket.recv_from(&mut question).await.unwrap();
            asked();
            let mut answer = [0u8; 48];
            answer[..2].copy_from_slice(&[0x24, 1]);
            answer[24..32].copy_from_slice(&question[40..48]);
            answer[32..36].copy_from_slice(&seconds.to_be_bytes());
            answer[40..44].copy_from_slice(&seconds.to_be_bytes());
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    port
}

/// Holds a writer until it is opened.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
    fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_timeout_while(open, Duration::from_secs(60), |open| !*open).unwrap());
    }
}

/// What a [`ScriptedWriter`] does when it is called.
pub enum Act {
    Succeed,
    Fail(Failure),
    Panic,
    /// Reports progress, waits for the gate, succeeds.
    Wait(Arc<Gate>),
}

/// Writes a boot sector with a disk signature instead of an image.
pub struct ScriptedWriter {
    pub act: Act,
    pub orders: Arc<Mutex<Vec<(Image, usize)>>>,
}

impl ScriptedWriter {
    pub fn new(act: Act) -> ScriptedWriter {
        ScriptedWriter { act, orders: Arc::default() }
    }
}

impl ImageWriter for ScriptedWriter {
    fn write(
        &self,
        _context: &Context,
        order: WriteOrder,
        disk: &Arc<dyn BlockDevice>,
        job: &Job,
    ) -> Result<WriteReport, Failure> {
        let drive = order.config_drive.map_or(0, |drive| drive.len());
        self.orders.lock().unwrap().push((order.image, drive));
        match &self.act {
            Act::Fail(failure) => return Err(failure.clone()),
            Act::Panic => panic!("told to"),
            Act::Wait(gate) => {
                job.progress.set(Progress { stage: "writing".into(), bytes_done: 5, ..Progress::default() });
                gate.pass();
            }
            Act::Succeed => {}
        }
        let mut sector = vec![0; 4096];
        sector[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        disk.write_at(DiskOffset(0), &sector).unwrap();
        Ok(scripted_report())
    }
}

/// The account that a [`ScriptedWriter`] gives.
pub fn scripted_report() -> WriteReport {
    WriteReport { written: ByteCount(4096), ..WriteReport::default() }
}

/// A context that trusts `trust` and waits for nothing. Needs a runtime.
pub fn context(machine: Arc<dyn Machine>, writer: impl ImageWriter + 'static) -> Context {
    Context {
        machine,
        writer: Box::new(writer),
        shelf: crate::outside::Shelf::default(),
        programs: Box::new(crate::platform::linux::child::LinuxPrograms),
        tls: crate::conductor::tls::client_config(&Trust::Insecure).unwrap(),
        unchecked_tls: || Err("the tests have no such thing".into()),
        runtime: tokio::runtime::Handle::current(),
        rules: Rules::default(),
        node: Mutex::new(NodeView::default()),
        written: Mutex::new(None),
        remember: Box::new(|_| {}),
        set_clock: Box::new(|| Ok(())),
        reply_grace: Duration::ZERO,
        started: Instant::now(),
        leave: tokio::sync::Notify::new(),
    }
}

/// An `image_info` that passes every check.
pub fn image_info() -> serde_json::Value {
    serde_json::json!({
        "id": "debian", "urls": ["http://127.0.0.1:1/debian.qcow2"], "disk_format": "qcow2",
        "os_hash_algo": "sha256", "os_hash_value": "ab".repeat(32), "node_uuid": NODE,
    })
}

/// A request that the [`LoopbackConductor`] received.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub version: Option<String>,
    pub headers: http::HeaderMap,
    pub body: serde_json::Value,
}

/// A conductor's API on loopback with scripted lookup answers (the last one repeats); heartbeats are answered likewise.
pub struct LoopbackConductor {
    pub url: String,
    pub received: Arc<Mutex<Vec<Received>>>,
}

type Script = Arc<Mutex<VecDeque<(u16, String)>>>;

impl LoopbackConductor {
    pub async fn start(lookups: &[(u16, &str)], heartbeats: &[(u16, &str)]) -> LoopbackConductor {
        let root = r#"{"default_version": {"id": "v1", "version": "1.115"}}"#;
        LoopbackConductor::start_as(root, lookups, heartbeats).await
    }
    /// With what the API says of itself.
    pub async fn start_as(
        root: &str,
        lookups: &[(u16, &str)],
        heartbeats: &[(u16, &str)],
    ) -> LoopbackConductor {
        let script = |answers: &[(u16, &str)]| -> Script {
            Arc::new(Mutex::new(answers.iter().map(|(status, body)| (*status, body.to_string())).collect()))
        };
        let (root, lookups, heartbeats) = (script(&[(200, root)]), script(lookups), script(heartbeats));
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                let scripts = [root.clone(), lookups.clone(), heartbeats.clone()];
                let service = hyper::service::service_fn(move |request| {
                    answer(request, Arc::clone(&seen), scripts.clone())
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        LoopbackConductor { url, received }
    }
    /// Everything received whose path begins so.
    pub fn received(&self, prefix: &str) -> Vec<Received> {
        let received = self.received.lock().unwrap();
        received.iter().filter(|request| request.path.starts_with(prefix)).cloned().collect()
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<Received>>>,
    [root, lookups, heartbeats]: [Script; 3],
) -> Result<http::Response<Full<bytes::Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.to_string();
    let script = match path.as_str() {
        "/" => root,
        other if other.starts_with("/v1/lookup") => lookups,
        _ => heartbeats,
    };
    let version = head.headers.get("X-OpenStack-Ironic-API-Version").map(|v| v.to_str().unwrap().to_string());
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (method, headers) = (head.method.to_string(), head.headers);
    seen.lock().unwrap().push(Received { method, path, version, headers, body });
    let (status, body) = {
        let mut script = script.lock().unwrap();
        if script.len() > 1 { script.pop_front().unwrap() } else { script.front().cloned().unwrap() }
    };
    let mut response = http::Response::new(Full::from(body));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

/// Serves these bodies by path until the runtime ends; 404 for the rest. Answers the address.
pub async fn serve_files(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let files = Arc::new(files);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let files = Arc::clone(&files);
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let found = files.iter().find(|(path, _)| *path == request.uri().path());
                let mut response = http::Response::new(Full::<bytes::Bytes>::from(
                    found.map_or(Vec::new(), |(_, b)| b.clone()),
                ));
                if found.is_none() {
                    *response.status_mut() = http::StatusCode::NOT_FOUND;
                }
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    url
}

/// A 200 lookup answer with this token.
pub fn found(token: &str) -> String {
    serde_json::json!({
        "node": {"uuid": NODE, "properties": {}, "instance_info": {}, "driver_internal_info": {}, "links": []},
        "config": {"heartbeat_timeout": 300, "agent_token": token, "agent_token_required": true,
                   "tls_min_version": "1.3", "permitted_image_formats": ["raw", "gpt", "qcow2", "iso"]},
    })
    .to_string()
}

/// Waits until `condition` gives something, for at most 20 s.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited 20 s in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
