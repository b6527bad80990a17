//! A request, read whole within its caps and parsed as far as every resource needs it.

use super::answer::Problem;
use super::json;
use bytes::{Buf as _, BytesMut};
use ferric_common::limits;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// One request.
pub struct Request {
    pub method: Method,
    /// Path segments, percent-decoded, without empty ones: a trailing slash makes no difference.
    pub segments: Vec<String>,
    pub query: Vec<(String, String)>,
    /// The minor of the microversion.
    pub version: u16,
    pub peer: IpAddr,
    /// Base of links: `http://host:port`.
    pub base: String,
    /// The body, parsed; `Err` holds why it is not JSON. An empty body is `Ok(None)`.
    pub body: Result<Option<Value>, String>,
}

/// Bytes of body that a path may have.
fn body_cap(segments: &[String]) -> usize {
    let names: Vec<&str> = segments.iter().map(String::as_str).filter(|s| *s != "v1").collect();
    match names.as_slice() {
        ["nodes", _, "states", "provision"] => limits::BODY_PROVISION,
        ["heartbeat", ..] => limits::BODY_HEARTBEAT,
        ["continue_inspection"] => limits::BODY_INSPECTION,
        _ => limits::BODY_API,
    }
}

impl Request {
    pub async fn read(
        request: hyper::Request<Incoming>,
        version: u16,
        peer: IpAddr,
        public_url: Option<&str>,
    ) -> Result<Request, Problem> {
        let (parts, body) = request.into_parts();
        check_headers(&parts.headers, &parts.uri)?;
        let segments: Vec<String> =
            parts.uri.path().split('/').filter(|s| !s.is_empty()).map(decode).collect::<Result<_, _>>()?;
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let base = match public_url {
            Some(url) => url.to_string(),
            None => format!("http://{}", host(&parts.headers)),
        };
        let raw = match parts.method {
            Method::GET | Method::HEAD => Vec::new(),
            _ => read_body(body, body_cap(&segments)).await?,
        };
        let body = match raw.iter().all(u8::is_ascii_whitespace) {
            true => Ok(None),
            false => json::parse(&raw).map(Some),
        };
        Ok(Request { method: parts.method, segments, query, version, peer, base, body })
    }

    /// The first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Refuses parameters that the path does not know.
    pub fn only_params(&self, known: &[&str]) -> Result<(), Problem> {
        match self.query.iter().find(|(k, _)| !known.contains(&k.as_str())) {
            Some((name, _)) => Err(unexpected(name)),
            None => Ok(()),
        }
    }

    /// The body, which must be there.
    pub fn json(&self) -> Result<&Value, Problem> {
        match &self.body {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Problem::invalid("The request has no body; a JSON document is needed.")),
            Err(why) => Err(Problem::invalid(format!("The body of the request is not usable JSON: {why}"))),
        }
    }

    /// The body as an object; for actions also what came as query parameters.
    pub fn object(&self) -> Result<Map<String, Value>, Problem> {
        let mut map = match &self.body {
            Ok(None) => Map::new(),
            _ => match self.json()? {
                Value::Object(map) => map.clone(),
                _ => return Err(Problem::invalid("The body of the request must be a JSON object.")),
            },
        };
        for (name, value) in &self.query {
            map.entry(name.clone()).or_insert_with(|| Value::String(value.clone()));
        }
        Ok(map)
    }

    /// 404 unless the request's version is at least this.
    pub fn since(&self, version: u16) -> Result<(), Problem> {
        if self.version >= version { Ok(()) } else { Err(Problem::not_found("Resource could not be found.")) }
    }

    /// The two links of an object.
    pub fn links(&self, path: &str) -> Value {
        serde_json::json!([
            {"href": format!("{}/v1/{path}", self.base), "rel": "self"},
            {"href": format!("{}/{path}", self.base), "rel": "bookmark"},
        ])
    }
}

pub fn unexpected(name: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::invalid(format!("Unexpected arguments: {shown}"))
}

/// What a request smuggler or a memory filler would send.
fn check_headers(headers: &HeaderMap, uri: &http::Uri) -> Result<(), Problem> {
    let bytes: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 4).sum();
    if bytes > limits::HEADERS_TOTAL || uri.to_string().len() > limits::REQUEST_LINE {
        return Err(Problem::flat(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!(
                "The request's headers are {bytes} bytes long; {} are allowed, and {} for the path.",
                limits::HEADERS_TOTAL,
                limits::REQUEST_LINE
            ),
        ));
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    if lengths > 1 || (lengths == 1 && headers.contains_key(header::TRANSFER_ENCODING)) {
        return Err(Problem::flat(
            StatusCode::BAD_REQUEST,
            "The request gives its length in more than one way.",
        ));
    }
    Ok(())
}

fn host(headers: &HeaderMap) -> String {
    let given = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let fits = !given.is_empty()
        && given.len() <= 255
        && given.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
    if fits { given.to_string() } else { "localhost:6385".to_string() }
}

fn decode(segment: &str) -> Result<String, Problem> {
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [rest.next().unwrap_or(0), rest.next().unwrap_or(0)];
        let value = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
        out.push(value.ok_or_else(|| Problem::invalid("The path holds a broken percent escape."))?);
    }
    String::from_utf8(out).map_err(|_| Problem::invalid("The path is not UTF-8."))
}

async fn read_body(mut body: Incoming, cap: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::flat(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The request's body is larger than the {cap} bytes allowed here."),
        )
    };
    if body.size_hint().lower() > cap as u64 {
        return Err(too_large());
    }
    // Large bodies get time in proportion, at no less than 64 KiB/s.
    let longest = limits::SMALL_REQUEST_TIME + Duration::from_secs((cap / (64 << 10)) as u64);
    let end = Instant::now() + longest;
    let mut out = BytesMut::new();
    loop {
        let slow = || Problem::flat(StatusCode::REQUEST_TIMEOUT, "The request's body did not come in time.");
        if Instant::now() > end {
            return Err(slow());
        }
        let frame = timeout(limits::BODY_IDLE, body.frame()).await.map_err(|_| slow())?;
        let Some(frame) = frame else { return Ok(out.to_vec()) };
        let frame = frame.map_err(|e| {
            Problem::flat(StatusCode::BAD_REQUEST, format!("The request's body broke off: {e}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if out.len() + data.remaining() > cap {
            return Err(too_large());
        }
        out.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_follows_the_path_with_and_without_prefix() {
        let cap = |path: &str| {
            body_cap(&path.split('/').filter(|s| !s.is_empty()).map(String::from).collect::<Vec<_>>())
        };
        assert_eq!(cap("/v1/nodes/x/states/provision"), 64 << 20);
        assert_eq!(cap("/nodes/x/states/provision"), 64 << 20);
        assert_eq!(cap("/v1/heartbeat/x"), 64 << 10);
        assert_eq!(cap("/v1/nodes"), 1 << 20);
    }

    #[test]
    fn percent_escapes_are_decoded_or_refused() {
        assert_eq!(decode("metal3~a%20b").unwrap(), "metal3~a b");
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
