//! The boot HTTP server: scripts, boot programs, kernels, ramdisks, images. GET and HEAD, nothing else.
//!
//! No path of a request becomes a path on the disk: scripts and plans come from the directory, boot programs from a fixed
//! table, images are found by comparing names with what is in their folder.

use super::files::{self, ResponseBody};
use super::{BootError, Context};
use crate::boot::{BootPlan, NoPlan, ipxe};
use crate::stall::Stallable;
use bytes::Bytes;
use ferric_common::ids::{MacAddress, NodeUuid};
use ferric_common::limits::{
    BODY_IDLE, BOOT_CONNECTIONS, BOOT_CONNECTIONS_PER_ADDRESS, HEADERS_COUNT, HEADERS_TIME, HEADERS_TOTAL,
};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(super) fn bind(address: SocketAddrV4) -> Result<TcpListener, BootError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let address = SocketAddr::from(address);
    let failed = |source| BootError::Bind { service: "HTTP", protocol: "TCP", address, source };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    // A restart must not wait for the old connections' last minutes.
    socket.set_reuse_address(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(1024).map_err(failed)?;
    TcpListener::from_std(socket.into()).map_err(failed)
}

/// Serves until it is cancelled; connections end with it.
pub(super) async fn run(listener: TcpListener, context: Arc<Context>) {
    let places = Places::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: closing connections frees some.
                tracing::warn!(%error, "boot http: accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = places.enter(peer.ip()) else {
            tracing::info!(%peer, "boot http: too many connections at a time");
            continue;
        };
        let context = context.clone();
        connections.spawn(async move {
            let _place = place;
            serve(Stallable::new(stream, BODY_IDLE), peer, context).await;
        });
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(stream: Stallable<S>, peer: SocketAddr, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = hyper::service::service_fn(|request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(answer(context, request, peer).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME)
        .max_buf_size(HEADERS_TOTAL)
        .max_headers(HEADERS_COUNT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, error = %chain(&error), "boot http: connection ended");
    }
}

/// hyper's own words say little; what lies under them says why.
fn chain(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    FirstScript,
    Script(MacAddress),
    Kernel(NodeUuid),
    Ramdisk(NodeUuid),
    ExtraRamdisk(NodeUuid, usize),
    BootProgram(&'a str),
    Image(&'a str),
}

fn route(path: &str) -> Option<Route<'_>> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let words = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
    if parts.next().is_some() {
        return None;
    }
    match words {
        [Some("boot.ipxe"), None, ..] => Some(Route::FirstScript),
        [Some("ipxe"), Some(name), None, ..] => Some(Route::BootProgram(name)),
        [Some("images"), Some(name), None, ..] => Some(Route::Image(name)),
        [Some("boot"), Some(mac), None, ..] => mac.parse().ok().map(Route::Script),
        [Some("boot"), Some("node"), Some(node), Some(what), index] => {
            let node = node.parse().ok()?;
            match (what, index) {
                ("kernel", None) => Some(Route::Kernel(node)),
                ("ramdisk", None) => Some(Route::Ramdisk(node)),
                ("extra", Some(index)) => index.parse().ok().map(|i| Route::ExtraRamdisk(node, i)),
                _ => None,
            }
        }
        _ => None,
    }
}

async fn answer(
    context: Arc<Context>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<ResponseBody> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n".into());
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        refused
    } else {
        match route(&path) {
            Some(found) => dispatch(&context, found, &request, peer).await,
            None => text(StatusCode::NOT_FOUND, "nothing is served under this path\n".into()),
        }
    };
    let status = response.status().as_u16();
    tracing::debug!(%peer, %method, path, status, "boot http: answered");
    response
}

async fn dispatch(
    context: &Arc<Context>,
    found: Route<'_>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Response<ResponseBody> {
    let base = context.boot.http_base();
    let mac = context.mac_of(peer.ip());
    let get = request.method() == Method::GET;
    match found {
        Route::FirstScript => {
            if get {
                context.directory.seen(mac, None, "fetched the first boot script".to_owned()).await;
            }
            text(StatusCode::OK, ipxe::first_script(&base))
        }
        Route::Script(mac) => script(context, mac, get).await,
        Route::Kernel(node) => {
            let pick = |plan: BootPlan| Some(plan.kernel);
            node_file(context, node, pick, "fetched the kernel", request, mac).await
        }
        Route::Ramdisk(node) => {
            let pick = |plan: BootPlan| Some(plan.ramdisk);
            node_file(context, node, pick, "fetched the ramdisk", request, mac).await
        }
        Route::ExtraRamdisk(node, index) => {
            let pick = |plan: BootPlan| plan.extra_ramdisks.into_iter().nth(index);
            let what = format!("fetched extra ramdisk {index}");
            node_file(context, node, pick, &what, request, mac).await
        }
        Route::BootProgram(name) => match context.boot_program(name) {
            Some(path) => file(context, path, request, mac, None, format!("fetched {name}")).await,
            None => text(StatusCode::NOT_FOUND, "there is no boot program of this name\n".into()),
        },
        Route::Image(name) => match image(context, name).await {
            Some(path) => file(context, path, request, mac, None, format!("fetched image {name}")).await,
            None => text(StatusCode::NOT_FOUND, "there is no image of this name\n".into()),
        },
    }
}

/// A machine's own script. A MAC that nobody knows is an error, so that the first script tries the next NIC; a known one
/// that has nothing to boot gets the reason; one of which nobody can say anything now asks again.
async fn script(context: &Context, mac: MacAddress, get: bool) -> Response<ResponseBody> {
    let reason = match context.plan_for_mac(mac).await {
        Ok(plan) => match ipxe::boot_script(&context.boot.http_base(), mac, &plan) {
            Ok(script) => {
                if get {
                    let what = "fetched its boot script".to_owned();
                    context.directory.seen(Some(mac), Some(plan.node), what).await;
                }
                return text(StatusCode::OK, script);
            }
            Err(error) => error.to_string(),
        },
        Err(NoPlan::Nothing(reason)) => reason,
        Err(NoPlan::Unknown(why)) => return ask_again(context, mac, &why),
    };
    match context.knows(mac).await {
        Ok(true) => {}
        Ok(false) => {
            return text(StatusCode::NOT_FOUND, "no enrolled node has a port with this MAC address\n".into());
        }
        Err(why) => return ask_again(context, mac, &why),
    }
    tracing::info!(%mac, reason, "boot http: nothing to boot");
    if get {
        context.directory.seen(Some(mac), None, format!("was sent to its disk: {reason}")).await;
    }
    text(StatusCode::OK, ipxe::no_plan_script(&reason))
}

fn ask_again(context: &Context, mac: MacAddress, why: &str) -> Response<ResponseBody> {
    tracing::warn!(%mac, why, "boot http: nobody can say what the machine boots; it is told to ask again");
    text(StatusCode::OK, ipxe::ask_again_script(&context.boot.http_base(), why))
}

async fn node_file(
    context: &Arc<Context>,
    node: NodeUuid,
    pick: impl FnOnce(BootPlan) -> Option<PathBuf>,
    what: &str,
    request: &Request<Incoming>,
    mac: Option<MacAddress>,
) -> Response<ResponseBody> {
    match context.plan_for_node(node).await {
        Ok(plan) => match pick(plan) {
            Some(path) => file(context, path, request, mac, Some(node), what.to_owned()).await,
            None => text(StatusCode::NOT_FOUND, "this node's boot has no such file\n".into()),
        },
        // The reason is for the console of this very machine; who asks in between learns as much from its script.
        Err(NoPlan::Nothing(reason)) => {
            text(StatusCode::NOT_FOUND, format!("{}\n", ipxe::console_text(&reason)))
        }
        Err(NoPlan::Unknown(why)) => {
            tracing::warn!(%node, why, "boot http: nobody can say what the node boots; its script will ask again");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", ipxe::console_text(&why)))
        }
    }
}

async fn file(
    context: &Arc<Context>,
    path: PathBuf,
    request: &Request<Incoming>,
    mac: Option<MacAddress>,
    node: Option<NodeUuid>,
    what: String,
) -> Response<ResponseBody> {
    match files::open(path.clone()).await {
        Ok(opened) => {
            let context = context.clone();
            let done = async move { context.directory.seen(mac, node, what).await };
            files::respond(opened, request.method(), request.headers(), done)
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "boot http: a file that shall be served cannot be opened");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file cannot be read; the server's log says why\n".into(),
            )
        }
    }
}

/// The file of an image. A link may stand for one as long as it stays in the folder.
async fn image(context: &Context, name: &str) -> Option<PathBuf> {
    let folder = context.boot.images_dir.clone()?;
    let name = name.to_owned();
    tokio::task::spawn_blocking(move || find_image(&folder, &name)).await.ok().flatten()
}

fn find_image(folder: &Path, name: &str) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let entry = std::fs::read_dir(&folder).ok()?.flatten().find(|e| e.file_name() == name)?;
    let path = entry.path().canonicalize().ok()?;
    (path.starts_with(&folder) && path.is_file()).then_some(path)
}

fn text(status: StatusCode, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Places {
    fn enter(&self, peer: IpAddr) -> Option<Place> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = peers.get(&peer).copied().unwrap_or(0);
        if same >= BOOT_CONNECTIONS_PER_ADDRESS || peers.values().sum::<usize>() >= BOOT_CONNECTIONS {
            return None;
        }
        peers.insert(peer, same.saturating_add(1));
        Some(Place { places: self.clone(), peer })
    }
}

struct Place {
    places: Places,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(peers.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let node = "11111111-2222-3333-4444-555555555555";
        let uuid: NodeUuid = node.parse().unwrap();
        let cases = [
            ("/boot.ipxe", Some(Route::FirstScript)),
            ("/boot/52-54-00-01-02-03", Some(Route::Script(MacAddress([0x52, 0x54, 0, 1, 2, 3])))),
            ("/boot/x", None),
            ("/boot/node", None),
            ("/ipxe/snponly.efi", Some(Route::BootProgram("snponly.efi"))),
            ("/images/a.qcow2", Some(Route::Image("a.qcow2"))),
            ("/images/", Some(Route::Image(""))),
            ("/images/a/b", None),
            ("/", None),
            ("", None),
            ("/boot/node/x/kernel", None),
            ("/a/b/c/d/e/f", None),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path), expected, "{path}");
        }
        assert_eq!(route(&format!("/boot/node/{node}/kernel")), Some(Route::Kernel(uuid)));
        assert_eq!(route(&format!("/boot/node/{node}/ramdisk")), Some(Route::Ramdisk(uuid)));
        assert_eq!(route(&format!("/boot/node/{node}/extra/2")), Some(Route::ExtraRamdisk(uuid, 2)));
        assert_eq!(route(&format!("/boot/node/{node}/kernel/2")), None);
        assert_eq!(route(&format!("/boot/node/{node}/extra")), None);
    }

    #[test]
    fn images_are_found_by_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(folder.path().join("a.qcow2"), b"x").unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("a.qcow2", folder.path().join("current")).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("leak")).unwrap();
        for (name, found) in [
            ("a.qcow2", true),
            ("current", true),
            ("leak", false),
            ("sub", false),
            ("", false),
            (".", false),
            ("..", false),
            ("../a.qcow2", false),
            ("b", false),
        ] {
            assert_eq!(find_image(folder.path(), name).is_some(), found, "{name}");
        }
    }

    #[test]
    fn connections_are_bounded_and_given_back() {
        let places = Places::default();
        let peer = IpAddr::from([10, 0, 0, 1]);
        let mut kept: Vec<Place> = (0..64).map(|_| places.enter(peer).unwrap()).collect();
        assert!(places.enter(peer).is_none());
        kept.pop();
        assert!(places.enter(peer).is_some());
        drop(kept);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
