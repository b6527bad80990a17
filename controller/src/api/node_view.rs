//! How a node reads in a given microversion: which fields, which names, what is masked.

use super::answer::Problem;
use super::request::Request;
use crate::conductor::Live;
use crate::domain::fields;
use crate::domain::names;
use crate::domain::node::Node;
use serde_json::{Map, Value, json};

/// Link lists and other fields that the API adds to the domain's.
const ADDED: &[(&str, u16)] =
    &[("links", 1), ("ports", 1), ("states", 14), ("portgroups", 24), ("volume", 32)];

/// Columns of a plain list.
pub const DEFAULT_COLUMNS: &[&str] =
    &["uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state", "links"];

/// First version that has the field; `None` if no version has.
pub fn since(name: &str) -> Option<u16> {
    fields::field(name)
        .map(|f| f.since)
        .or_else(|| ADDED.iter().find(|(n, _)| *n == name).map(|(_, since)| *since))
}

/// Checks the names of `?fields=`.
pub fn check_fields(names: &[String], version: u16) -> Result<(), Problem> {
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|n| since(n).is_none()).collect();
    if !unknown.is_empty() {
        return Err(Problem::invalid(format!("Field(s) \"{}\" are not valid.", unknown.join(", "))));
    }
    match names.iter().any(|n| since(n).is_some_and(|s| s > version)) {
        true => Err(Problem::too_new()),
        false => Ok(()),
    }
}

/// What a rendering needs beside the node.
pub struct View<'a> {
    pub request: &'a Request,
    pub hostname: &'a str,
    /// The fields wanted; all if absent.
    pub only: Option<&'a [String]>,
}

impl View<'_> {
    pub fn node(&self, node: &Node, live: &Live) -> Value {
        let version = self.request.version;
        let wanted = |name: &str| self.only.is_none_or(|only| only.iter().any(|o| o == name));
        let mut out = Map::new();
        for field in fields::FIELDS.iter().filter(|f| f.since <= version && wanted(f.name)) {
            out.insert(field.name.to_string(), self.value(node, field.name, live));
        }
        let path = format!("nodes/{}", node.uuid);
        for (name, since) in ADDED {
            if *since > version || !(wanted(name) || *name == "links") {
                continue;
            }
            let links = match *name {
                "links" => self.request.links(&path),
                other => self.request.links(&format!("{path}/{other}")),
            };
            out.insert((*name).to_string(), links);
        }
        Value::Object(out)
    }

    fn value(&self, node: &Node, name: &str, live: &Live) -> Value {
        let version = self.request.version;
        let value = fields::value(node, name);
        match name {
            "driver_info" => names::mask(&value),
            "instance_info" => {
                let mut masked = names::mask(&value);
                if let Some(map) = masked.as_object_mut() {
                    for key in ["configdrive", "image_url"] {
                        if map.contains_key(key) {
                            map.insert(key.to_string(), json!(names::MASK));
                        }
                    }
                }
                masked
            }
            "driver_internal_info" => {
                let mut masked = names::mask(&value);
                if let Some(map) = masked.as_object_mut() {
                    if let Some(wait) = live.shown_wait(node) {
                        map.insert("wait".to_string(), wait);
                    }
                    if let Some(progress) = &live.progress {
                        map.insert("progress".to_string(), json!(progress));
                    }
                }
                masked
            }
            "provision_state" | "target_provision_state" => match value.as_str() {
                Some("available") if version < 2 => Value::Null,
                Some("inspect wait") if version < 39 => json!("inspecting"),
                _ => value,
            },
            "conductor" => json!(self.hostname),
            _ => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_list_are_known_and_old_enough() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
        assert!(check_fields(&names(&["uuid", "links", "owner"]), 50).is_ok());
        assert_eq!(check_fields(&names(&["owner"]), 49).unwrap_err().status.as_u16(), 406);
        assert_eq!(check_fields(&names(&["nosuch"]), 115).unwrap_err().status.as_u16(), 400);
    }
}
