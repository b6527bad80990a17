//! One bounded HTTP exchange over its own connection: for the controller's API and for small files beside an image.
//!
//! Every answer has a cap and a deadline; redirects are counted, never lead from https to http, and carry credentials
//! only to the host they were given for. Image bodies are streamed by [`crate::image`], not here.

mod proxies;
mod reach;
mod shown;

pub use proxies::{Proxies, basic};
pub use shown::printable;

use bytes::Bytes;
use ferric_common::limits;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use url::{Host, Url};

/// Whom to believe, as whom to ask, and by way of what.
#[derive(Clone)]
pub struct Means<'a> {
    pub tls: &'a Arc<rustls::ClientConfig>,
    /// A whole `Authorization` value, for the host of the first address alone. Without it the user and password that stand in
    /// that address are used.
    pub authorization: Option<HeaderValue>,
    pub proxies: Option<&'a Proxies>,
}

impl<'a> Means<'a> {
    /// Straight, as nobody.
    pub fn direct(tls: &'a Arc<rustls::ClientConfig>) -> Means<'a> {
        Means { tls, authorization: None, proxies: None }
    }
}

/// What to ask.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// Bytes of answer body that are read at most.
    pub limit: usize,
    /// For the whole exchange, connecting included.
    pub within: Duration,
}

impl Ask {
    /// A GET without extra headers.
    pub fn get(url: Url, limit: usize, within: Duration) -> Ask {
        Ask { method: Method::GET, url, headers: Vec::new(), body: Bytes::new(), limit, within }
    }
}

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body for a person: bad UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why no answer came. Addresses are printed without user, query and fragment: those may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0} is not an http or https address")]
    Address(String),
    #[error("the name '{host}' has no address: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("connecting to {to}: {source}")]
    Connect { to: String, source: io::Error },
    #[error("TLS with {to}: {source}")]
    Tls { to: String, source: io::Error },
    #[error("talking to {to}: {source}")]
    Http { to: String, source: hyper::Error },
    #[error("{to} did not answer within {} s", .within.as_secs())]
    Late { to: String, within: Duration },
    #[error("the answer of {to} is longer than {limit} bytes")]
    TooLong { to: String, limit: usize },
    #[error("{to} redirects {why}")]
    Redirect { to: String, why: &'static str },
    #[error("the proxy {through} makes no tunnel to {to}: {why}")]
    Tunnel { through: String, to: String, why: String },
    #[error("the proxy {through} makes no tunnel to {to}: it answered {status}")]
    Refused { through: String, to: String, status: u16 },
}

impl FetchError {
    /// Whether another try, or another address, may end better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address(_) | Self::TooLong { .. } | Self::Redirect { .. } => false,
            Self::Refused { status, .. } => *status >= 500,
            _ => true,
        }
    }
}

/// Asks once, straight; follows nothing.
///
/// # Errors
/// [`FetchError`]; a status of any kind is an answer, not an error.
pub async fn exchange(tls: &Arc<rustls::ClientConfig>, ask: Ask) -> Result<Answer, FetchError> {
    exchange_through(tls, None, ask).await
}

/// Asks by these means, following up to [`limits::REDIRECTS`] redirects; each exchange has the time of the order.
///
/// # Errors
/// [`FetchError`].
pub async fn follow(means: &Means<'_>, ask: Ask) -> Result<Answer, FetchError> {
    let first = ask.url.clone();
    let authorization = means.authorization.clone().or_else(|| basic(&first));
    let mut url = first.clone();
    for _ in 0..=limits::REDIRECTS {
        let mut ask = Ask { url: url.clone(), ..ask.clone() };
        if let (true, Some(value)) = (url.origin() == first.origin(), &authorization) {
            ask.headers.push((http::header::AUTHORIZATION, value.clone()));
        }
        let proxy = means.proxies.and_then(|proxies| proxies.of(&url));
        let answer = exchange_through(means.tls, proxy, ask).await?;
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(answer);
        }
        url = redirected(&url, &answer.headers)?;
    }
    Err(FetchError::Redirect { to: printable(&first), why: "more than 5 times" })
}

fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let refuse = |why| FetchError::Redirect { to: printable(from), why };
    let next = headers
        .get(http::header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.len() <= limits::URL)
        .and_then(|text| from.join(text).ok())
        .ok_or_else(|| refuse("without a usable Location"))?;
    match from.scheme() == "https" && next.scheme() != "https" {
        true => Err(refuse("from https to http, which is never followed")),
        false => Ok(next),
    }
}

async fn exchange_through(
    tls: &Arc<rustls::ClientConfig>,
    proxy: Option<&Url>,
    ask: Ask,
) -> Result<Answer, FetchError> {
    let (to, within) = (printable(&ask.url), ask.within);
    tokio::time::timeout(within, exchange_unbounded(tls, proxy, ask, &to))
        .await
        .unwrap_or(Err(FetchError::Late { to: to.clone(), within }))
}

async fn exchange_unbounded(
    tls: &Arc<rustls::ClientConfig>,
    proxy: Option<&Url>,
    mut ask: Ask,
    to: &str,
) -> Result<Answer, FetchError> {
    let bad = || FetchError::Address(to.to_string());
    let path = ask.url[url::Position::BeforePath..url::Position::AfterQuery].to_string();
    match (ask.url.scheme(), proxy) {
        ("http", None) => converse(reach::connect(&ask.url, to).await?, ask, &path, to).await,
        ("http", Some(proxy)) => {
            // A proxy is told the whole address, but never its user and password.
            let whole = format!("http://{}{path}", authority(&ask.url));
            ask.headers.extend(basic(proxy).map(|value| (http::header::PROXY_AUTHORIZATION, value)));
            converse(reach::proxied(proxy).await?, ask, &whole, to).await
        }
        ("https", proxy) => {
            let name = match ask.url.host().ok_or_else(bad)? {
                Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| bad())?,
                Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::V4(ip)),
                Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::V6(ip)),
            };
            let stream = match proxy {
                None => reach::connect(&ask.url, to).await?,
                Some(proxy) => reach::tunnel(proxy, &ask.url).await?,
            };
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|source| FetchError::Tls { to: to.to_string(), source })?;
            converse(stream, ask, &path, to).await
        }
        _ => Err(bad()),
    }
}

async fn converse<S>(stream: S, ask: Ask, target: &str, to: &str) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let talk = |source| FetchError::Http { to: to.to_string(), source };
    let bad = || FetchError::Address(to.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(limits::HEADERS_COUNT)
        .max_buf_size(limits::IMAGE_SERVER_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(talk)?;
    let mut request = http::Request::builder()
        .method(ask.method)
        .uri(target)
        .header(http::header::HOST, authority(&ask.url))
        .header(http::header::CONNECTION, "close");
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(ask.body)).map_err(|_| bad())?;
    let driver = tokio::spawn(connection);
    let result = async {
        let answer = sender.send_request(request).await.map_err(talk)?;
        let (head, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(talk)?.into_data() {
                if bytes.len().saturating_add(data.len()) > ask.limit {
                    return Err(FetchError::TooLong { to: to.to_string(), limit: ask.limit });
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes.into() })
    }
    .await;
    drop(sender);
    driver.abort();
    result
}

fn authority(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_address_has_no_secret() {
        let url = Url::parse("https://user:pw@h:1/a/b?agent_token=x#y").unwrap();
        assert_eq!(printable(&url), "https://h:1/a/b");
        assert_eq!(authority(&url), "h:1");
        assert_eq!(authority(&Url::parse("http://[::1]:80/").unwrap()), "[::1]");
    }
}
