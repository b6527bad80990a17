//! The two documents by which clients learn which versions exist. Public, whatever the authentication.

use super::answer::{Answer, Problem};
use super::request::Request;
use ferric_common::wire::version::ApiVersion;
use http::Method;
use serde_json::{Value, json};

fn version(r: &Request) -> Value {
    json!({"id": "v1", "links": [{"href": format!("{}/v1/", r.base), "rel": "self"}], "status": "CURRENT",
           "min_version": ApiVersion::MIN.to_string(), "version": ApiVersion::MAX.to_string()})
}

pub fn root(r: &Request) -> Result<Answer, Problem> {
    if !matches!(r.method, Method::GET | Method::HEAD) {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    Ok(Answer::ok(json!({
        "name": "OpenStack Ironic API",
        "description": "Ferric speaks the API of OpenStack Ironic: it manages and provisions bare metal machines.",
        "default_version": version(r),
        "versions": [version(r)],
    })))
}

/// Resources with the version since which they are shown. Only what this program serves is listed.
const RESOURCES: &[(&str, u16)] = &[
    ("nodes", 1),
    ("ports", 1),
    ("drivers", 1),
    ("lookup", 22),
    ("heartbeat", 22),
    ("conductors", 49),
    ("continue_inspection", 84),
];

pub fn v1(r: &Request) -> Result<Answer, Problem> {
    let mut document = json!({
        "id": "v1",
        "links": [{"href": format!("{}/v1/", r.base), "rel": "self"},
                  {"href": "https://docs.openstack.org/api-ref/baremetal/", "rel": "describedby", "type": "text/html"}],
        "media_types": [{"base": "application/json", "type": "application/vnd.openstack.ironic.v1+json"}],
        "version": version(r),
    });
    if let Some(map) = document.as_object_mut() {
        for (name, _) in RESOURCES.iter().filter(|(_, since)| r.version >= *since) {
            let links = json!([{"href": format!("{}/v1/{name}/", r.base), "rel": "self"},
                               {"href": format!("{}/{name}/", r.base), "rel": "bookmark"}]);
            map.insert((*name).to_string(), links);
        }
    }
    Ok(Answer::ok(document))
}
