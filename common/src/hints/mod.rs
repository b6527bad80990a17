//! Root device hints: parse, match, say why not.
//!
//! Pure. Behaves as ironic-python-agent 13.0.0, quirks included, since operators' hints are written against it; the
//! refusals, disk by disk, are ours. Reading the disks is the agent's.

mod expression;

use crate::limits::SMALLEST_ROOT_DISK;
use crate::units::{ByteCount, GIB};
use crate::wire::inventory::Disk;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use expression::Test;
use serde_json::{Map, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Text,
    Boolean,
}

/// Every hint, in the order of upstream's error text.
const VALID: [(&str, Kind); 12] = [
    ("size", Kind::Integer),
    ("model", Kind::Text),
    ("wwn", Kind::Text),
    ("serial", Kind::Text),
    ("vendor", Kind::Text),
    ("wwn_with_extension", Kind::Text),
    ("wwn_vendor_extension", Kind::Text),
    ("name", Kind::Text),
    ("rotational", Kind::Boolean),
    ("hctl", Kind::Text),
    ("by_path", Kind::Text),
    ("tran", Kind::Text),
];

/// Hints that cannot be used. The texts that begin in upper case are upstream's, word by word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    #[error("root device hints are {0}, not an object such as {{\"serial\": \"s== X\"}}")]
    NotAnObject(String),
    #[error("The hints \"{0}\" are invalid. Valid hints are: \"{names}\"", names = valid_names())]
    Unknown(String),
    #[error("Root device hint \"{name}\" is not an integer value. Current value: {value}")]
    NotAnInteger { name: &'static str, value: String },
    #[error("Root device hint \"{name}\" should be a positive integer. Current value: {value}")]
    NotPositive { name: &'static str, value: String },
    #[error("Root device hint \"{name}\" is not a Boolean value. Current value: {value}")]
    NotABoolean { name: &'static str, value: String },
    #[error("Root device hint \"{name}\" is not a string value. Hint expression: {value}")]
    NotAString { name: &'static str, value: String },
    #[error("Root device hint {name} expression is empty")]
    Empty { name: &'static str },
    #[error("root device hint \"{name}\" cannot be read: {expression}: an operator needs a value behind it")]
    Unreadable { name: &'static str, expression: String },
    #[error("root device hint \"{name}\": {expression}: {op} does not work on {kind}")]
    UnfitOperator { name: &'static str, expression: String, op: &'static str, kind: &'static str },
    #[error(
        "root device hint \"{name}\": {expression}: this operator compares numbers, the value is none (texts: s== s!= <in> <or>)"
    )]
    NotANumber { name: &'static str, expression: String },
    #[error("skip_block_devices is {0}, not a list of hint objects")]
    SkipList(String),
}

/// A disk as hints see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    pub disk: Disk,
    /// All serials under which the disk may be known (lsblk's, udev's short and long); one that fits is enough.
    pub serials: Vec<String>,
    pub wwns: Vec<String>,
}

/// What stands in a clause's attribute on one disk.
enum Found<'a> {
    Size(u64),
    Rotational(bool),
    Text(Option<&'a str>),
    Texts(Vec<&'a str>),
}

#[derive(Clone, Debug, PartialEq)]
struct Clause {
    name: &'static str,
    test: ClauseTest,
    /// `s== 'X'`
    wanted: String,
}

#[derive(Clone, Debug, PartialEq)]
enum ClauseTest {
    Is(bool),
    Expression(Test),
}

/// Hints that were parsed; a disk must meet all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Hints {
    clauses: Vec<Clause>,
    written: String,
}

impl Hints {
    /// Parses a node's `root_device`. `null` and `{}` are no hints.
    ///
    /// # Errors
    /// [`HintError`], with upstream's texts.
    pub fn parse(value: &Value) -> Result<Option<Hints>, HintError> {
        let map = match value {
            Value::Null => return Ok(None),
            Value::Object(map) if map.is_empty() => return Ok(None),
            Value::Object(map) => map,
            other => return Err(HintError::NotAnObject(other.to_string())),
        };
        let is_valid = |name: &str| VALID.iter().any(|(valid, _)| *valid == name);
        let unknown = map.keys().filter(|k| !is_valid(k)).map(String::as_str).collect::<Vec<_>>();
        if !unknown.is_empty() {
            return Err(HintError::Unknown(unknown.join(", ")));
        }
        let mut clauses = Vec::new();
        for (name, kind) in VALID {
            if let Some(value) = map.get(name) {
                clauses.push(Clause::parse(name, kind, value)?);
            }
        }
        Ok(Some(Hints { clauses, written: python(value) }))
    }

    /// Whether a disk meets every hint.
    ///
    /// # Errors
    /// The first hint that refuses it, in words.
    pub fn check(&self, candidate: &Candidate) -> Result<(), String> {
        self.clauses.iter().try_for_each(|clause| clause.check(candidate))
    }
}

/// The hints as a Python dictionary prints, as upstream's messages show them.
impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Clause {
    fn parse(name: &'static str, kind: Kind, value: &Value) -> Result<Clause, HintError> {
        let shown = match value {
            Value::String(text) => text.clone(),
            other => python(other),
        };
        let expression = |test, default| Clause {
            name,
            test: ClauseTest::Expression(test),
            wanted: expression::describe(&shown, default),
        };
        match kind {
            Kind::Integer => Ok(expression(Test::integer(name, &shown)?, "==")),
            Kind::Text if value.is_string() => Ok(expression(Test::text(name, &shown)?, "s==")),
            Kind::Text => Err(HintError::NotAString { name, value: shown }),
            Kind::Boolean => {
                let wanted = match shown.trim().to_lowercase().as_str() {
                    "1" | "t" | "true" | "on" | "y" | "yes" => true,
                    "0" | "f" | "false" | "off" | "n" | "no" => false,
                    _ => return Err(HintError::NotABoolean { name, value: shown }),
                };
                Ok(Clause { name, test: ClauseTest::Is(wanted), wanted: wanted.to_string() })
            }
        }
    }

    fn check(&self, candidate: &Candidate) -> Result<(), String> {
        let found = self.find(candidate);
        let fits = match (&self.test, &found) {
            (ClauseTest::Is(wanted), Found::Rotational(is)) => wanted == is,
            (ClauseTest::Expression(test), Found::Size(bytes)) => {
                test.accepts_number(*bytes as f64 / GIB as f64)
            }
            // What the machine does not say is the text "none" to upstream, so that the hint `none` finds it.
            (ClauseTest::Expression(test), Found::Text(text)) => test.accepts_text(text.unwrap_or("none")),
            (ClauseTest::Expression(test), Found::Texts(texts)) => {
                texts.iter().any(|text| test.accepts_text(text))
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.refusal(&found)) }
    }

    fn refusal(&self, found: &Found<'_>) -> String {
        let (name, wanted) = (self.name, &self.wanted);
        match found {
            Found::Size(bytes) if self.test == ClauseTest::Expression(Test::Never) => {
                format!(
                    "{name} is {}, wanted {wanted}, which compares texts and never fits a number",
                    ByteCount(*bytes)
                )
            }
            Found::Size(bytes) => format!("{name} is {}, wanted {wanted} GiB", ByteCount(*bytes)),
            Found::Rotational(is) => format!("{name} is {is}, wanted {wanted}"),
            Found::Text(Some(text)) => format!("{name} is '{text}', wanted {wanted}"),
            Found::Texts(texts) if !texts.is_empty() => {
                format!("{name} is '{}', wanted {wanted}", texts.join("' or '"))
            }
            Found::Text(None) | Found::Texts(_) => format!("{name} is not known, wanted {wanted}"),
        }
    }

    fn find<'a>(&self, candidate: &'a Candidate) -> Found<'a> {
        let disk = &candidate.disk;
        let text = match self.name {
            "size" => return Found::Size(disk.size),
            "rotational" => return Found::Rotational(disk.rotational),
            "serial" => return Found::Texts(all(&disk.serial, &candidate.serials)),
            "wwn" => return Found::Texts(all(&disk.wwn, &candidate.wwns)),
            "name" => return Found::Text(Some(&disk.name)),
            "model" => &disk.model,
            "vendor" => &disk.vendor,
            "wwn_with_extension" => &disk.wwn_with_extension,
            "wwn_vendor_extension" => &disk.wwn_vendor_extension,
            "hctl" => &disk.hctl,
            "by_path" => &disk.by_path,
            "tran" => &disk.tran,
            _ => &None,
        };
        Found::Text(text.as_deref())
    }
}

/// No disk to deploy to. Begins with upstream's sentence; then one clause per disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMatch {
    /// `None`: there were no hints, and no disk was large enough.
    hints: Option<String>,
    refusals: Vec<(String, String)>,
}

impl fmt::Display for NoMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(hints) = &self.hints else {
            return write!(
                f,
                "No suitable device was found for deployment - root device hints were not provided and all found block \
                 devices are smaller than {SMALLEST_ROOT_DISK}B."
            );
        };
        write!(f, "No suitable device was found for deployment using these hints {hints}: ")?;
        if self.refusals.is_empty() {
            return f.write_str("the machine shows no disk at all");
        }
        for (i, (disk, why)) in self.refusals.iter().enumerate() {
            write!(f, "{}{disk}: {why}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl core::error::Error for NoMatch {}

/// Returns the place of the first disk, in the order given, that satisfies every hint.
///
/// A `size` hint is in GiB (2^30 bytes) and meets the exact quotient: a disk of 10.9 GiB is not `== 10`.
///
/// # Errors
/// [`NoMatch`] names, for each disk, the first hint that refused it.
pub fn choose(hints: &Hints, disks: &[Candidate]) -> Result<usize, NoMatch> {
    let mut refusals = Vec::new();
    for (place, candidate) in disks.iter().enumerate() {
        match hints.check(candidate) {
            Ok(()) => return Ok(place),
            Err(why) => refusals.push((describe(candidate), why)),
        }
    }
    Err(NoMatch { hints: Some(hints.to_string()), refusals })
}

/// Returns the place of the smallest disk of at least 4 GiB, among equals the first by name: the choice without hints.
///
/// # Errors
/// [`NoMatch`] with upstream's sentence, unchanged: no disk is that large.
pub fn smallest(disks: &[Candidate]) -> Result<usize, NoMatch> {
    disks
        .iter()
        .enumerate()
        .filter(|(_, c)| c.disk.size >= SMALLEST_ROOT_DISK)
        .min_by_key(|(_, c)| (c.disk.size, c.disk.name.as_str()))
        .map(|(place, _)| place)
        .ok_or(NoMatch { hints: None, refusals: Vec::new() })
}

/// A node's `skip_block_devices`: disks that are neither chosen nor erased.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SkipList {
    hints: Vec<Hints>,
    /// Software RAID arrays that are kept, by name.
    pub volume_names: Vec<String>,
}

impl SkipList {
    /// Takes the list from a node's `properties`; absent or `null` is an empty list.
    ///
    /// # Errors
    /// [`HintError`]: an entry that is neither hints nor `{"volume_name": "…"}`. Nothing may be erased then.
    pub fn parse(properties: &Map<String, Value>) -> Result<SkipList, HintError> {
        let mut list = SkipList::default();
        let entries = match properties.get("skip_block_devices") {
            None | Some(Value::Null) => return Ok(list),
            Some(Value::Array(entries)) => entries,
            Some(other) => return Err(HintError::SkipList(other.to_string())),
        };
        for entry in entries {
            match entry.get("volume_name") {
                Some(Value::String(name)) => list.volume_names.push(name.clone()),
                Some(other) => {
                    return Err(HintError::NotAString { name: "volume_name", value: python(other) });
                }
                None => list.hints.extend(Hints::parse(entry)?),
            }
        }
        Ok(list)
    }

    /// Whether a disk is to be left alone.
    pub fn skips(&self, candidate: &Candidate) -> bool {
        self.hints.iter().any(|hints| hints.check(candidate).is_ok())
    }
}

fn valid_names() -> String {
    VALID.map(|(name, _)| name).join(", ")
}

fn all<'a>(first: &'a Option<String>, more: &'a [String]) -> Vec<&'a str> {
    let mut texts: Vec<&str> = first.as_deref().into_iter().collect();
    for text in more {
        if !texts.contains(&text.as_str()) {
            texts.push(text);
        }
    }
    texts
}

/// `/dev/sda (10.0 GiB, serial X)`
fn describe(candidate: &Candidate) -> String {
    let size = ByteCount(candidate.disk.size).to_string();
    let size = size.split(" (").next().unwrap_or_default().to_owned();
    match candidate.disk.serial.as_deref().or(candidate.serials.first().map(String::as_str)) {
        Some(serial) => format!("{} ({size}, serial {serial})", candidate.disk.name),
        None => format!("{} ({size}, no serial)", candidate.disk.name),
    }
}

/// A JSON value as Python prints it, since upstream's messages show it that way.
pub fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(k, v)| format!("'{k}': {}", python(v))).collect::<Vec<_>>();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
