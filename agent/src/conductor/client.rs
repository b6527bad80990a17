//! The wire to the API: headers, several addresses, version detection.

use super::Exchange;
use crate::fetch::{self, Answer, Ask, FetchError};
use bytes::Bytes;
use ferric_common::wire::version::{self, ApiVersion};
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// Bytes of an API answer that are read: the node of a lookup may carry large cached step lists.
const ANSWER: usize = 4 << 20;

/// The API under one or several addresses; the one that answered last is tried first.
pub struct ApiClient {
    urls: Mutex<Vec<Url>>,
    tls: Arc<rustls::ClientConfig>,
    within: Duration,
    request_id: Option<HeaderValue>,
}

impl ApiClient {
    pub fn new(
        urls: Vec<Url>,
        tls: Arc<rustls::ClientConfig>,
        within: Duration,
        request_id: Option<&str>,
    ) -> ApiClient {
        let request_id = request_id.and_then(|text| HeaderValue::from_str(text).ok());
        ApiClient { urls: Mutex::new(urls), tls, within, request_id }
    }

    /// The addresses, the working one first.
    pub fn urls(&self) -> Vec<Url> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn prefer(&self, url: &Url) {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = urls.iter().position(|known| known == url) {
            urls.rotate_left(at);
        }
    }

    fn headers(&self, version: Option<ApiVersion>) -> Vec<(HeaderName, HeaderValue)> {
        let json = HeaderValue::from_static("application/json");
        let mut headers = vec![(CONTENT_TYPE, json.clone()), (ACCEPT, json)];
        if let Some(value) = version.and_then(|v| HeaderValue::from_str(&v.to_string()).ok())
            && let Ok(name) = HeaderName::from_bytes(version::HEADER.as_bytes())
        {
            headers.push((name, value));
        }
        if let Some(id) = &self.request_id {
            headers.push((HeaderName::from_static("x-openstack-request-id"), id.clone()));
        }
        headers
    }
}

impl Exchange for ApiClient {
    async fn ask(
        &self,
        path: &str,
        version: Option<ApiVersion>,
        body: Option<String>,
    ) -> Result<Answer, FetchError> {
        let mut last = None;
        for base in self.urls() {
            let text = format!("{}{path}", base.as_str().trim_end_matches('/'));
            let Ok(url) = Url::parse(&text) else {
                return Err(FetchError::Address(fetch::printable(&base)));
            };
            let ask = Ask {
                method: if body.is_some() { Method::POST } else { Method::GET },
                url,
                headers: self.headers(version),
                body: Bytes::from(body.clone().unwrap_or_default()),
                limit: ANSWER,
                within: self.within,
            };
            let (method, shown) = (ask.method.clone(), fetch::printable(&ask.url));
            match fetch::exchange(&self.tls, ask).await {
                Ok(answer) => {
                    tracing::debug!("{method} {shown}: {}", answer.status);
                    self.prefer(&base);
                    return Ok(answer);
                }
                Err(error) if error.is_transient() => {
                    tracing::debug!("{method} {shown}: {error}");
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| FetchError::Address("(no API address)".into())))
    }
}

/// What the root of the API said.
#[derive(Clone, Debug, Default)]
pub struct Root {
    pub version: Option<ApiVersion>,
    /// The `Date` header as it came.
    pub date: Option<String>,
}

/// Asks the API for its newest version, and its clock.
///
/// # Errors
/// [`FetchError`] when nobody answers at all; an answer that cannot be understood is a [`Root`] without version.
pub async fn root<E: Exchange>(api: &E) -> Result<Root, FetchError> {
    let answer = api.ask("/", None, None).await?;
    let date = answer.headers.get(http::header::DATE).and_then(|v| v.to_str().ok()).map(String::from);
    let version = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .filter(|_| answer.status == 200)
        .as_ref()
        .and_then(|body| body.get("default_version")?.get("version")?.as_str()?.parse().ok());
    Ok(Root { version, date })
}
