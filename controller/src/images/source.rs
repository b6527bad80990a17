//! Looks at an image where it is served, before a machine is powered on for it: is it there, is it what was declared, how
//! big is the disk that it holds.
//!
//! One GET of the first 64 KiB. Fetching the image is the agent's; whether it fits is the validation's. The header of a qcow2
//! is judged by [`ferric_common::formats::qcow2`], by the same code that the agent uses.

use crate::images::boot_file::is_text_page;
use base64::Engine as _;
use bytes::Bytes;
use ferric_common::formats::qcow2::{Header, Qcow2Error};
use ferric_common::images::{ImageFormat, Packing};
use ferric_common::limits::{
    DNS_ANSWERS, IMAGE_HEAD, IMAGE_SERVER_HEADERS, REDIRECTS, SMALL_REQUEST_TIME, TLS_HANDSHAKE_TIME, URL,
};
use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

/// Time to look a name up, and to connect to one address.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// What is known of an image from its first 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Bytes to download, if the server says so.
    pub length: Option<u64>,
    /// Whether a broken download can go on where it broke.
    pub accepts_ranges: bool,
    pub format: ImageFormat,
    /// Bytes of the disk that the image holds.
    pub virtual_size: Option<u64>,
    /// Whether it names another image that it rests on, which no machine can follow.
    pub backing_file: bool,
}

/// From where images may be fetched.
#[derive(Clone, Debug, Default)]
pub struct SourceAccess {
    /// Certificates trusted beside the system's, in DER.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Whether loopback and link-local addresses may be asked. Off, an image's URL cannot make the controller talk to its
    /// own services or to a cloud's metadata.
    pub allow_local_addresses: bool,
}

/// Why an image cannot be deployed from where it is said to be. Each text is whole by itself, since it is what a node's
/// `last_error` shows.
#[derive(Debug, thiserror::Error)]
pub enum ImageSourceError {
    #[error("image source '{url}' is not a URL that is fetched: {why}")]
    Url { url: String, why: &'static str },
    #[error("disk format '{0}' is not supported; declare raw, raw.gz, raw.xz, raw.zst, raw.bz2 or qcow2")]
    DeclaredFormat(String),
    #[error("image {url}: looking up {host}: {reason}")]
    Lookup { url: String, host: String, reason: io::Error },
    #[error("image {url}: {host} is {address}, a local address that is not asked for images")]
    LocalAddress { url: String, host: String, address: IpAddr },
    #[error("image {url}: connecting to {address}: {reason}")]
    Connect { url: String, address: SocketAddr, reason: io::Error },
    #[error("image {url}: TLS with {host}: {reason}")]
    Tls { url: String, host: String, reason: io::Error },
    #[error("image {url}: the server's answer broke off or is not HTTP: {reason}")]
    Http { url: String, reason: hyper::Error },
    #[error("image {url}: no answer within {} s while {doing}", after.as_secs())]
    Timeout { url: String, doing: &'static str, after: Duration },
    #[error("image {url}: the server answers {status}{}", hint(*status))]
    Status { url: String, status: StatusCode },
    #[error("image {url}: more than {REDIRECTS} redirects")]
    Redirects { url: String },
    #[error("image {url}: the server redirects from https to http, which is not followed")]
    Downgrade { url: String },
    #[error("image {url}: the file is empty")]
    Empty { url: String },
    #[error("image {url}: the server sends a text page, not an image; open the URL in a browser")]
    TextPage { url: String },
    #[error("image {url}: declared as {declared}, but the file is {found}")]
    Format { url: String, declared: ImageFormat, found: &'static str },
    #[error(
        "image {url}: the file is {found}; raw and qcow2 are deployed, and raw in gzip, xz, zstd or bzip2 where the name ends in .gz, .xz, .zst or .bz2 or image_disk_format says raw.gz and so on"
    )]
    Container { url: String, found: &'static str },
    #[error("image {url}: {reason}")]
    Qcow2 { url: String, reason: Qcow2Error },
}

impl ImageSourceError {
    /// Whether the same question may have another answer in a while.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Lookup { .. } | Self::Connect { .. } | Self::Http { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; check the access rights or the credentials in the URL",
        404 | 410 => "; check the path in image_source",
        _ => "",
    }
}

/// Looks at an image. `declared_format` is the node's `image_disk_format`, if set.
///
/// Follows up to five redirects, each checked like the URL itself; credentials in the URL go to its own host only.
///
/// # Errors
/// [`ImageSourceError`] says what was tried and what came back; texts hold neither credentials nor a URL's query.
pub async fn inspect(
    url: &str,
    declared_format: Option<&str>,
    access: &SourceAccess,
) -> Result<ImageFacts, ImageSourceError> {
    let declared = declared(declared_format, url)?;
    let mut at = parse_url(url)?;
    let whole = async {
        for _ in 0..=REDIRECTS {
            let (response, _connection) = ask(&at, access).await?;
            if let Some(next) = redirect(&at, &response)? {
                at = next;
                continue;
            }
            return judge(&shown(&at), response, declared).await;
        }
        Err(ImageSourceError::Redirects { url: shown(&at) })
    };
    let after = SMALL_REQUEST_TIME;
    match timeout(after, whole).await {
        Ok(result) => result,
        Err(_) => {
            let url = parse_url(url).map_or_else(|_| String::new(), |u| shown(&u));
            Err(ImageSourceError::Timeout { url, doing: "looking at the image", after })
        }
    }
}

fn parse_url(text: &str) -> Result<Url, ImageSourceError> {
    let refuse = |why| {
        // What is no URL may still hold a password.
        let url = text.split(['?', '@']).next().unwrap_or_default().chars().take(100).collect();
        Err(ImageSourceError::Url { url, why })
    };
    if text.len() > URL {
        return refuse("it is longer than 2048 bytes");
    }
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => refuse("only http and https are"),
        Ok(url) if url.host().is_none() => refuse("it names no host"),
        Ok(url) => Ok(url),
        Err(_) => refuse("give it as http://HOST/PATH or https://HOST/PATH"),
    }
}

/// A URL without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These fail for URLs without a host only, which have no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// The running connection; the exchange ends when it is dropped.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for the first bytes.
async fn ask(url: &Url, access: &SourceAccess) -> Result<(Response<Incoming>, Connection), ImageSourceError> {
    let stream = connect(url, access).await?;
    if url.scheme() == "http" {
        return exchange(url, stream).await;
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |reason| ImageSourceError::Tls { url: shown(url), host: host.clone(), reason };
    let name = match url.host() {
        Some(Host::Ipv4(ip)) => ServerName::from(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => ServerName::from(IpAddr::V6(ip)),
        _ => ServerName::try_from(host.clone()).map_err(|e| failed(io::Error::other(e)))?,
    };
    let connector = tokio_rustls::TlsConnector::from(tls_config(access).await.map_err(failed)?);
    let after = TLS_HANDSHAKE_TIME;
    let stream = timeout(after, connector.connect(name, stream))
        .await
        .map_err(|_| ImageSourceError::Timeout { url: shown(url), doing: "starting TLS", after })?
        .map_err(failed)?;
    exchange(url, stream).await
}

async fn tls_config(access: &SourceAccess) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let system = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let loaded = system.await.map_err(io::Error::other)?;
    let all = loaded.certs.into_iter().chain(access.extra_roots.iter().cloned());
    let (added, _) = roots.add_parsable_certificates(all);
    if added == 0 {
        return Err(io::Error::other(
            "this machine trusts no certificates at all; install the Debian package ca-certificates",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn connect(url: &Url, access: &SourceAccess) -> Result<TcpStream, ImageSourceError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(Host::Ipv6(ip)) => vec![(ip, port).into()],
        _ => {
            let after = CONNECT_TIME;
            let found = timeout(after, tokio::net::lookup_host((host.as_str(), port))).await;
            let found = found.map_err(|_| ImageSourceError::Timeout {
                url: shown(url),
                doing: "looking up the host",
                after,
            })?;
            let failed = |reason| ImageSourceError::Lookup { url: shown(url), host: host.clone(), reason };
            found.map_err(failed)?.take(DNS_ANSWERS).collect()
        }
    };
    let no_answer = || ImageSourceError::Lookup {
        url: shown(url),
        host: host.clone(),
        reason: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    };
    let mut last = None;
    for address in addresses {
        if !access.allow_local_addresses && is_local(address.ip()) {
            let address = address.ip();
            return Err(ImageSourceError::LocalAddress { url: shown(url), host, address });
        }
        let after = CONNECT_TIME;
        last = Some(match timeout(after, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(reason)) => ImageSourceError::Connect { url: shown(url), address, reason },
            Err(_) => ImageSourceError::Timeout { url: shown(url), doing: "connecting", after },
        });
    }
    Err(last.unwrap_or_else(no_answer))
}

/// Loopback, link-local (a cloud's metadata included), and what is no address of one machine.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets().starts_with(&[0])
        }
        IpAddr::V6(v6) => {
            // fd00:ec2::254 is Amazon's metadata service.
            let metadata = v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            let unusable = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast();
            unusable || v6.is_unicast_link_local() || metadata
        }
    }
}

async fn exchange<S>(url: &Url, stream: S) -> Result<(Response<Incoming>, Connection), ImageSourceError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |reason| ImageSourceError::Http { url: shown(url), reason };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(IMAGE_SERVER_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Its errors come out of the request too.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let after = SMALL_REQUEST_TIME / 2;
    let response = timeout(after, sender.send_request(request(url)))
        .await
        .map_err(|_| ImageSourceError::Timeout { url: shown(url), doing: "waiting for the answer", after })?
        .map_err(failed)?;
    Ok((response, connection))
}

fn request(url: &Url) -> Request<Empty<Bytes>> {
    let path = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut request = Request::new(Empty::new());
    // A parsed URL's parts are valid here; if not, the server is asked for `/` and refuses in its words.
    *request.uri_mut() = path.parse().unwrap_or_default();
    let mut set = |name, value: String| {
        if let Ok(value) = http::HeaderValue::try_from(value) {
            request.headers_mut().insert(name, value);
        }
    };
    set(header::HOST, host);
    set(header::USER_AGENT, concat!("ferric-controller/", env!("CARGO_PKG_VERSION")).to_owned());
    set(header::ACCEPT_ENCODING, "identity".to_owned());
    set(header::RANGE, format!("bytes=0-{}", IMAGE_HEAD.saturating_sub(1)));
    if !url.username().is_empty() {
        let decode = |text: &str| percent_decoded(text);
        let pair =
            [&decode(url.username())[..], b":", &decode(url.password().unwrap_or_default())[..]].concat();
        set(
            header::AUTHORIZATION,
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)),
        );
    }
    request
}

fn percent_decoded(text: &str) -> Vec<u8> {
    // `a=` makes it a form's value; a plus sign must stay one.
    let form = format!("a={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(form.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned().into_bytes())
        .unwrap_or_default()
}

/// Where an answer sends us, if it does.
fn redirect(url: &Url, response: &Response<Incoming>) -> Result<Option<Url>, ImageSourceError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let place = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let status = response.status();
    let place = place.ok_or_else(|| ImageSourceError::Status { url: shown(url), status })?;
    let next = url.join(place).ok().filter(|next| next.as_str().len() <= URL && next.host().is_some());
    let next = next.ok_or_else(|| ImageSourceError::Status { url: shown(url), status })?;
    if url.scheme() == "https" && next.scheme() != "https" {
        return Err(ImageSourceError::Downgrade { url: shown(url) });
    }
    parse_url(next.as_str()).map(Some)
}

/// What the image is said to be, by the node and by the image's own name.
fn declared(format: Option<&str>, url: &str) -> Result<Option<ImageFormat>, ImageSourceError> {
    let Some(text) = format else {
        let named = ImageFormat::Raw.named(url);
        return Ok(Some(named).filter(|named| *named != ImageFormat::Raw));
    };
    let format = text.parse::<ImageFormat>();
    let format = format.map_err(|_| ImageSourceError::DeclaredFormat(text.chars().take(32).collect()))?;
    Ok(Some(format.named(url)))
}

async fn judge(
    url: &str,
    response: Response<Incoming>,
    declared: Option<ImageFormat>,
) -> Result<ImageFacts, ImageSourceError> {
    let url = || url.to_owned();
    let (parts, body) = response.into_parts();
    match parts.status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(ImageSourceError::Empty { url: url() }),
        status => return Err(ImageSourceError::Status { url: url(), status }),
    }
    let accepts_ranges = parts.status == StatusCode::PARTIAL_CONTENT;
    let length = length(&parts.headers, accepts_ranges);
    let head = read_head(body).await.map_err(|reason| ImageSourceError::Http { url: url(), reason })?;
    if head.is_empty() {
        return Err(ImageSourceError::Empty { url: url() });
    }
    if is_text_page(&head) {
        return Err(ImageSourceError::TextPage { url: url() });
    }
    let found = content(&head);
    match (declared, found) {
        (None | Some(ImageFormat::Raw), Content::Raw) => Ok(ImageFacts {
            length,
            accepts_ranges,
            format: ImageFormat::Raw,
            virtual_size: length,
            backing_file: false,
        }),
        (None | Some(ImageFormat::Qcow2), Content::Qcow2) => {
            let (virtual_size, backing_file) = match Header::parse(&head, length.unwrap_or(u64::MAX)) {
                Ok(header) => (Some(header.virtual_size().0), false),
                Err(Qcow2Error::BackingFile { .. }) => (size_field(&head), true),
                Err(reason) => return Err(ImageSourceError::Qcow2 { url: url(), reason }),
            };
            let format = ImageFormat::Qcow2;
            Ok(ImageFacts { length, accepts_ranges, format, virtual_size, backing_file })
        }
        (_, Content::Packed(packing)) if declared == Some(ImageFormat::Packed(packing)) => Ok(ImageFacts {
            length,
            accepts_ranges,
            format: ImageFormat::Packed(packing),
            // A compressed stream does not say how long it is.
            virtual_size: None,
            backing_file: false,
        }),
        (Some(declared), found) => {
            Err(ImageSourceError::Format { url: url(), declared, found: found.describe() })
        }
        (None, found) => Err(ImageSourceError::Container { url: url(), found: found.describe() }),
    }
}

fn size_field(head: &[u8]) -> Option<u64> {
    head.get(24..).and_then(|rest| rest.first_chunk::<8>()).map(|b| u64::from_be_bytes(*b))
}

fn length(headers: &HeaderMap, partial: bool) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok());
    if partial {
        text(header::CONTENT_RANGE)?.rsplit_once('/')?.1.trim().parse().ok()
    } else {
        text(header::CONTENT_LENGTH)?.trim().parse().ok()
    }
}

/// The first 64 KiB, however much the server sends.
async fn read_head(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut head = Vec::with_capacity(IMAGE_HEAD);
    while head.len() < IMAGE_HEAD {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            let take = data.len().min(IMAGE_HEAD.saturating_sub(head.len()));
            head.extend_from_slice(data.get(..take).unwrap_or_default());
        }
    }
    Ok(head)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Raw,
    Qcow2,
    Packed(Packing),
    Other(&'static str),
}

impl Content {
    fn describe(self) -> &'static str {
        match self {
            Content::Raw => "a raw image, or none that is known",
            Content::Qcow2 => "qcow2",
            Content::Packed(Packing::Gz) => "compressed with gzip",
            Content::Packed(Packing::Xz) => "compressed with xz",
            Content::Packed(Packing::Zst) => "compressed with zstd",
            Content::Packed(Packing::Bz2) => "compressed with bzip2",
            Content::Other(name) => name,
        }
    }
}

/// By the magic at the start; what has none is a raw disk.
fn content(head: &[u8]) -> Content {
    const OTHERS: [(usize, &[u8], &str); 8] = [
        (0, b"KDMV", "a VMDK image"),
        (0, b"# Disk DescriptorFile", "a VMDK image"),
        (0, b"conectix", "a VHD image"),
        (0, b"vhdxfile", "a VHDX image"),
        (0x40, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image"),
        (0, b"QED\0", "a QED image"),
        (0, b"LUKS\xba\xbe", "a LUKS container"),
        (0, b"PK\x03\x04", "a zip archive"),
    ];
    if Header::is_qcow2(head) {
        return Content::Qcow2;
    }
    if let Some(packing) = Packing::found(head) {
        return Content::Packed(packing);
    }
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|b| b.starts_with(magic));
    let other = OTHERS.iter().find(|(offset, magic, _)| at(*offset, magic));
    other.map_or(Content::Raw, |(_, _, name)| Content::Other(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn open() -> SourceAccess {
        SourceAccess { allow_local_addresses: true, ..SourceAccess::default() }
    }

    /// Serves one answer a connection, in order; hands back what was asked.
    async fn server(answers: Vec<Vec<u8>>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.push(talk(&mut stream, &answer).await);
            }
            asked
        });
        (base, task)
    }

    async fn talk(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0u8; 1];
            if stream.read_exact(&mut byte).await.is_err() {
                return String::new();
            }
            request.push(byte[0]);
        }
        // The client leaves when it has enough.
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
        String::from_utf8(request).unwrap()
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {head}\r\n").into_bytes();
        if !head.to_lowercase().contains("content-length") {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"Connection: close\r\n\r\n");
        bytes.extend_from_slice(body);
        bytes
    }

    /// An empty qcow2 of version 3, clusters of 64 KiB, one L1 entry for each 512 MiB.
    fn qcow2(size: u64) -> Vec<u8> {
        let mut b = vec![0u8; 4 << 16];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb\0\0\0\x03");
        put(20, &16u32.to_be_bytes());
        put(24, &size.to_be_bytes());
        put(36, &(size.div_ceil(512 << 20) as u32).to_be_bytes());
        put(40, &(3u64 << 16).to_be_bytes());
        put(48, &(1u64 << 16).to_be_bytes());
        put(56, &1u32.to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        b
    }

    async fn facts(answers: Vec<Vec<u8>>, declared: Option<&str>) -> Result<ImageFacts, String> {
        let (base, _task) = server(answers).await;
        let url = format!("{base}/d/i.img");
        inspect(&url, declared, &open()).await.map_err(|e| e.to_string().replace(&base, "BASE"))
    }
    async fn refused(bytes: Vec<u8>, declared: Option<&str>, text: &str) {
        assert_eq!(facts(vec![bytes], declared).await.unwrap_err(), text);
    }

    #[tokio::test]
    async fn a_qcow2_says_its_disk() {
        let image = qcow2(4 << 30);
        let head = format!("206 Partial Content\r\nContent-Range: bytes 0-65535/{}", image.len());
        let expected = ImageFacts {
            length: Some(262_144),
            accepts_ranges: true,
            format: ImageFormat::Qcow2,
            virtual_size: Some(4 << 30),
            backing_file: false,
        };
        for declared in [None, Some("qcow2")] {
            let got = facts(vec![answer(&head, &image[..65_536])], declared).await.unwrap();
            assert_eq!(got, expected);
        }
        // A server without ranges sends all of it; only its head is read.
        let got = facts(vec![answer("200 OK", &image)], None).await.unwrap();
        assert_eq!(got, ImageFacts { accepts_ranges: false, ..expected.clone() });
        let mut based = image;
        based[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9]);
        let got = facts(vec![answer(&head, &based[..65_536])], None).await.unwrap();
        assert_eq!(got, ImageFacts { backing_file: true, ..expected });
    }

    #[tokio::test]
    async fn a_raw_disk_is_as_long_as_its_file() {
        let head = "206 Partial Content\r\nContent-Range: bytes 0-65535/5368709120";
        let got = facts(vec![answer(head, &[0; 65_536])], Some("raw")).await.unwrap();
        assert_eq!((got.format, got.virtual_size), (ImageFormat::Raw, Some(5 << 30)));
    }

    #[tokio::test]
    async fn what_is_not_the_declared_image_is_refused() {
        let image = answer("200 OK", &qcow2(1 << 30));
        let raw = || answer("200 OK", &[0; 4096]);
        refused(image, Some("raw"), "image BASE/d/i.img: declared as raw, but the file is qcow2").await;
        let text =
            "image BASE/d/i.img: declared as qcow2, but the file is a raw image, or none that is known";
        refused(raw(), Some("qcow2"), text).await;
        refused(
            raw(),
            Some("vmdk"),
            "disk format 'vmdk' is not supported; declare raw, raw.gz, raw.xz, raw.zst, raw.bz2 or qcow2",
        )
        .await;
        let text = "image BASE/d/i.img: the file is compressed with gzip; raw and qcow2 are deployed, and raw in gzip, xz, zstd or bzip2 where the name ends in .gz, .xz, .zst or .bz2 or image_disk_format says raw.gz and so on";
        refused(answer("200 OK", &[0x1f, 0x8b, 8]), None, text).await;
        let packed = facts(vec![answer("200 OK", &[0x1f, 0x8b, 8, 0])], Some("raw.gz")).await.unwrap();
        assert_eq!((packed.format.to_string().as_str(), packed.virtual_size), ("raw.gz", None));
        let text = "image BASE/d/i.img: declared as raw.xz, but the file is compressed with gzip";
        refused(answer("200 OK", &[0x1f, 0x8b, 8, 0]), Some("raw.xz"), text).await;
        let text = "image BASE/d/i.img: declared as raw, but the file is a VMDK image";
        refused(answer("200 OK", b"KDMV...."), Some("raw"), text).await;
        let text =
            "image BASE/d/i.img: the server sends a text page, not an image; open the URL in a browser";
        refused(answer("200 OK", b"<!DOCTYPE html>"), None, text).await;
        refused(answer("200 OK", b""), None, "image BASE/d/i.img: the file is empty").await;
        let text = "image BASE/d/i.img: the qcow2 header is cut short: 8 bytes, expected at least 72; fetch the image again";
        refused(answer("200 OK", b"QFI\xfb\0\0\0\x02"), None, text).await;
    }

    #[tokio::test]
    async fn answers_of_the_server_are_named() {
        let text = "image BASE/d/i.img: the server answers 404 Not Found; check the path in image_source";
        refused(answer("404 Not Found", b"<html>"), None, text).await;
        let text = "image BASE/d/i.img: the server answers 503 Service Unavailable";
        refused(answer("503 Service Unavailable", b""), None, text).await;
        let broken = facts(vec![b"SSH-2.0-x\r\n".to_vec()], None).await.unwrap_err();
        assert!(broken.contains("broke off or is not HTTP"), "{broken}");
        let cut =
            facts(vec![answer("200 OK\r\nContent-Length: 9000", b"only this")], None).await.unwrap_err();
        assert!(cut.contains("broke off or is not HTTP"), "{cut}");
        let flood = answer(&format!("200 OK\r\nX: {}", "x".repeat(100_000)), b"");
        assert!(facts(vec![flood], None).await.is_err(), "headers are bounded");
    }

    #[tokio::test]
    async fn redirects_are_followed_five_times() {
        let hop = || answer("302 Found\r\nLocation: /next", b"");
        let raw = answer("200 OK", &[0; 512]);
        let five = [vec![hop(), hop(), hop(), hop(), hop()], vec![raw]].concat();
        assert!(facts(five, None).await.is_ok());
        let six = (0..6).map(|_| hop()).collect();
        assert_eq!(facts(six, None).await.unwrap_err(), "image BASE/next: more than 5 redirects");
        let elsewhere = answer("302 Found\r\nLocation: file:///etc/passwd", b"");
        assert!(facts(vec![elsewhere], None).await.is_err());
    }

    #[tokio::test]
    async fn credentials_stay_with_their_host() {
        let (second, second_asked) = server(vec![answer("200 OK", &[0; 512])]).await;
        let hop = answer(&format!("302 Found\r\nLocation: {second}/x"), b"");
        let (first, first_asked) = server(vec![hop]).await;
        let url = format!("{}/i?sig=1", first.replace("http://", "http://us%40er:pa+ss@"));
        inspect(&url, None, &open()).await.unwrap();
        let first = first_asked.await.unwrap().remove(0).to_lowercase();
        let encoded = base64::engine::general_purpose::STANDARD.encode("us@er:pa+ss").to_lowercase();
        assert!(first.contains(&format!("authorization: basic {encoded}\r\n")), "{first}");
        assert!(first.starts_with("get /i?sig=1 http/1.1\r\n") && first.contains("range: bytes=0-65535\r\n"));
        assert!(!second_asked.await.unwrap().remove(0).to_lowercase().contains("authorization"));
    }

    #[tokio::test]
    async fn secrets_are_not_shown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("http://me:secret@127.0.0.1:{port}/i?token=secret");
        let error = inspect(&url, None, &open()).await.unwrap_err();
        assert!(error.is_transient() && !error.to_string().contains("secret"), "{error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("image http://127.0.0.1:{port}/i: connecting to 127.0.0.1:{port}:"))
        );
    }

    #[tokio::test]
    async fn some_urls_are_never_asked() {
        let check = async |url: &str, text: &str| {
            let error = inspect(url, None, &SourceAccess::default()).await.unwrap_err();
            assert_eq!(error.to_string(), text);
        };
        let file = "image source 'file:///etc/passwd' is not a URL that is fetched: only http and https are";
        check("file:///etc/passwd", file).await;
        let text = "image source 'image.qcow2' is not a URL that is fetched: give it as http://HOST/PATH or https://HOST/PATH";
        check("image.qcow2", text).await;
        let local = "a local address that is not asked for images";
        for (url, host, address) in [
            ("http://127.0.0.1/", "127.0.0.1", "127.0.0.1"),
            ("http://0x7f.1/", "127.0.0.1", "127.0.0.1"),
            ("http://169.254.169.254/", "169.254.169.254", "169.254.169.254"),
            ("http://[::1]/", "[::1]", "::1"),
            ("http://[fe80::1]/", "[fe80::1]", "fe80::1"),
            ("http://0.0.0.0/", "0.0.0.0", "0.0.0.0"),
        ] {
            check(url, &format!("image http://{host}/: {host} is {address}, {local}")).await;
        }
        assert!(is_local("::ffff:127.0.0.1".parse().unwrap()) && !is_local("10.0.0.1".parse().unwrap()));
    }

    /// A TLS server with a certificate that nobody signed.
    async fn tls_server(answers: Vec<Vec<u8>>) -> (String, CertificateDer<'static>) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = cert.der().clone();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    talk(&mut stream, &answer).await;
                }
            }
        });
        (base, certificate)
    }

    #[tokio::test]
    async fn https_needs_a_trusted_certificate_and_stays_https() {
        let hop = answer("302 Found\r\nLocation: http://127.0.0.1/x", b"");
        let raw = answer("200 OK", &[0; 512]);
        let (base, certificate) = tls_server(vec![Vec::new(), raw, hop]).await;
        let untrusted = inspect(&base, None, &open()).await.unwrap_err().to_string();
        assert!(untrusted.contains(": TLS with 127.0.0.1: invalid peer certificate: "), "{untrusted}");
        let trusting = SourceAccess { extra_roots: vec![certificate], ..open() };
        assert_eq!(inspect(&base, None, &trusting).await.unwrap().virtual_size, Some(512));
        let error = inspect(&base, None, &trusting).await.unwrap_err().to_string();
        assert!(error.ends_with("the server redirects from https to http, which is not followed"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn content_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = (content(&bytes), size_field(&bytes));
        }
    }
}
