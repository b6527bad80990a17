//! IPv4 on one interface, in a thread of its own: moves a DHCP client's packets and tells the kernel what was leased.
//!
//! What to say and when is [`super::client`]'s.

use super::board::{Board, Six};
use super::client::{Action, Client, Event, Lease};
use super::frame;
use super::moved::Renewals;
use super::settings::{Nic, NicLease};
use crate::platform::linux::handover::Handover;
use crate::platform::linux::netlink::{Link, Netlink, Route};
use crate::platform::linux::packet::PacketSocket;
use crate::platform::linux::{clock, process};
use crate::{logging, timeline};
use ferric_common::formats::dhcp::{CLIENT_PORT, Message, SERVER_PORT};
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// How often a link without carrier is looked at: at first every moment of a boot counts, later nobody waits.
const CARRIER_SOON: Duration = Duration::from_millis(20);
const CARRIER_LATER: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(60);
/// How often a configured link is looked at for lost carrier.
const CARRIER_WATCH: Duration = Duration::from_secs(2);

/// One interface.
pub struct Served {
    pub link: Link,
    pub boot: bool,
    pub board: Arc<Board>,
}

impl Served {
    /// Until the interface is gone.
    pub fn serve(&self) {
        let Some(mac) = self.link.mac else { return };
        let began = clock::since_boot();
        let mut client = Client::new(mac);
        let mut carrier = None;
        let mut socket = None;
        let mut renewal = None;
        let mut renewals = Renewals::default();
        self.put(false, None);
        loop {
            let now = clock::since_boot();
            let Some(has_carrier) = super::carrier(&self.link.name) else {
                logging::say(&format!("{}: the interface is gone", self.link.name));
                self.board.put(self.link.index, None);
                return;
            };
            let mut events = Vec::new();
            if carrier != Some(has_carrier) {
                self.say_carrier(carrier, has_carrier);
                carrier = Some(has_carrier);
                self.put(has_carrier, client.lease());
                events.push(if has_carrier { Event::LinkUp } else { Event::LinkDown });
            }
            if now >= client.deadline() {
                events.push(Event::Timeout);
            }
            if renewals.due(now, || Handover::ordered() == Some(Handover::Rescue)) {
                events.push(Event::Moved);
            }
            let mut pause = client.deadline().saturating_sub(now).min(CARRIER_WATCH);
            if !has_carrier {
                pause = if now - began < SOON { CARRIER_SOON } else { CARRIER_LATER };
            }
            if events.is_empty() {
                match self.listen(&mut socket, client.listens(), pause) {
                    Ok(message) => events.extend(message.map(Event::Received)),
                    Err(error) => {
                        // Said rarely by nature: the link went down under the socket, or the interface is gone.
                        logging::say(&format!("{}: receiving failed: {error}", self.link.name));
                        socket = None;
                        std::thread::sleep(CARRIER_LATER);
                    }
                }
            }
            for event in events {
                for action in client.on(event, clock::since_boot(), super::random()) {
                    if let Err(error) = self.act(action, &mut socket, &mut renewal, client.lease()) {
                        logging::say(&format!("{}: {error}", self.link.name));
                    }
                }
            }
            if !client.listens() {
                (socket, renewal) = (None, None);
            }
        }
    }

    fn say_carrier(&self, before: Option<bool>, now: bool) {
        match (before, now) {
            (None, false) => logging::say(&format!("{}: waiting for carrier", self.link.name)),
            (_, true) => {
                logging::say(&format!("{}: carrier", self.link.name));
                // One mark, for the first NIC to get there.
                static FIRST: std::sync::Once = std::sync::Once::new();
                FIRST.call_once(|| timeline::mark(timeline::LINKS_UP));
            }
            (Some(_), false) => logging::say(&format!("{}: carrier lost", self.link.name)),
        }
    }

    /// Waits `pause` for a message, with a socket when one may come.
    fn listen(
        &self,
        socket: &mut Option<PacketSocket>,
        listens: bool,
        pause: Duration,
    ) -> io::Result<Option<Message>> {
        if !listens {
            std::thread::sleep(pause);
            return Ok(None);
        }
        let mut buffer = [0u8; 2048];
        let received = self.opened(socket)?.receive(&mut buffer, pause)?;
        Ok(received.and_then(frame::unwrap).and_then(|(_, payload)| Message::parse(payload).ok()))
    }

    fn opened<'s>(&self, socket: &'s mut Option<PacketSocket>) -> io::Result<&'s PacketSocket> {
        match socket {
            Some(socket) => Ok(socket),
            None => Ok(socket.insert(PacketSocket::open(self.link.index)?)),
        }
    }

    fn act(
        &self,
        action: Action,
        socket: &mut Option<PacketSocket>,
        renewal: &mut Option<UdpSocket>,
        lease: Option<&Lease>,
    ) -> Result<(), NetworkError> {
        match action {
            Action::Say(text) => logging::say(&format!("{}: {text}", self.link.name)),
            Action::Broadcast { source, message } => self
                .opened(socket)
                .and_then(|socket| socket.broadcast(&frame::wrap(source, &message.encode())))
                .map_err(NetworkError::Send)?,
            Action::Unicast { source, server, message } => {
                // Kept until the answer came: without it the kernel would tell the server that nobody listens.
                let udp = UdpSocket::bind((source, CLIENT_PORT)).map_err(NetworkError::Send)?;
                udp.send_to(&message.encode(), (server, SERVER_PORT)).map_err(NetworkError::Send)?;
                *renewal = Some(udp);
            }
            Action::Configure(lease) => self.configure(&lease)?,
            Action::Remove(old) => {
                self.put(true, lease);
                let mut kernel = Netlink::open(0).map_err(NetworkError::Kernel)?;
                kernel
                    .remove_address(self.link.index, old.address, old.prefix)
                    .map_err(|source| NetworkError::Remove { address: old.address, source })?;
            }
        }
        Ok(())
    }

    fn configure(&self, lease: &Lease) -> Result<(), NetworkError> {
        let mut kernel = Netlink::open(0).map_err(NetworkError::Kernel)?;
        let index = self.link.index;
        kernel
            .add_address(index, lease.address, lease.prefix)
            .map_err(|source| NetworkError::Address { address: lease.address, source })?;
        if let Some(mtu) = lease.mtu
            && let Err(error) = kernel.set_mtu(index, mtu.into())
        {
            logging::say(&format!("{}: the driver refuses an mtu of {mtu}: {error}", self.link.name));
        }
        for route in self.routes(lease) {
            if let Err(error) = kernel.add_route(index, &route) {
                let to = route.destination;
                let by = route.gateway.map_or_else(|| "the link".to_owned(), |by| by.to_string());
                logging::say(&format!(
                    "{}: adding the route to {to}/{} by {by} failed: {error}",
                    self.link.name, route.prefix
                ));
            }
        }
        if let Some(name) = lease.hostname.as_deref().filter(|_| self.boot) {
            drop(process::set_host_name(name.get(..64).unwrap_or(name)));
        }
        if !self.put(true, Some(lease)) {
            return Ok(()); // a renewal that changed nothing is no news
        }
        let router = lease.router.map_or_else(|| "no router".to_owned(), |router| format!("router {router}"));
        let time = lease.seconds.map_or_else(|| "for ever".to_owned(), |seconds| format!("for {seconds} s"));
        logging::say(&format!(
            "{}: address {}/{} from {} {time}, {router}",
            self.link.name, lease.address, lease.prefix, lease.server
        ));
        static FIRST: std::sync::Once = std::sync::Once::new();
        FIRST.call_once(|| timeline::mark(timeline::ADDRESS));
        Ok(())
    }

    fn routes(&self, lease: &Lease) -> Vec<Route> {
        let metric = super::metric(&self.link, self.boot);
        let route = |destination: Ipv4Addr, prefix, gateway: Option<Ipv4Addr>| Route {
            destination: destination.into(),
            prefix,
            gateway: gateway.filter(|gateway| !gateway.is_unspecified()).map(IpAddr::from),
            source: Some(lease.address.into()),
            metric,
        };
        let mut routes = Vec::new();
        if let Some(router) = lease.router {
            // A router outside the subnet is reached on the link (clouds with /32 leases).
            if !same_subnet(router, lease.address, lease.prefix) {
                routes.push(route(router, 32, None));
            }
            routes.push(route(Ipv4Addr::UNSPECIFIED, 0, Some(router)));
        }
        routes.extend(lease.routes.iter().map(|r| route(r.destination, r.prefix, Some(r.router))));
        routes
    }

    /// Notes it for the others; answers whether anything changed.
    fn put(&self, carrier: bool, lease: Option<&Lease>) -> bool {
        let Some(mac) = self.link.mac else { return false };
        let nic = Nic {
            name: self.link.name.clone(),
            mac,
            boot: self.boot,
            carrier,
            lease: lease.map(NicLease::from),
            six: Six::default(),
            fixed: None,
        };
        self.board.put(self.link.index, Some(nic))
    }
}

/// What the kernel refused. Nothing here is final: the client tries again.
#[derive(Debug, thiserror::Error)]
enum NetworkError {
    #[error("sending a dhcp message failed: {0}")]
    Send(io::Error),
    #[error("talking to the kernel about the network failed: {0}")]
    Kernel(io::Error),
    #[error("setting the address {address} failed: {source}")]
    Address { address: Ipv4Addr, source: io::Error },
    #[error("removing the address {address} failed: {source}")]
    Remove { address: Ipv4Addr, source: io::Error },
}

fn same_subnet(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (u32::from(a) ^ u32::from(b)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_told_apart() {
        let address = |last_two: [u8; 2]| Ipv4Addr::new(10, 0, last_two[0], last_two[1]);
        for (a, b, prefix, same) in [
            ([0, 1], [0, 9], 24, true),
            ([1, 1], [0, 9], 24, false),
            ([1, 1], [0, 9], 16, true),
            ([0, 1], [0, 1], 32, true),
            ([0, 1], [0, 2], 32, false),
            ([0, 1], [9, 2], 0, true),
        ] {
            assert_eq!(same_subnet(address(a), address(b), prefix), same, "{a:?} {b:?} /{prefix}");
        }
    }
}
