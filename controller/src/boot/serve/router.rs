//! Answers the IPv6 router solicitation of machines that boot: there is no router here.
//!
//! iPXE waits for an IPv6 router for 16 seconds before it goes on over IPv4, at every boot, unless one answers. The answer
//! here (RFC 4861, section 4.2) has a lifetime of 0, no prefix and no flag: it makes nobody use IPv6. It goes by unicast to
//! the asking machine only, and only to those that DHCP answers. Where there is no IPv6 on the interface, machines wait.

use super::Context;
use super::dhcp::Budget;
use super::interface::Interface;
use ferric_common::ids::MacAddress;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What receivers insist on: the packet crossed no router.
const HOPS: u32 = 255;

/// The socket on the interface.
pub(super) struct Router {
    /// Raw ICMPv6. Its tokio type is UDP's, since both are datagrams and tokio has no raw sockets.
    socket: UdpSocket,
    interface: Interface,
}

impl Router {
    pub(super) fn bind(interface: &str) -> io::Result<Router> {
        let found = Interface::find(interface)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.join_multicast_v6(&ALL_ROUTERS, found.index())?;
        socket.set_unicast_hops_v6(HOPS)?;
        socket.set_nonblocking(true)?;
        Ok(Router { socket: UdpSocket::from_std(socket.into())?, interface: found })
    }

    /// Answers until it is cancelled.
    pub(super) async fn run(mut self, context: Arc<Context>) {
        let mut budget = Budget::new(Instant::now());
        let mut buffer = [0u8; 256];
        loop {
            let received = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => received,
                () = self.interface.remade() => {
                    match Router::bind(&context.boot.interface) {
                        Ok(anew) => self = anew,
                        Err(error) => tracing::debug!(%error, "router: the interface was made anew"),
                    }
                    continue;
                }
            };
            let (length, peer) = match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "router: receiving");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let asker = solicited_by(buffer.get(..length).unwrap_or_default());
            let Some(mac) = asker.filter(|_| is_link_local(peer)) else { continue };
            if !budget.take(Instant::now()) || !context.serves(mac).await {
                continue;
            }
            let sent = self.socket.send_to(&advertisement(), peer).await;
            tracing::debug!(%mac, %peer, ?sent, "router: told that there is no IPv6 router");
        }
    }
}

fn is_link_local(peer: SocketAddr) -> bool {
    matches!(peer, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

/// The MAC address in the source link-layer option of a router solicitation.
fn solicited_by(message: &[u8]) -> Option<MacAddress> {
    let mut options = match message.split_first() {
        Some((&SOLICITATION, _)) => message.get(8..)?,
        _ => return None,
    };
    loop {
        // Lengths count units of 8 bytes; 0 would never end.
        let (&[kind, units], _) = options.split_first_chunk::<2>()?;
        let (option, rest) = options.split_at_checked(usize::from(units).checked_mul(8)?)?;
        if option.is_empty() {
            return None;
        }
        if kind == 1 {
            return option.get(2..8)?.try_into().ok().map(MacAddress);
        }
        options = rest;
    }
}

/// Type, code, checksum (the kernel's part), then hop limit, flags, lifetime and timers, all unspecified.
fn advertisement() -> [u8; 16] {
    let mut message = [0; 16];
    if let Some(kind) = message.first_mut() {
        *kind = ADVERTISEMENT;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solicitations_name_their_sender() {
        let head = [133, 0, 0, 0, 0, 0, 0, 0];
        let mac = [1, 1, 0x52, 0x54, 0, 1, 2, 3];
        let other = [14, 1, 0, 0, 0, 0, 0, 0];
        let found = Some(MacAddress([0x52, 0x54, 0, 1, 2, 3]));
        let cases: [(Vec<u8>, Option<MacAddress>); 6] = [
            ([&head[..], &mac].concat(), found),
            ([&head[..], &other, &mac].concat(), found),
            (head.to_vec(), None),
            ([&head[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat(), None),
            ([&head[..], &[1, 9, 0, 0]].concat(), None),
            ([&[134u8, 0, 0, 0, 0, 0, 0, 0][..], &mac].concat(), None),
        ];
        for (message, expected) in cases {
            assert_eq!(solicited_by(&message), expected, "{message:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = solicited_by(&[&[SOLICITATION], &bytes[..]].concat());
        }
    }
}
