//! Answers and problems, and how each looks on the wire.

use crate::conductor::Refusal;
use bytes::Bytes;
use ferric_common::wire::error::{Fault, ironic_body};
use http::{Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

/// A good answer.
pub struct Answer {
    status: StatusCode,
    body: Option<Value>,
    location: Option<String>,
}

impl Answer {
    pub fn ok(body: Value) -> Answer {
        Answer { status: StatusCode::OK, body: Some(body), location: None }
    }
    pub fn created(body: Value, location: String) -> Answer {
        Answer { status: StatusCode::CREATED, body: Some(body), location: Some(location) }
    }
    pub fn accepted(location: Option<String>) -> Answer {
        Answer { status: StatusCode::ACCEPTED, body: None, location }
    }
    pub fn no_content() -> Answer {
        Answer { status: StatusCode::NO_CONTENT, body: None, location: None }
    }
    /// 204 and empty 202 carry neither body nor content type.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = self.body.map(|b| b.to_string());
        let mut response = Response::new(Full::new(Bytes::from(body.clone().unwrap_or_default())));
        *response.status_mut() = self.status;
        if body.is_some() {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        }
        if let Some(location) = self.location.and_then(|l| header::HeaderValue::from_str(&l).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// A refused request.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub text: String,
    /// Rejections before the request is understood are flat; all others are JSON inside a JSON string.
    flat: bool,
    allow: Option<&'static str>,
    close: bool,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Problem {
        Problem { status, text: text.into(), flat: false, allow: None, close: false }
    }
    pub fn invalid(text: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, text)
    }
    pub fn not_found(text: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, text)
    }
    pub fn not_found_path() -> Problem {
        Problem::not_found("The requested resource does not exist.")
    }
    pub fn not_acceptable(text: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_ACCEPTABLE, text)
    }
    /// A field, filter or verb newer than the version of the request.
    pub fn too_new() -> Problem {
        Problem::not_acceptable("Request not acceptable.")
    }
    pub fn method_not_allowed(allow: &'static str) -> Problem {
        Problem { allow: Some(allow), ..Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") }
    }
    /// The request is not even read to its end: the connection is closed after the answer.
    pub fn flat(status: StatusCode, text: impl Into<String>) -> Problem {
        Problem { flat: true, close: true, ..Problem::new(status, text) }
    }
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let status = self.status.as_u16();
        let body = match self.flat {
            true => serde_json::json!(Fault::new(status, self.text)).to_string(),
            false => ironic_body(status, &self.text),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, header::HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let status = match &refusal {
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Refusal::Conflict(_) | Refusal::Locked { .. } => StatusCode::CONFLICT,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, refusal.to_string())
    }
}
