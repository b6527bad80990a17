//! Builds config drives: meta data, user data and network data → an ISO 9660 medium labelled `config-2`.
//!
//! Pure. Compression, base64 and storing are the API's; where the medium lies on the disk is the agent's. Layout of the
//! tree: OpenStack's config drive, as ironic renders it (versions `2012-08-10` and `latest`).

pub mod network_data;

use ferric_common::formats::iso9660::{self, File, IsoError};
use ferric_common::limits;
use ferric_common::units::ByteCount;
use network_data::NetworkDataError;
use serde_json::{Map, Value};

/// The label by which cloud-init finds the medium.
const LABEL: &str = "config-2";
const PUBLISHER: &str = "ironic";
/// 2024-01-01: the same data always gives the same medium, so that a rebuilt one can be compared.
const TIME: u64 = 1_704_067_200;
const VERSIONS: [&str; 2] = ["2012-08-10", "latest"];

/// Why no medium was built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDriveError {
    #[error("config drive: {what} is {found}, must be {wanted}")]
    Type { what: &'static str, found: &'static str, wanted: &'static str },
    #[error("config drive: there is no {0:?}, only meta_data, user_data, network_data and vendor_data")]
    Unknown(String),
    #[error("config drive: {0}")]
    NetworkData(NetworkDataError),
    #[error("config drive: its medium would have {size}, the agent takes at most {most}")]
    Size { size: ByteCount, most: ByteCount },
    #[error("config drive: rendering the medium")]
    Medium(#[from] IsoError),
}

/// What an operator gave for a config drive, checked.
#[derive(Clone, Default, PartialEq)]
pub struct ConfigDrive {
    pub meta_data: Map<String, Value>,
    /// A text as it is; a list or an object as JSON.
    pub user_data: Option<Value>,
    pub network_data: Option<Value>,
    pub vendor_data: Option<Value>,
}

/// User data carries passwords and keys, so contents do not print.
impl std::fmt::Debug for ConfigDrive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConfigDrive(***)")
    }
}

impl ConfigDrive {
    /// Takes `{"meta_data": {}, "user_data": "…", "network_data": {}, "vendor_data": {}}`; each part may be absent,
    /// `null`, or (but for user data) empty.
    ///
    /// # Errors
    /// [`ConfigDriveError`]: a part of another type, an unknown part, network data that clients could not read.
    pub fn from_json(value: &Value) -> Result<ConfigDrive, ConfigDriveError> {
        let parts = value.as_object().ok_or_else(|| wrong("the whole", value, "an object"))?;
        let mut drive = ConfigDrive::default();
        for (name, part) in parts {
            match (name.as_str(), part) {
                ("meta_data" | "user_data" | "network_data" | "vendor_data", Value::Null) => {}
                ("meta_data", Value::Object(map)) => drive.meta_data = map.clone(),
                ("user_data", Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                    drive.user_data = Some(part.clone());
                }
                ("network_data" | "vendor_data", Value::Object(map)) if map.is_empty() => {}
                ("network_data", Value::Object(_)) => {
                    network_data::check(part).map_err(ConfigDriveError::NetworkData)?;
                    drive.network_data = Some(part.clone());
                }
                ("vendor_data", Value::Object(_)) => drive.vendor_data = Some(part.clone()),
                ("meta_data", _) => return Err(wrong("meta_data", part, "an object")),
                ("user_data", _) => return Err(wrong("user_data", part, "a text, a list or an object")),
                ("network_data", _) => return Err(wrong("network_data", part, "an object")),
                ("vendor_data", _) => return Err(wrong("vendor_data", part, "an object")),
                (other, _) => return Err(ConfigDriveError::Unknown(other.into())),
            }
        }
        Ok(drive)
    }
}

/// Builds the medium. `uuid` and `name` of the meta data are the node's where the operator gave none.
///
/// # Errors
/// [`ConfigDriveError::Size`] past 64 MiB.
pub fn build(
    drive: &ConfigDrive,
    node_uuid: &str,
    node_name: Option<&str>,
) -> Result<Vec<u8>, ConfigDriveError> {
    let mut meta_data = drive.meta_data.clone();
    meta_data.entry("uuid").or_insert_with(|| node_uuid.into());
    if let Some(name) = node_name {
        meta_data.entry("name").or_insert_with(|| name.into());
    }
    let mut contents = vec![("meta_data.json", Value::Object(meta_data).to_string())];
    let json = |value: &Value| value.to_string();
    contents.extend(drive.network_data.as_ref().map(|data| ("network_data.json", json(data))));
    contents.extend(drive.user_data.as_ref().map(|data| match data {
        Value::String(text) => ("user_data", text.clone()),
        other => ("user_data", json(other)),
    }));
    contents.extend(drive.vendor_data.as_ref().map(|data| ("vendor_data2.json", json(data))));

    // Checked before rendering too, so that an oversized one costs no more memory than it has.
    within(contents.iter().map(|(_, text)| text.len() as u64).sum::<u64>() * VERSIONS.len() as u64)?;
    let paths: Vec<(String, &[u8])> = VERSIONS
        .iter()
        .flat_map(|version| {
            contents.iter().map(move |(name, text)| (format!("openstack/{version}/{name}"), text.as_bytes()))
        })
        .collect();
    let files: Vec<File<'_>> = paths.iter().map(|(path, bytes)| File { path, bytes }).collect();
    let medium = iso9660::build(LABEL, PUBLISHER, &files, TIME)?;
    within(medium.len() as u64)?;
    Ok(medium)
}

fn within(size: u64) -> Result<(), ConfigDriveError> {
    match size <= limits::CONFIG_DRIVE {
        true => Ok(()),
        false => Err(ConfigDriveError::Size { size: ByteCount(size), most: ByteCount(limits::CONFIG_DRIVE) }),
    }
}

fn wrong(what: &'static str, found: &Value, wanted: &'static str) -> ConfigDriveError {
    ConfigDriveError::Type { what, found: network_data::kind(found), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;
    use std::process::Command;

    fn medium(drive: Value, name: Option<&str>) -> tempfile::NamedTempFile {
        let drive = ConfigDrive::from_json(&drive).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&build(&drive, "UUID", name).unwrap()).unwrap();
        file
    }

    fn tool(program: &str, args: &[&str], file: &tempfile::NamedTempFile, more: &[&str]) -> String {
        let path = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
        let out = Command::new(program).args(args).arg(file.path()).args(more).env("PATH", path).output();
        let out =
            out.unwrap_or_else(|e| panic!("{program} (Debian packages util-linux, libarchive-tools): {e}"));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn read(file: &tempfile::NamedTempFile, path: &str) -> String {
        tool("bsdtar", &["-xOf"], file, &[path])
    }

    #[test]
    fn a_full_drive_has_every_part_in_both_versions() {
        let network = json!({"links": [], "networks": [], "services": []});
        let drive = json!({
            "meta_data": {"hostname": "h", "uuid": "mine"}, "user_data": "#cloud-config\nß\n",
            "network_data": network, "vendor_data": {"v": 1},
        });
        let file = medium(drive, Some("node-7"));
        assert_eq!(tool("blkid", &["-p", "-o", "value", "-s", "LABEL"], &file, &[]), "config-2\n");
        for version in ["latest", "2012-08-10"] {
            let read = |name: &str| read(&file, &format!("openstack/{version}/{name}"));
            assert_eq!(read("user_data"), "#cloud-config\nß\n");
            let parse = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
            assert_eq!(parse("meta_data.json"), json!({"hostname": "h", "uuid": "mine", "name": "node-7"}));
            assert_eq!(parse("network_data.json"), network);
            assert_eq!(parse("vendor_data2.json"), json!({"v": 1}));
        }
    }

    #[test]
    fn absent_parts_are_absent_files_and_the_node_fills_the_meta_data() {
        let file = medium(json!({"user_data": null, "network_data": {}, "vendor_data": null}), None);
        assert_eq!(read(&file, "openstack/latest/meta_data.json"), "{\"uuid\":\"UUID\"}");
        let listing = tool("bsdtar", &["-tf"], &file, &[]);
        assert_eq!(listing.lines().filter(|l| l.contains("latest/")).count(), 1, "{listing}");
        let file = medium(json!({"user_data": [{"a": 1}]}), None);
        assert_eq!(read(&file, "openstack/latest/user_data"), "[{\"a\":1}]");
    }

    #[test]
    fn what_is_no_config_drive_is_refused_in_words() {
        for (value, want) in [
            (json!("x"), "config drive: the whole is a text, must be an object"),
            (json!({"meta_data": []}), "config drive: meta_data is a list, must be an object"),
            (
                json!({"user_data": 5}),
                "config drive: user_data is a number, must be a text, a list or an object",
            ),
            (json!({"vendor_data": true}), "config drive: vendor_data is a boolean, must be an object"),
            (json!({"network_data": ""}), "config drive: network_data is a text, must be an object"),
            (
                json!({"metadata": {}}),
                "config drive: there is no \"metadata\", only meta_data, user_data, network_data and vendor_data",
            ),
            (
                json!({"network_data": {"links": []}}),
                "config drive: network_data has no networks, links, networks and services are all needed (as lists)",
            ),
        ] {
            assert_eq!(ConfigDrive::from_json(&value).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn more_than_64_mib_are_refused_with_both_numbers() {
        let drive = ConfigDrive { user_data: Some("x".repeat(33 << 20).into()), ..ConfigDrive::default() };
        let text = build(&drive, "UUID", None).unwrap_err().to_string();
        assert!(text.starts_with("config drive: its medium would have 66.0 MiB ("), "{text}");
        assert!(text.ends_with("the agent takes at most 64.0 MiB (67108864 bytes)"), "{text}");
    }

    #[test]
    fn the_contents_do_not_print() {
        let drive = ConfigDrive { user_data: Some("secret".into()), ..ConfigDrive::default() };
        assert_eq!(format!("{drive:?}"), "ConfigDrive(***)");
    }
}
