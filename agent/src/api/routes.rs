//! Method and path → what is asked. Pure; also the documents that describe the API.

use super::error::ApiError;
use serde_json::{Value, json};
use url::form_urlencoded;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Root,
    Version,
    Status,
    List,
    Run,
    Show(String),
    /// Without the trailing slash: to this path, with the same query.
    Redirect(&'static str),
}

const READ: &str = "HEAD, GET";

/// Finds the route.
///
/// # Errors
/// [`ApiError::Path`] and [`ApiError::Method`], in the words of the reference agent.
pub fn route(method: &http::Method, path: &str) -> Result<Route, ApiError> {
    let reads = matches!(*method, http::Method::GET | http::Method::HEAD);
    let read = |route| if reads { Ok(route) } else { Err(ApiError::Method { allow: READ }) };
    match path {
        "/" => read(Route::Root),
        "/v1/" => read(Route::Version),
        "/v1" => read(Route::Redirect("/v1/")),
        "/v1/status" | "/status" => read(Route::Status),
        "/v1/commands/" | "/commands/" | "/v1/commands" | "/commands" => {
            if !reads && *method != http::Method::POST {
                return Err(ApiError::Method { allow: "HEAD, GET, POST" });
            }
            Ok(match path {
                "/v1/commands" => Route::Redirect("/v1/commands/"),
                "/commands" => Route::Redirect("/commands/"),
                _ if reads => Route::List,
                _ => Route::Run,
            })
        }
        _ => {
            let id = path.strip_prefix("/v1/commands/").or_else(|| path.strip_prefix("/commands/"));
            match id.filter(|id| !id.contains('/')) {
                Some(id) => read(Route::Show(id.to_string())),
                None => Err(ApiError::Path),
            }
        }
    }
}

/// The two parameters that the API knows; of duplicates the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub token: Option<String>,
    pub wait: bool,
}

pub fn query(text: Option<&str>) -> Query {
    let mut query = Query::default();
    let mut wait: Option<bool> = None;
    for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "agent_token" if query.token.is_none() => query.token = Some(value.into_owned()),
            "wait" if wait.is_none() => wait = Some(value.eq_ignore_ascii_case("true")),
            _ => {}
        }
    }
    query.wait = wait.unwrap_or(false);
    query
}

const DOCS: &str = "https://docs.openstack.org/ironic-python-agent/";

fn version_links(base: &str) -> Value {
    json!([
        {"href": format!("{base}/v1"), "rel": "self"},
        {"href": DOCS, "rel": "describedby", "type": "text/html"},
    ])
}

/// `GET /`. Clients compare name and links with those of the reference agent, so they are its own.
pub fn root_document(base: &str) -> Value {
    let version = json!({"id": "v1", "links": version_links(base)});
    json!({
        "name": "OpenStack Ironic Python Agent API",
        "description": "Ironic Python Agent is a provisioning agent for OpenStack Ironic",
        "versions": [version],
        "default_version": version,
    })
}

/// `GET /v1/`.
pub fn version_document(base: &str) -> Value {
    let links = |what: &str| {
        json!([
            {"href": format!("{base}/v1/{what}"), "rel": "self"},
            {"href": format!("{base}/{what}"), "rel": "bookmark"},
        ])
    };
    json!({
        "commands": links("commands"),
        "status": links("status"),
        "media_types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.ironic-python-agent.v1+json",
        }],
        "id": "v1",
        "links": version_links(base),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn every_route_of_the_reference_agent_is_there() {
        let show = |id: &str| Ok(Route::Show(id.to_string()));
        for (method, path, expected) in [
            (Method::GET, "/", Ok(Route::Root)),
            (Method::HEAD, "/", Ok(Route::Root)),
            (Method::POST, "/", Err(ApiError::Method { allow: "HEAD, GET" })),
            (Method::GET, "/v1", Ok(Route::Redirect("/v1/"))),
            (Method::GET, "/v1/", Ok(Route::Version)),
            (Method::GET, "/v1/status", Ok(Route::Status)),
            (Method::GET, "/status", Ok(Route::Status)),
            (Method::GET, "/v1/status/", Err(ApiError::Path)),
            (Method::DELETE, "/v1/status", Err(ApiError::Method { allow: "HEAD, GET" })),
            (Method::GET, "/v1/commands", Ok(Route::Redirect("/v1/commands/"))),
            (Method::POST, "/commands", Ok(Route::Redirect("/commands/"))),
            (Method::GET, "/v1/commands/", Ok(Route::List)),
            (Method::POST, "/commands/", Ok(Route::Run)),
            (Method::PUT, "/v1/commands/", Err(ApiError::Method { allow: "HEAD, GET, POST" })),
            (Method::GET, "/v1/commands/x", show("x")),
            (Method::POST, "/v1/commands/x", Err(ApiError::Method { allow: "HEAD, GET" })),
            (Method::GET, "/v1/commands/x/", Err(ApiError::Path)),
            (Method::GET, "/nosuch", Err(ApiError::Path)),
        ] {
            assert_eq!(route(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn wait_is_true_only_for_that_word() {
        for (text, wait) in [("wait=true", true), ("wait=TRUE", true), ("wait=1", false), ("", false)] {
            assert_eq!(query(Some(text)).wait, wait, "{text}");
        }
        assert_eq!(query(Some("agent_token=a%2Bb&agent_token=c")).token.as_deref(), Some("a+b"));
    }
}
