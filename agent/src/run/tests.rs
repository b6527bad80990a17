//! Whole lives against a conductor on loopback: first contact, a crash in the middle of a command, a token that is gone.

use super::*;
use crate::commands::rooms::ImageWriter;
use crate::config::Trust;
use crate::fetch::Ask;
use crate::platform::fake::machine::{FakeMachine, facts};
use crate::platform::machine::Drivers;
use crate::testing::{
    Act, Gate, LoopbackConductor, NODE, Received, ScriptedWriter, SmallMachine, TOKEN, found, image_info,
    until,
};
use ferric_common::wire::inventory::Interface;
use ferric_common::wire::lookup::MASK;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

fn parts(conductor: &str, folder: &Path, port: u16, writer: Act) -> Parts {
    let arguments = [
        ("api_url", conductor.to_string()),
        ("listen_host", "127.0.0.1".into()),
        ("listen_port", port.to_string()),
        ("lookup_timeout", "2".into()),
        ("ip_lookup_sleep", "0".into()),
    ];
    let writer: Box<dyn ImageWriter> = Box::new(ScriptedWriter::new(writer));
    Parts {
        config: config::parse("", &[], &arguments).unwrap(),
        machine: Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)])),
        writer,
        state: StateDir::open(folder).unwrap(),
        time: ntp::Patience::default(),
        reply_grace: Duration::ZERO,
        began: Instant::now(),
    }
}

#[tokio::test]
async fn the_wait_for_disks_begins_after_the_wait_for_slow_hardware() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts("http://127.0.0.1:1", folder.path(), 0, Act::Succeed);
    parts.config.hardware_delay = Duration::from_millis(5);
    let before = parts.began;
    settle(&mut parts).await;
    assert!(parts.began.duration_since(before) >= parts.config.hardware_delay);
}

async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Starts lives until one lasts: the port of the one before may not be free yet.
fn spawn_lives(runtime: &tokio::runtime::Runtime, make: impl Fn() -> Parts + Send + 'static) {
    runtime.spawn(async move {
        for _ in 0..200 {
            let _ = life(make(), std::future::pending()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Calls the agent as a conductor does: to the callback URL of the heartbeat, trusting only its certificate.
async fn call(beat: &Value, method: http::Method, path: &str, body: Value) -> (u16, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.crt");
    std::fs::write(&file, beat["agent_verify_ca"].as_str().unwrap()).unwrap();
    let tls = tls::client_config(&Trust::CaFile(file)).unwrap();
    let url = format!("{}{path}", beat["callback_url"].as_str().unwrap());
    let mut ask = Ask::get(url::Url::parse(&url).unwrap(), 1 << 20, Duration::from_secs(20));
    ask.method = method;
    ask.body = body.to_string().into();
    let answer = crate::fetch::exchange(&tls, ask).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

async fn heartbeats(conductor: &LoopbackConductor, count: usize) -> Vec<Received> {
    until("heartbeats", || {
        let beats = conductor.received("/v1/heartbeat/");
        (beats.len() >= count).then_some(beats)
    })
    .await
}

#[test]
fn a_first_life_looks_up_serves_tls_and_beats() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let not_yet = (404, r#"{"error_message": "{\"faultstring\": \"Resource could not be found.\"}"}"#);
    let conductor = main.block_on(LoopbackConductor::start(&[not_yet, (200, &found(TOKEN))], &[(202, "")]));
    let agent = runtime();
    let (url, path, port) = (conductor.url.clone(), folder.path().to_path_buf(), main.block_on(free_port()));
    spawn_lives(&agent, move || parts(&url, &path, port, Act::Succeed));
    main.block_on(async {
        let beat = heartbeats(&conductor, 1).await.remove(0);
        assert_eq!((beat.method.as_str(), beat.version.as_deref()), ("POST", Some("1.68")));
        assert_eq!(beat.path, format!("/v1/heartbeat/{NODE}"));
        assert_eq!(beat.body["callback_url"], format!("https://127.0.0.1:{port}"));
        assert_eq!(beat.body["agent_token"], TOKEN);
        let lookups = conductor.received("/v1/lookup");
        assert_eq!(lookups[1].path, "/v1/lookup?addresses=52%3A54%3A00%3Aab%3Acd%3A01");
        assert_eq!(lookups[1].version.as_deref(), Some("1.62"));
        let (status, list) =
            call(&beat.body, http::Method::GET, &format!("/v1/commands/?agent_token={TOKEN}"), Value::Null)
                .await;
        assert_eq!((status, list), (200, json!({"commands": []})));
    });
    agent.shutdown_background();
}

#[test]
fn a_life_after_a_crash_has_the_same_identity_and_reports_the_command_as_failed() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let lookups = [(200, found(TOKEN)), (200, found(MASK))];
    let lookups: Vec<(u16, &str)> = lookups.iter().map(|(status, body)| (*status, body.as_str())).collect();
    let conductor = main.block_on(LoopbackConductor::start(&lookups, &[(202, "")]));
    let port = main.block_on(free_port());
    let gate = Arc::new(Gate::default());
    let list = format!("/v1/commands/?agent_token={TOKEN}");

    let first = runtime();
    let (url, path, held) = (conductor.url.clone(), folder.path().to_path_buf(), gate.clone());
    spawn_lives(&first, move || parts(&url, &path, port, Act::Wait(held.clone())));
    let before = main.block_on(async {
        let beat = heartbeats(&conductor, 1).await.remove(0).body;
        let node = json!({"uuid": NODE, "instance_info": {}, "properties": {}});
        let steps = json!({"name": "deploy.get_deploy_steps", "params": {"node": node, "ports": []}});
        assert_eq!(call(&beat, http::Method::POST, &format!("{list}&wait=true"), steps).await.0, 200);
        let step = json!({"interface": "deploy", "step": "write_image", "args": {"image_info": image_info()}});
        let write = json!({"name": "deploy.execute_deploy_step", "params": {"step": step, "node": node, "ports": []}});
        let (_, running) = call(&beat, http::Method::POST, &list, write).await;
        assert_eq!(running["command_status"], "RUNNING");
        beat
    });
    first.shutdown_background();

    let second = runtime();
    let (url, path) = (conductor.url.clone(), folder.path().to_path_buf());
    let beats = conductor.received("/v1/heartbeat/").len();
    spawn_lives(&second, move || parts(&url, &path, port, Act::Succeed));
    main.block_on(async {
        let after = heartbeats(&conductor, beats + 1).await.pop().unwrap().body;
        assert_eq!(after, before, "address, token and certificate are the same");
        let (_, list) = call(&after, http::Method::GET, &list, Value::Null).await;
        let commands = list["commands"].as_array().unwrap();
        let names: Vec<&str> = commands.iter().map(|c| c["command_name"].as_str().unwrap()).collect();
        assert_eq!(names, ["get_deploy_steps", "execute_deploy_step"]);
        assert_eq!(commands[1]["command_status"], "FAILED");
        let details = commands[1]["command_error"]["details"].as_str().unwrap();
        assert!(
            details.starts_with("the agent's process stopped while it ran execute_deploy_step"),
            "{details}"
        );
    });
    let again = conductor.received("/v1/lookup");
    assert!(again.last().unwrap().path.ends_with(&format!("&node_uuid={NODE}")), "{again:?}");
    gate.open();
    second.shutdown_background();
}

#[test]
fn a_rescued_machine_has_its_answer_out_before_the_agent_ends_for_good() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let conductor = main.block_on(LoopbackConductor::start(&[(200, &found(TOKEN))], &[(202, "")]));
    let port = main.block_on(free_port());
    let mut parts = parts(&conductor.url, folder.path(), port, Act::Succeed);
    let machine = Arc::new(SmallMachine::default());
    (parts.machine, parts.reply_grace) = (machine.clone(), REPLY_GRACE);
    let agent = runtime();
    let lived = agent.spawn(life(parts, std::future::pending()));
    main.block_on(async {
        let beat = heartbeats(&conductor, 1).await.remove(0).body;
        let hash = "$5$.YNiqzS64TCHktIX$T8A43ln/o/vnKuPGlGfBW6o7bjs5/rcqDzDS1iXzkY5";
        let params = json!({"rescue_password": hash, "hashed": true});
        let command = json!({"name": "rescue.finalize_rescue", "params": params});
        let path = format!("/v1/commands/?wait=false&agent_token={TOKEN}");
        let (status, answer) = call(&beat, http::Method::POST, &path, command).await;
        assert_eq!((status, &answer["command_status"]), (200, &json!("SUCCEEDED")), "{answer}");
        let ended = tokio::time::timeout(Duration::from_secs(60), lived).await;
        assert!(ended.expect("the agent did not end").unwrap().is_ok(), "as a success, not as a crash");
    });
    assert_eq!(machine.done().last(), Some(&"rescue by another hash"));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the command API is gone");
    agent.shutdown_background();
}

#[test]
fn the_clock_is_set_before_the_controller_hears_of_the_machine() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let conductor = main.block_on(LoopbackConductor::start(&[(200, &found(TOKEN))], &[(202, "")]));
    let conductor = Arc::new(conductor);
    let (asked, seen) = (Arc::clone(&conductor), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&seen);
    // A time server far in the future, which notes how many requests the controller had got by then.
    let time_port = main.block_on(crate::testing::time_server(0xF000_0000, move || {
        noted.lock().unwrap().push(asked.received("/").len());
    }));
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
    let (url, path, port) = (conductor.url.clone(), folder.path().to_path_buf(), main.block_on(free_port()));
    let (agent, shared) = (runtime(), Arc::clone(&machine));
    spawn_lives(&agent, move || {
        let mut parts = parts(&url, &path, port, Act::Succeed);
        parts.config.ntp_servers = vec!["127.0.0.1".into()];
        parts.time.port = time_port;
        Parts { machine: shared.clone(), ..parts }
    });
    main.block_on(heartbeats(&conductor, 1));
    assert_eq!(machine.done().first(), Some(&"clock"));
    assert_eq!(seen.lock().unwrap().first(), Some(&0), "before the first request to the controller");
    agent.shutdown_background();
}

/// Lives of a machine whose disks are the test's, against a conductor whose node wants the disk `late`.
fn spawn_slow(
    conductor: &LoopbackConductor,
    folder: &Path,
    port: u16,
    drivers: Drivers,
) -> (tokio::runtime::Runtime, Arc<FakeMachine>) {
    let mut machine = FakeMachine::new();
    let mac_address = "52:54:00:ab:cd:01".into();
    machine.inventory.interfaces.push(Interface { mac_address, ..Interface::default() });
    machine.set_drivers(drivers);
    machine.set_disks(vec![facts("/dev/sda", 8 << 30, "early")]);
    let machine = Arc::new(machine);
    let (url, path) = (conductor.url.clone(), folder.to_path_buf());
    let (agent, shared) = (runtime(), Arc::clone(&machine));
    spawn_lives(&agent, move || Parts { machine: shared.clone(), ..parts(&url, &path, port, Act::Succeed) });
    (agent, machine)
}

#[test]
fn the_controller_hears_of_a_machine_once_its_disks_are_there() {
    let main = runtime();
    let hint = r#""properties":{"root_device":{"serial":"late"}}"#;
    let answer = found(TOKEN).replace(r#""properties":{}"#, hint);
    assert!(answer.contains(hint));
    let start = || main.block_on(LoopbackConductor::start(&[(200, &answer)], &[(202, "")]));
    let waits = |machine: &FakeMachine, count: usize| {
        let enough = || (machine.waits.load(Ordering::Relaxed) >= count).then_some(());
        main.block_on(until("the agent to wait", enough));
    };

    let (conductor, folder) = (start(), tempfile::tempdir().unwrap());
    let (agent, machine) =
        spawn_slow(&conductor, folder.path(), main.block_on(free_port()), Drivers::Loading);
    waits(&machine, 4);
    assert!(conductor.received("/").is_empty(), "drivers are still loading");
    machine.set_drivers(Drivers::Loaded);
    main.block_on(until("a lookup", || (!conductor.received("/v1/lookup").is_empty()).then_some(())));
    agent.shutdown_background();

    // Drivers are asked about twice in each wait: at the start, and for the disk that the node wants.
    let (conductor, folder) = (start(), tempfile::tempdir().unwrap());
    let (agent, machine) = spawn_slow(&conductor, folder.path(), main.block_on(free_port()), Drivers::Loaded);
    waits(&machine, 4);
    assert!(conductor.received("/v1/heartbeat").is_empty(), "the disk of the node is not there");
    machine.set_disks(vec![facts("/dev/sda", 8 << 30, "early"), facts("/dev/sdb", 8 << 30, "late")]);
    main.block_on(heartbeats(&conductor, 1));
    agent.shutdown_background();
}

#[test]
fn the_clock_is_set_again_before_the_machine_is_switched_off() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let conductor = main.block_on(LoopbackConductor::start(&[(200, &found(TOKEN))], &[(202, "")]));
    let time_port = main.block_on(crate::testing::time_server(0xF000_0000, || {}));
    let machine = Arc::new(SmallMachine::default());
    let (url, path, port) = (conductor.url.clone(), folder.path().to_path_buf(), main.block_on(free_port()));
    let (agent, shared) = (runtime(), Arc::clone(&machine));
    spawn_lives(&agent, move || {
        let mut parts = parts(&url, &path, port, Act::Succeed);
        parts.config.ntp_servers = vec!["127.0.0.1".into()];
        parts.time.port = time_port;
        Parts { machine: shared.clone(), ..parts }
    });
    main.block_on(async {
        let beat = heartbeats(&conductor, 1).await.remove(0).body;
        let path = format!("/v1/commands/?wait=true&agent_token={TOKEN}");
        let command = json!({"name": "standby.power_off", "params": {}});
        let (status, answer) = call(&beat, http::Method::POST, &path, command).await;
        assert_eq!((status, &answer["command_status"]), (200, &json!("SUCCEEDED")), "{answer}");
    });
    assert_eq!(machine.done(), ["clock", "clock", "battery clock", "sync", "power off"]);
    agent.shutdown_background();
}

#[test]
fn a_life_whose_clock_must_be_right_ends_before_the_controller_hears_of_it() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    main.block_on(async {
        let conductor = LoopbackConductor::start(&[(200, &found(TOKEN))], &[(202, "")]).await;
        let mut parts = parts(&conductor.url, folder.path(), free_port().await, Act::Succeed);
        parts.config.ntp_servers = vec!["127.0.0.2".into()];
        parts.config.clock_required = true;
        // Nobody listens there.
        (parts.time.port, parts.time.answers) = (free_port().await, vec![Duration::from_millis(50)]);
        let error = life(parts, std::future::pending()).await.unwrap_err().to_string();
        assert!(error.starts_with("the clock was not set by 127.0.0.2 "), "{error}");
        assert!(conductor.received("/").is_empty(), "the controller heard of the machine");
    });
}

#[test]
fn a_life_without_the_token_ends_in_words_and_a_lockdown() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
    let error = main.block_on(async {
        let conductor = LoopbackConductor::start(&[(200, &found(MASK))], &[(202, "")]).await;
        let mut parts = parts(&conductor.url, folder.path(), free_port().await, Act::Succeed);
        parts.machine = machine.clone();
        life(parts, std::future::pending()).await.unwrap_err().to_string()
    });
    assert!(machine.done().contains(&"lockdown"), "{:?}", machine.done());
    assert!(error.contains("its token was already handed out and this agent does not have it"), "{error}");
}

#[test]
fn a_resumed_life_does_not_need_the_conductor_to_answer_the_lookup() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let known = Identity {
        node_uuid: NODE.into(),
        token: TOKEN.into(),
        heartbeat_timeout: 300,
        ..Identity::default()
    };
    state.save_identity(&known).unwrap();
    let conductor = main.block_on(LoopbackConductor::start(&[(404, "")], &[(202, "")]));
    let agent = runtime();
    let (url, path, port) = (conductor.url.clone(), folder.path().to_path_buf(), main.block_on(free_port()));
    spawn_lives(&agent, move || parts(&url, &path, port, Act::Succeed));
    let beat = main.block_on(heartbeats(&conductor, 1)).remove(0);
    assert_eq!(beat.body["agent_token"], TOKEN);
    agent.shutdown_background();
}

#[test]
fn an_inspection_comes_before_the_lookup_and_names_the_node() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let named = format!(r#"{{"uuid": "{NODE}"}}"#);
    let conductor = main.block_on(LoopbackConductor::start(&[(200, &found(TOKEN))], &[(202, &named)]));
    let agent = runtime();
    let (url, path, port) = (conductor.url.clone(), folder.path().to_path_buf(), main.block_on(free_port()));
    spawn_lives(&agent, move || {
        let mut parts = parts(&url, &path, port, Act::Succeed);
        let arguments = [
            ("api_url", url.clone()),
            ("listen_host", "127.0.0.1".into()),
            ("listen_port", port.to_string()),
        ];
        parts.config = config::parse("ipa-inspection-collectors=default", &[], &arguments).unwrap();
        parts
    });
    main.block_on(heartbeats(&conductor, 1));
    let paths: Vec<String> = conductor.received("/v1/").into_iter().map(|asked| asked.path).collect();
    assert_eq!(
        paths,
        [
            "/v1/continue_inspection".to_owned(),
            format!("/v1/lookup?addresses=52%3A54%3A00%3Aab%3Acd%3A01&node_uuid={NODE}"),
            format!("/v1/heartbeat/{NODE}"),
        ]
    );
    let posted = conductor.received("/v1/continue_inspection").remove(0);
    assert_eq!((posted.method.as_str(), posted.version), ("POST", None));
    assert_eq!(posted.body["root_disk"]["name"], "/dev/sda");
    assert_eq!(posted.body["error"], Value::Null);
    agent.shutdown_background();
}

#[test]
fn an_agent_without_an_api_inspects_and_then_waits_with_its_door_locked() {
    let main = runtime();
    let folder = tempfile::tempdir().unwrap();
    let conductor = main.block_on(LoopbackConductor::start(&[(404, "")], &[(202, "{}")]));
    let agent = runtime();
    let (url, path, port) = (conductor.url.clone(), folder.path().to_path_buf(), main.block_on(free_port()));
    spawn_lives(&agent, move || {
        let mut parts = parts(&url, &path, port, Act::Succeed);
        let cmdline = format!("ipa-inspection-callback-url={url}/v1/continue_inspection");
        let arguments = [("listen_host", "127.0.0.1".into()), ("listen_port", port.to_string())];
        parts.config = config::parse(&cmdline, &[], &arguments).unwrap();
        parts
    });
    main.block_on(async {
        let ask = |path: &'static str| async move {
            let url = url::Url::parse(&format!("http://127.0.0.1:{port}{path}")).unwrap();
            let tls = tls::client_config(&Trust::SystemRoots).unwrap();
            crate::fetch::exchange(&tls, Ask::get(url, 1 << 20, Duration::from_secs(20)))
                .await
                .map(|a| a.status)
        };
        until("the command API", || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        assert_eq!(ask("/v1/status").await.unwrap(), 200);
        assert_eq!(ask("/v1/commands/").await.unwrap(), 401);
    });
    let paths: Vec<String> = conductor.received("/").into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/v1/continue_inspection"]);
    agent.shutdown_background();
}
