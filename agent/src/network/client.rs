//! What a DHCP client says and when (RFC 2131, section 4.4), without a socket or a clock: events and the time go in, actions come
//! out. One client per NIC; it never gives up.

use ferric_common::formats::dhcp::{
    AGENT_VENDOR_CLASS, ClasslessRoute, FLAG_BROADCAST, Message, MessageType, Op, code,
};
use ferric_common::ids::MacAddress;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Answers longer than this are cut by the kernel's buffer here; said to the server in option 57.
pub const LONGEST_ANSWER: u16 = 1500;
/// First pause before a DISCOVER is repeated, and the longest one. RFC 2131 begins with 4 s; a switch port that just came up
/// often drops the first packets, and each second counts at boot.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Silence until the operator is told; from then on at growing intervals.
const FIRST_COMPLAINT: Duration = Duration::from_secs(10);
/// REQUESTs without an answer before the offer is forgotten.
const REQUEST_TRIES: u32 = 4;
/// Pause between REQUESTs for an offer.
const REQUEST_PAUSE: Duration = Duration::from_secs(1);
/// After a NAK, so that a server that always refuses is not flooded.
const NAK_PAUSE: Duration = Duration::from_secs(1);
/// Renewal tries are at least this far apart (RFC 2131, 4.4.5).
const SHORTEST_RENEWAL: Duration = Duration::from_secs(60);
/// A lease without a time, or with a nonsensical one of seconds, is taken for this long at least.
const SHORTEST_LEASE: u32 = 60;

/// What a server granted.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub server: Ipv4Addr,
    /// Next hop of the default route.
    pub router: Option<Ipv4Addr>,
    /// Option 121: when present, `router` comes from it alone (RFC 3442).
    pub routes: Vec<ClasslessRoute>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub hostname: Option<String>,
    pub mtu: Option<u16>,
    /// `None`: for ever.
    pub seconds: Option<u32>,
    renew: Option<Duration>,
    rebind: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The link has carrier (again).
    LinkUp,
    LinkDown,
    /// The machine may be on another network now, although the carrier stayed.
    Moved,
    /// The time that [`Client::deadline`] named has come.
    Timeout,
    Received(Message),
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send to everyone on the link, from this source.
    Broadcast {
        source: Ipv4Addr,
        message: Message,
    },
    /// Send to the server that granted the lease.
    Unicast {
        source: Ipv4Addr,
        server: Ipv4Addr,
        message: Message,
    },
    Configure(Lease),
    /// The address is no longer ours.
    Remove(Lease),
    /// A line for the operator.
    Say(String),
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Down,
    Selecting,
    Requesting { offer: Box<Offer> },
    Bound,
    Renewing,
    Rebinding,
}

#[derive(Clone, Debug, PartialEq)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// One NIC's client.
#[derive(Debug)]
pub struct Client {
    mac: MacAddress,
    state: State,
    xid: u32,
    tries: u32,
    /// After so much silence the operator is told.
    complain_at: Duration,
    began: Duration,
    deadline: Duration,
    lease: Option<(Lease, Duration)>,
}

impl Client {
    pub fn new(mac: MacAddress) -> Client {
        Client {
            mac,
            state: State::Down,
            xid: 0,
            tries: 0,
            complain_at: FIRST_COMPLAINT,
            began: Duration::ZERO,
            deadline: Duration::MAX,
            lease: None,
        }
    }

    /// When [`Event::Timeout`] is due, on the clock of `now`.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether an answer may come now, so that a socket is needed.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Down | State::Bound)
    }

    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().map(|(lease, _)| lease)
    }

    /// Takes one event at time `now` (any clock that never steps back). `random` is uniform and fresh at each call.
    pub fn on(&mut self, event: Event, now: Duration, random: u32) -> Vec<Action> {
        match (event, &self.state) {
            (Event::LinkDown, _) => {
                // The lease stays: a link that flaps, as most do while a switch negotiates, gets its address confirmed.
                (self.state, self.deadline) = (State::Down, Duration::MAX);
                Vec::new()
            }
            (Event::LinkUp, State::Down) => match self.lease.clone() {
                Some((_, until)) if until > now => self.rebind(now, random),
                _ => self.discover(now, random),
            },
            (Event::LinkUp, _) => Vec::new(),
            (Event::Moved, State::Bound | State::Renewing) => self.rebind(now, random),
            // Asked before and not answered: the server of this address is not here.
            (Event::Moved, State::Rebinding) => self.discover(now, random),
            (Event::Moved, _) => Vec::new(),
            (Event::Timeout, _) if now < self.deadline => Vec::new(),
            (Event::Timeout, _) => self.timeout(now, random),
            (Event::Received(message), _) if !self.is_for_us(&message) => Vec::new(),
            (Event::Received(message), State::Selecting) => self.offered(&message, now),
            (Event::Received(message), State::Requesting { .. } | State::Renewing | State::Rebinding) => {
                self.answered(&message, now, random)
            }
            (Event::Received(_), State::Down | State::Bound) => Vec::new(),
        }
    }

    fn is_for_us(&self, message: &Message) -> bool {
        message.op == Op::Reply && message.xid == self.xid && message.chaddr == self.mac
    }

    fn timeout(&mut self, now: Duration, random: u32) -> Vec<Action> {
        match self.state.clone() {
            State::Down => Vec::new(),
            State::Selecting => self.repeat_discover(now, random),
            State::Requesting { .. } if self.tries >= REQUEST_TRIES => {
                let mut actions = vec![Action::Say(
                    "no answer to the request for the offered address, starting over".into(),
                )];
                actions.extend(self.discover(now, random));
                actions
            }
            State::Requesting { offer } => self.repeat_request(&offer, now),
            State::Bound => self.renew(now, random),
            State::Renewing | State::Rebinding => self.renew_again(now, random),
        }
    }

    /// From the beginning: the old address, if any, is given up.
    fn discover(&mut self, now: Duration, random: u32) -> Vec<Action> {
        let removed = self.lease.take().map(|(lease, _)| Action::Remove(lease));
        (self.state, self.xid, self.tries, self.began) = (State::Selecting, random, 0, now);
        self.complain_at = FIRST_COMPLAINT;
        removed.into_iter().chain(self.repeat_discover(now, random)).collect()
    }

    fn repeat_discover(&mut self, now: Duration, random: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(5)).min(LONGEST_PAUSE);
        self.deadline = now + jittered(pause, random);
        actions.extend(self.complaint(now, pause).map(Action::Say));
        self.tries = self.tries.saturating_add(1);
        let message = self.message(MessageType::Discover, now);
        actions.push(Action::Broadcast { source: Ipv4Addr::UNSPECIFIED, message });
        actions
    }

    /// What to say of the silence, if it is time to: the first tries are nobody's business, as a switch port may need them,
    /// and a NIC on a network without DHCP must not fill the console.
    fn complaint(&mut self, now: Duration, pause: Duration) -> Option<String> {
        let waited = now.saturating_sub(self.began);
        if waited < self.complain_at {
            return None;
        }
        self.complain_at = waited.max(FIRST_COMPLAINT).saturating_mul(3) / 2;
        Some(format!(
            "no answer from a dhcp server for {} s, since {} s after power-on: {} times DISCOVER was sent by broadcast from {}; \
             still asking, again in {} s. Check that the switch port is in the provisioning network and forwards at once \
             (spanning tree), and that a dhcp server or relay on it knows this address; a tagged network needs \
             ipa-enable-vlan-interfaces=INTERFACE.ID",
            waited.as_secs(),
            self.began.as_secs(),
            self.tries,
            self.mac,
            pause.as_secs()
        ))
    }

    fn offered(&mut self, message: &Message, now: Duration) -> Vec<Action> {
        let (MessageType::Offer, Some(server)) = (kind(message), message.server_id()) else {
            return Vec::new();
        };
        if !is_host(message.yiaddr) {
            return vec![Action::Say(format!(
                "{server} offered {}, which is no address for a host",
                message.yiaddr
            ))];
        }
        let offer = Offer { address: message.yiaddr, server };
        self.tries = 0;
        self.repeat_request(&offer, now)
    }

    fn repeat_request(&mut self, offer: &Offer, now: Duration) -> Vec<Action> {
        let mut message = self.message(MessageType::Request, now);
        message.set_address(code::REQUESTED_IP, offer.address);
        message.set_address(code::SERVER_ID, offer.server);
        self.tries = self.tries.saturating_add(1);
        self.deadline = now + REQUEST_PAUSE;
        self.state = State::Requesting { offer: Box::new(offer.clone()) };
        vec![Action::Broadcast { source: Ipv4Addr::UNSPECIFIED, message }]
    }

    fn answered(&mut self, message: &Message, now: Duration, random: u32) -> Vec<Action> {
        if let (State::Requesting { offer }, Some(server)) = (&self.state, message.server_id())
            && server != offer.server
        {
            return Vec::new(); // another server, which saw that it was not chosen
        }
        match kind(message) {
            MessageType::Ack => self.bind(message, now, random),
            MessageType::Nak => {
                let why = message.text_option(code::MESSAGE).unwrap_or_else(|| "no reason given".into());
                let removed = self.lease.take().map(|(lease, _)| Action::Remove(lease));
                (self.state, self.xid, self.tries, self.began) = (State::Selecting, random, 0, now);
                self.deadline = now + NAK_PAUSE;
                let said = Action::Say(format!(
                    "the dhcp server refused the address ({}), starting over",
                    printable(&why)
                ));
                removed.into_iter().chain([said]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn bind(&mut self, message: &Message, now: Duration, random: u32) -> Vec<Action> {
        let known = match &self.state {
            State::Requesting { offer } => Some(offer.server),
            _ => self.lease().map(|lease| lease.server),
        };
        let Some(lease) = read_lease(message, known) else { return Vec::new() };
        let until = lease.seconds.map_or(Duration::MAX, |seconds| now + Duration::from_secs(seconds.into()));
        self.deadline = lease.renew.map_or(Duration::MAX, |after| now + jittered(after, random));
        self.state = State::Bound;
        let old = self.lease.replace((lease.clone(), until)).map(|(old, _)| old);
        let moved =
            old.filter(|old| (old.address, old.prefix) != (lease.address, lease.prefix)).map(Action::Remove);
        moved.into_iter().chain([Action::Configure(lease)]).collect()
    }

    fn renew(&mut self, now: Duration, random: u32) -> Vec<Action> {
        (self.state, self.xid, self.began) = (State::Renewing, random, now);
        self.renew_again(now, random)
    }

    fn rebind(&mut self, now: Duration, random: u32) -> Vec<Action> {
        (self.state, self.xid, self.began) = (State::Rebinding, random, now);
        self.renew_again(now, random)
    }

    /// Halves the time left at each try, first to the server that granted, past T2 to any, at the end from the beginning.
    fn renew_again(&mut self, now: Duration, random: u32) -> Vec<Action> {
        let Some((lease, until)) = self.lease.clone() else { return self.discover(now, random) };
        if now >= until {
            let mut actions = vec![Action::Say(format!("the lease of {} ran out", lease.address))];
            actions.extend(self.discover(now, random));
            return actions;
        }
        let rebind_at = match (lease.seconds, lease.rebind) {
            (Some(seconds), Some(rebind)) => {
                (until + rebind).saturating_sub(Duration::from_secs(seconds.into()))
            }
            _ => Duration::MAX,
        };
        if self.state == State::Renewing && now >= rebind_at {
            self.state = State::Rebinding;
        }
        let mut message = self.message(MessageType::Request, now);
        message.ciaddr = lease.address;
        message.flags = 0;
        let source = lease.address;
        let (next, action) = if self.state == State::Renewing {
            (rebind_at, Action::Unicast { source, server: lease.server, message })
        } else {
            (until, Action::Broadcast { source, message })
        };
        let left = next.saturating_sub(now);
        self.deadline = now + (left / 2).max(SHORTEST_RENEWAL.min(left)).min(Duration::from_secs(86_400));
        vec![action]
    }

    fn message(&self, kind: MessageType, now: Duration) -> Message {
        let mut message = Message::request(self.xid, self.mac, kind);
        message.secs = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        message.flags = FLAG_BROADCAST;
        let [a, b, c, d, e, f] = self.mac.0;
        message.set(code::CLIENT_ID, [1, a, b, c, d, e, f]);
        message.set(code::VENDOR_CLASS, AGENT_VENDOR_CLASS.as_bytes());
        message.set_u16(code::MAX_SIZE, LONGEST_ANSWER);
        message.set(
            code::PARAMETERS,
            [
                code::SUBNET_MASK,
                code::CLASSLESS_ROUTES,
                code::ROUTERS,
                code::DNS,
                code::HOSTNAME,
                code::DOMAIN,
                code::MTU,
                code::BROADCAST,
                code::NTP,
                code::LEASE_TIME,
                code::SERVER_ID,
                code::RENEWAL_TIME,
                code::REBIND_TIME,
            ],
        );
        message
    }
}

fn kind(message: &Message) -> MessageType {
    // A BOOTP answer has no type; no duty of ours depends on one, and Inform is none that a server sends.
    message.message_type().unwrap_or(MessageType::Inform)
}

fn read_lease(message: &Message, known_server: Option<Ipv4Addr>) -> Option<Lease> {
    let address = Some(message.yiaddr).filter(|address| is_host(*address))?;
    let routes = message.classless_routes();
    let default = routes.iter().find(|route| route.prefix == 0).map(|route| route.router);
    let router = if routes.is_empty() { message.routers().first().copied() } else { default };
    // RFC 2131: infinity is all ones.
    let seconds = match message.lease_seconds() {
        Some(u32::MAX) => None,
        other => Some(other.unwrap_or(3600).max(SHORTEST_LEASE)),
    };
    let within = |found: Option<u32>, parts: u32, low: u32| {
        let whole = seconds?;
        let usual = (u64::from(whole) * u64::from(parts) / 8) as u32;
        Some(found.filter(|found| *found > low && *found < whole).unwrap_or(usual))
    };
    let renew = within(message.renewal_seconds(), 4, 0);
    let rebind = within(message.rebind_seconds(), 7, renew.unwrap_or(0)).max(renew);
    Some(Lease {
        address,
        // Without a mask, the classful one: what every client since 1993 does.
        prefix: message.prefix_length().filter(|p| *p > 0).unwrap_or_else(|| classful(address)),
        server: message.server_id().or(known_server)?,
        router: router.filter(|router| is_host(*router)),
        routes: routes.into_iter().filter(|route| route.prefix > 0).collect(),
        dns: message.dns(),
        ntp: message.ntp_servers(),
        domain: message.domain().filter(|name| is_name(name)),
        hostname: message.hostname().filter(|name| is_name(name)),
        mtu: message.mtu(),
        seconds,
        renew: renew.map(|seconds| Duration::from_secs(seconds.into())),
        rebind: rebind.map(|seconds| Duration::from_secs(seconds.into())),
    })
}

fn classful(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..128, ..] => 8,
        [128..192, ..] => 16,
        _ => 24,
    }
}

/// An address that one host can have.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// A name may end up in a file or on the console: letters, digits, dots and hyphens only.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// A tenth more or less, so that a rack powered on at once does not ask in step.
pub(super) fn jittered(time: Duration, random: u32) -> Duration {
    time.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const HALF: u32 = u32::MAX / 2;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn sent(actions: &[Action]) -> &Message {
        actions
            .iter()
            .find_map(|action| match action {
                Action::Broadcast { message, .. } | Action::Unicast { message, .. } => Some(message),
                _ => None,
            })
            .unwrap()
    }

    fn said(actions: &[Action]) -> Vec<&str> {
        actions
            .iter()
            .filter_map(|a| if let Action::Say(text) = a { Some(text.as_str()) } else { None })
            .collect()
    }

    fn answer(to: &Message, kind: MessageType, last: u8, seconds: u32) -> Event {
        let mut reply = to.reply(kind);
        reply.yiaddr = Ipv4Addr::new(10, 0, 0, last);
        reply.set_address(code::SERVER_ID, SERVER);
        reply.set_address(code::SUBNET_MASK, Ipv4Addr::new(255, 255, 255, 0));
        reply.set_address(code::ROUTERS, Ipv4Addr::new(10, 0, 0, 254));
        reply.set_u32(code::LEASE_TIME, seconds);
        Event::Received(reply)
    }

    /// Discover, offer, request, ack at time 0.
    fn bound(seconds: u32) -> Client {
        let mut client = Client::new(MAC);
        let discover = sent(&client.on(Event::LinkUp, at(0), HALF)).clone();
        let request =
            sent(&client.on(answer(&discover, MessageType::Offer, 9, seconds), at(0), HALF)).clone();
        let done = client.on(answer(&request, MessageType::Ack, 9, seconds), at(0), HALF);
        assert!(matches!(done.as_slice(), [Action::Configure(_)]), "{done:?}");
        client
    }

    #[test]
    fn a_lease_is_got_in_four_messages() {
        let mut client = Client::new(MAC);
        let discover = sent(&client.on(Event::LinkUp, at(5), 42)).clone();
        assert_eq!(discover.message_type(), Some(MessageType::Discover));
        assert_eq!(discover.vendor_class().as_deref(), Some("ferric-agent"));
        assert_eq!(discover.client_id(), Some(&[1, 0x52, 0x54, 0, 0, 0, 1][..]));
        assert!(discover.wants_broadcast() && client.listens());
        let request = sent(&client.on(answer(&discover, MessageType::Offer, 9, 3600), at(6), 1)).clone();
        assert_eq!(request.requested_ip(), Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!((request.server_id(), request.xid), (Some(SERVER), 42));
        let done = client.on(answer(&request, MessageType::Ack, 9, 3600), at(6), HALF);
        let [Action::Configure(lease)] = done.as_slice() else { panic!("{done:?}") };
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 0, 9), 24));
        assert_eq!(lease.router, Some(Ipv4Addr::new(10, 0, 0, 254)));
        assert!(!client.listens());
        assert!((client.deadline().as_secs_f64() - 1806.0).abs() < 1.0, "{:?}", client.deadline());
    }

    #[test]
    fn a_silent_network_is_asked_for_ever_at_growing_pauses() {
        let mut client = Client::new(MAC);
        client.on(Event::LinkUp, at(0), HALF);
        let mut pauses = Vec::new();
        let mut now = at(0);
        let mut lines = Vec::new();
        for _ in 0..8 {
            pauses.push((client.deadline() - now).as_secs_f64().round() as u64);
            now = client.deadline();
            assert!(client.on(Event::Timeout, now - Duration::from_millis(1), HALF).is_empty());
            let last = client.on(Event::Timeout, now, HALF);
            lines.extend(said(&last).iter().map(|line| (*line).to_owned()));
            assert_eq!(sent(&last).message_type(), Some(MessageType::Discover));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16, 16]);
        let times: Vec<u64> = lines.iter().filter_map(|line| line.split(' ').nth(7)?.parse().ok()).collect();
        let near = |(time, about): (&u64, u64)| time.abs_diff(about) <= 1;
        assert!(times.len() == 4 && times.iter().zip([15, 31, 47, 79]).all(near), "{times:?}");
        assert_eq!(
            lines.first().map(String::as_str),
            Some(
                "no answer from a dhcp server for 15 s, since 0 s after power-on: 4 times DISCOVER was sent by broadcast from \
                 52:54:00:00:00:01; still asking, again in 16 s. Check that the switch port is in the provisioning network and \
                 forwards at once (spanning tree), and that a dhcp server or relay on it knows this address; a tagged network \
                 needs ipa-enable-vlan-interfaces=INTERFACE.ID"
            )
        );
    }

    #[test]
    fn answers_for_others_and_of_other_servers_are_ignored() {
        let mut client = Client::new(MAC);
        let discover = sent(&client.on(Event::LinkUp, at(0), 7)).clone();
        let mut stranger = discover.clone();
        stranger.chaddr = MacAddress([2; 6]);
        let mut old = discover.clone();
        old.xid = 8;
        for wrong in [stranger, old] {
            assert!(client.on(answer(&wrong, MessageType::Offer, 9, 60), at(0), 1).is_empty());
        }
        let zero = client.on(
            match answer(&discover, MessageType::Offer, 9, 60) {
                Event::Received(mut m) => {
                    m.yiaddr = Ipv4Addr::UNSPECIFIED;
                    Event::Received(m)
                }
                other => other,
            },
            at(0),
            1,
        );
        assert_eq!(said(&zero), ["10.0.0.1 offered 0.0.0.0, which is no address for a host"]);
        let request = sent(&client.on(answer(&discover, MessageType::Offer, 9, 60), at(0), 1)).clone();
        let Event::Received(mut nak) = answer(&request, MessageType::Nak, 0, 60) else { unreachable!() };
        nak.set_address(code::SERVER_ID, Ipv4Addr::new(10, 0, 0, 2));
        assert!(client.on(Event::Received(nak), at(0), 1).is_empty());
        assert!(client.listens());
    }

    #[test]
    fn a_request_without_answer_starts_over() {
        let mut client = Client::new(MAC);
        let discover = sent(&client.on(Event::LinkUp, at(0), 7)).clone();
        client.on(answer(&discover, MessageType::Offer, 9, 60), at(0), 1);
        for second in 1..4 {
            assert_eq!(
                sent(&client.on(Event::Timeout, at(second), 1)).message_type(),
                Some(MessageType::Request)
            );
        }
        let over = client.on(Event::Timeout, at(4), 99);
        assert_eq!(sent(&over).message_type(), Some(MessageType::Discover));
        assert_eq!(sent(&over).xid, 99);
    }

    #[test]
    fn a_lease_is_renewed_with_its_server_then_with_any_then_given_up() {
        let mut client = bound(8000);
        let renew = client.on(Event::Timeout, client.deadline(), HALF);
        assert!(matches!(renew.as_slice(), [Action::Unicast { server: SERVER, .. }]), "{renew:?}");
        assert_eq!(sent(&renew).ciaddr, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(sent(&renew).requested_ip(), None);
        let mut kinds = Vec::new();
        while client.lease().is_some() {
            let now = client.deadline();
            for action in client.on(Event::Timeout, now, HALF) {
                kinds.push(match action {
                    Action::Unicast { .. } => 'u',
                    Action::Broadcast { message, .. }
                        if message.message_type() == Some(MessageType::Request) =>
                    {
                        'b'
                    }
                    Action::Broadcast { .. } => 'd',
                    Action::Remove(_) => 'r',
                    Action::Say(text) => {
                        assert_eq!(text, "the lease of 10.0.0.9 ran out");
                        's'
                    }
                    Action::Configure(_) => 'c',
                });
            }
            assert!(kinds.len() < 100, "{kinds:?}");
        }
        let kinds: String = kinds.into_iter().collect();
        assert!(kinds.starts_with('u') && kinds.contains("ub") && kinds.ends_with("bsrd"), "{kinds}");
    }

    #[test]
    fn a_renewal_that_moves_the_address_removes_the_old_one() {
        let mut client = bound(600);
        let request = sent(&client.on(Event::Timeout, client.deadline(), HALF)).clone();
        let moved = client.on(answer(&request, MessageType::Ack, 10, 600), at(301), HALF);
        let [Action::Remove(old), Action::Configure(new)] = moved.as_slice() else { panic!("{moved:?}") };
        assert_eq!((old.address.octets()[3], new.address.octets()[3]), (9, 10));
    }

    #[test]
    fn a_refused_renewal_gives_the_address_back_and_asks_anew() {
        let mut client = bound(600);
        let request = sent(&client.on(Event::Timeout, client.deadline(), HALF)).clone();
        let refused = client.on(answer(&request, MessageType::Nak, 0, 600), at(301), 5);
        assert!(matches!(refused.first(), Some(Action::Remove(_))), "{refused:?}");
        assert_eq!(said(&refused), ["the dhcp server refused the address (no reason given), starting over"]);
        let again = client.on(Event::Timeout, at(302), 5);
        assert_eq!(sent(&again).message_type(), Some(MessageType::Discover));
    }

    #[test]
    fn a_link_that_flaps_has_its_lease_confirmed() {
        let mut client = bound(600);
        assert!(client.on(Event::LinkDown, at(10), 1).is_empty());
        assert!(client.lease().is_some());
        let back = client.on(Event::LinkUp, at(12), 1);
        assert!(matches!(back.as_slice(), [Action::Broadcast { source, .. }] if source.octets()[3] == 9));
        client.on(Event::LinkDown, at(13), 1);
        let late = client.on(Event::LinkUp, at(700), 1);
        assert!(matches!(late.as_slice(), [Action::Remove(_), Action::Broadcast { .. }]), "{late:?}");
    }

    #[test]
    fn a_machine_that_moved_has_its_address_confirmed_or_gets_another() {
        let mut client = bound(6000);
        let request = sent(&client.on(Event::Moved, at(10), 7)).clone();
        assert_eq!((request.message_type(), request.ciaddr.octets()[3]), (Some(MessageType::Request), 9));
        let same = client.on(answer(&request, MessageType::Ack, 9, 6000), at(10), 7);
        assert!(matches!(same.as_slice(), [Action::Configure(_)]), "{same:?}");
        client.on(Event::Moved, at(30), 8);
        let silent = client.on(Event::Moved, at(50), 9);
        assert!(matches!(silent.as_slice(), [Action::Remove(_), Action::Broadcast { .. }]), "{silent:?}");
        assert_eq!(sent(&silent).message_type(), Some(MessageType::Discover));
        assert!(client.on(Event::Moved, at(70), 9).is_empty(), "it is asking already");
    }

    #[test]
    fn odd_leases_are_read_sensibly() {
        let base = Message::request(1, MAC, MessageType::Discover);
        let read = |change: &dyn Fn(&mut Message)| {
            let Event::Received(mut message) = answer(&base, MessageType::Ack, 9, 800) else {
                unreachable!()
            };
            change(&mut message);
            read_lease(&message, None).unwrap()
        };
        assert_eq!(read(&|m| m.set_u32(code::LEASE_TIME, u32::MAX)).seconds, None);
        assert_eq!(read(&|m| m.set_u32(code::LEASE_TIME, 1)).seconds, Some(60));
        assert_eq!(read(&|m| m.set(code::SUBNET_MASK, [255, 0, 255, 0])).prefix, 8);
        assert_eq!(read(&|m| m.set_u32(code::RENEWAL_TIME, 900)).renew, Some(at(400)));
        assert_eq!(read(&|m| m.set_u32(code::RENEWAL_TIME, 790)).rebind, Some(at(790)));
        assert_eq!(read(&|m| m.set(code::HOSTNAME, *b"a\nb")).hostname, None);
        let routed = read(&|m| {
            m.set_classless_routes(&[ClasslessRoute {
                destination: Ipv4Addr::new(192, 168, 0, 0),
                prefix: 16,
                router: Ipv4Addr::new(10, 0, 0, 3),
            }]);
        });
        assert_eq!((routed.router, routed.routes.len()), (None, 1));
    }
}
