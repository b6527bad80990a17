//! `/v1/drivers` and `/v1/conductors`: what this controller can manage, and that it is there.

use super::Api;
use super::answer::{Answer, Problem};
use super::nodes::bool_param;
use super::request::Request;
use crate::domain::interfaces::{self, HARDWARE_TYPES, HardwareType, KINDS};
use http::Method;
use serde_json::{Map, Value, json};

impl Api {
    pub(super) async fn drivers(&self, r: &Request, path: &[&str]) -> Result<Answer, Problem> {
        if !matches!(r.method, Method::GET | Method::HEAD) {
            return Err(Problem::method_not_allowed("GET"));
        }
        let known = |name: &str| {
            interfaces::hardware_type(name).ok_or_else(|| {
                Problem::not_found(format!(
                    "Could not find the following driver(s) or hardware type(s): {}.",
                    name.chars().take(64).collect::<String>()
                ))
            })
        };
        match path {
            [] => {
                r.only_params(&["type", "detail", "fields"])?;
                let detail = r.param("detail").map(|t| bool_param("detail", t)).transpose()?.unwrap_or(false);
                if detail && r.version < 30 {
                    return Err(Problem::too_new());
                }
                let none = r.param("type") == Some("classic");
                let shown: Vec<Value> =
                    HARDWARE_TYPES.iter().filter(|_| !none).map(|t| self.driver(r, t, detail)).collect();
                Ok(Answer::ok(json!({"drivers": shown})))
            }
            [name] => Ok(Answer::ok(self.driver(r, known(name)?, true))),
            [name, "properties"] => {
                let mut out = Map::new();
                for (key, text) in known(name)?.properties {
                    out.insert((*key).to_string(), json!(text));
                }
                Ok(Answer::ok(Value::Object(out)))
            }
            _ => Err(Problem::not_found_path()),
        }
    }

    fn driver(&self, r: &Request, hardware: &HardwareType, detail: bool) -> Value {
        let mut out = Map::new();
        out.insert("name".into(), json!(hardware.name));
        out.insert("hosts".into(), json!([self.conductor.settings().hostname]));
        out.insert("links".into(), r.links(&format!("drivers/{}", hardware.name)));
        if r.version >= 14 {
            out.insert("properties".into(), r.links(&format!("drivers/{}/properties", hardware.name)));
        }
        if r.version >= 30 {
            out.insert("type".into(), json!("dynamic"));
            for kind in KINDS.iter().filter(|k| detail && interfaces::since(k) <= r.version.max(31)) {
                out.insert(format!("default_{kind}_interface"), json!(hardware.default_for(kind)));
                out.insert(format!("enabled_{kind}_interfaces"), json!(hardware.names(kind)));
            }
        }
        Value::Object(out)
    }

    pub(super) fn conductors(&self, r: &Request, path: &[&str]) -> Result<Answer, Problem> {
        r.since(49)?;
        if !matches!(r.method, Method::GET | Method::HEAD) {
            return Err(Problem::method_not_allowed("GET"));
        }
        let host = self.conductor.settings().hostname.clone();
        let show = |detail: bool| {
            let mut one = Map::new();
            one.insert("hostname".into(), json!(host));
            one.insert("conductor_group".into(), json!(""));
            one.insert("alive".into(), json!(true));
            one.insert("links".into(), r.links(&format!("conductors/{host}")));
            if detail {
                let names: Vec<&str> = HARDWARE_TYPES.iter().map(|t| t.name).collect();
                one.insert("drivers".into(), json!(names));
                one.insert("created_at".into(), Value::Null);
                one.insert("updated_at".into(), Value::Null);
            }
            Value::Object(one)
        };
        match path {
            [] => {
                let detail = r.param("detail").map(|t| bool_param("detail", t)).transpose()?.unwrap_or(false);
                Ok(Answer::ok(json!({"conductors": [show(detail)]})))
            }
            [name] if *name == host => Ok(Answer::ok(show(true))),
            [name] => Err(Problem::not_found(format!(
                "Conductor {} could not be found.",
                name.chars().take(64).collect::<String>()
            ))),
            _ => Err(Problem::not_found_path()),
        }
    }
}
