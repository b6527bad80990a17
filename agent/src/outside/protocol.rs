//! What passes between the agent and a step from outside: one JSON document in, JSON lines out. Pure.

use serde_json::{Map, Value, json};

/// The version of the document that a step reads; it grows only when what is there changes its meaning.
const PROTOCOL: u32 = 1;
/// Bytes of a line of output; a result is one line.
const LINE: usize = 256 << 10;
/// Bytes of the last words that a failure repeats.
const TAIL: usize = 2 << 10;

/// What a node is to a step: names and the operator's own words, none of the conductor's.
const NODE: &[&str] = &[
    "uuid",
    "name",
    "instance_uuid",
    "resource_class",
    "conductor_group",
    "provision_state",
    "traits",
    "properties",
    "extra",
    "instance_info",
    "target_raid_config",
    "raid_config",
];
const PORT: &[&str] =
    &["uuid", "address", "name", "pxe_enabled", "local_link_connection", "physical_network", "extra"];
/// A key with one of these in its name is taken out, however deep it lies: tenants' data, and addresses that are
/// credentials (signed URLs).
const SECRET: &[&str] =
    &["password", "secret", "token", "credential", "auth", "private", "configdrive", "user_data", "_url"];

/// Everything that a step is told.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    pub kind: &'a str,
    pub step: &'a str,
    pub interface: &'a str,
    pub args: &'a Map<String, Value>,
    pub node: &'a Value,
    pub ports: &'a Value,
    pub disks: Value,
    /// The disk that holds the operating system, or will, and its partitions in order.
    pub root_disk: Option<&'a str>,
    pub partitions: &'a [String],
}

impl Order<'_> {
    /// The document for standard input.
    pub fn document(&self) -> Vec<u8> {
        let port = |port: &Value| chosen(port, PORT);
        let ports: Vec<Value> = self.ports.as_array().into_iter().flatten().map(port).collect();
        let document = json!({
            "protocol": PROTOCOL,
            "kind": self.kind,
            "step": {"name": self.step, "interface": self.interface},
            "args": self.args,
            "node": chosen(self.node, NODE),
            "ports": ports,
            "disks": self.disks,
            "root_disk": self.root_disk,
            "root_disk_partitions": self.partitions,
        });
        document.to_string().into_bytes()
    }
}

fn chosen(object: &Value, names: &[&str]) -> Value {
    let part = |name: &&str| Some(((*name).to_owned(), without_secrets(object.get(*name)?)));
    Value::Object(names.iter().filter_map(part).collect())
}

fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !is_secret(name))
            .map(|(name, value)| (name.clone(), without_secrets(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(values) => values.iter().map(without_secrets).collect(),
        other => other.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// One line of a step's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// How far it is: a text for people, and amounts in whatever it counts, if it counts.
    Progress {
        text: String,
        done: u64,
        total: Option<u64>,
    },
    Result(Value),
    /// It failed and says why.
    Error(String),
    /// Anything else, such as the output of a tool that it calls.
    Text(String),
}

impl Line {
    fn parse(bytes: &[u8]) -> Line {
        let text = || Line::Text(String::from_utf8_lossy(bytes).trim_end().to_owned());
        let Ok(Value::Object(mut line)) = serde_json::from_slice(bytes) else { return text() };
        if let Some(result) = line.remove("result") {
            return Line::Result(result);
        }
        if let Some(Value::String(error)) = line.get("error") {
            return Line::Error(error.clone());
        }
        let Some(Value::String(words)) = line.get("progress") else { return text() };
        let amount = |name: &str| line.get(name).and_then(Value::as_u64);
        Line::Progress {
            text: words.clone(),
            done: amount("done").unwrap_or_default(),
            total: amount("total"),
        }
    }
}

/// Cuts a stream into lines. What goes on without an end is cut at [`LINE`] bytes.
#[derive(Default)]
pub struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Takes bytes and hands out each line that is complete.
    pub fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(Line)) {
        for &byte in bytes {
            if byte != b'\n' {
                self.open.push(byte);
            }
            if byte == b'\n' || self.open.len() >= LINE {
                tell_one(&std::mem::take(&mut self.open), &mut tell);
            }
        }
    }

    /// Hands out what stands after the last line feed.
    pub fn end(&mut self, mut tell: impl FnMut(Line)) {
        tell_one(&std::mem::take(&mut self.open), &mut tell);
    }
}

fn tell_one(line: &[u8], tell: &mut impl FnMut(Line)) {
    if !line.trim_ascii().is_empty() {
        tell(Line::parse(line));
    }
}

/// The last words of a program.
#[derive(Default)]
pub struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let over = self.bytes.len().saturating_sub(TAIL);
        self.bytes.drain(..over);
    }

    /// On one line, since it becomes the node's `last_error`.
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Line> {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| heard.push(line));
        }
        lines.end(|line| heard.push(line));
        heard
    }

    #[test]
    fn lines_are_put_together_from_any_chunks() {
        let heard = lines(&[
            b"{\"progress\": \"unpack",
            b"ing\", \"done\": 3, \"total\": 9}\n\nSetting up vim\n{\"res",
            b"ult\": {\"n\": 1}}\n{\"error\": \"no space\"}",
        ]);
        let wanted = vec![
            Line::Progress { text: "unpacking".into(), done: 3, total: Some(9) },
            Line::Text("Setting up vim".into()),
            Line::Result(json!({"n": 1})),
            Line::Error("no space".into()),
        ];
        assert_eq!(heard, wanted);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let heard = lines(&[&vec![b'x'; 2 * LINE + 1]]);
        assert_eq!(heard.len(), 3);
    }

    #[test]
    fn other_objects_and_deep_nesting_are_text() {
        assert_eq!(lines(&[b"{\"a\": 1}\n"]), [Line::Text("{\"a\": 1}".into())]);
        assert!(matches!(lines(&[&vec![b'['; 10_000]]).as_slice(), [Line::Text(_)]));
    }

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::default();
        tail.push(&vec![b'a'; 5 * TAIL]);
        tail.push(b"\n\n E: no such package \n");
        assert!(tail.words().ends_with("a | E: no such package"), "{}", tail.words());
        assert!(tail.words().len() <= TAIL + 3);
    }

    #[test]
    fn a_step_gets_no_secrets_of_the_node() {
        let node = json!({
            "uuid": "n", "properties": {"cpu_arch": "x86_64"}, "extra": {"rack": 7, "deep": [{"root_password": "p1"}]},
            "driver_info": {"ipmi_password": "p2"}, "driver_internal_info": {"agent_secret_token": "p3"},
            "instance_info": {"configdrive": "p4", "image_url": "http://x/?sig=p5", "display_name": "web"},
        });
        let ports = json!([{"address": "52:54:00:00:00:01", "internal_info": {"x": "p6"}}]);
        let args = json!({"packages": ["vim"]});
        let order = Order {
            kind: "deploy",
            step: "tune",
            interface: "deploy",
            args: args.as_object().unwrap(),
            node: &node,
            ports: &ports,
            disks: json!([]),
            root_disk: Some("/dev/sda"),
            partitions: &["/dev/sda1".into()],
        };
        let document: Value = serde_json::from_slice(&order.document()).unwrap();
        let wanted = json!({
            "protocol": 1, "kind": "deploy", "step": {"name": "tune", "interface": "deploy"}, "args": {"packages": ["vim"]},
            "node": {"uuid": "n", "properties": {"cpu_arch": "x86_64"}, "extra": {"rack": 7, "deep": [{}]},
                     "instance_info": {"display_name": "web"}},
            "ports": [{"address": "52:54:00:00:00:01"}], "disks": [], "root_disk": "/dev/sda",
            "root_disk_partitions": ["/dev/sda1"],
        });
        assert_eq!(document, wanted);
    }
}
