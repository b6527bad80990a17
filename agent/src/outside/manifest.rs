//! What an operator says of a step: JSON in, a checked [`Manifest`] out, or words. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The kinds of steps, as conductors' commands name them.
const KINDS: &[&str] = &["clean", "deploy", "service"];
/// The interfaces whose in-band steps conductors take.
const INTERFACES: &[&str] = &["bios", "deploy", "firmware", "management", "power", "raid"];
/// Seconds: an hour, unless the manifest says otherwise; never more than a week.
const TIMEOUT: u64 = 3600;
const TIMEOUT_MOST: u64 = 7 * 24 * 3600;
/// Characters of a name; it is part of results, logs and errors.
const NAME_MOST: usize = 64;

/// A step from outside, as its manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    #[serde(default = "deploy")]
    pub interface: String,
    pub kinds: Vec<String>,
    /// 0: runs only when it is asked for. Above: with every cleaning or deployment, higher ones first.
    #[serde(default)]
    pub priority: u32,
    #[serde(default)]
    pub args: BTreeMap<String, Argument>,
    #[serde(default)]
    pub reboot_requested: bool,
    #[serde(default = "yes")]
    pub abortable: bool,
    /// Seconds.
    #[serde(default = "timeout")]
    timeout: u64,
}

/// One argument of a step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    pub description: String,
    #[serde(default)]
    pub required: bool,
}

fn deploy() -> String {
    "deploy".to_owned()
}
fn yes() -> bool {
    true
}
fn timeout() -> u64 {
    TIMEOUT
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// What an operator must change, in words.
    pub fn parse(text: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "the name {:?} must be 1 to {NAME_MOST} of a-z, 0-9 and _, and begin with a letter",
                self.name
            ));
        }
        if self.kinds.is_empty() {
            return Err(format!("kinds is empty; name some of {}", KINDS.join(", ")));
        }
        if let Some(kind) = self.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(format!("there is no kind {kind:?}, only {}", KINDS.join(", ")));
        }
        if !INTERFACES.contains(&self.interface.as_str()) {
            return Err(format!(
                "there is no interface {:?}, only {}",
                self.interface,
                INTERFACES.join(", ")
            ));
        }
        if let Some(odd) = self.args.keys().find(|name| !is_name(name)) {
            return Err(format!("the argument {odd:?} must be named with a-z, 0-9 and _"));
        }
        if self.timeout == 0 || self.timeout > TIMEOUT_MOST {
            return Err(format!("timeout is {} s; it must be 1 to {TIMEOUT_MOST}", self.timeout));
        }
        Ok(())
    }

    pub fn is_of(&self, kind: &str) -> bool {
        self.kinds.iter().any(|own| own == kind)
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The step as a conductor reads it in the list of this kind.
    pub fn published(&self, kind: &str) -> Value {
        let mut step = json!({
            "step": self.name,
            "priority": self.priority,
            "interface": self.interface,
            "reboot_requested": self.reboot_requested,
        });
        let Some(fields) = step.as_object_mut() else { return step };
        // Only cleanings can be aborted, and only their steps say so.
        if kind == "clean" {
            fields.insert("abortable".into(), json!(self.abortable));
        }
        if !self.args.is_empty() {
            let argument = |argument: &Argument| json!({"description": argument.description, "required": argument.required});
            let args: Map<String, Value> =
                self.args.iter().map(|(name, value)| (name.clone(), argument(value))).collect();
            fields.insert("argsinfo".into(), Value::Object(args));
        }
        step
    }

    /// Holds the arguments of a request against those of the manifest.
    ///
    /// # Errors
    /// The first one that is missing or unknown, in words.
    pub fn check_args(&self, given: &Map<String, Value>) -> Result<(), String> {
        if let Some((missing, _)) =
            self.args.iter().find(|(name, argument)| argument.required && !given.contains_key(*name))
        {
            return Err(format!("the step {} needs the argument '{missing}'", self.name));
        }
        match given.keys().find(|name| !self.args.contains_key(*name)) {
            Some(odd) => Err(format!("the step {} has no argument '{odd}'", self.name)),
            None => Ok(()),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_MOST
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let error = Manifest::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_short_manifest_has_careful_defaults() {
        let manifest = Manifest::parse(br#"{"name": "tune", "kinds": ["clean", "deploy"]}"#).unwrap();
        assert_eq!(
            manifest.published("clean"),
            json!({"step": "tune", "priority": 0, "interface": "deploy", "reboot_requested": false, "abortable": true})
        );
        assert_eq!(manifest.published("deploy").get("abortable"), None);
        assert_eq!(manifest.timeout(), Duration::from_secs(3600));
        assert!(manifest.is_of("deploy") && !manifest.is_of("service"));
    }

    #[test]
    fn arguments_are_published_and_asked_for() {
        let text = br#"{"name": "tune", "kinds": ["service"], "priority": 7, "interface": "bios", "abortable": false,
            "args": {"profile": {"description": "which", "required": true}, "loud": {"description": "say more"}}}"#;
        let manifest = Manifest::parse(text).unwrap();
        let step = manifest.published("service");
        assert_eq!(step["argsinfo"]["profile"], json!({"description": "which", "required": true}));
        assert_eq!(step["argsinfo"]["loud"]["required"], json!(false));
        assert_eq!((&step["priority"], &step["interface"]), (&json!(7), &json!("bios")));
        let check = |given: Value| manifest.check_args(given.as_object().unwrap());
        assert_eq!(check(json!({"profile": "fast"})), Ok(()));
        assert_eq!(check(json!({"loud": true})), Err("the step tune needs the argument 'profile'".into()));
        assert_eq!(check(json!({"profile": 1, "x": 2})), Err("the step tune has no argument 'x'".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused("{", "EOF");
        refused(r#"{"name": "tune"}"#, "missing field `kinds`");
        refused(r#"{"name": "tune", "kinds": ["clean"], "prio": 1}"#, "unknown field `prio`");
        refused(r#"{"name": "Tune!", "kinds": ["clean"]}"#, "the name \"Tune!\" must be");
        refused(r#"{"name": "tune", "kinds": []}"#, "kinds is empty");
        refused(
            r#"{"name": "tune", "kinds": ["rescue"]}"#,
            "no kind \"rescue\", only clean, deploy, service",
        );
        refused(r#"{"name": "tune", "kinds": ["clean"], "interface": "boot"}"#, "no interface \"boot\"");
        refused(r#"{"name": "tune", "kinds": ["clean"], "timeout": 0}"#, "timeout is 0 s");
        refused(r#"{"name": "tune", "kinds": ["clean"], "priority": -1}"#, "invalid value");
        refused(
            r#"{"name": "tune", "kinds": ["clean"], "args": {"../x": {"description": ""}}}"#,
            "the argument \"../x\"",
        );
    }
}
