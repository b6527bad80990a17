//! The test bench: a service that can be killed and started again, and how to talk to it.

use crate::bmc::Bmc;
use crate::fuse::Fuse;
use async_trait::async_trait;
use bytes::Bytes;
use ferric_controller::api::{Api, serve};
use ferric_controller::conductor::{
    Conductor, ImageInspector, LogRoom, Network, Patience, RamdiskFiles, Settings,
};
use ferric_controller::domain::clean::{Erasure, Priorities};
use ferric_controller::domain::provision::Deadlines;
use ferric_controller::domain::validate::{ImageFacts, ImageRequest};
use ferric_controller::drivers::registry::{Hardware, Registry};
use ferric_controller::store::Store;
use ferric_controller::store::seal::Sealer;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

pub const MAC: &str = "52:54:00:00:00:01";
pub const IMAGE: &str = "http://192.0.2.1/image.qcow2";

/// What a test may set before the service starts.
pub fn settings(state_dir: &Path) -> Settings {
    let ms = Duration::from_millis;
    let long = Duration::from_secs(60);
    Settings {
        hostname: "test-conductor".into(),
        state_dir: state_dir.to_path_buf(),
        api_url: "http://127.0.0.1:6385".into(),
        ramdisk: Some(RamdiskFiles::default()),
        deadlines: Deadlines { deploy: long, clean: long, inspect: long, rescue: long, service: long },
        automated_clean: true,
        clean_priorities: Priorities { erase_devices: 0, erase_devices_metadata: 10 },
        erasure: Erasure {
            random_passes: 1,
            zeros_last: true,
            continue_if_failed: false,
            nvme: true,
            ata: true,
            at_once: 4,
            skip_read_only: false,
        },
        power_off_after_failure: true,
        logs: LogRoom { number: 100, bytes: 1 << 20 },
        default_boot_mode: "bios".into(),
        require_tls: true,
        allow_md5: false,
        conflict_is_error: true,
        heartbeat_timeout: Duration::from_secs(300),
        networks: vec![Network { address: [127, 0, 0, 1].into(), prefix: 32 }],
        patience: Patience {
            turn: ms(1000),
            commands: ms(50),
            power_look: ms(20),
            power_change: ms(3000),
            soft_off: ms(1000),
            soft_power_off: ms(3000),
            reset_settle: ms(20),
            logs: ms(2000),
            retry: ms(50),
            power_sync: Duration::ZERO,
        },
    }
}

/// An image server that always has a qcow2 of 4 GiB.
pub struct Images(pub Result<ImageFacts, String>);

impl Default for Images {
    fn default() -> Images {
        Images(Ok(ImageFacts {
            length: Some(1000),
            virtual_size: Some(4 << 30),
            format: Some("qcow2".into()),
        }))
    }
}

#[async_trait]
impl ImageInspector for Images {
    async fn inspect(&self, _: &ImageRequest) -> Result<ImageFacts, String> {
        self.0.clone()
    }
}

/// Binds the address again; the killed service may not have let go of it yet.
async fn bind(address: SocketAddr) -> TcpListener {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < end, "{address}: {error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// An address that nobody else takes while the service is dead, as the ports of 127.0.0.1 are taken all the time.
fn own_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let [process, ..] = std::process::id().to_le_bytes();
    let [high, low] = TAKEN.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    SocketAddr::from(([127, process.max(1), high, low.max(1)], 0))
}

/// The service, in a runtime of its own, so that killing it stops every task wherever it is.
pub struct Service {
    runtime: Option<Runtime>,
    address: SocketAddr,
    conductor: Option<Arc<Conductor>>,
    fuse: Arc<Fuse>,
}

impl Service {
    fn start(settings: Settings, bmc: Arc<Bmc>, images: Images, address: Option<SocketAddr>) -> Service {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let fuse = bmc.fuse.clone();
        let watch = fuse.begin_life();
        runtime.spawn(async move {
            let store = Store::open_watched(&settings.state_dir.join("db"), watch).unwrap();
            let sealer = Sealer::from_file(&settings.state_dir.join("secret.key")).unwrap();
            let hardware = Hardware { power: bmc.clone(), management: bmc };
            let drivers = Registry::default().with("fake-hardware", hardware);
            let conductor = Conductor::new(store, sealer, drivers, Arc::new(images), settings);
            let wanted = address.unwrap_or_else(own_address);
            let listener = bind(wanted).await;
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = tokio::sync::watch::channel(false);
            // Before it starts: a fuse may stop it in the middle of that.
            send.send((address, conductor.clone())).unwrap();
            conductor.start().await.unwrap();
            serve::run(Api::new(conductor, None), listener, stopped).await;
            drop(stop);
        });
        let (address, conductor) = receive.recv_timeout(Duration::from_secs(20)).expect("the service starts");
        Service { runtime: Some(runtime), address, conductor: Some(conductor), fuse }
    }
    /// Returns when nothing of the service is left.
    fn kill(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        self.fuse.blow();
        // On a thread of its own, since a runtime may not be waited for on one of another runtime.
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10))).join().unwrap();
        self.conductor = None;
        self.fuse.end_life();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder in memory: a process is killed here, not the power cut, and a busy disk takes seconds for each commit.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Everything of one test.
pub struct Rig {
    _dir: tempfile::TempDir,
    pub settings: Settings,
    pub bmc: Arc<Bmc>,
    service: Service,
    images: Result<ImageFacts, String>,
    pub address: SocketAddr,
}

/// An answer of the API.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The words of an error.
    pub fn text(&self) -> String {
        ferric_common::wire::error::ironic_text(&self.body.to_string())
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {}, Images::default())
    }
    pub fn with(change: impl FnOnce(&mut Settings), images: Images) -> Rig {
        let dir = memory_dir();
        let mut settings = settings(dir.path());
        // Files that pass for a kernel and a ramdisk: a bzImage header, a cpio magic.
        let (kernel, ramdisk) = (dir.path().join("vmlinuz"), dir.path().join("initramfs"));
        let mut head = vec![0u8; 64 << 10];
        head[0x1fe] = 0x55;
        head[0x1ff] = 0xaa;
        head[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(&kernel, head).unwrap();
        std::fs::write(&ramdisk, b"070701".repeat(100)).unwrap();
        settings.ramdisk = Some(RamdiskFiles {
            kernel,
            ramdisk,
            extra: Vec::new(),
            kernel_parameters: "console=ttyS0".into(),
        });
        change(&mut settings);
        let bmc = Arc::new(Bmc::default());
        let kept = images.0.clone();
        let service = Service::start(settings.clone(), bmc.clone(), images, None);
        let address = service.address;
        Rig { _dir: dir, settings, bmc, service, images: kept, address }
    }
    pub fn fuse(&self) -> &Arc<Fuse> {
        &self.bmc.fuse
    }
    /// SIGKILL, as far as a test in one process can: every task is dropped wherever it waits, nothing more is committed.
    pub fn kill(&mut self) {
        self.service.kill();
    }
    pub fn start(&mut self) {
        let images = Images(self.images.clone());
        self.service = Service::start(self.settings.clone(), self.bmc.clone(), images, Some(self.address));
    }
    pub fn conductor(&self) -> &Arc<Conductor> {
        self.service.conductor.as_ref().expect("the service runs")
    }
    pub async fn call(&self, method: &str, path: &str, version: &str, body: Value) -> Answer {
        let headers = [("X-OpenStack-Ironic-API-Version", version)];
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        raw_call(self.address, method, path, &headers, bytes).await.expect("the API answers")
    }
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, "1.115", Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }
    pub async fn node(&self) -> Value {
        self.get("/v1/nodes/n1").await
    }
    pub async fn provision(&self, target: &str) -> Answer {
        self.call("PUT", "/v1/nodes/n1/states/provision", "1.115", json!({"target": target})).await
    }
    /// The same, which must be accepted.
    pub async fn begin(&self, target: &str) {
        let answer = self.provision(target).await;
        assert_eq!(answer.status, 202, "{target}: {}", answer.body);
    }
    /// Enrols node `n1` with a port, driven through the whole `direct` flow on the BMC in memory.
    pub async fn enrol(&self) -> String {
        let node = json!({"driver": "fake-hardware", "name": "n1", "deploy_interface": "direct", "boot_interface": "ipxe",
            "properties": {"local_gb": 10},
            "instance_info": {"image_source": IMAGE, "image_os_hash_algo": "sha256",
                              "image_os_hash_value": "ab".repeat(32), "image_disk_format": "qcow2"}});
        let answer = self.call("POST", "/v1/nodes", "1.115", node).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let uuid = answer.body["uuid"].as_str().unwrap().to_string();
        let port = json!({"node_uuid": uuid, "address": MAC});
        assert_eq!(self.call("POST", "/v1/ports", "1.115", port).await.status, 201);
        uuid
    }
    /// Enrolled, managed and (without cleaning) available.
    pub async fn available(&self) -> String {
        let uuid = self.enrol().await;
        self.patch(json!([{"op": "add", "path": "/automated_clean", "value": false}])).await;
        assert_eq!(self.provision("manage").await.status, 202);
        self.until(|n| n["provision_state"] == "manageable").await;
        assert_eq!(self.provision("provide").await.status, 202);
        self.until(|n| n["provision_state"] == "available").await;
        uuid
    }
    pub async fn patch(&self, patch: Value) {
        let answer = self.call("PATCH", "/v1/nodes/n1", "1.115", patch).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    /// Waits until the node is so; at most 20 s.
    pub async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let headers = [("X-OpenStack-Ironic-API-Version", "1.115")];
            if let Ok(answer) = raw_call(self.address, "GET", "/v1/nodes/n1", &headers, Vec::new()).await {
                if is_so(&answer.body) {
                    return answer.body;
                }
                assert!(Instant::now() < end, "never came to be: {}", answer.body);
            }
            assert!(Instant::now() < end, "the API never answered");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One request on a connection of its own; an answer that does not come is an error too.
pub async fn raw_call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, String> {
    let answer = timeout(Duration::from_secs(30), exchange(address, method, path, headers, body)).await;
    answer.map_err(|_| format!("no answer to {method} {path}"))?
}

async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let stream = TcpStream::connect(address).await.map_err(|e| text(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(path).header("host", address.to_string());
    for (name, value) in headers.iter().filter(|(_, v)| !v.is_empty()) {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|e| text(&e))?;
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.map_err(|e| text(&e))?.to_bytes();
    driver.abort();
    Ok(Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
}

/// A map of a JSON object, for comparisons.
pub fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
