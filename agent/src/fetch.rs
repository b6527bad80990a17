//! One bounded HTTP exchange over its own connection: for the controller's API and for small files beside an image.
//!
//! Every answer has a cap and a deadline; redirects are counted, never lead from https to http, and carry credentials
//! only to the host they were given for. Image bodies are streamed by [`crate::image`], not here.

mod shown;

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
use tokio::net::TcpStream;
use url::{Host, Url};

/// What to ask.
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
}

impl FetchError {
    /// Whether another try, or another address, may end better.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Address(_) | Self::TooLong { .. } | Self::Redirect { .. })
    }
}

/// Asks once, follows nothing.
///
/// # Errors
/// [`FetchError`]; a status of any kind is an answer, not an error.
pub async fn exchange(tls: &Arc<rustls::ClientConfig>, ask: Ask) -> Result<Answer, FetchError> {
    let (to, within) = (printable(&ask.url), ask.within);
    tokio::time::timeout(within, exchange_unbounded(tls, ask, &to))
        .await
        .unwrap_or(Err(FetchError::Late { to: to.clone(), within }))
}

/// GETs, following up to [`limits::REDIRECTS`] redirects.
///
/// # Errors
/// [`FetchError`].
pub async fn get_following(
    tls: &Arc<rustls::ClientConfig>,
    url: Url,
    authorization: Option<HeaderValue>,
    limit: usize,
    within: Duration,
) -> Result<Answer, FetchError> {
    let first = url.clone();
    let mut url = url;
    for _ in 0..=limits::REDIRECTS {
        let mut ask = Ask::get(url.clone(), limit, within);
        let same_host = url.scheme() == first.scheme()
            && url.host() == first.host()
            && url.port_or_known_default() == first.port_or_known_default();
        if let (true, Some(value)) = (same_host, &authorization) {
            ask.headers.push((http::header::AUTHORIZATION, value.clone()));
        }
        let answer = exchange(tls, ask).await?;
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(answer);
        }
        let refuse = |why| FetchError::Redirect { to: printable(&url), why };
        let next = answer
            .headers
            .get(http::header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .filter(|text| text.len() <= limits::URL)
            .and_then(|text| url.join(text).ok())
            .ok_or_else(|| refuse("without a usable Location"))?;
        if url.scheme() == "https" && next.scheme() != "https" {
            return Err(refuse("from https to http, which is never followed"));
        }
        url = next;
    }
    Err(FetchError::Redirect { to: printable(&first), why: "more than 5 times" })
}

async fn exchange_unbounded(
    tls: &Arc<rustls::ClientConfig>,
    ask: Ask,
    to: &str,
) -> Result<Answer, FetchError> {
    let bad = || FetchError::Address(to.to_string());
    let host = ask.url.host().ok_or_else(bad)?.to_owned();
    let port = ask.url.port_or_known_default().ok_or_else(bad)?;
    let stream = connect(&host, port, to).await?;
    match ask.url.scheme() {
        "http" => converse(stream, ask, to).await,
        "https" => {
            let name = match &host {
                Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|_| bad())?,
                Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::V4(*ip)),
                Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::V6(*ip)),
            };
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|source| FetchError::Tls { to: to.to_string(), source })?;
            converse(stream, ask, to).await
        }
        _ => Err(bad()),
    }
}

async fn connect(host: &Host<String>, port: u16, to: &str) -> Result<TcpStream, FetchError> {
    let name = match host {
        Host::Domain(name) => name.clone(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    let resolve = |source| FetchError::Resolve { host: name.clone(), source };
    let addresses = tokio::net::lookup_host((name.as_str(), port)).await.map_err(resolve)?;
    let mut last = None;
    for address in addresses.take(limits::DNS_ANSWERS) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small requests and answers: waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(source) => FetchError::Connect { to: to.to_string(), source },
        None => resolve(io::ErrorKind::NotFound.into()),
    })
}

async fn converse<S>(stream: S, ask: Ask, to: &str) -> Result<Answer, FetchError>
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
        .uri(&ask.url[url::Position::BeforePath..url::Position::AfterQuery])
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
