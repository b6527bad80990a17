//! What the real conductor and a person asked the real ironic-python-agent 13.0.0, asked again here: same status, same
//! shape, same words. And what the real agent asked the conductor, see [`asked`].
//!
//! Every difference is one row of [`DIFFERENCES`] with its reason. A difference without a row fails, and so does a row
//! without a difference.

mod asked;
mod differences;

use super::tests::{Lab, lab_writing, parsed};
use super::*;
use crate::commands::rooms::Pipeline;
use crate::testing::{Act, ScriptedWriter, SmallMachine, SparseDisk, TOKEN, serve_files, until};
use differences::{DIFFERENCES, Row};
use ferric_common::wire::command::CommandStatus;
use http::Method;
use std::collections::{BTreeMap, BTreeSet};
use url::form_urlencoded;

/// How one recording is replayed.
struct Trace {
    file: &'static str,
    disk: Disk,
    writer: Writer,
}

/// The machine's only disk, by its MiB.
enum Disk {
    Sound(u64),
    /// Its first write is a defect in the agent, as the recorded agent had one.
    Trap(u64),
}

const TRACES: &[Trace] = &[
    Trace { file: "probe-agent", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "vm-full-tls-2g", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "full-http", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "raw-configdrive", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "md5", disk: Disk::Sound(8 << 10), writer: Writer::Real },
    Trace { file: "fast-track", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "rescue", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "erase-devices", disk: Disk::Sound(32), writer: Writer::Scripted },
    Trace { file: "clean-step-fails", disk: Disk::Trap(2 << 10), writer: Writer::Scripted },
    Trace { file: "disk-too-small", disk: Disk::Sound(2 << 10), writer: Writer::Scripted },
    Trace { file: "image-404", disk: Disk::Sound(8 << 10), writer: Writer::Real },
    Trace { file: "probe-ironic", disk: Disk::Sound(8 << 10), writer: Writer::Scripted },
    Trace { file: "wrong-checksum", disk: Disk::Sound(8 << 10), writer: Writer::Real },
];

/// What writes the image: the real pipeline where the recording is about how writing fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Scripted,
    Real,
}

#[tokio::test]
async fn recorded_requests_get_the_recorded_answers() {
    let mut found = asked::found().await;
    for trace in TRACES {
        let mut replay = Replay::new(trace).await;
        for exchange in exchanges(trace.file) {
            for difference in replay.ask(&exchange).await {
                found.entry(difference).or_insert(trace.file.to_owned());
            }
        }
        assert!(replay.asked >= 4, "{}: only {} requests were replayed", trace.file, replay.asked);
    }
    let left: Vec<String> =
        recordings().into_iter().filter(|file| TRACES.iter().all(|trace| trace.file != file)).collect();
    let silent = |file: &String| exchanges(file).iter().all(|exchange| exchange.is_boot);
    assert!(left.iter().all(silent), "recordings with questions to an agent that are not replayed: {left:?}");
    let matches = |row: &Row, (name, difference): &(String, String)| {
        (row.0 == "*" || row.0 == name) && row.1 == difference
    };
    let unlisted: Vec<String> = found
        .iter()
        .filter(|(key, _)| !DIFFERENCES.iter().any(|row| matches(row, key)))
        .map(|((name, difference), file)| format!("({name:?}, {difference:?}, \"why?\"), // {file}"))
        .collect();
    let stale: Vec<&Row> =
        DIFFERENCES.iter().filter(|row| !found.keys().any(|key| matches(row, key))).collect();
    assert!(unlisted.is_empty(), "differences that no row explains:\n{}", unlisted.join("\n"));
    assert!(stale.is_empty(), "rows about differences that are not there: {stale:#?}");
}

/// One recorded exchange with the agent, or the question for the API's version, which an agent asks once in its life.
struct Exchange {
    name: String,
    is_probe: bool,
    is_boot: bool,
    recorded: Value,
}

fn exchanges(file: &str) -> Vec<Exchange> {
    lines(file).filter_map(exchange).collect()
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/traces");

/// The names of all recordings.
fn recordings() -> BTreeSet<String> {
    let entries = std::fs::read_dir(FOLDER).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned)).collect()
}

fn lines(file: &str) -> impl Iterator<Item = Value> {
    let path = format!("{FOLDER}/{file}.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>().into_iter()
}

fn exchange(recorded: Value) -> Option<Exchange> {
    let is_probe = recorded["dir"] == "probe->agent";
    let is_boot = recorded["dir"] == "agent->ironic" && recorded["url"] == "/";
    if !is_probe && !is_boot && recorded["dir"] != "ironic->agent" {
        return None;
    }
    let body = &recorded["req_body"];
    let name = match (is_probe, body["name"].as_str(), body["params"]["step"]["step"].as_str()) {
        (true, ..) => recorded["note"].as_str()?.to_owned(),
        (false, Some(command), Some(step)) => format!("{command} {step}"),
        (false, Some(command), None) => command.to_owned(),
        (false, None, _) => "list of commands".to_owned(),
    };
    // A list asked for while the connection ended has no answer to compare with.
    (is_boot || recorded["status"].is_u64()).then_some(Exchange { name, is_probe, is_boot, recorded })
}

/// An agent under recorded requests.
struct Replay {
    trace: &'static Trace,
    lab: Lab,
    images: String,
    /// Results by their recorded id: ours, and the exchange that made them. None: it was not taken here.
    results: BTreeMap<String, (String, Option<String>)>,
    asked: usize,
}

const RECORDED_BASE: &str = "http://10.78.0.2:9999";
const PROBES_TOKEN: &str = "6aYX5nWPcyftCIPZGLm38IsBDv8dMzwvVXFKjBfj-ew";

impl Replay {
    async fn new(trace: &'static Trace) -> Replay {
        let images = serve_files(vec![("/image.qcow2", raw_image())]).await;
        Replay { trace, lab: lab(trace).await, images, results: BTreeMap::new(), asked: 0 }
    }

    /// Asks as was recorded; how our answer differs, each difference with the exchange that it belongs to.
    async fn ask(&mut self, exchange: &Exchange) -> Found {
        let mut found = Found::new();
        if exchange.is_boot {
            self.lab = lab(self.trace).await;
            self.results.clear();
            return found;
        }
        self.asked += 1;
        self.idle().await;
        let recorded = &exchange.recorded;
        let method: Method = recorded["method"].as_str().unwrap().parse().unwrap();
        let mut answer = self.lab.ask(method, &self.path(exchange), self.body(&recorded["req_body"])).await;
        if answer.status == 308 {
            let to =
                answer.headers.get("location").unwrap().to_str().unwrap().replacen(&self.lab.base, "", 1);
            answer = self.lab.ask(Method::GET, &to, "").await;
        }
        let (status, ours) = parsed(answer);
        let theirs: Value =
            serde_json::from_str(&recorded["resp_body"].to_string().replace(RECORDED_BASE, &self.lab.base))
                .unwrap();
        if let Some(id) = theirs["id"].as_str() {
            let own = ours["id"].as_str().map(str::to_owned);
            self.results.entry(id.to_owned()).or_insert((exchange.name.clone(), own));
        }
        if recorded["status"] != status {
            // The bodies of an error and of a result have nothing in common.
            found.insert((
                exchange.name.clone(),
                format!("status: {status} instead of {}", recorded["status"]),
            ));
            return found;
        }
        match (ours["commands"].as_array(), theirs["commands"].as_array()) {
            (Some(a), Some(b)) if is_results(b) => self.compare_lists(&exchange.name, a, b, &mut found),
            _ => {
                let maker = theirs["id"].as_str().and_then(|id| self.results.get(id));
                let name = maker.map_or(&exchange.name, |(name, _)| name);
                found.extend(differences(&ours, &theirs).into_iter().map(|what| (name.clone(), what)));
            }
        }
        found
    }

    async fn idle(&self) {
        until("the command before", || {
            let results = self.lab.executor.results();
            let running = results.last().is_some_and(|r| r.command_status == CommandStatus::Running);
            (!running).then_some(())
        })
        .await;
    }

    /// Path and query with our token and our ids.
    fn path(&self, exchange: &Exchange) -> String {
        let url = url::Url::parse(exchange.recorded["url"].as_str().unwrap()).unwrap();
        let mut path = url.path().to_owned();
        for (theirs, (_, ours)) in &self.results {
            path = path.replace(theirs, ours.as_deref().unwrap_or(theirs));
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in url.query_pairs() {
            let is_valid = name == "agent_token" && (!exchange.is_probe || value == PROBES_TOKEN);
            query.append_pair(&name, if is_valid { TOKEN } else { &value });
        }
        let query = query.finish();
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }

    /// The body, with an image that is served here: the recorded ones are not kept, and neither are whole config drives.
    fn body(&self, recorded: &Value) -> String {
        match recorded {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            body => {
                let mut body = body.clone();
                const ARGS: &str = "/params/step/args";
                for place in ["/image_info/configdrive", "/configdrive"] {
                    let drive = body.pointer_mut(&format!("{ARGS}{place}"));
                    if let Some(drive) = drive.filter(|drive| drive.is_string()) {
                        *drive = config_drive().into();
                    }
                }
                let info = body.pointer_mut(&format!("{ARGS}/image_info")).and_then(Value::as_object_mut);
                if let Some(info) = info {
                    let url =
                        info["urls"][0].as_str().unwrap().replace("http://10.78.0.1:8080", &self.images);
                    info.insert("urls".into(), json!([url]));
                    info.insert("disk_format".into(), "raw".into());
                    if info.get("os_hash_algo").is_some_and(|name| name == "md5") {
                        let digest = <md5::Md5 as md5::Digest>::digest(raw_image());
                        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                        info.insert("os_hash_value".into(), digest.into());
                    }
                }
                body.to_string()
            }
        }
    }

    /// Pairs the results of two lists by the exchanges that made them; those that were refused here are known by then.
    fn compare_lists(&self, list: &str, ours: &[Value], theirs: &[Value], found: &mut Found) {
        let mut at = 0;
        for result in theirs {
            let Some((name, own)) = result["id"].as_str().and_then(|id| self.results.get(id)) else {
                panic!("{list}: no exchange made {result}");
            };
            let Some(own) = own else { continue };
            let place = ours.iter().position(|candidate| candidate["id"] == **own);
            let Some(place) = place.filter(|place| *place >= at) else {
                found.insert((list.to_owned(), format!("no {name} where it was")));
                continue;
            };
            at = place;
            let ours = as_listed(&ours[place], result);
            found.extend(differences(&ours, result).into_iter().map(|what| (name.clone(), what)));
        }
        let known: BTreeSet<_> = self.results.values().filter_map(|(_, own)| own.as_deref()).collect();
        for result in ours.iter().filter(|result| !known.contains(result["id"].as_str().unwrap())) {
            found.insert((list.to_owned(), format!("also {}", result["command_name"])));
        }
    }
}

/// Exchange and difference.
type Found = BTreeSet<(String, String)>;

/// How two answers differ.
fn differences(ours: &Value, theirs: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    compare("", ours, theirs, &mut found);
    found
}

/// Our result as it was while it ran, where a recorded list has it running and it has succeeded here by then. Only there:
/// the answer that starts a command says RUNNING on both sides, and what has failed here is a difference. No recorded
/// list was asked for during a write, of which ours shows the progress.
fn as_listed(ours: &Value, theirs: &Value) -> Value {
    let mut ours = ours.clone();
    if theirs["command_status"] == "RUNNING" && ours["command_status"] == "SUCCEEDED" {
        ours["command_status"] = "RUNNING".into();
        ours["command_result"] = Value::Null;
    }
    ours
}

fn is_results(list: &[Value]) -> bool {
    list.iter().any(|entry| entry.get("command_name").is_some())
}

async fn lab(trace: &Trace) -> Lab {
    let disk = match trace.disk {
        Disk::Sound(size) => SparseDisk::new("/dev/loop0", size << 20),
        Disk::Trap(size) => SparseDisk::trap("/dev/loop0", size << 20),
    };
    let machine = SmallMachine { disks: vec![disk], ..SmallMachine::default() };
    match trace.writer {
        Writer::Scripted => {
            lab_writing(ScriptedWriter::new(Act::Succeed), ReadRule::Always, true, machine).await
        }
        Writer::Real => lab_writing(Pipeline, ReadRule::Always, true, machine).await,
    }
}

/// One MiB with one partition: small, and yet a whole-disk image.
fn raw_image() -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    image[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
    image[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 16, 0, 8, 0, 0, 0, 64, 0, 0, 0]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

fn config_drive() -> String {
    use base64::Engine as _;
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&[7; 4096]).unwrap();
    base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap())
}

/// Texts that conductors and people read or match; of others only the kind is compared.
const WORDS: &[&str] = &[
    "base",
    "code",
    "command_name",
    "command_status",
    "details",
    "faultcode",
    "faultstring",
    "href",
    "interface",
    "message",
    "name",
    "rel",
    "step",
    "type",
];

/// Notes how `ours` differs from `theirs`; steps are paired by their names.
fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut BTreeSet<String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => compare(&below(key), x, y, found),
                    (None, _) => drop(found.insert(format!("{}: missing", below(key)))),
                    (_, None) => drop(found.insert(format!("{}: more", below(key)))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let name = |entry: &Value| entry["step"].as_str().map(str::to_owned);
            let by_name = |list: &[Value]| list.iter().map(|e| Some((name(e)?, e.clone()))).collect();
            let (x, y): (Option<BTreeMap<_, _>>, Option<BTreeMap<_, _>>) = (by_name(a), by_name(b));
            if let (Some(x), Some(y)) = (x, y) {
                let object = |map: BTreeMap<String, Value>| Value::Object(map.into_iter().collect());
                return compare(path, &object(x), &object(y), found);
            }
            if a.len() != b.len() {
                found.insert(format!("{path}: {} members instead of {}", a.len(), b.len()));
            }
            a.iter().zip(b).for_each(|(x, y)| compare(&format!("{path}[]"), x, y, found));
        }
        _ if kind(ours) != kind(theirs) => {
            found.insert(format!("{path}: {} instead of {}", kind(ours), kind(theirs)));
        }
        _ => {
            let key = path.rsplit('.').next().unwrap_or_default();
            if WORDS.contains(&key) && ours != theirs {
                let is_short = |value: &Value| value.to_string().len() <= 40;
                found.insert(match is_short(ours) && is_short(theirs) {
                    true => format!("{path}: {ours} instead of {theirs}"),
                    false => format!("{path}: other words"),
                });
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[test]
fn a_difference_is_seen() {
    let theirs = json!({"a": 1, "command_name": "x", "free": "text", "steps": [{"step": "s", "priority": 1}, {"step": "t"}], "n": null});
    let ours = json!({"a": "1", "command_name": "y", "free": "other", "steps": [{"step": "s", "priority": 2}], "more": 0});
    let mut found = BTreeSet::new();
    compare("", &ours, &theirs, &mut found);
    let expected = [
        "a: a text instead of a number",
        "command_name: \"y\" instead of \"x\"",
        "more: more",
        "n: missing",
        "steps.t: missing",
    ];
    assert_eq!(found, expected.map(String::from).into());
    let mut none = BTreeSet::new();
    compare("", &theirs, &theirs, &mut none);
    assert!(none.is_empty());
}
