//! From an address to a connection: names, and tunnels through a proxy (RFC 9110, CONNECT).

use super::{FetchError, authority, printable, proxies};
use ferric_common::limits;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::{Host, Url};

/// A connection to the host of an address.
pub(super) async fn connect(url: &Url, to: &str) -> Result<TcpStream, FetchError> {
    let bad = || FetchError::Address(to.to_string());
    let port = url.port_or_known_default().ok_or_else(bad)?;
    let name = match url.host().ok_or_else(bad)? {
        Host::Domain(name) => name.to_owned(),
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

/// A connection to a proxy.
pub(super) async fn proxied(proxy: &Url) -> Result<TcpStream, FetchError> {
    connect(proxy, &format!("the proxy {}", printable(proxy))).await
}

/// A connection through a proxy to the host of an https address.
pub(super) async fn tunnel(proxy: &Url, url: &Url) -> Result<TcpStream, FetchError> {
    let through = printable(proxy);
    let broken_off = |why: String| FetchError::Tunnel { through: through.clone(), to: authority(url), why };
    let broken = |source: io::Error| broken_off(source.to_string());
    let port = url.port_or_known_default().unwrap_or(443);
    let to = format!("{}:{port}", url.host_str().unwrap_or_default());
    let mut text = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(value) = proxies::basic(proxy).as_ref().and_then(|value| value.to_str().ok()) {
        text.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut stream = proxied(proxy).await?;
    stream.write_all(text.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if head.len() > limits::IMAGE_SERVER_HEADERS {
            return Err(broken_off("the head of its answer is too long".into()));
        }
        if stream.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(broken_off("it closed the connection instead of an answer".into()));
        }
    }
    match (status(&head), head.ends_with(b"\r\n\r\n")) {
        (Some(200), true) => Ok(stream),
        // The server behind it says nothing before it is spoken to.
        (Some(200), false) => Err(broken_off("it sent data of its own".into())),
        (Some(status), _) => Err(FetchError::Refused { through, to: authority(url), status }),
        (None, _) => Err(broken_off("its answer is no HTTP".into())),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HEADERS_COUNT];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).ok()?;
    response.code
}
