//! `/v1/nodes` and what is below one node, but for its states.

use super::Api;
use super::answer::{Answer, Problem};
use super::node_view::{self, View};
use super::request::Request;
use crate::domain::fields::{self, parse_bool};
use crate::domain::node::Node;
use crate::domain::patch;
use crate::domain::state::ProvisionState;
use crate::store::NodeFilter;
use http::Method;
use serde_json::{Map, Value, json};

/// Entries of one page, at most and by default.
pub const PAGE: usize = 1000;

/// Filters with the version since which they exist.
const FILTERS: &[(&str, u16)] = &[
    ("chassis_uuid", 1),
    ("instance_uuid", 1),
    ("associated", 1),
    ("maintenance", 1),
    ("marker", 1),
    ("limit", 1),
    ("sort_key", 1),
    ("sort_dir", 1),
    ("fields", 8),
    ("provision_state", 9),
    ("driver", 16),
    ("resource_class", 21),
    ("fault", 42),
    ("detail", 43),
    ("conductor_group", 46),
    ("conductor", 49),
    ("owner", 50),
    ("description_contains", 51),
    ("retired", 61),
    ("lessee", 65),
    ("project", 65),
    ("shard", 82),
    ("sharded", 82),
    ("include_children", 83),
    ("parent_node", 83),
    ("instance_name", 104),
];

const NOT_SORTABLE: &[&str] = &[
    "properties",
    "driver_info",
    "extra",
    "instance_info",
    "driver_internal_info",
    "clean_step",
    "deploy_step",
    "service_step",
    "raid_config",
    "target_raid_config",
    "traits",
    "network_data",
    "links",
    "ports",
    "states",
    "portgroups",
    "volume",
];

/// A list parameter: comma separated, lower-cased, each once.
pub fn list_param(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for part in text.split(',').map(|p| p.trim().to_ascii_lowercase()).filter(|p| !p.is_empty()) {
        if !out.contains(&part) {
            out.push(part);
        }
    }
    out
}

pub fn bool_param(name: &str, text: &str) -> Result<bool, Problem> {
    parse_bool(text)
        .ok_or_else(|| Problem::invalid(format!("Invalid input for {name}: '{text}' is not a boolean")))
}

/// `limit`, capped at the page size.
pub fn limit_param(r: &Request) -> Result<usize, Problem> {
    match r.param("limit") {
        None => Ok(PAGE),
        Some(text) => match text.parse::<i64>() {
            Ok(n) if n > 0 => Ok(usize::try_from(n).unwrap_or(PAGE).min(PAGE)),
            _ => Err(Problem::invalid("Limit must be positive")),
        },
    }
}

impl Api {
    pub(super) async fn nodes(&self, r: &Request, path: &[&str]) -> Result<Answer, Problem> {
        let get = matches!(r.method, Method::GET | Method::HEAD);
        match (path, &r.method) {
            ([], _) if get => {
                self.list_nodes(
                    r,
                    r.param("detail").map(|t| bool_param("detail", t)).transpose()?.unwrap_or(false),
                )
                .await
            }
            ([], &Method::POST) => self.create_node(r).await,
            ([], _) => Err(Problem::method_not_allowed("GET, POST")),
            (["detail"], _) if get => {
                if r.param("fields").is_some() {
                    return Err(Problem::invalid("Can't fetch a subset of fields with 'detail' set"));
                }
                self.list_nodes(r, true).await
            }
            (["validate"], _) if get => {
                let ident = r.param("node").or(r.param("node_uuid"));
                let ident = ident.ok_or_else(|| Problem::invalid("Missing mandatory parameter: node"))?;
                let node = self.find_node(r, ident).await?;
                Ok(Answer::ok(self.conductor.validate(&node).await))
            }
            ([ident], _) => self.one_node(r, ident).await,
            ([ident, rest @ ..], _) => self.below_node(r, ident, rest).await,
        }
    }

    /// The node of a path segment. Names exist since 1.5; `.json` is cut off before 1.91 where a version was asked for.
    pub(super) async fn find_node(&self, r: &Request, ident: &str) -> Result<Node, Problem> {
        let ident = match ident.strip_suffix(".json") {
            Some(cut) if (2..91).contains(&r.version) => cut,
            _ => ident,
        };
        if r.version < 5 && ident.parse::<ferric_common::ids::NodeUuid>().is_err() {
            return Err(Problem::not_found(format!(
                "Node {} could not be found.",
                ident.chars().take(255).collect::<String>()
            )));
        }
        Ok(self.conductor.find(ident).await?)
    }

    pub(super) fn render(&self, r: &Request, node: &Node, only: Option<&[String]>) -> Value {
        let view = View { request: r, hostname: &self.conductor.settings().hostname, only };
        view.node(node, &self.conductor.live(node.uuid))
    }

    async fn list_nodes(&self, r: &Request, detail: bool) -> Result<Answer, Problem> {
        for (name, _) in &r.query {
            match FILTERS.iter().find(|(n, _)| n == name) {
                None => return Err(super::request::unexpected(name)),
                Some((_, since)) if *since > r.version => return Err(Problem::too_new()),
                Some(_) => {}
            }
        }
        let fields = r.param("fields").map(list_param);
        if fields.is_some() && detail {
            return Err(Problem::invalid("Can't fetch a subset of fields with 'detail' set"));
        }
        if let Some(fields) = &fields {
            node_view::check_fields(fields, r.version)?;
        }
        let limit = limit_param(r)?;
        let key = r.param("sort_key").unwrap_or("id");
        let descending = match r.param("sort_dir").unwrap_or("asc") {
            "asc" => false,
            "desc" => true,
            other => {
                return Err(Problem::invalid(format!(
                    "Invalid sort direction: {other}. Acceptable values are 'asc' or 'desc'"
                )));
            }
        };
        let mut filter = self.filter(r)?;
        filter.descending = descending;
        let marker = match r.param("marker") {
            Some(marker) => Some(self.find_node(r, marker).await?.uuid),
            None => None,
        };
        let store = self.conductor.store();
        let (nodes, full) = if key == "id" {
            filter.after = marker;
            filter.limit = Some(limit);
            let nodes = store.nodes(filter).await.map_err(crate::conductor::Refusal::from)?;
            let full = nodes.len() == limit;
            (nodes, full)
        } else {
            match node_view::since(key) {
                Some(_) if NOT_SORTABLE.contains(&key) => return Err(not_sortable(key)),
                None => return Err(not_sortable(key)),
                Some(since) if since > r.version => return Err(Problem::too_new()),
                Some(_) => {}
            }
            let mut all = store.nodes(filter).await.map_err(crate::conductor::Refusal::from)?;
            all.sort_by_cached_key(|n| sort_text(&fields::value(n, key)));
            if descending {
                all.reverse();
            }
            let start = marker.and_then(|m| all.iter().position(|n| n.uuid == m)).map_or(0, |i| i + 1);
            let page: Vec<Node> = all.into_iter().skip(start).take(limit).collect();
            let full = page.len() == limit;
            (page, full)
        };
        let defaults: Vec<String> = node_view::DEFAULT_COLUMNS.iter().map(|s| (*s).to_string()).collect();
        let only = match (&fields, detail) {
            (Some(fields), _) => Some(fields.as_slice()),
            (None, true) => None,
            (None, false) => Some(defaults.as_slice()),
        };
        let shown: Vec<Value> = nodes.iter().map(|n| self.render(r, n, only)).collect();
        let mut body = Map::new();
        body.insert("nodes".into(), Value::Array(shown));
        // A filter on the instance names at most one node and never pages.
        if let (true, Some(last), None) = (full, nodes.last(), r.param("instance_uuid")) {
            body.insert("next".into(), json!(next_link(r, "nodes", limit, &last.uuid.to_string())));
        }
        Ok(Answer::ok(Value::Object(body)))
    }

    fn filter(&self, r: &Request) -> Result<NodeFilter, Problem> {
        let text = |name: &str| r.param(name).map(str::to_string);
        let flag = |name: &str| r.param(name).map(|t| bool_param(name, t)).transpose();
        let provision_state = text("provision_state");
        if let Some(state) = &provision_state
            && ProvisionState::from_text(state).is_none()
        {
            return Err(Problem::invalid(format!("Provision state \"{state}\" is not valid")));
        }
        let host = &self.conductor.settings().hostname;
        let elsewhere = r.param("conductor").is_some_and(|c| !c.eq_ignore_ascii_case(host));
        Ok(NodeFilter {
            provision_state,
            driver: text("driver"),
            instance_uuid: text("instance_uuid"),
            associated: flag("associated")?,
            maintenance: flag("maintenance")?,
            retired: flag("retired")?,
            fault: text("fault"),
            resource_class: text("resource_class"),
            conductor_group: text("conductor_group").map(|g| g.to_ascii_lowercase()),
            owner: text("owner"),
            lessee: text("lessee"),
            project: text("project"),
            shards: r.param("shard").map(|s| s.split(',').map(str::to_string).collect()).unwrap_or_default(),
            sharded: flag("sharded")?,
            parent_node: text("parent_node"),
            // No node belongs to another conductor, and there are no chassis.
            none: elsewhere || r.param("chassis_uuid").is_some(),
            include_children: flag("include_children")?.unwrap_or(false),
            description_contains: text("description_contains"),
            instance_name: text("instance_name"),
            ..NodeFilter::default()
        })
    }

    async fn create_node(&self, r: &Request) -> Result<Answer, Problem> {
        let body = match r.json()? {
            Value::Object(map) => map,
            _ => return Err(Problem::invalid("Schema error for node: a JSON object is expected")),
        };
        let node = self.conductor.create_node(body, r.version).await?;
        let location = format!("{}/v1/nodes/{}", r.base, node.uuid);
        Ok(Answer::created(self.render(r, &node, None), location))
    }

    async fn one_node(&self, r: &Request, ident: &str) -> Result<Answer, Problem> {
        match r.method {
            Method::GET | Method::HEAD => {
                r.only_params(&["fields"])?;
                let fields = r.param("fields").map(list_param);
                if let Some(fields) = &fields {
                    if r.version < 8 {
                        return Err(Problem::too_new());
                    }
                    node_view::check_fields(fields, r.version)?;
                }
                let node = self.find_node(r, ident).await?;
                Ok(Answer::ok(self.render(r, &node, fields.as_deref())))
            }
            Method::PATCH => {
                let uuid = self.find_node(r, ident).await?.uuid;
                let operations = patch::parse(r.json()?).map_err(crate::conductor::Refusal::from)?;
                let node = self.conductor.patch_node(uuid, &operations, r.version).await?;
                Ok(Answer::ok(self.render(r, &node, None)))
            }
            Method::DELETE => {
                let uuid = self.find_node(r, ident).await?.uuid;
                self.conductor.delete_node(uuid).await?;
                Ok(Answer::no_content())
            }
            _ => Err(Problem::method_not_allowed("GET, PATCH, DELETE")),
        }
    }

    async fn below_node(&self, r: &Request, ident: &str, path: &[&str]) -> Result<Answer, Problem> {
        let node = self.find_node(r, ident).await?;
        let get = matches!(r.method, Method::GET | Method::HEAD);
        match path {
            ["states", rest @ ..] => self.states(r, &node, rest).await,
            ["validate"] if get => Ok(Answer::ok(self.conductor.validate(&node).await)),
            ["maintenance"] => self.maintenance(r, &node).await,
            ["management", "boot_device"] => self.boot_device(r, &node).await,
            ["management", "boot_device", "supported"] if get => {
                Ok(Answer::ok(json!({"supported_boot_devices": super::states::boot_device_names()})))
            }
            ["ports"] if get => self.list_ports(r, Some(node.uuid), false).await,
            ["ports", "detail"] if get => self.list_ports(r, Some(node.uuid), true).await,
            // Parts of a node that exist and are empty, so that clients which show everything go on.
            ["traits"] if get => {
                r.since(37)?;
                Ok(Answer::ok(json!({"traits": node.traits})))
            }
            ["vifs"] if get => {
                r.since(28)?;
                Ok(Answer::ok(json!({"vifs": []})))
            }
            ["inventory"] if get => {
                Err(Problem::not_found(format!("Inventory of node {} could not be found.", node.uuid)))
            }
            _ => Err(Problem::not_found_path()),
        }
    }

    async fn maintenance(&self, r: &Request, node: &Node) -> Result<Answer, Problem> {
        let (on, reason) = match r.method {
            Method::PUT => {
                let body = r.object()?;
                if let Some(name) = body.keys().find(|k| *k != "reason") {
                    return Err(super::request::unexpected(name));
                }
                (true, body.get("reason").and_then(Value::as_str).map(str::to_string))
            }
            Method::DELETE => (false, None),
            _ => return Err(Problem::method_not_allowed("PUT, DELETE")),
        };
        self.conductor.set_maintenance(node.uuid, on, reason).await?;
        Ok(Answer::accepted(None))
    }
}

fn not_sortable(key: &str) -> Problem {
    Problem::invalid(format!("The sort_key value \"{key}\" is an invalid field for sorting"))
}

fn sort_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The address of the next page: the request's own filters, then where to go on.
pub fn next_link(r: &Request, collection: &str, limit: usize, marker: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in
        r.query.iter().filter(|(n, _)| !["limit", "marker", "sort_key", "sort_dir"].contains(&n.as_str()))
    {
        query.append_pair(name, value);
    }
    query.append_pair("sort_key", r.param("sort_key").unwrap_or("id"));
    query.append_pair("sort_dir", r.param("sort_dir").unwrap_or("asc"));
    query.append_pair("limit", &limit.to_string());
    query.append_pair("marker", marker);
    format!("{}/v1/{collection}?{}", r.base, query.finish())
}
