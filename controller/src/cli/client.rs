//! One HTTP request at a time to the REST API, with Ironic's version header, and its error bodies turned into words.

use super::error::CliError;
use serde_json::Value;
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::{Method, Request};

/// The API version that the command line is written for.
const VERSION: &str = "1.115";
/// Largest answer that is read, in bytes: a page of a thousand nodes with room to spare.
const ANSWER: u64 = 64 << 20;
/// A list is read page by page; more pages than this is a controller gone wrong.
const PAGES: usize = 1000;
/// Locked nodes (409) and busy controllers (503) are asked again, as the `baremetal` command does.
const TRIES: u32 = 5;

pub struct Api {
    agent: ureq::Agent,
    base: String,
    /// Pause before a locked node is asked again.
    pub pause: Duration,
}

impl Api {
    /// # Errors
    /// [`CliError::Url`] if `url` is not an http or https URL.
    pub fn new(url: &str) -> Result<Api, CliError> {
        let bad = |reason: &str| CliError::Url { url: url.into(), reason: reason.into() };
        let parsed = url::Url::parse(url).map_err(|e| bad(&e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad("it must begin with http:// or https://"));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The API never redirects; a redirect means that somebody else answers.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .user_agent(concat!("ferric/", env!("CARGO_PKG_VERSION")))
            .build();
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_string();
        Ok(Api { agent: config.into(), base, pause: Duration::from_secs(2) })
    }

    pub fn get(&self, path: &str) -> Result<Value, CliError> {
        self.call(Method::GET, path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call(Method::POST, path, Some(body))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call(Method::PATCH, path, Some(body))
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call(Method::PUT, path, Some(body))
    }

    pub fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.call(Method::DELETE, path, None)
    }

    /// All objects of a collection, page after page.
    pub fn list(&self, path: &str, key: &str) -> Result<Vec<Value>, CliError> {
        let mut all = Vec::new();
        let mut next = Some(path.to_string());
        for _ in 0..PAGES {
            let Some(path) = next.take() else { break };
            let mut page = self.get(&path)?;
            match page.get_mut(key).map(Value::take) {
                Some(Value::Array(items)) => all.extend(items),
                _ => {
                    let reason = format!("it has no list '{key}'");
                    return Err(CliError::NotIronic { method: "GET".into(), url: self.url(&path), reason });
                }
            }
            // Only path and query of the link: the controller may see itself under another name than we do.
            next = page.get("next").and_then(Value::as_str).and_then(path_of);
        }
        Ok(all)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let mut tries = 1;
        loop {
            match self.once(&method, path, body) {
                Err(CliError::Answer { status, ref message, .. })
                    if tries < TRIES && (status == 503 || (status == 409 && message.contains("locked"))) =>
                {
                    tries += 1;
                    std::thread::sleep(self.pause);
                }
                other => return other,
            }
        }
    }

    fn once(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let url = self.url(path);
        let fail = |error: ureq::Error| explain(method, &url, &error);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("Accept", "application/json")
            .header("X-OpenStack-Ironic-API-Version", VERSION);
        let sent = match body {
            Some(body) => request
                .header("Content-Type", "application/json")
                .body(body.to_string())
                .map_err(ureq::Error::Http)
                .and_then(|r| self.agent.run(r)),
            None => request.body(()).map_err(ureq::Error::Http).and_then(|r| self.agent.run(r)),
        };
        let mut response = sent.map_err(fail)?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(ANSWER).read_to_string().map_err(fail)?;
        if !(200..300).contains(&status) {
            let message = fault(&text);
            return Err(CliError::Answer { method: method.to_string(), url, status, message });
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|e| CliError::NotIronic {
            method: method.to_string(),
            url,
            reason: format!("no JSON: {e}"),
        })
    }
}

fn explain(method: &Method, url: &str, error: &ureq::Error) -> CliError {
    let (method, url) = (method.to_string(), url.to_string());
    match error {
        ureq::Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => {
            CliError::NotRunning { method, url }
        }
        ureq::Error::HostNotFound => {
            CliError::Unreachable { method, url, reason: "the name of the host is not known".into() }
        }
        ureq::Error::Timeout(what) => {
            CliError::Unreachable { method, url, reason: format!("no answer in time ({what})") }
        }
        other => CliError::Unreachable { method, url, reason: other.to_string() },
    }
}

/// Path and query of a link.
fn path_of(link: &str) -> Option<String> {
    let url = url::Url::parse(link).ok()?;
    let path = url.path();
    Some(match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into(),
    })
}

/// The text of an error body. Ironic packs JSON into a JSON string; others answer with plain objects or text.
fn fault(body: &str) -> String {
    let cut = |s: &str| s.trim().chars().take(2000).collect::<String>();
    let Ok(outer) = serde_json::from_str::<Value>(body) else {
        return if body.trim().is_empty() { "no explanation".into() } else { cut(body) };
    };
    let inner = match outer.get("error_message") {
        Some(Value::String(s)) => serde_json::from_str(s).unwrap_or_else(|_| Value::String(s.clone())),
        Some(other) => other.clone(),
        None => outer.clone(),
    };
    let text = inner.as_str().or_else(|| inner.get("faultstring").and_then(Value::as_str));
    let text = text.or_else(|| inner.pointer("/error/message").and_then(Value::as_str));
    text.map_or_else(|| cut(body), cut)
}

/// A name or UUID as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The path of a node, with what follows.
pub fn node_path(node: &str, rest: &str) -> String {
    format!("/v1/nodes/{}{rest}", segment(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, answer};
    use serde_json::json;

    #[test]
    fn ironics_error_bodies_are_unpacked() {
        for (body, text) in [
            (
                r#"{"error_message":"{\"faultcode\": \"Client\", \"faultstring\": \"Node x could not be found.\"}"}"#,
                "Node x could not be found.",
            ),
            (r#"{"error_message":{"faultstring":"plain"}}"#, "plain"),
            (r#"{"error_message":"just text"}"#, "just text"),
            (r#"{"faultcode":"Client","faultstring":"too deep"}"#, "too deep"),
            (r#"{"error":{"message":"who are you","code":401}}"#, "who are you"),
            ("<html>", "<html>"),
            ("", "no explanation"),
        ] {
            assert_eq!(fault(body), text);
        }
    }

    #[test]
    fn a_request_carries_the_version_and_errors_name_the_place() {
        let server = Server::start(vec![answer(404, json!({"error_message": "gone"}))]);
        let said = server.api().get("/v1/nodes/x").unwrap_err().to_string();
        assert_eq!(said, format!("GET {}/v1/nodes/x was answered with 404: gone", server.url));
        let seen = server.seen();
        assert!(seen[0].head.contains("x-openstack-ironic-api-version: 1.115"), "{}", seen[0].head);
    }

    #[test]
    fn nobody_there_names_the_url_and_the_option() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let said = Api::new(&url).unwrap().get("/v1/nodes").unwrap_err().to_string();
        assert!(said.contains(&format!("GET {url}/v1/nodes: nothing listens there")), "{said}");
        assert!(said.contains("--url or FERRIC_URL"), "{said}");
        assert!(Api::new("ftp://x").is_err() && Api::new("x").is_err());
    }

    #[test]
    fn a_locked_node_is_asked_again_and_a_taken_name_is_not() {
        let locked = || answer(409, json!({"error_message": "Node x is locked by host h"}));
        let server = Server::start(vec![locked(), locked(), answer(202, Value::Null)]);
        server.api().put("/v1/x", &json!({})).unwrap();
        assert_eq!(server.seen().len(), 3);
        let server =
            Server::start(vec![answer(409, json!({"error_message": "A node with name x already exists."}))]);
        assert!(server.api().post("/v1/nodes", &json!({})).is_err());
    }

    #[test]
    fn lists_follow_the_next_link_on_the_same_host() {
        let next = "http://elsewhere.example/v1/nodes?limit=1&marker=a";
        let server = Server::start(vec![
            answer(200, json!({"nodes": [{"uuid": "a"}], "next": next})),
            answer(200, json!({"nodes": [{"uuid": "b"}]})),
        ]);
        let all = server.api().list("/v1/nodes", "nodes").unwrap();
        assert_eq!(all, [json!({"uuid": "a"}), json!({"uuid": "b"})]);
        assert_eq!(server.seen()[1].line, "GET /v1/nodes?limit=1&marker=a");
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(node_path("a/../b?c", "/states"), "/v1/nodes/a%2F..%2Fb%3Fc/states");
        assert_eq!(node_path("metal3~node-1", ""), "/v1/nodes/metal3~node-1");
    }
}
