//! What an image server's answer is worth, and where its redirects lead. Pure.

use super::head::{Head, content_range};
use super::http::Failure;
use super::wire;
use crate::image::ImageError;
use ferric_common::limits;
use http::header::{self, HeaderMap};
use std::ops::Range;
use url::Url;

/// What an answer to a request for `range` is worth. `length` is the file's, as far as it is known; `name` is for messages.
///
/// # Errors
/// A status that is none of success, another range than was asked for, another length.
pub fn judge(
    head: Head,
    range: Option<Range<u64>>,
    length: Option<u64>,
    name: &str,
) -> Result<Answer, Failure> {
    let url = name.to_string();
    match (head.status.as_u16(), range) {
        (206, Some(range)) => match content_range(&head.headers) {
            Some((start, total)) if start == range.start => match length {
                Some(length) if length != total => {
                    Err(ImageError::Changed { url, what: format!("its length is now {total}") }.into())
                }
                _ => Ok(Answer::Partial(head)),
            },
            _ => Err(Failure::Transient("the server answered with another range than was asked for".into())),
        },
        (200, _) => Ok(Answer::Whole(head)),
        (416, Some(range)) if range.start == 0 => Err(ImageError::Empty.into()),
        (416, Some(range)) => {
            let expected = length.unwrap_or(0).into();
            Err(ImageError::Truncated { url, got: range.start.into(), expected }.into())
        }
        (408 | 429 | 500.., _) => Err(Failure::Transient(format!("the server answered {}", head.status))),
        (status, _) => {
            let hint = match status {
                401 | 403 | 407 => ": the server wants other credentials",
                404 | 410 => ": the image is not there; check image_source",
                _ => "",
            };
            Err(ImageError::Refused { url, status: head.status.to_string(), hint }.into())
        }
    }
}

/// An answer that can be used.
pub enum Answer {
    /// 206, begins where asked.
    Partial(Head),
    /// 200, begins at byte 0.
    Whole(Head),
}

/// A URL that this room fetches from.
///
/// # Errors
/// [`ImageError::Url`]: too long, unreadable, another scheme.
pub fn parse_url(text: &str) -> Result<Url, ImageError> {
    let fault = |why: String| ImageError::Url { url: text.chars().take(200).collect(), why };
    if text.len() > limits::URL {
        return Err(fault(format!("longer than {} bytes", limits::URL)));
    }
    let url = Url::parse(text).map_err(|e| fault(e.to_string()))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        (scheme, _) => {
            Err(fault(format!("scheme '{scheme}' is not served; use http, https or file:///PATH")))
        }
    }
}

/// A URL as errors show it: no user, password or query, which may hold secrets.
pub fn display(url: &Url) -> String {
    format!("{}{}", wire::origin(url), url.path())
}

/// Where a redirect leads. Never from https to http.
pub fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let fault = |why: &str| ImageError::Url { url: display(from), why: why.to_string() };
    let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let location = location.ok_or_else(|| fault("it redirects to nowhere"))?;
    let to = from.join(location).map_err(|e| fault(&format!("it redirects to something unusable: {e}")))?;
    match (from.scheme(), to.scheme()) {
        ("https", "http") => Err(fault("it redirects from https to http").into()),
        (_, "http" | "https") => Ok(to),
        _ => Err(fault("it redirects to something that is not http").into()),
    }
}

/// The text from the path on, without the fragment.
pub fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_string(),
    }
}

pub fn host_header(url: &Url) -> String {
    match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_string(),
    }
}
