//! `/v1/ports`.

use super::Api;
use super::answer::{Answer, Problem};
use super::nodes::{bool_param, limit_param, list_param, next_link};
use super::request::{Request, unexpected};
use crate::conductor::Refusal;
use crate::domain::node::{Port, stamp};
use crate::domain::patch;
use crate::store::PortFilter;
use ferric_common::ids::{MacAddress, NodeUuid};
use http::Method;
use serde_json::{Map, Value, json};

const FIELDS: &[(&str, u16)] = &[
    ("uuid", 1),
    ("address", 1),
    ("node_uuid", 1),
    ("extra", 1),
    ("created_at", 1),
    ("updated_at", 1),
    ("links", 1),
    ("internal_info", 18),
    ("pxe_enabled", 19),
    ("local_link_connection", 19),
    ("portgroup_uuid", 24),
    ("physical_network", 34),
    ("is_smartnic", 53),
    ("name", 88),
    ("description", 97),
    ("vendor", 100),
    ("category", 101),
    ("available_for_dynamic_portgroup", 111),
];

const FILTERS: &[(&str, u16)] = &[
    ("address", 1),
    ("node", 1),
    ("node_uuid", 1),
    ("marker", 1),
    ("limit", 1),
    ("sort_key", 1),
    ("sort_dir", 1),
    ("fields", 8),
    ("portgroup", 24),
    ("detail", 43),
];

impl Api {
    pub(super) async fn ports(&self, r: &Request, path: &[&str]) -> Result<Answer, Problem> {
        let get = matches!(r.method, Method::GET | Method::HEAD);
        match (path, &r.method) {
            ([], _) if get => self.list_ports(r, None, false).await,
            (["detail"], _) if get => self.list_ports(r, None, true).await,
            ([], &Method::POST) => {
                let body = r
                    .json()?
                    .as_object()
                    .ok_or_else(|| Problem::invalid("Schema error for port: a JSON object is expected"))?;
                let port = self.conductor.create_port(body, r.version).await?;
                let location = format!("{}/v1/ports/{}", r.base, port.uuid);
                Ok(Answer::created(render(r, &port, None), location))
            }
            ([], _) => Err(Problem::method_not_allowed("GET, POST")),
            ([ident], _) if get => {
                r.only_params(&["fields"])?;
                let fields = r.param("fields").map(list_param);
                check_fields(fields.as_deref().unwrap_or_default(), r.version)?;
                let port = self.conductor.port(ident).await?;
                Ok(Answer::ok(render(r, &port, fields.as_deref())))
            }
            ([ident], &Method::PATCH) => {
                let operations = patch::parse(r.json()?).map_err(Refusal::from)?;
                let port = self.conductor.patch_port(ident, &operations, r.version).await?;
                Ok(Answer::ok(render(r, &port, None)))
            }
            ([ident], &Method::DELETE) => {
                self.conductor.delete_port(ident).await?;
                Ok(Answer::no_content())
            }
            ([_], _) => Err(Problem::method_not_allowed("GET, PATCH, DELETE")),
            _ => Err(Problem::not_found_path()),
        }
    }

    pub(super) async fn list_ports(
        &self,
        r: &Request,
        node: Option<NodeUuid>,
        detail: bool,
    ) -> Result<Answer, Problem> {
        for (name, _) in &r.query {
            match FILTERS.iter().find(|(n, _)| n == name) {
                None => return Err(unexpected(name)),
                Some((_, since)) if *since > r.version => return Err(Problem::too_new()),
                Some(_) => {}
            }
        }
        let detail =
            detail || r.param("detail").map(|t| bool_param("detail", t)).transpose()?.unwrap_or(false);
        let fields = r.param("fields").map(list_param);
        if fields.is_some() && detail {
            return Err(Problem::invalid("Can't fetch a subset of fields with 'detail' set"));
        }
        check_fields(fields.as_deref().unwrap_or_default(), r.version)?;
        let mut filter = PortFilter { node, ..PortFilter::default() };
        if let Some(ident) = r.param("node").or(r.param("node_uuid")) {
            filter.node = Some(self.find_node(r, ident).await?.uuid);
        }
        if let Some(address) = r.param("address") {
            let mac: MacAddress = address.parse().map_err(|_| {
                Problem::invalid(format!(
                    "Expected a MAC address but received {}.",
                    address.chars().take(64).collect::<String>()
                ))
            })?;
            filter.addresses.push(mac);
        }
        let limit = limit_param(r)?;
        filter.limit = Some(limit);
        if let Some(marker) = r.param("marker") {
            filter.after = Some(self.conductor.port(marker).await?.uuid);
        }
        let ports = self.conductor.store().ports(filter).await.map_err(Refusal::from)?;
        let defaults = ["uuid", "address", "links"].map(str::to_string);
        let only = match (&fields, detail) {
            (Some(fields), _) => Some(fields.as_slice()),
            (None, true) => None,
            (None, false) => Some(defaults.as_slice()),
        };
        let shown: Vec<Value> = ports.iter().map(|p| render(r, p, only)).collect();
        let mut body = Map::new();
        body.insert("ports".into(), Value::Array(shown));
        if let (true, Some(last)) = (ports.len() == limit, ports.last()) {
            body.insert("next".into(), json!(next_link(r, "ports", limit, &last.uuid.to_string())));
        }
        Ok(Answer::ok(Value::Object(body)))
    }
}

fn check_fields(names: &[String], version: u16) -> Result<(), Problem> {
    for name in names {
        match FIELDS.iter().find(|(n, _)| n == name) {
            None => {
                return Err(Problem::invalid(format!(
                    "Field(s) \"{}\" are not valid.",
                    name.chars().take(64).collect::<String>()
                )));
            }
            Some((_, since)) if *since > version => return Err(Problem::too_new()),
            Some(_) => {}
        }
    }
    Ok(())
}

fn render(r: &Request, port: &Port, only: Option<&[String]>) -> Value {
    let Ok(Value::Object(mut whole)) = serde_json::to_value(port) else { return Value::Null };
    whole.insert("created_at".into(), json!(port.created_at.map(stamp)));
    whole.insert("updated_at".into(), json!(port.updated_at.map(stamp)));
    whole.insert("links".into(), r.links(&format!("ports/{}", port.uuid)));
    let mut out = Map::new();
    for (name, since) in FIELDS {
        let wanted = only.is_none_or(|only| only.iter().any(|o| o == name)) || *name == "links";
        if *since <= r.version && wanted {
            out.insert((*name).to_string(), whole.get(*name).cloned().unwrap_or(Value::Null));
        }
    }
    Value::Object(out)
}
