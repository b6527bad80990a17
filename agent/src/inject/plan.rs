//! Files as a conductor or a node's properties name them → what is to be done, in order. Pure.
//!
//! Source of fields, rules and the beginning of texts: ironic-python-agent 13.0.0, `inject_files.py`.

use super::named::Name;
use crate::platform::files::Access;
use base64::Engine as _;
use serde_json::{Map, Value};

/// Files of one step, and bytes of a path (the kernel's own `PATH_MAX`).
const FILES: usize = 1024;
const PATH: usize = 4096;
const FIELDS: [&str; 8] = ["path", "partition", "content", "deleted", "mode", "dirmode", "owner", "group"];

/// Where the file system is on which a file stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A partition of the root disk, by its number.
    Number(u32),
    /// A block device.
    Device(String),
    /// The partition of the root disk that is called so.
    Named(Name),
    /// The first partition of the root disk that has this folder at its top.
    WhereIs(String),
}

/// What a file is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// With places that [`super::template`] fills.
    Address(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Remove,
    Put(Content, Access),
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Below the root of its file system, without a leading slash.
    pub path: String,
    pub place: Place,
    pub action: Action,
}

/// Checks all files before anything is touched: those of the node's properties, then the step's.
///
/// # Errors
/// Everything that is wrong, joined. Contents are not repeated: they may be secrets.
pub fn orders(properties: Option<&Value>, argument: Option<&Value>) -> Result<Vec<Order>, String> {
    let mut files = listed(properties, "The `inject_files` node property")?.to_vec();
    files.extend_from_slice(listed(argument, "The `files` argument")?);
    if files.len() > FILES {
        return Err(format!("Validation of files failed: {} files are more than {FILES}", files.len()));
    }
    let (mut orders, mut failures) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        let path = file.get("path").and_then(Value::as_str).unwrap_or_default();
        match order(file) {
            Ok(order) => orders.push(order),
            Err(why) => failures.push(format!("file {} ('{path}'): {why}", index.saturating_add(1))),
        }
    }
    match failures.is_empty() {
        true => Ok(orders),
        false => Err(format!("Validation of files failed: {}", failures.join("; "))),
    }
}

fn listed<'a>(given: Option<&'a Value>, what: &str) -> Result<&'a [Value], String> {
    match given {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(files)) => Ok(files),
        Some(_) => Err(format!("{what} must be a list")),
    }
}

fn order(file: &Value) -> Result<Order, String> {
    let file = file.as_object().ok_or("it is not an object")?;
    if let Some(odd) = file.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!("unexpected field '{odd}'"));
    }
    let path = path(file)?;
    let place = place(file, &path)?;
    let is_deleted = match file.get("deleted") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(deleted)) => *deleted,
        Some(_) => return Err("deleted must be true or false".into()),
    };
    // Checked for deleted ones, too.
    let access = access(file)?;
    let action = match (is_deleted, file.get("content")) {
        (true, None | Some(Value::Null)) => Action::Remove,
        (true, Some(Value::String(text))) if text.is_empty() => Action::Remove,
        (true, Some(_)) => return Err("content cannot be used with deleted".into()),
        (false, Some(Value::String(text))) => Action::Put(content(text)?, access),
        (false, _) => return Err("it needs content, a text, or deleted".into()),
    };
    Ok(Order { path, place, action })
}

fn path(file: &Map<String, Value>) -> Result<String, String> {
    let given =
        file.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()).ok_or("expected a path")?;
    if given.ends_with('/') {
        return Err("directories not supported".into());
    }
    if given.len() > PATH || given.contains('\0') {
        return Err(format!("its path is longer than {PATH} bytes or holds a null byte"));
    }
    let parts: Vec<&str> = given.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") || parts.is_empty() || given.ends_with("/.") {
        return Err("its path must name a file without '..'".into());
    }
    Ok(parts.join("/"))
}

fn place(file: &Map<String, Value>, path: &str) -> Result<Place, String> {
    let number = |number: u64| u32::try_from(number).map_err(|_| "partition has no such number".to_owned());
    let given = match file.get("partition") {
        Some(Value::Number(given)) => match given.as_u64() {
            Some(0) => None,
            Some(given) => return number(given).map(Place::Number),
            None => return Err("partition must be a number from 1 or a device".into()),
        },
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.trim()).filter(|text| !text.is_empty()),
        Some(_) => return Err("partition must be a number or a device".into()),
    };
    match given {
        None => match path.split_once('/') {
            Some((folder, _)) => Ok(Place::WhereIs(folder.to_owned())),
            None => Err("a file in the root directory requires \"partition\"".into()),
        },
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map(Place::Number).map_err(|_| "partition has no such number".into())
        }
        Some(text) if text.starts_with("/dev/") && !text.contains("..") => Ok(Place::Device(text.to_owned())),
        Some(text) => match Name::read(text) {
            Some(name) => name.map(Place::Named),
            None => Err("partition must be a number, a device such as /dev/sda2, or LABEL=, UUID=, PARTLABEL= or PARTUUID= \
                         with its value"
                .into()),
        },
    }
}

fn access(file: &Map<String, Value>) -> Result<Access, String> {
    let number = |field: &str, highest: i64| match file.get(field) {
        None => Ok(None),
        Some(value) => match value.as_i64().filter(|_| value.is_number()) {
            Some(number) if (-1..=highest).contains(&number) => Ok(u32::try_from(number).ok()),
            Some(_) => Err(format!("{field} is out of range")),
            None => Err(format!("{field} must be a number")),
        },
    };
    // 0 and -1 leave modes, -1 leaves owners, as they are.
    let mode = |field| Ok::<_, String>(number(field, 0o7777)?.filter(|mode| *mode != 0));
    let id = |field| number(field, i64::from(u32::MAX) - 1);
    Ok(Access {
        mode: mode("mode")?,
        folder_mode: mode("dirmode")?,
        owner: id("owner")?,
        group: id("group")?,
    })
}

fn content(text: &str) -> Result<Content, String> {
    if text.contains("://") {
        return Ok(Content::Address(text.to_owned()));
    }
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact);
    bytes
        .map(Content::Bytes)
        .map_err(|error| format!("its content is neither an address nor base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn properties_come_first_and_all_fields_are_read() {
        let full = json!([{"path": "/etc//app/./conf", "partition": "2", "content": "aGk=\n", "mode": 0o600,
                           "dirmode": 0o700, "owner": 10, "group": -1}]);
        let orders = orders(Some(&json!([{"path": "etc/motd", "deleted": true}])), Some(&full)).unwrap();
        let access = Access { mode: Some(0o600), folder_mode: Some(0o700), owner: Some(10), group: None };
        assert_eq!(
            orders,
            [
                Order {
                    path: "etc/motd".into(),
                    place: Place::WhereIs("etc".into()),
                    action: Action::Remove
                },
                Order {
                    path: "etc/app/conf".into(),
                    place: Place::Number(2),
                    action: Action::Put(Content::Bytes(b"hi".to_vec()), access)
                },
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_file_by_file() {
        for (file, why) in [
            (json!(1), "it is not an object"),
            (json!({"path": "/a/b", "content": "", "size": 1}), "unexpected field 'size'"),
            (json!({"content": ""}), "expected a path"),
            (json!({"path": "/a/b/", "content": ""}), "directories not supported"),
            (json!({"path": "/a/../b", "content": ""}), "its path must name a file without '..'"),
            (json!({"path": "/", "partition": 1, "content": ""}), "directories not supported"),
            (json!({"path": "/a", "content": ""}), "a file in the root directory requires \"partition\""),
            (json!({"path": "/a/b", "content": "x", "deleted": true}), "content cannot be used with deleted"),
            (json!({"path": "/a/b"}), "it needs content, a text, or deleted"),
            (json!({"path": "/a/b", "content": "", "mode": "0644"}), "mode must be a number"),
            (json!({"path": "/a/b", "content": "", "mode": true}), "mode must be a number"),
            (json!({"path": "/a/b", "content": "", "mode": 0o10000}), "mode is out of range"),
            (json!({"path": "/a/b", "content": "", "owner": "root"}), "owner must be a number"),
            (
                json!({"path": "/a/b", "content": "", "partition": "ID=x"}),
                "partition must be a number, a device",
            ),
            (json!({"path": "/a/b", "content": "", "partition": "LABEL="}), "LABEL= needs 1 to 256 bytes"),
            (json!({"path": "/a/b", "content": "", "partition": "/dev/../x"}), "partition must be"),
        ] {
            let said = orders(None, Some(&json!([file]))).unwrap_err();
            assert!(
                said.starts_with("Validation of files failed: file 1 ('") && said.contains(why),
                "{said}"
            );
        }
        let said = orders(None, Some(&json!([{"path": "/a/b", "content": "secret!"}]))).unwrap_err();
        assert!(said.contains("neither an address nor base64") && !said.contains("secret"), "{said}");
        assert_eq!(
            orders(Some(&json!({})), None).unwrap_err(),
            "The `inject_files` node property must be a list"
        );
        assert_eq!(orders(None, Some(&json!("a"))).unwrap_err(), "The `files` argument must be a list");
        assert_eq!(orders(None, Some(&Value::Null)).unwrap(), []);
    }
}
