//! The DHCP server's sockets: receives, asks who it is, has the lease decided and stored, then answers.
//!
//! Two sockets on one interface: one bound to the broadcast address hears machines that have no address yet, one bound to
//! ours hears renewals and relays and sends every answer, so that answers carry our address. Deciding is
//! [`crate::boot::leases`]' and [`crate::boot::dhcp_reply`]'s.

use super::interface::Interface;
use super::neighbour::Neighbours;
use super::store::LeaseStore;
use super::{BootError, Context};
use crate::boot::config::{BootConfig, DhcpConfig};
use crate::boot::dhcp_reply::{self, Client, ServerFacts};
use crate::boot::leases::{Decision, LeaseFile, Standing};
use ferric_common::formats::dhcp::{self, Message, MessageType};
use ferric_common::ids::MacAddress;
use ferric_common::limits::{DHCP_ANSWERS_PER_SECOND, DHCP_MESSAGE};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;

/// Messages decided before the file of leases is written once for all of them.
const BATCH: usize = 64;
/// A machine that is not served is named in the log once in this time; at most so many are remembered.
const QUIET_TIME: Duration = Duration::from_secs(60);
const QUIET_MACS: usize = 1024;

/// The bound server.
pub(super) struct Server {
    name: String,
    sockets: Sockets,
    facts: ServerFacts,
}

/// What is bound to the interface as it is now.
struct Sockets {
    interface: Interface,
    direct: UdpSocket,
    broadcast: UdpSocket,
    neighbours: Option<Neighbours>,
}

impl Sockets {
    fn open(name: &str, address: Ipv4Addr) -> Result<Sockets, BootError> {
        let failed = |source| BootError::Interface { name: name.to_owned(), source };
        let interface = Interface::find(name).map_err(failed)?;
        let neighbours = Neighbours::open(name).map_err(failed)?;
        Ok(Sockets {
            interface,
            direct: bind_on(name, address)?,
            broadcast: bind_on(name, Ipv4Addr::BROADCAST)?,
            neighbours: Some(neighbours),
        })
    }

    /// Waits for one message, then takes along what else has arrived.
    async fn receive(&self) -> Vec<Message> {
        let mut buffer = vec![0u8; DHCP_MESSAGE + 1];
        let mut messages = Vec::new();
        loop {
            let received = tokio::select! {
                r = self.direct.readable() => r.map(|()| &self.direct),
                r = self.broadcast.readable() => r.map(|()| &self.broadcast),
            };
            let Ok(socket) = received else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            while messages.len() < BATCH {
                let Ok((length, peer)) = socket.try_recv_from(&mut buffer) else { break };
                match Message::parse(buffer.get(..length).unwrap_or_default()) {
                    Ok(message) => messages.push(message),
                    Err(error) => tracing::debug!(%peer, %error, "dhcp: message refused"),
                }
            }
            if !messages.is_empty() {
                return messages;
            }
        }
    }
}

/// One decided message.
struct Answer {
    client: Client,
    decision: Decision,
    message: Message,
}

impl Server {
    pub(super) fn bind(boot: &BootConfig, config: &DhcpConfig) -> Result<Server, BootError> {
        Ok(Server {
            name: boot.interface.clone(),
            sockets: Sockets::open(&boot.interface, boot.address)?,
            facts: ServerFacts {
                address: boot.address,
                http_base: boot.http_base(),
                netmask: config.netmask,
                gateway: config.gateway,
                dns: config.dns.clone(),
                ntp: config.ntp.clone(),
                lease_seconds: config.lease_seconds,
            },
        })
    }

    /// Serves until it is cancelled.
    pub(super) async fn run(mut self, context: Arc<Context>, store: LeaseStore) {
        let mut budget = Budget::new(Instant::now());
        let mut quiet = HashMap::new();
        let mut trouble = None;
        loop {
            let messages = tokio::select! {
                messages = self.sockets.receive() => messages,
                () = self.sockets.interface.remade() => {
                    self.reopen(&mut trouble);
                    continue;
                }
            };
            let mut answers = Vec::with_capacity(messages.len());
            for message in messages {
                let decision = match decide(&context, &message).await {
                    Ok(decision) => decision,
                    Err(why) => {
                        if is_news(&mut quiet, message.chaddr) {
                            tracing::warn!(mac = %message.chaddr, %why, "dhcp: not answered, as nobody can say whether the machine is enrolled; it will ask again");
                        }
                        continue;
                    }
                };
                if let Decision::Silent(why) = &decision {
                    log_silence(&mut quiet, message.chaddr, why);
                } else if !budget.take(Instant::now()) {
                    continue;
                } else if let Some(reply) = dhcp_reply::reply(&message, &self.facts, &decision) {
                    answers.push(Answer { client: Client::of(&message), decision, message: reply });
                }
            }
            // A confirmed lease must survive a crash: without the file, offers go out and confirmations do not.
            let stored = store_changes(&context, &store).await;
            for answer in answers {
                if stored || !matches!(answer.decision, Decision::Ack(_)) {
                    self.send(&context, answer).await;
                }
            }
        }
    }

    /// The interface was made anew. What cannot be bound yet (it has no address yet, mostly) is bound at the next look;
    /// `trouble` is what was said of it last.
    fn reopen(&mut self, trouble: &mut Option<String>) {
        match Sockets::open(&self.name, self.facts.address) {
            Ok(sockets) => {
                tracing::info!(
                    interface = self.name,
                    "dhcp: the interface was made anew; serving on it again"
                );
                (self.sockets, *trouble) = (sockets, None);
            }
            Err(error) => {
                let text = error.to_string();
                if trouble.as_ref() != Some(&text) {
                    tracing::warn!(
                        interface = self.name,
                        error = text,
                        "dhcp: the interface was made anew, and cannot be served yet; trying again"
                    );
                    *trouble = Some(text);
                }
            }
        }
    }

    async fn send(&self, context: &Context, answer: Answer) {
        let Answer { client, decision, message } = answer;
        let mac = message.chaddr;
        let to = self.destination(&message);
        if let Err(error) = self.sockets.direct.send_to(&message.encode(), to).await {
            tracing::warn!(%mac, %to, %error, "dhcp: the answer could not be sent");
            return;
        }
        let client = client.name();
        match decision {
            Decision::Ack(address) => {
                tracing::info!(%mac, %address, client, "dhcp: address confirmed");
                context.directory.seen(Some(mac), None, format!("DHCP answered {address} to {client}")).await;
            }
            Decision::Nak(why) => tracing::info!(%mac, client, why, "dhcp: request refused"),
            other => tracing::debug!(%mac, client, decision = ?other, "dhcp: answered"),
        }
    }

    /// RFC 2131, section 4.1.
    fn destination(&self, reply: &Message) -> SocketAddr {
        let broadcast = Ipv4Addr::BROADCAST;
        let address = if !reply.giaddr.is_unspecified() {
            return SocketAddrV4::new(reply.giaddr, dhcp::SERVER_PORT).into();
        } else if reply.message_type() == Some(MessageType::Nak) {
            broadcast
        } else if !reply.ciaddr.is_unspecified() {
            reply.ciaddr
        } else if reply.wants_broadcast() || reply.yiaddr.is_unspecified() {
            broadcast
        } else {
            let known = self.sockets.neighbours.as_ref().map(|n| n.set(reply.yiaddr, reply.chaddr));
            if matches!(known, Some(Ok(()))) { reply.yiaddr } else { broadcast }
        };
        SocketAddrV4::new(address, dhcp::CLIENT_PORT).into()
    }
}

fn bind_on(interface: &str, address: Ipv4Addr) -> Result<UdpSocket, BootError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let address = SocketAddr::from((address, dhcp::SERVER_PORT));
    let failed = |source| BootError::Bind { service: "DHCP", protocol: "UDP", address, source };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    socket
        .bind_device(Some(interface.as_bytes()))
        .map_err(|source| BootError::Interface { name: interface.to_owned(), source })?;
    socket.set_broadcast(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    UdpSocket::from_std(socket.into()).map_err(failed)
}

/// # Errors
/// Nobody can say what the machine is: it gets no answer, rather than that of a stranger.
async fn decide(context: &Context, message: &Message) -> Result<Decision, String> {
    let known = context.knows(message.chaddr).await?;
    let standing = if known { Standing::Enrolled } else { Standing::Unknown };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let leases = context.leases.as_ref().ok_or("there is no table of leases")?;
    Ok(leases.lock().unwrap_or_else(PoisonError::into_inner).decide(message, standing, now))
}

/// Whether all that was decided is on stable storage.
async fn store_changes(context: &Context, store: &LeaseStore) -> bool {
    let Some(leases) = &context.leases else { return false };
    let changes: Option<LeaseFile> = leases.lock().unwrap_or_else(PoisonError::into_inner).take_changes();
    let Some(changes) = changes else { return true };
    let writer = store.clone();
    let written = tokio::task::spawn_blocking(move || writer.save(&changes)).await;
    match written.map_err(io::Error::other).and_then(|result| result) {
        Ok(()) => true,
        Err(error) => {
            let path = store.path();
            tracing::error!(path = %path.display(), %error, "dhcp: leases cannot be stored, none is confirmed");
            leases.lock().unwrap_or_else(PoisonError::into_inner).changes_not_stored();
            false
        }
    }
}

fn log_silence(quiet: &mut HashMap<MacAddress, Instant>, mac: MacAddress, why: &str) {
    if !why.is_empty() && is_news(quiet, mac) {
        tracing::info!(%mac, why, "dhcp: not answered");
    }
}

/// Whether the machine's silence was not spoken of lately.
fn is_news(quiet: &mut HashMap<MacAddress, Instant>, mac: MacAddress) -> bool {
    let now = Instant::now();
    if quiet.get(&mac).is_some_and(|at| now.duration_since(*at) < QUIET_TIME) {
        return false;
    }
    if quiet.len() >= QUIET_MACS {
        quiet.clear();
    }
    quiet.insert(mac, now);
    true
}

/// Answers left in this second.
pub(super) struct Budget {
    since: Instant,
    left: u32,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Budget {
        Budget { since: now, left: DHCP_ANSWERS_PER_SECOND }
    }
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Budget::new(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        if self.left == 0 {
            tracing::warn!(
                "{DHCP_ANSWERS_PER_SECOND} answers in a second; the rest of this second goes unanswered"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_a_second_are_bounded() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..1000).filter(|_| budget.take(start)).count(), 200);
        assert!(budget.take(start + Duration::from_secs(1)));
    }
}
