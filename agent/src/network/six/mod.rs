//! IPv6 on one interface, in a thread of its own: asks for routers, hears what they say, and asks DHCPv6 where they say so.
//!
//! Addresses of prefixes and the default route are the kernel's work; it does not do name servers (RFC 8106) nor DHCPv6.

pub mod client;

use super::board::{Board, Six};
use super::moved::Renewals;
use crate::platform::linux::handover::Handover;
use crate::platform::linux::netlink::{Link, Netlink};
use crate::platform::linux::{addresses, clock};
use crate::{logging, timeline};
use client::{Action, Client, Event};
use ferric_common::formats::dhcp6::{CLIENT_PORT, Message, SERVER_PORT, SERVERS};
use ferric_common::formats::ndp::{self, RouterAdvert};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// First pause between solicitations, and the longest one while no router answers.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often carrier and the interface's addresses are looked at: soon after a router answered, and later.
const WATCH_SOON: Duration = Duration::from_millis(200);
const WATCH: Duration = Duration::from_secs(2);
/// Messages taken from a socket in one turn.
const GLANCE: usize = 64;

/// One interface.
pub struct Served {
    pub link: Link,
    pub board: Arc<Board>,
}

/// What the thread knows.
struct Talk {
    /// Raw ICMPv6; the standard library has no name of its own for it.
    routers: UdpSocket,
    servers: Option<UdpSocket>,
    client: Client,
    solicit_at: Duration,
    tries: u32,
    advert: Option<RouterAdvert>,
    lease: client::Lease,
}

impl Served {
    /// Until the interface is gone.
    pub fn serve(&self) {
        let Some(mac) = self.link.mac else { return };
        let mut carrier = false;
        let mut talk: Option<Talk> = None;
        let mut renewals = Renewals::default();
        loop {
            let Some(has_carrier) = super::carrier(&self.link.name) else { return };
            if carrier != has_carrier {
                carrier = has_carrier;
                if let Some(old) = &mut talk {
                    old.client.on(Event::LinkDown, clock::since_boot(), super::random());
                }
                talk = None;
            }
            // Another network's routers and servers are asked from the beginning.
            if renewals.due(clock::since_boot(), || Handover::ordered() == Some(Handover::Rescue)) {
                talk = None;
            }
            if !carrier {
                std::thread::sleep(WATCH_SOON);
                continue;
            }
            let turn = match &mut talk {
                Some(talk) => self.turn(talk),
                None => Talk::open(&self.link, mac).map(|new| talk = Some(new)),
            };
            if let Err(error) = turn {
                // The link went down under the sockets, or a kernel without IPv6.
                tracing::debug!("{}: ipv6: {error}", self.link.name);
                std::thread::sleep(WATCH);
                talk = None;
            }
        }
    }

    fn turn(&self, talk: &mut Talk) -> io::Result<()> {
        let now = clock::since_boot();
        if talk.advert.is_none() && now >= talk.solicit_at {
            let pause = FIRST_PAUSE.saturating_mul(1 << talk.tries.min(6)).min(LONGEST_PAUSE);
            talk.solicit_at = now + super::client::jittered(pause, super::random());
            talk.tries = talk.tries.saturating_add(1);
            let target = SocketAddrV6::new(ALL_ROUTERS, 0, 0, self.link.index);
            // Refused until the link-local address is ready: the next try has it.
            drop(talk.routers.send_to(&ndp::SOLICITATION, SocketAddr::V6(target)));
        }
        let mut events = Vec::new();
        if now >= talk.client.deadline() {
            events.push(Event::Timeout);
        }
        self.wait(talk, now)?;
        if let Some((from, advert)) = heard(&talk.routers)? {
            events.extend(self.advertised(talk, from, advert));
        }
        events.extend(talk.servers.as_ref().and_then(answered).map(Box::new).map(Event::Received));
        for event in events {
            for action in talk.client.on(event, clock::since_boot(), super::random()) {
                self.act(talk, action);
            }
        }
        if talk.advert.is_some() {
            self.publish(talk);
        }
        Ok(())
    }

    fn wait(&self, talk: &Talk, now: Duration) -> io::Result<()> {
        let watch = if talk.advert.is_some() && self.addresses().is_empty() { WATCH_SOON } else { WATCH };
        let solicit = if talk.advert.is_none() { talk.solicit_at } else { Duration::MAX };
        let pause = talk.client.deadline().min(solicit).saturating_sub(now).min(watch);
        let mut watched = vec![PollFd::new(talk.routers.as_fd(), PollFlags::POLLIN)];
        watched.extend(talk.servers.as_ref().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        poll(&mut watched, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX))?;
        Ok(())
    }

    fn advertised(&self, talk: &mut Talk, from: Ipv6Addr, advert: RouterAdvert) -> Option<Event> {
        let event = match (advert.managed, advert.other) {
            (true, _) => Some(Event::Managed),
            (false, true) => Some(Event::Other),
            (false, false) => None,
        };
        if talk.advert.as_ref() != Some(&advert) {
            let rest = match event {
                Some(Event::Managed) => "addresses and name servers by dhcpv6",
                Some(_) => "name servers by dhcpv6",
                None => "no dhcpv6",
            };
            let router = if advert.router_seconds == 0 { ", not as a default router" } else { "" };
            logging::say(&format!("{}: router {from} answers{router}; {rest}", self.link.name));
        }
        talk.advert = Some(advert);
        event
    }

    fn act(&self, talk: &mut Talk, action: Action) {
        match action {
            Action::Say(text) => logging::say(&format!("{}: {text}", self.link.name)),
            Action::Send(message) => {
                // Not fatal: the address to send from may not be ready yet, and the client repeats.
                if let Err(error) = self.send(talk, &message) {
                    tracing::debug!("{}: sending to dhcpv6 servers: {error}", self.link.name);
                }
            }
            Action::Configure(lease) => {
                for granted in &lease.granted {
                    let added = Netlink::open(0).and_then(|mut kernel| {
                        kernel.add_leased(self.link.index, granted.address, granted.preferred, granted.valid)
                    });
                    if let Err(error) = added {
                        let (name, address) = (&self.link.name, granted.address);
                        logging::say(&format!("{name}: setting the address {address} failed: {error}"));
                    }
                }
                talk.lease = lease;
            }
        }
    }

    fn send(&self, talk: &mut Talk, message: &Message) -> io::Result<()> {
        let socket = match &talk.servers {
            Some(socket) => socket,
            None => talk.servers.insert(servers_socket(&self.link)?),
        };
        let target = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.link.index);
        socket.send_to(&message.encode(), SocketAddr::V6(target)).map(drop)
    }

    /// Addresses of this interface that others can reach.
    fn addresses(&self) -> Vec<Ipv6Addr> {
        let own = addresses::all().into_iter().filter(|(name, _)| *name == self.link.name);
        own.filter_map(|(_, address)| match address {
            IpAddr::V6(address) if addresses::is_routable(address.into()) => Some(address),
            _ => None,
        })
        .collect()
    }

    fn publish(&self, talk: &Talk) {
        let advert = talk.advert.clone().unwrap_or_default();
        let link_local = |server: &Ipv6Addr| server.is_unicast_link_local();
        let shown = |server: &Ipv6Addr| match link_local(server) {
            true => format!("{server}%{}", self.link.name),
            false => server.to_string(),
        };
        let mut dns: Vec<String> = advert.dns.iter().chain(&talk.lease.dns).map(shown).collect();
        dns.dedup();
        let mut domains = [advert.domains, talk.lease.domains.clone()].concat();
        domains.dedup();
        let six = Six { addresses: self.addresses(), dns, domains, ntp: talk.lease.ntp.clone() };
        let before = self.board.put_six(self.link.index, &six);
        let Some(before) = before else { return };
        for address in six.addresses.iter().filter(|address| !before.addresses.contains(address)) {
            let leased = talk.lease.granted.iter().any(|granted| granted.address == *address);
            let by = if leased { "by dhcpv6" } else { "from the router's prefix" };
            logging::say(&format!("{}: address {address} {by}", self.link.name));
            static FIRST: std::sync::Once = std::sync::Once::new();
            FIRST.call_once(|| timeline::mark(timeline::ADDRESS));
        }
    }
}

impl Talk {
    fn open(link: &Link, mac: ferric_common::ids::MacAddress) -> io::Result<Talk> {
        let routers = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        routers.bind_device(Some(link.name.as_bytes()))?;
        // Routers ignore a solicitation that another router may have passed on.
        routers.set_multicast_hops_v6(255)?;
        routers.set_nonblocking(true)?;
        Ok(Talk {
            routers: routers.into(),
            servers: None,
            client: Client::new(mac),
            solicit_at: Duration::ZERO,
            tries: 0,
            advert: None,
            lease: client::Lease::default(),
        })
    }
}

fn servers_socket(link: &Link) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(link.name.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, CLIENT_PORT)).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The next advertisement that waits. Only a neighbour has a link-local address, so others cannot play the router.
fn heard(socket: &UdpSocket) -> io::Result<Option<(Ipv6Addr, RouterAdvert)>> {
    let mut buffer = [0u8; 2048];
    // Each look takes at most so many messages of other kinds: a flood must not keep the thread here.
    for _ in 0..GLANCE {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let SocketAddr::V6(from) = from else { continue };
        let advert = buffer.get(..length).and_then(ndp::parse);
        if let Some(advert) = advert.filter(|_| from.ip().is_unicast_link_local()) {
            return Ok(Some((*from.ip(), advert)));
        }
    }
    Ok(None)
}

/// The next message of a server or relay.
fn answered(socket: &UdpSocket) -> Option<Message> {
    let mut buffer = [0u8; 2048];
    for _ in 0..GLANCE {
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        if let Some(message) = buffer.get(..length).and_then(Message::parse) {
            return Some(message);
        }
    }
    None
}
