//! The listening socket: bounded connections, bounded headers, bounded time.

use super::Api;
use crate::stall::Stallable;
use ferric_common::limits;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long open requests may take to end when the service stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// Read buffer of a connection: room for all headers allowed.
const BUFFER: usize = 32 << 10;

/// Connections by address.
#[derive(Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

impl Guests {
    /// Counts a connection in, unless there are too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = all.values().sum();
        let mine = all.entry(address).or_insert(0);
        if *mine >= limits::CONTROLLER_CONNECTIONS_PER_ADDRESS || total >= limits::CONTROLLER_CONNECTIONS {
            return None;
        }
        *mine += 1;
        Some(Guest { guests: self.clone(), address })
    }
}

struct Guest {
    guests: Arc<Guests>,
    address: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Serves the API on `listener` until `stop` becomes true; then lets open requests end.
pub async fn run(api: Arc<Api>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let guests = Arc::new(Guests::default());
    let mut connections = JoinSet::new();
    while !*stop.borrow() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => continue,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(guest) = guests.admit(peer.ip()) else { continue };
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(api.clone(), stream, peer, guest, stop.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: waiting a little is better than spinning.
                tracing::error!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

async fn connection(
    api: Arc<Api>,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    guest: Guest,
    mut stop: watch::Receiver<bool>,
) {
    let address = peer.ip().to_canonical();
    let service = service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.handle(request, address).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADERS_TIME)
        .max_headers(limits::HEADERS_COUNT)
        .max_buf_size(BUFFER)
        .keep_alive(true)
        .serve_connection(TokioIo::new(Stallable::new(stream, limits::BODY_IDLE)), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        _ = stop.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended badly");
    }
    drop(guest);
}
