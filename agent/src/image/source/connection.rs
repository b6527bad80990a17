//! One HTTP/1.1 connection to an image server, straight or through a proxy.

use super::Timeouts;
use bytes::Bytes;
use ferric_common::limits;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

pub type Sender = SendRequest<Empty<Bytes>>;

/// A connection that may serve several requests to the same origin.
pub struct Connection {
    pub origin: String,
    pub sender: Sender,
    /// Requests carry the whole URL: plain HTTP through a proxy.
    pub absolute: bool,
}

/// `scheme://host:port` of a URL.
pub fn origin(url: &Url) -> String {
    format!(
        "{}://{}:{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(0)
    )
}

/// Opens a connection for requests to `url`.
pub async fn open(
    url: &Url,
    proxy: Option<&Url>,
    tls: &Arc<rustls::ClientConfig>,
    timeouts: &Timeouts,
) -> io::Result<Connection> {
    let peer = proxy.unwrap_or(url);
    let mut tcp = connect(peer, timeouts).await?;
    let secure = url.scheme() == "https";
    if secure && proxy.is_some() {
        timed(timeouts, tunnel(&mut tcp, url)).await?;
    }
    let sender = if secure {
        let host =
            url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = timed(timeouts, TlsConnector::from(tls.clone()).connect(name, tcp)).await?;
        handshake(stream).await?
    } else {
        handshake(tcp).await?
    };
    Ok(Connection { origin: origin(url), sender, absolute: !secure && proxy.is_some() })
}

async fn timed<T>(timeouts: &Timeouts, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeouts.connect, work).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", timeouts.connect)))
    })
}

async fn connect(url: &Url, timeouts: &Timeouts) -> io::Result<TcpStream> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_string();
    let port = url.port_or_known_default().unwrap_or(80);
    let resolve = async { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect::<Vec<_>>()) };
    let answers = timed(timeouts, resolve)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("looking up the name {host}: {e}")))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("the name {host} has no address"));
    for address in answers.into_iter().take(limits::DNS_ANSWERS) {
        match timed(timeouts, TcpStream::connect(address)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = io::Error::new(e.kind(), format!("connecting to {address}: {e}")),
        }
    }
    Err(last)
}

/// Asks a proxy for a tunnel to the origin of `url` (RFC 9110, CONNECT).
async fn tunnel(tcp: &mut TcpStream, url: &Url) -> io::Result<()> {
    let authority =
        format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
    tcp.write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > limits::HEADERS_TOTAL {
            return Err(io::Error::other("the proxy's answer to CONNECT is too long"));
        }
        head.push(tcp.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_string();
    if line.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(io::Error::other(format!("the proxy refused a tunnel to {authority}: {line}")))
    }
}

async fn handshake<S>(stream: S) -> io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits::HEADERS_COUNT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        // Its end shows as an error of the request or the body that was under way.
        let _ = connection.await;
    });
    Ok(sender)
}
