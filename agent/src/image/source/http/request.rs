//! One GET as it goes over a connection. Pure.

use super::super::wire::{self, Connection};
use super::super::{answer, head::Validator};
use http::header::HeaderValue;
use std::ops::Range;
use url::Url;

/// What is asked of a place, wherever its redirects lead.
pub(super) struct Wanted {
    /// The place itself.
    pub url: Url,
    /// For its host alone.
    pub authorization: Option<HeaderValue>,
    pub validator: Option<Validator>,
    pub range: Option<Range<u64>>,
}

impl Wanted {
    /// The request for `url`, to which the place led, on this connection.
    pub fn compose(&self, connection: &Connection, url: &Url) -> String {
        // Through a proxy the whole address, but never its user and password.
        let path = answer::path_and_query(url);
        let target = match connection.absolute {
            true => format!("{}://{}{path}", url.scheme(), answer::host_header(url)),
            false => path,
        };
        let mut text = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: ferric-agent/{}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n",
            answer::host_header(url),
            env!("CARGO_PKG_VERSION")
        );
        let mut field = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
        if let Some(range) = &self.range {
            field("Range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            if let Some(validator) = &self.validator {
                field("If-Range", validator.text());
            }
        }
        if let Some(value) = text_of(self.authorization.as_ref())
            && wire::origin(&self.url) == connection.origin
        {
            field("Authorization", value);
        }
        if let Some(value) = text_of(connection.proxy_authorization.as_ref()).filter(|_| connection.absolute)
        {
            field("Proxy-Authorization", value);
        }
        text.push_str("\r\n");
        text
    }
}

fn text_of(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}
