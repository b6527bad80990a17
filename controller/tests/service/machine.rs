//! A machine that is not there: an agent that speaks the real wire over TLS when it boots the ramdisk.

use crate::bmc::Bmc;
use crate::rig::{MAC, Rig, raw_call};
use bytes::Bytes;
use ferric_controller::drivers::{BootDevice, PowerState};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// How a machine behaves.
pub struct Behaviour {
    /// Time that writing the image takes.
    pub write_time: Duration,
    /// Pause between heartbeats.
    pub beat: Duration,
    /// The error of the write, if it shall fail, and how many writes fail.
    pub write_error: Option<Value>,
    pub bad_writes: usize,
    /// Boots from the network that find no server, before one does.
    pub missed_boots: usize,
    /// The error of the boot set-up, if it shall fail.
    pub boot_error: Option<Value>,
    /// It boots nothing at all.
    pub dead: bool,
    /// It forgets its commands once while writing, as an agent that crashed and came back.
    pub forget_once: bool,
    /// The TLS server shows another certificate than the heartbeat.
    pub other_certificate: bool,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            write_time: Duration::from_millis(200),
            beat: Duration::from_millis(60),
            write_error: None,
            bad_writes: usize::MAX,
            missed_boots: 0,
            boot_error: None,
            dead: false,
            forget_once: false,
            other_certificate: false,
        }
    }
}

/// What happened on the machine.
#[derive(Default)]
pub struct Story {
    /// Long names of the commands, in order.
    pub commands: Mutex<Vec<String>>,
    /// Arguments of each image written.
    pub writes: Mutex<Vec<Value>>,
    pub boots_from_disk: AtomicUsize,
    pub boots_from_network: AtomicUsize,
    /// A boot that got no token and gave up.
    pub locked_out: AtomicUsize,
    forgotten: AtomicBool,
}

impl Story {
    pub fn count(&self, command: &str) -> usize {
        self.commands.lock().unwrap().iter().filter(|c| *c == command).count()
    }
}

/// A machine that follows its BMC. Ends when dropped.
pub struct Machine {
    pub story: Arc<Story>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Machine {
    pub fn new(rig: &Rig, behaviour: Behaviour) -> Machine {
        let story = Arc::new(Story::default());
        let task =
            tokio::spawn(run_machine(rig.address, rig.bmc.clone(), Arc::new(behaviour), story.clone()));
        Machine { story, task }
    }
    /// Whether it has booted its disk, once. Waits for it a little, as the machine looks at its power now and then.
    pub async fn runs_the_image(&self) -> bool {
        let boots = || self.story.boots_from_disk.load(Ordering::SeqCst);
        let end = Instant::now() + Duration::from_secs(5);
        while boots() == 0 && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
        boots() == 1
    }
}

async fn run_machine(api: SocketAddr, bmc: Arc<Bmc>, behaviour: Arc<Behaviour>, story: Arc<Story>) {
    let mut agent: Option<tokio::task::JoinHandle<()>> = None;
    let mut booted = 0;
    loop {
        let on = bmc.power_now() == PowerState::On;
        let boot = bmc.boots.load(Ordering::SeqCst);
        if (!on || boot != booted)
            && let Some(agent) = agent.take()
        {
            agent.abort();
        }
        if on && boot != booted && !behaviour.dead {
            let device = bmc.boot();
            if device == Some(BootDevice::Pxe) {
                // One that finds no server falls through to the blank disk and stays there.
                if story.boots_from_network.fetch_add(1, Ordering::SeqCst) >= behaviour.missed_boots {
                    let run = run_agent(api, bmc.clone(), behaviour.clone(), story.clone());
                    agent = Some(tokio::spawn(run));
                }
            } else if device == Some(BootDevice::Disk) {
                story.boots_from_disk.fetch_add(1, Ordering::SeqCst);
            }
            booted = boot;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

struct Command {
    result: Value,
    /// The result once it has ended.
    outcome: Value,
    ends: Option<Instant>,
    error: Option<Value>,
}

struct Agent {
    token: String,
    commands: Mutex<Vec<Command>>,
    bmc: Arc<Bmc>,
    behaviour: Arc<Behaviour>,
    story: Arc<Story>,
}

async fn run_agent(api: SocketAddr, bmc: Arc<Bmc>, behaviour: Arc<Behaviour>, story: Arc<Story>) {
    // As the real one, it goes on asking until it is answered.
    let token = loop {
        let headers = [("X-OpenStack-Ironic-API-Version", "1.62")];
        let path = format!("/v1/lookup?addresses={MAC}");
        if let Ok(answer) = raw_call(api, "GET", &path, &headers, Vec::new()).await
            && answer.status == 200
        {
            let token = answer.body["config"]["agent_token"].as_str().unwrap().to_string();
            if token == "******" {
                story.locked_out.fetch_add(1, Ordering::SeqCst);
                return std::future::pending().await;
            }
            let node = answer.body["node"]["uuid"].as_str().unwrap().to_string();
            break (token, node);
        }
        sleep(Duration::from_millis(20)).await;
    };
    let (token, node) = token;
    let identity = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
    let shown = match behaviour.other_certificate {
        true => rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap().cert.pem(),
        false => identity.cert.pem(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let pause = behaviour.beat;
    let agent = Arc::new(Agent { token: token.clone(), commands: Mutex::default(), bmc, behaviour, story });
    let serving = tokio::spawn(serve_agent(listener, identity, agent));
    let _guard = AbortOnDrop(serving);
    let beat =
        json!({"callback_url": url, "agent_token": token, "agent_version": "1", "agent_verify_ca": shown});
    loop {
        let headers = [("X-OpenStack-Ironic-API-Version", "1.68"), ("content-type", "application/json")];
        let path = format!("/v1/heartbeat/{node}");
        let heard = raw_call(api, "POST", &path, &headers, beat.to_string().into_bytes()).await;
        let heard = heard.is_ok_and(|answer| answer.status == 202);
        sleep(if heard { pause } else { pause.min(Duration::from_millis(30)) }).await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);
impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve_agent(
    listener: TcpListener,
    identity: rcgen::CertifiedKey<rcgen::KeyPair>,
    agent: Arc<Agent>,
) {
    let key = rustls_pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, agent) = (acceptor.clone(), agent.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let agent = agent.clone();
                async move { Ok::<_, Infallible>(agent.answer(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Agent {
    async fn answer(&self, request: hyper::Request<Incoming>) -> http::Response<Full<Bytes>> {
        let query = request.uri().query().unwrap_or_default().to_string();
        let reply = |status: u16, body: Value| {
            http::Response::builder().status(status).body(Full::new(Bytes::from(body.to_string()))).unwrap()
        };
        if !query.contains(&format!("agent_token={}", self.token)) {
            return reply(
                401,
                json!({"faultcode": "Client", "faultstring": "401 Unauthorized: Token invalid."}),
            );
        }
        if request.method() == http::Method::GET {
            return reply(200, json!({"commands": self.list()}));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let name = body["name"].as_str().unwrap().to_string();
        let fuse = &self.bmc.fuse;
        if fuse.moment(&format!("a lost {name}")) {
            fuse.ended().await;
            return reply(500, Value::Null); // to nobody
        }
        if fuse.moment(&format!("a late {name}")) {
            fuse.ended().await;
            sleep(Duration::from_millis(20)).await;
        }
        let (status, body) = self.run(&name, &body["params"]);
        if fuse.moment(&format!("an unheard answer to {name}")) {
            fuse.ended().await;
        }
        reply(status, body)
    }

    fn list(&self) -> Vec<Value> {
        let mut commands = self.commands.lock().unwrap();
        let now = Instant::now();
        for command in commands.iter_mut() {
            if command.ends.is_some_and(|at| at <= now) {
                command.ends = None;
                match command.error.take() {
                    None => {
                        command.result["command_status"] = json!("SUCCEEDED");
                        command.result["command_result"] = command.outcome.take();
                    }
                    Some(error) => {
                        command.result["command_status"] = json!("FAILED");
                        command.result["command_error"] = error;
                        command.result["command_result"] = Value::Null;
                    }
                }
            }
        }
        let writing = commands.iter().any(|c| c.ends.is_some());
        if writing && self.behaviour.forget_once && !self.story.forgotten.swap(true, Ordering::SeqCst) {
            commands.clear();
        }
        commands.iter().map(|c| c.result.clone()).collect()
    }

    fn run(&self, name: &str, params: &Value) -> (u16, Value) {
        self.list();
        let busy = self.commands.lock().unwrap().iter().any(|c| c.ends.is_some());
        if busy {
            return (
                409,
                json!({"faultcode": "Client", "faultstring": "Agent is busy: executing command x"}),
            );
        }
        self.story.commands.lock().unwrap().push(name.to_string());
        let short = name.split('.').next_back().unwrap();
        let mut command = Command {
            result: json!({"id": uuid::Uuid::new_v4().to_string(), "command_name": short,
                           "command_status": "SUCCEEDED", "command_error": null, "command_result": null}),
            outcome: json!({"deploy_result": null}),
            ends: None,
            error: None,
        };
        if !(answers(name, &mut command) || self.does(name, params, &mut command)) {
            let text = format!("Unknown command: {name}");
            return (400, json!({"faultcode": "Client", "faultstring": text}));
        }
        let answer = command.result.clone();
        self.commands.lock().unwrap().push(command);
        (200, answer)
    }

    /// Whether it is something that takes its time; begins it.
    fn does(&self, name: &str, params: &Value, command: &mut Command) -> bool {
        match name {
            "deploy.execute_deploy_step" => {
                assert_eq!(params["deploy_version"], version());
                assert_eq!(params["step"]["step"], "write_image");
                self.story.writes.lock().unwrap().push(params["step"]["args"].clone());
                command.ends = Some(Instant::now() + self.behaviour.write_time);
                command.outcome = json!({"deploy_step": params["step"], "deploy_result": {
                    "result": "prepare_image: image (x) written to device /dev/sda root_uuid=0x1234abcd",
                    "report": write_report()}});
                if self.story.writes.lock().unwrap().len() <= self.behaviour.bad_writes {
                    command.error = self.behaviour.write_error.clone();
                }
                command.result["command_status"] = json!("RUNNING");
                command.result["command_result"] = json!({"progress": {"stage": "writing", "bytes_done": 500,
                    "bytes_total": 1000, "bytes_written": 400, "rate": 100, "seconds": 5}});
            }
            "clean.execute_clean_step" => {
                assert_eq!(params["clean_version"], version());
                let info = &params["node"]["driver_internal_info"];
                assert_eq!(
                    (&info["disk_erasure_concurrency"], &info["agent_erase_devices_zeroize"]),
                    (&json!(4), &json!(true))
                );
                let result = match params["step"]["step"].as_str().unwrap() {
                    "create_configuration" => software_raid(&params["node"]["target_raid_config"]),
                    "delete_configuration" | "erase_devices_metadata" => Value::Null,
                    other => panic!("an unexpected step {other}"),
                };
                command.outcome = json!({"clean_result": result, "clean_step": params["step"]});
                command.ends = Some(Instant::now() + Duration::from_millis(50));
                command.result["command_status"] = json!("RUNNING");
            }
            "image.install_bootloader" => {
                assert_eq!(
                    (&params["root_uuid"], &params["target_boot_mode"]),
                    (&json!("0x1234abcd"), &json!("uefi"))
                );
                command.ends = Some(Instant::now() + Duration::from_millis(150));
                command.error = self.behaviour.boot_error.clone();
                command.result["command_status"] = json!("RUNNING");
            }
            "standby.power_off" => {
                // It never ends as far as anybody hears of it, and lets no other command in.
                command.ends = Some(Instant::now() + Duration::from_secs(3600));
                command.result["command_status"] = json!("RUNNING");
                let bmc = self.bmc.clone();
                let boot = bmc.boots.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    sleep(Duration::from_millis(60)).await;
                    let mut power = bmc.power.lock().unwrap();
                    if bmc.boots.load(Ordering::SeqCst) == boot && *power == PowerState::On {
                        bmc.note("the machine powered itself off");
                        *power = PowerState::Off;
                    }
                });
            }
            _ => return false,
        }
        true
    }
}

fn version() -> Value {
    json!({"generic_hardware_manager": "1.2"})
}

/// Whether it is a question that is answered at once; answers it.
fn answers(name: &str, command: &mut Command) -> bool {
    let of = |interface: &str, name: &str, priority: u32| json!({"step": name, "interface": interface, "priority": priority, "reboot_requested": false});
    let step = |name: &str, priority: u32| of("deploy", name, priority);
    command.result["command_result"] = match name {
        "deploy.get_deploy_steps" => json!({"hardware_manager_version": version(),
                    "deploy_steps": {"GenericHardwareManager": [step("write_image", 0)]}}),
        "clean.get_clean_steps" => json!({"hardware_manager_version": version(),
                    "clean_steps": {"GenericHardwareManager": [step("erase_devices", 10), step("erase_devices_metadata", 99),
                        of("raid", "delete_configuration", 0), of("raid", "create_configuration", 0)]}}),
        "standby.get_partition_uuids" => json!({"root uuid": "0x1234abcd"}),
        "log.collect_system_logs" => json!({"system_logs": "H4sIAAAAAAAA"}),
        _ => return false,
    };
    true
}

/// What the real one answers to a configuration: itself, or nothing where no disk of it is for software RAID.
fn software_raid(target: &Value) -> Value {
    let disks = target["logical_disks"].as_array().unwrap();
    if disks.iter().all(|disk| disk["controller"] == "software") { target.clone() } else { json!({}) }
}

/// The account of a write as Ferric's agent gives it, with what only a foe would add.
fn write_report() -> Value {
    json!({"bytes_received": 400 << 20, "bytes_written": 1234 << 20, "bytes_zeroed": 6_900_u64 << 20, "zero_bytes_written": 0,
           "bytes_verified": 66 << 20, "virtual_size": 8_192_u64 << 20,
           "seconds": {"prepare": 0.05, "body": 2.0, "finish": 0.13, "verify": 0.07},
           "busy_percent": {"network": 40, "hash": 31, "decompression": 95, "disk": 62},
           "limit": "\u{1b}[2J", "resumes": 0, "summary": "all is well", "more": "x".repeat(1000)})
}
