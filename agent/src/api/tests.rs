//! The command API over real TLS on loopback: every error of the wire, the bounds. Recorded exchanges are in [`super::replay`].

use super::*;
use crate::api::tls::{make, server_config};
use crate::commands::rooms::ImageWriter;
use crate::config::{Curve, TlsMinimum, Trust};
use crate::fetch::{self, Answer, Ask};
use crate::testing::{Act, Gate, ScriptedWriter, SmallMachine, TOKEN, context, image_info};
use ferric_common::limits;
use http::Method;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use url::Url;

/// A server with its own certificate, and a client that trusts exactly that one.
pub(super) struct Lab {
    pub(super) base: String,
    tls: Arc<rustls::ClientConfig>,
    pub(super) executor: Arc<Executor>,
    machine: Arc<SmallMachine>,
    _server: tokio::task::JoinHandle<()>,
}

async fn lab(act: Act, rule: ReadRule) -> Lab {
    lab_with(act, rule, true, SmallMachine::with_disks(&[("/dev/sda", 8)])).await
}

async fn lab_with(act: Act, rule: ReadRule, secure: bool, machine: SmallMachine) -> Lab {
    lab_writing(ScriptedWriter::new(act), rule, secure, machine).await
}

pub(super) async fn lab_writing(
    writer: impl ImageWriter + 'static,
    rule: ReadRule,
    secure: bool,
    machine: SmallMachine,
) -> Lab {
    lab_at("127.0.0.1", TlsMinimum::V13, writer, rule, secure, machine).await
}

async fn lab_at(
    host: &str,
    minimum: TlsMinimum,
    writer: impl ImageWriter + 'static,
    rule: ReadRule,
    secure: bool,
    machine: SmallMachine,
) -> Lab {
    let machine = Arc::new(machine);
    let mut context = context(machine.clone(), writer);
    // What conductors send by default.
    context.rules.md5 = true;
    let executor = Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
    let listener = server::bind(Some(host.parse().unwrap()), 0).await.unwrap();
    let scheme = if secure { "https" } else { "http" };
    let base = format!("{scheme}://{}", listener.local_addr().unwrap());
    let token = AgentToken::new(TOKEN).unwrap();
    let api = Api::new(executor.clone(), token, rule, base.clone(), "ferric-test".into(), 1.5);
    let pair = make(host, "lab", Curve::P384, SystemTime::now()).unwrap();
    let server = secure.then(|| server_config(&pair, &minimum.into()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.crt");
    std::fs::write(&file, &pair.certificate).unwrap();
    let tls = crate::conductor::tls::client_config(&Trust::CaFile(file)).unwrap();
    let server = tokio::spawn(server::serve(listener, server, Arc::new(api)));
    Lab { base, tls, executor, machine, _server: server }
}

impl Lab {
    pub(super) async fn ask(&self, method: Method, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
        let mut ask =
            Ask::get(Url::parse(&format!("{}{path}", self.base)).unwrap(), 64 << 20, Duration::from_secs(30));
        (ask.method, ask.body) = (method, body.into());
        fetch::exchange(&self.tls, ask).await.unwrap()
    }
    async fn get(&self, path: &str) -> (u16, Value) {
        parsed(self.ask(Method::GET, path, "").await)
    }
    async fn post(&self, query: &str, body: Value) -> (u16, Value) {
        let path = format!("/v1/commands/?agent_token={TOKEN}{query}");
        parsed(self.ask(Method::POST, &path, body.to_string()).await)
    }
}

pub(super) fn parsed(answer: Answer) -> (u16, Value) {
    let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    (answer.status, body)
}

fn write_step() -> Value {
    json!({"name": "deploy.execute_deploy_step", "params": {
        "step": {"interface": "deploy", "step": "write_image", "priority": 80, "args": {"image_info": image_info()}},
        "node": {"uuid": "n", "instance_info": {}, "properties": {}}, "ports": [], "deploy_version": null}})
}

#[tokio::test]
async fn every_error_has_its_status_and_words() {
    let lab = lab(Act::Succeed, ReadRule::Always).await;
    let with = format!("/v1/commands/?wait=true&agent_token={TOKEN}");
    let missing = format!("/v1/commands/nosuch?agent_token={TOKEN}");
    let sync = r#"{"name": "standby.sync", "params": {}}"#;
    let image = r#"{"name": "standby.prepare_image", "params": {"image_info": {"id": "x"}}}"#;
    for (method, path, body, status, text) in [
        (Method::POST, "/v1/commands/?wait=true", sync, 401, "401 Unauthorized: Token invalid."),
        (Method::POST, "/v1/commands/?agent_token=bad", "{", 401, "401 Unauthorized: Token invalid."),
        (Method::GET, "/v1/commands/", "", 401, "401 Unauthorized: Token invalid."),
        (Method::GET, "/v1/commands/x?agent_token=bad", "", 401, "401 Unauthorized: Token invalid."),
        (Method::POST, &with, "{\"name\": ", 400, "400 Bad Request: Failed to decode JSON object: …"),
        (Method::POST, &with, "[]", 400, "400 Bad Request: Missing or invalid name or params"),
        (Method::POST, &with, r#"{"params": {}}"#, 400, "400 Bad Request: Missing or invalid name or params"),
        (
            Method::POST,
            &with,
            r#"{"name": "standby.sync", "params": []}"#,
            400,
            "400 Bad Request: Missing or invalid name or params",
        ),
        (
            Method::POST,
            &with,
            r#"{"name": "nodots", "params": {}}"#,
            400,
            "Invalid command: Command name must be of the form <extension>.<name>",
        ),
        (
            Method::POST,
            &with,
            r#"{"name": "nosuch.sync", "params": {}}"#,
            404,
            "Not found: Extension with id nosuch not found.",
        ),
        (
            Method::POST,
            &with,
            r#"{"name": "standby.nosuch", "params": {}}"#,
            400,
            "Invalid command: Unknown command: nosuch",
        ),
        (Method::POST, &with, image, 400, "Invalid command parameters: Image is missing 'urls' field."),
        (Method::GET, &missing, "", 404, "Not found: Command Result with id nosuch not found."),
        (
            Method::GET,
            "/nosuch",
            "",
            404,
            "404 Not Found: The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.",
        ),
        (
            Method::DELETE,
            "/v1/status",
            "",
            405,
            "405 Method Not Allowed: The method is not allowed for the requested URL.",
        ),
    ] {
        let (found, body) = parsed(lab.ask(method.clone(), path, body).await);
        let said = body["faultstring"].as_str().unwrap_or_default();
        let fits = match text.strip_suffix('…') {
            Some(start) => said.starts_with(start),
            None => said == text,
        };
        assert!(found == status && fits, "{method} {path}: {found} {said}");
        assert_eq!(body["faultcode"], "Client", "{method} {path}");
    }
    assert_eq!(lab.executor.results(), [], "nothing of this is stored");
}

#[tokio::test]
async fn a_busy_agent_says_with_what_and_goes_on_answering() {
    let gate = Arc::new(Gate::default());
    let lab = lab(Act::Wait(gate.clone()), ReadRule::Always).await;
    let (status, started) = lab.post("", write_step()).await;
    assert_eq!((status, &started["command_status"]), (200, &json!("RUNNING")));
    let (status, busy) = lab.post("&wait=true", json!({"name": "standby.sync", "params": {}})).await;
    assert_eq!(
        (status, busy["faultstring"].as_str()),
        (409, Some("Agent is busy: executing command execute_deploy_step"))
    );
    let path = format!("/v1/commands/{}?agent_token={TOKEN}", started["id"].as_str().unwrap());
    let progress = loop {
        let (_, running) = lab.get(&path).await;
        assert_eq!(running["command_status"], "RUNNING");
        if !running["command_result"].is_null() {
            break running["command_result"]["progress"].clone();
        }
    };
    assert_eq!((&progress["stage"], &progress["bytes_done"]), (&json!("writing"), &json!(5)));
    gate.open();
    let (_, done) = lab.get(&format!("{path}&wait=true")).await;
    assert_eq!(done["command_status"], "SUCCEEDED");
    assert_eq!(
        done["command_result"],
        json!({
            "deploy_result": {
                "result": "prepare_image: image (debian) written to device /dev/sda root_uuid=0x1234abcd",
                "report": crate::testing::scripted_report().shown(),
            },
            "deploy_step": {"interface": "deploy", "step": "write_image", "priority": 80},
        })
    );
    let (_, uuids) =
        lab.post("&wait=true", json!({"name": "standby.get_partition_uuids", "params": {}})).await;
    assert_eq!(uuids["command_result"], json!({"root uuid": "0x1234abcd"}));
}

#[tokio::test]
async fn a_panic_in_a_command_is_that_commands_failure() {
    let lab = lab(Act::Panic, ReadRule::Always).await;
    let (status, failed) = lab.post("&wait=true", write_step()).await;
    assert_eq!((status, &failed["command_status"]), (200, &json!("FAILED")));
    assert_eq!(failed["command_error"]["type"], "DeploymentError");
    let (status, _) = lab.post("&wait=true", json!({"name": "standby.sync", "params": {}})).await;
    assert_eq!((status, lab.machine.done()), (200, vec!["sync"]));
}

#[tokio::test]
async fn reading_is_free_until_a_token_was_seen_and_never_with_a_wrong_one() {
    let lab = lab(Act::Succeed, ReadRule::OnceSeen).await;
    assert_eq!(lab.get("/v1/commands/").await, (200, json!({"commands": []})));
    assert_eq!(lab.get("/v1/commands/?agent_token=bad").await.0, 401);
    assert_eq!(lab.get("/v1/commands/").await.0, 200, "a stranger's guess changes nothing");
    assert_eq!(lab.get(&format!("/v1/commands/?agent_token={TOKEN}")).await.0, 200);
    assert_eq!(lab.get("/v1/commands/").await.0, 401);
    assert_eq!(lab.get("/v1/status").await.0, 200);
}

#[tokio::test]
async fn paths_without_slash_redirect_and_head_has_no_body() {
    let lab = lab(Act::Succeed, ReadRule::Always).await;
    for (path, to) in [
        ("/v1", "/v1/".to_string()),
        ("/v1/commands?wait=true&x=%20", "/v1/commands/?wait=true&x=%20".to_string()),
        ("/commands", "/commands/".to_string()),
    ] {
        let answer = lab.ask(Method::GET, path, "").await;
        let location = answer.headers.get("location").unwrap().to_str().unwrap();
        assert_eq!((answer.status, location), (308, format!("{}{to}", lab.base).as_str()));
    }
    let head = lab.ask(Method::HEAD, "/v1/status", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let wrong = lab.ask(Method::PUT, "/v1/commands/", "").await;
    assert_eq!(wrong.headers.get("allow").unwrap(), "HEAD, GET, POST");
}

#[tokio::test]
async fn logs_come_as_an_archive_and_only_the_newest_is_kept() {
    let mut machine = SmallMachine::default();
    machine.logs.push(crate::platform::machine::LogFile { name: "dmesg".into(), bytes: b"hello".to_vec() });
    let lab = lab_with(Act::Succeed, ReadRule::Always, true, machine).await;
    let ask = json!({"name": "log.collect_system_logs", "params": {}});
    let (_, first) = lab.post("&wait=true", ask.clone()).await;
    let logs = first["command_result"]["system_logs"].as_str().unwrap().to_string();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &logs).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["dmesg"]);
    lab.post("&wait=true", ask).await;
    let results = lab.executor.results();
    assert_eq!(results[0].command_result, Some(json!({"system_logs": ""})));
    assert_eq!(results[1].command_result, Some(json!({"system_logs": logs})));
}

#[tokio::test]
async fn ipv6_is_spoken_and_stands_in_the_certificate_and_in_links() {
    let (writer, machine) = (ScriptedWriter::new(Act::Succeed), SmallMachine::default());
    let lab = lab_at("::1", TlsMinimum::V13, writer, ReadRule::Always, true, machine).await;
    assert!(lab.base.starts_with("https://[::1]:"), "{}", lab.base);
    let (status, root) = lab.get("/").await;
    let link = root["default_version"]["links"][0]["href"].as_str().unwrap();
    assert_eq!((status, link), (200, format!("{}/v1", lab.base).as_str()));
}

/// A plain connection to a plain server, for requests that no client would send.
async fn raw(lab: &Lab, request: &str) -> String {
    let mut stream = TcpStream::connect(lab.base.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.expect("the server neither answered nor closed").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let lab = lab_with(Act::Succeed, ReadRule::Always, false, SmallMachine::default()).await;
    let announced = |token: &str, length: usize| {
        format!(
            "POST /v1/commands/?agent_token={token} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    for (request, status) in [
        (announced("bad", limits::BODY_COMMAND + 1), "401"),
        (announced("bad", 5), "401"),
        (announced(TOKEN, limits::BODY_COMMAND + 1), "413"),
        (
            format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                "a".repeat(limits::REQUEST_LINE)
            ),
            "414",
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(40 << 10)), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(200)), "431"),
    ] {
        let answer = raw(&lab, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {answer}", &request[..40]);
    }
}

/// What a conductor sends for a config drive of 48 MiB: more than 128 MiB, as it stands there twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_a_hundred_megabytes_is_taken() {
    const DRIVE: usize = 48 << 20;
    let writer = ScriptedWriter::new(Act::Succeed);
    let orders = writer.orders.clone();
    let machine = SmallMachine::with_disks(&[("/dev/sda", 8)]);
    let lab = lab_writing(writer, ReadRule::Always, true, machine).await;
    let drive = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut gzip, &vec![7; DRIVE]).unwrap();
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, gzip.finish().unwrap())
    };
    let mut step = write_step();
    for place in ["/params/step/args/image_info", "/params/step/args"] {
        let args = step.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
        args.insert("configdrive".into(), drive.as_str().into());
    }
    drop(drive);
    let (status, done) = lab.post("&wait=true", step).await;
    assert_eq!((status, &done["command_status"]), (200, &json!("SUCCEEDED")), "{done}");
    assert_eq!(orders.lock().unwrap().first().unwrap().1, DRIVE);
}

/// The body of a stranger's words is read to its end, so that the client hears the answer.
#[tokio::test]
async fn a_long_body_that_is_no_json_is_answered() {
    let lab = lab(Act::Succeed, ReadRule::Always).await;
    let path = format!("/v1/commands/?agent_token={TOKEN}");
    let (status, fault) = parsed(lab.ask(Method::POST, &path, vec![b'x'; 4 << 20]).await);
    let said = fault["faultstring"].as_str().unwrap();
    assert!(status == 400 && said.starts_with("400 Bad Request: Failed to decode JSON object: "), "{said}");
}

#[tokio::test]
async fn a_silent_connection_is_closed_before_and_after_its_first_request() {
    let lab = lab_with(Act::Succeed, ReadRule::Always, false, SmallMachine::default()).await;
    let (never, once) = tokio::join!(raw(&lab, ""), raw(&lab, "GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!never.contains("200"), "{never}");
    assert!(once.starts_with("HTTP/1.1 200 OK"), "{once}");
}

#[tokio::test]
async fn strangers_get_sixteen_connections_and_a_token_opens_more() {
    let lab = lab_with(Act::Succeed, ReadRule::Always, false, SmallMachine::default()).await;
    let address = lab.base.strip_prefix("http://").unwrap().to_string();
    let mut idle = Vec::new();
    for _ in 0..limits::AGENT_CONNECTIONS_UNPROVEN - 1 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let mut proven = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /v1/commands/?agent_token={TOKEN} HTTP/1.1\r\nHost: a\r\n\r\n");
    proven.write_all(request.as_bytes()).await.unwrap();
    let mut byte = [0];
    proven.read_exact(&mut byte).await.unwrap();
    // Its seat among the strangers is free again: one more gets in, the next does not.
    idle.push(TcpStream::connect(&address).await.unwrap());
    let mut refused = TcpStream::connect(&address).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), refused.read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "the seventeenth is closed");
}
