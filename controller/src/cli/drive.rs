//! The config drive of a deployment: made of the operator's files, or a finished one passed on.
//!
//! The medium itself is built by the controller; only a finished ISO image is packed here (gzip, base64: Ironic's form).

use super::args::DriveArgs;
use super::error::CliError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferric_common::limits;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Text files of a config drive, in bytes each.
const TEXT: u64 = 16 << 20;
const KEYS: u64 = 64 << 10;

/// The value of `configdrive`, or `None` if nothing was given for one.
pub fn build(args: &DriveArgs, node: &str) -> Result<Option<Value>, CliError> {
    if let Some(finished) = &args.config_drive {
        return pass_on(finished).map(Some);
    }
    let parts = Parts {
        hostname: args.hostname.clone(),
        user: args.user.clone(),
        keys: args.ssh_key.as_deref().map(read_keys).transpose()?.unwrap_or_default(),
        user_data: args.user_data.as_deref().map(|p| text("the user data", p, TEXT)).transpose()?,
        meta_data: args.meta_data.as_deref().map(|p| object("the meta data", p)).transpose()?,
        network_data: args.network_data.as_deref().map(|p| object("the network data", p)).transpose()?,
    };
    Ok(compose(parts, node))
}

/// What the operator gave, read.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    hostname: Option<String>,
    user: Option<String>,
    keys: Vec<String>,
    user_data: Option<String>,
    meta_data: Option<Map<String, Value>>,
    network_data: Option<Map<String, Value>>,
}

/// Joins the parts. Pure; fields of the operator's own meta data win over those made here.
fn compose(parts: Parts, node: &str) -> Option<Value> {
    if parts == Parts::default() {
        return None;
    }
    let mut meta = Map::new();
    // `name` is what OpenStack shows, `hostname` and `local-hostname` are what cloud-init reads.
    meta.insert("name".into(), node.into());
    if let Some(hostname) = &parts.hostname {
        meta.insert("hostname".into(), hostname.as_str().into());
        meta.insert("local-hostname".into(), hostname.as_str().into());
    }
    if !parts.keys.is_empty() {
        let named = |(n, key): (usize, &String)| (format!("key-{n}"), Value::from(key.as_str()));
        meta.insert("public_keys".into(), Value::Object(parts.keys.iter().enumerate().map(named).collect()));
    }
    meta.extend(parts.meta_data.unwrap_or_default());
    let mut out = Map::new();
    out.insert("meta_data".into(), Value::Object(meta));
    let user_data =
        parts.user_data.or_else(|| parts.user.as_deref().map(|user| cloud_config(user, &parts.keys)));
    out.extend(user_data.map(|text| ("user_data".to_string(), Value::from(text))));
    out.extend(parts.network_data.map(|map| ("network_data".to_string(), Value::Object(map))));
    Some(Value::Object(out))
}

/// A cloud-config that makes one user. JSON is YAML, and needs no rules of quoting of its own.
fn cloud_config(user: &str, keys: &[String]) -> String {
    let config = json!({
        "users": [{
            "name": user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": keys,
        }],
        "ssh_pwauth": false,
    });
    format!("#cloud-config\n{config:#}\n")
}

fn bytes(what: &'static str, path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let shown = path.display().to_string();
    let mut out = Vec::new();
    let read = File::open(path).and_then(|f| f.take(most + 1).read_to_end(&mut out));
    read.map_err(|source| CliError::Read { what, path: shown.clone(), source })?;
    match u64::try_from(out.len()).is_ok_and(|len| len <= most) {
        true => Ok(out),
        false => Err(CliError::Usage(format!(
            "{shown} is larger than {most} bytes: is it the right file for {what}?"
        ))),
    }
}

fn text(what: &'static str, path: &Path, most: u64) -> Result<String, CliError> {
    String::from_utf8(bytes(what, path, most)?)
        .map_err(|_| CliError::Usage(format!("{} is not text (UTF-8): is it {what}?", path.display())))
}

fn object(what: &'static str, path: &Path) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_str(&text(what, path, TEXT)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(CliError::Usage(format!("{}: {what} must be a JSON object", path.display()))),
        Err(e) => Err(CliError::Usage(format!("{}: {what} must be JSON: {e}", path.display()))),
    }
}

fn read_keys(path: &Path) -> Result<Vec<String>, CliError> {
    let text = text("the SSH key", path, KEYS)?;
    if text.contains("PRIVATE KEY") {
        let shown = path.display();
        return Err(CliError::Usage(format!("{shown} is a private key: give the public one ({shown}.pub)")));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_string).collect();
    match keys.is_empty() || keys.iter().any(|key| key.split_whitespace().count() < 2) {
        true => Err(CliError::Usage(format!("{} holds no public SSH key", path.display()))),
        false => Ok(keys),
    }
}

/// A finished drive in the form that the API takes.
fn pass_on(given: &str) -> Result<Value, CliError> {
    if given.contains("://") {
        return Ok(given.into());
    }
    let path = Path::new(given);
    let content = bytes("the config drive", path, limits::CONFIG_DRIVE)?;
    pack(content).map_err(|why| CliError::Usage(format!("{given}: {why}")))
}

fn pack(content: Vec<u8>) -> Result<Value, String> {
    // An ISO 9660 image has its mark 1 byte into sector 16.
    if content.get(0x8001..0x8006) == Some(b"CD001") {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let packed = gzip.write_all(&content).and_then(|()| gzip.finish());
        return packed.map(|bytes| STANDARD.encode(bytes).into()).map_err(|e| e.to_string());
    }
    if content.starts_with(&[0x1F, 0x8B]) {
        return Ok(STANDARD.encode(content).into());
    }
    let text = String::from_utf8(content).map_err(|_| "is neither an ISO image, nor gzip, base64 or JSON")?;
    let text = text.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"));
    }
    let packed: String = text.split_whitespace().collect();
    match STANDARD.decode(&packed) {
        Ok(bytes) if bytes.starts_with(&[0x1F, 0x8B]) => Ok(packed.into()),
        _ => Err("is neither an ISO image, nor gzip, base64 of gzip, or JSON".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_user_with_a_key_becomes_cloud_config() {
        let files = folder(&[("id.pub", "ssh-ed25519 AAAA me@host\n")]);
        let args = DriveArgs {
            hostname: Some("web1".into()),
            user: Some("demo".into()),
            ssh_key: Some(files.path().join("id.pub")),
            ..DriveArgs::default()
        };
        let drive = build(&args, "n1").unwrap().unwrap();
        assert_eq!(
            drive["meta_data"],
            json!({"name": "n1", "hostname": "web1", "local-hostname": "web1",
                "public_keys": {"key-0": "ssh-ed25519 AAAA me@host"}})
        );
        let text = drive["user_data"].as_str().unwrap();
        let config: Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(config["users"][0]["name"], "demo");
        assert_eq!(config["users"][0]["ssh_authorized_keys"], json!(["ssh-ed25519 AAAA me@host"]));
        assert_eq!(config["ssh_pwauth"], false);
    }

    #[test]
    fn the_operators_own_files_go_in_as_they_are() {
        let files = folder(&[
            ("meta", r#"{"hostname": "mine", "role": "db"}"#),
            ("user", "#!/bin/sh\ntrue\n"),
            ("net", r#"{"links": [], "networks": [], "services": []}"#),
        ]);
        let at = |name: &str| Some(files.path().join(name));
        let args = DriveArgs {
            hostname: Some("other".into()),
            meta_data: at("meta"),
            user_data: at("user"),
            network_data: at("net"),
            ..DriveArgs::default()
        };
        let drive = build(&args, "n1").unwrap().unwrap();
        assert_eq!(drive["meta_data"]["hostname"], "mine");
        assert_eq!(drive["meta_data"]["role"], "db");
        assert_eq!(drive["user_data"], "#!/bin/sh\ntrue\n");
        assert_eq!(drive["network_data"], json!({"links": [], "networks": [], "services": []}));
        assert_eq!(build(&DriveArgs::default(), "n1").unwrap(), None);
    }

    #[test]
    fn wrong_files_are_named() {
        let files = folder(&[
            ("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("empty.pub", "\n"),
            ("list.json", "[1]"),
            ("broken.json", "{"),
            ("noise", "hello"),
        ]);
        let at = |name: &str| Some(files.path().join(name));
        let key = |path: Option<PathBuf>| DriveArgs { ssh_key: path, ..DriveArgs::default() };
        let meta = |path: Option<PathBuf>| DriveArgs { meta_data: path, ..DriveArgs::default() };
        let whole = |path: PathBuf| DriveArgs {
            config_drive: Some(path.display().to_string()),
            ..DriveArgs::default()
        };
        for (args, words) in [
            (key(at("id")), "is a private key: give the public one"),
            (key(at("empty.pub")), "holds no public SSH key"),
            (key(at("absent")), "reading the SSH key from"),
            (meta(at("list.json")), "must be a JSON object"),
            (meta(at("broken.json")), "must be JSON"),
            (whole(files.path().join("noise")), "neither an ISO image"),
        ] {
            let said = build(&args, "n").unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_finished_drive_is_packed_as_ironic_wants_it() {
        let mut iso = vec![0; 0x8800];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        let packed = pack(iso.clone()).unwrap();
        let bytes = STANDARD.decode(packed.as_str().unwrap()).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut back).unwrap();
        assert_eq!(back, iso);
        assert_eq!(pack(bytes).unwrap(), packed, "gzip is only encoded");
        let text = packed.as_str().unwrap();
        let (one, two) = text.split_at(20);
        assert_eq!(pack(format!("{one}\n{two}\n").into_bytes()).unwrap(), packed, "base64 goes through");
        assert_eq!(pack(b" {\"meta_data\": {}}".to_vec()).unwrap(), json!({"meta_data": {}}));
        assert_eq!(pass_on("http://h/drive").unwrap(), "http://h/drive");
    }
}
