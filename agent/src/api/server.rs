//! Connections, TLS and HTTP/1.1 within bounds. Knows nothing of commands.

use super::error::ApiError;
use super::{Api, Reply, body, routes};
use bytes::Bytes;
use ferric_common::limits;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Opens the port: on one address, or on all, IPv6 and IPv4 (IPv4 alone where the kernel has no IPv6).
///
/// # Errors
/// Those of the kernel, usually that the port is taken.
pub async fn bind(host: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match host {
        Some(host) => TcpListener::bind(SocketAddr::new(host, port)).await,
        None => match TcpListener::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).await,
        },
    }
}

/// Open connections: in all, and those that have not shown a valid token yet.
#[derive(Default)]
struct Counters {
    all: AtomicUsize,
    unproven: AtomicUsize,
}

/// One connection's place in the counters; gives it back when dropped.
struct Seat {
    counters: Arc<Counters>,
    proven: AtomicBool,
}

impl Seat {
    fn take(counters: &Arc<Counters>) -> Option<Seat> {
        // Only the accept loop adds, so looking first and adding then cannot overshoot.
        let all = counters.all.load(Ordering::Relaxed);
        let unproven = counters.unproven.load(Ordering::Relaxed);
        if all >= limits::AGENT_CONNECTIONS || unproven >= limits::AGENT_CONNECTIONS_UNPROVEN {
            return None;
        }
        counters.all.fetch_add(1, Ordering::Relaxed);
        counters.unproven.fetch_add(1, Ordering::Relaxed);
        Some(Seat { counters: Arc::clone(counters), proven: AtomicBool::new(false) })
    }
    fn prove(&self) {
        if !self.proven.swap(true, Ordering::Relaxed) {
            self.counters.unproven.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.prove();
        self.counters.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, api: Arc<Api>) {
    let counters = Arc::new(Counters::default());
    let acceptor = tls.map(TlsAcceptor::from);
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors or memory: the next accept would fail at once again.
                    tracing::warn!("accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
            Some(_) = tasks.join_next() => continue,
        };
        let Some(seat) = Seat::take(&counters) else {
            tracing::debug!("too many connections: one was closed");
            continue;
        };
        tasks.spawn(connection(stream, acceptor.clone(), Arc::clone(&api), Arc::new(seat)));
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, api: Arc<Api>, seat: Arc<Seat>) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => http(stream, api, seat, "http").await,
        Some(acceptor) => {
            match tokio::time::timeout(limits::TLS_HANDSHAKE_TIME, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, api, seat, "https").await,
                Ok(Err(error)) => tracing::debug!("TLS handshake: {error}"),
                Err(_) => tracing::debug!("TLS handshake: not done in time"),
            }
        }
    }
}

async fn http<S>(stream: S, api: Arc<Api>, seat: Arc<Seat>, scheme: &'static str)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (api, seat) = (Arc::clone(&api), Arc::clone(&seat));
        async move {
            // On a task of its own, so that a panic costs one answer; it ends with the connection.
            let mut task = AbortOnDrop(tokio::spawn(respond(api, seat, scheme, request)));
            let response = (&mut task.0).await.unwrap_or_else(|error| {
                render(Err(ApiError::Crash(format!("a defect in the agent: {error}"))))
            });
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADERS_TIME)
        .max_headers(limits::HEADERS_COUNT)
        .max_header_size(limits::HEADERS_TOTAL + limits::REQUEST_LINE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection ended: {error}");
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn respond(
    api: Arc<Api>,
    seat: Arc<Seat>,
    scheme: &'static str,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    render(handle(&api, &seat, scheme, request).await)
}

async fn handle(api: &Api, seat: &Seat, scheme: &str, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let (head, body) = request.into_parts();
    if head.uri.to_string().len() > limits::REQUEST_LINE {
        return Err(ApiError::LongAddress(limits::REQUEST_LINE));
    }
    let query = routes::query(head.uri.query());
    if api.is_valid(&query) {
        seat.prove();
    }
    let route = routes::route(&head.method, head.uri.path())?;
    api.authorize(&route, &query)?;
    let base = base(&head.headers, scheme).unwrap_or_else(|| api.base.clone());
    let body = match route {
        routes::Route::Run => body::read(body, head.headers.get(CONTENT_LENGTH)).await?,
        _ => Value::Null,
    };
    api.answer(route, &query, head.uri.query(), &base, body).await
}

/// Scheme and authority as the client wrote them; none if the header could not stand in a link.
fn base(headers: &http::HeaderMap, scheme: &str) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    (host.len() <= limits::NAME && !host.is_empty() && host.chars().all(plain))
        .then(|| format!("{scheme}://{host}"))
}

fn render(result: Result<Reply, ApiError>) -> Response<Full<Bytes>> {
    let json = |status: u16, body: String| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    match result {
        Ok(Reply::Json(value)) => json(200, value.to_string()),
        Ok(Reply::Redirect(to)) => {
            let mut response = json(308, serde_json::json!({"location": null}).to_string());
            if let Ok(value) = HeaderValue::from_str(&to) {
                response.headers_mut().insert(LOCATION, value);
            }
            response
        }
        Err(error) => {
            let fault = error.fault();
            let body = serde_json::to_string(&fault).unwrap_or_default();
            let mut response = json(error.status(), body);
            if let ApiError::Method { allow } = error {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            }
            response
        }
    }
}
