//! The TFTP server: a task a transfer, each from a port of its own, which is how TFTP tells transfers apart.
//!
//! Read only, `octet` only, names from the fixed table only. Packets and terms are [`ferric_common::formats::tftp`]'s.

use super::{BOOT_PROGRAMS, BootError, Context};
use bytes::Bytes;
use ferric_common::formats::tftp::{self, Packet, Terms, TftpOption, error_code};
use ferric_common::limits::{
    BOOT_FILE, TFTP_REQUEST, TFTP_RESENDS, TFTP_TRANSFERS, TFTP_TRANSFERS_PER_ADDRESS,
};
use std::collections::HashSet;
use std::io::{self, Read as _};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest transfer; the slowest real ROM takes seconds.
const TRANSFER_TIME: Duration = Duration::from_secs(600);
/// Longest wait for an acknowledgement that grew; a client may ask for more.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(super) fn bind(address: SocketAddrV4) -> Result<UdpSocket, BootError> {
    let failed =
        |source| BootError::Bind { service: "TFTP", protocol: "UDP", address: address.into(), source };
    let socket = std::net::UdpSocket::bind(address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    UdpSocket::from_std(socket).map_err(failed)
}

/// Serves until it is cancelled; transfers end with it.
pub(super) async fn run(socket: UdpSocket, context: Arc<Context>) {
    let active = Active::default();
    let mut transfers = JoinSet::new();
    // One byte more than is allowed shows that a request is too long.
    let mut buffer = vec![0u8; TFTP_REQUEST + 1];
    loop {
        while transfers.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "tftp: receiving");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        match request(&context, buffer.get(..length).unwrap_or_default()) {
            // A request that comes again while it is being served is the client's resend.
            Ok(Some(wanted)) => {
                if let Some(place) = active.enter(peer) {
                    transfers.spawn(serve(context.clone(), wanted, peer, place));
                }
            }
            Ok(None) => {}
            Err(refusal) => {
                tracing::info!(%peer, ?refusal, "tftp: request refused");
                let _ = socket.send_to(&refusal.encode(), peer).await;
            }
        }
    }
}

struct Request {
    name: String,
    path: PathBuf,
    options: Vec<TftpOption>,
}

/// What a datagram to the well-known port asks; `None` for what needs no answer.
fn request(context: &Context, datagram: &[u8]) -> Result<Option<Request>, Packet> {
    let refuse = |code, text: String| Err(Packet::Error { code, text });
    match Packet::parse(datagram) {
        Ok(Packet::Read { file, mode, options }) => {
            if mode != "octet" {
                return refuse(error_code::ILLEGAL, format!("mode {mode} is not served, only octet"));
            }
            let name = file.trim_start_matches('/').to_owned();
            match context.boot_program(&name) {
                Some(path) => Ok(Some(Request { name, path, options })),
                None => {
                    let served = BOOT_PROGRAMS.join(", ");
                    refuse(error_code::NOT_FOUND, format!("{file} is not served; there are {served}"))
                }
            }
        }
        Ok(Packet::Write) => refuse(error_code::ACCESS, "this server is read only".to_owned()),
        // Late packets of a transfer that is over.
        Ok(_) => Ok(None),
        Err(error) => refuse(error_code::ILLEGAL, error.to_string()),
    }
}

async fn serve(context: Arc<Context>, request: Request, peer: SocketAddr, _place: Place) {
    let Request { name, path, options } = request;
    let mac = context.mac_of(peer.ip());
    match timeout(TRANSFER_TIME, send_file(&context, &path, &options, peer)).await {
        Ok(Ok(length)) => {
            tracing::info!(%peer, name, length, "tftp: file sent");
            context.directory.seen(mac, None, format!("fetched {name}")).await;
        }
        // Clients break off on purpose once they know the size.
        Ok(Err(TransferError::Client { code, text })) => {
            tracing::debug!(%peer, name, code, text, "tftp: client ended the transfer");
        }
        Ok(Err(error)) => tracing::warn!(%peer, name, %error, "tftp: transfer failed"),
        Err(_) => tracing::warn!(%peer, name, "tftp: transfer took longer than {TRANSFER_TIME:?}"),
    }
}

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("reading the file: {0}")]
    File(#[source] io::Error),
    #[error("the network: {0}")]
    Network(#[from] io::Error),
    #[error("no acknowledgement of block {block} of {of} after {TFTP_RESENDS} resends")]
    NoAnswer { block: u64, of: u64 },
    #[error("the client says {code}: {text}")]
    Client { code: u16, text: String },
}

async fn send_file(
    context: &Context,
    path: &Path,
    options: &[TftpOption],
    peer: SocketAddr,
) -> Result<u64, TransferError> {
    let socket = UdpSocket::bind((context.boot.address, 0)).await?;
    socket.connect(peer).await?;
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_whole(&owned)).await.map_err(io::Error::other)?;
    let content = match read {
        Ok(content) => content,
        Err(error) => {
            let text = "the file cannot be read; the server's log says why".to_owned();
            socket.send(&Packet::Error { code: error_code::UNDEFINED, text }.encode()).await?;
            return Err(TransferError::File(error));
        }
    };
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let terms = tftp::negotiate(options, length);
    Transfer { socket, content, terms }.run().await?;
    Ok(length)
}

fn read_whole(path: &Path) -> io::Result<Bytes> {
    let file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    if length > BOOT_FILE {
        return Err(io::Error::other(format!("{length} bytes; a boot program has at most {BOOT_FILE}")));
    }
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(BOOT_FILE).read_to_end(&mut content)?;
    Ok(content.into())
}

struct Transfer {
    socket: UdpSocket,
    content: Bytes,
    terms: Terms,
}

impl Transfer {
    /// Blocks, the short last one included: a file that fills its last block is followed by an empty one.
    fn blocks(&self) -> u64 {
        let whole = self.content.len().checked_div(self.terms.block).unwrap_or(0);
        u64::try_from(whole).unwrap_or(u64::MAX).saturating_add(1)
    }

    async fn run(&self) -> Result<(), TransferError> {
        if !self.terms.accepted.is_empty() {
            self.window(0, 0).await?;
        }
        let (mut acknowledged, blocks) = (0, self.blocks());
        while acknowledged < blocks {
            let last = acknowledged.saturating_add(u64::from(self.terms.window)).min(blocks);
            acknowledged = self.window(acknowledged, last).await?;
        }
        Ok(())
    }

    /// Sends blocks `acknowledged + 1` to `last` (the option acknowledgement when both are 0) until some of it is
    /// acknowledged; answers the last block that is.
    async fn window(&self, acknowledged: u64, last: u64) -> Result<u64, TransferError> {
        // A repeated acknowledgement of what came before means a lost block in a window; answering it more than once
        // would double the traffic for ever.
        let mut hint_taken = self.terms.window == 1;
        let mut resends = 0;
        while resends <= TFTP_RESENDS {
            self.send_window(acknowledged, last).await?;
            let grown = self.terms.timeout.saturating_mul(resends.saturating_add(1));
            let wait = grown.min(LONGEST_WAIT.max(self.terms.timeout));
            let deadline = Instant::now() + wait;
            loop {
                let Ok(block) = timeout_at(deadline, self.acknowledgement()).await else {
                    resends += 1;
                    break;
                };
                // Block numbers have 16 bits and roll over; the window is far smaller.
                let step = u64::from(block?.wrapping_sub(low_bits(acknowledged)));
                if step <= last.saturating_sub(acknowledged) && (step > 0 || last == 0) {
                    return Ok(acknowledged.saturating_add(step));
                }
                if step == 0 && !hint_taken {
                    hint_taken = true;
                    break;
                }
            }
        }
        Err(TransferError::NoAnswer { block: last, of: self.blocks() })
    }

    async fn send_window(&self, acknowledged: u64, last: u64) -> io::Result<()> {
        if last == 0 {
            self.socket.send(&Packet::OptionAck(self.terms.accepted.clone()).encode()).await?;
        }
        for block in acknowledged.saturating_add(1)..=last {
            let index = usize::try_from(block.saturating_sub(1)).unwrap_or(usize::MAX);
            let start = index.saturating_mul(self.terms.block).min(self.content.len());
            let end = start.saturating_add(self.terms.block).min(self.content.len());
            let bytes = self.content.get(start..end).unwrap_or_default();
            self.socket.send(&tftp::data(low_bits(block), bytes)).await?;
        }
        Ok(())
    }

    /// Waits for an acknowledgement of any block.
    async fn acknowledgement(&self) -> Result<u16, TransferError> {
        let mut buffer = [0u8; TFTP_REQUEST];
        loop {
            let length = self.socket.recv(&mut buffer).await?;
            match Packet::parse(buffer.get(..length).unwrap_or_default()) {
                Ok(Packet::Ack { block }) => return Ok(block),
                Ok(Packet::Error { code, text }) => return Err(TransferError::Client { code, text }),
                _ => {}
            }
        }
    }
}

fn low_bits(block: u64) -> u16 {
    u16::try_from(block & 0xffff).unwrap_or(0)
}

/// Who is being served.
#[derive(Clone, Default)]
struct Active(Arc<Mutex<HashSet<SocketAddr>>>);

impl Active {
    /// A place for this client, unless it has one or there are too many: it will ask again.
    fn enter(&self, peer: SocketAddr) -> Option<Place> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = peers.iter().filter(|p| p.ip() == peer.ip()).count();
        if peers.len() >= TFTP_TRANSFERS || same >= TFTP_TRANSFERS_PER_ADDRESS {
            tracing::info!(%peer, "tftp: too many transfers at a time");
            return None;
        }
        peers.insert(peer).then(|| Place { active: self.clone(), peer })
    }
}

/// A place that is free again when dropped.
struct Place {
    active: Active,
    peer: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.active.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let active = Active::default();
        let peer = |ip: u8, port| SocketAddr::from(([10, 0, 0, ip], port));
        let mut kept: Vec<Place> = (1..=4).map(|port| active.enter(peer(1, port)).unwrap()).collect();
        assert!(active.enter(peer(1, 5)).is_none(), "four an address");
        assert!(active.enter(peer(2, 1)).is_some());
        kept.pop();
        assert!(active.enter(peer(1, 1)).is_none(), "one a port");
        kept.push(active.enter(peer(1, 5)).unwrap());
        for ip in 2..=64 {
            kept.extend((1..=4).filter_map(|port| active.enter(peer(ip, port))));
        }
        assert_eq!(kept.len(), 256);
        assert!(active.enter(peer(200, 1)).is_none(), "256 in all");
    }
}
