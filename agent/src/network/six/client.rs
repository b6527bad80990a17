//! What a DHCPv6 client says and when (RFC 8415), without a socket or a clock. One client per interface; it never gives up.

use ferric_common::formats::dhcp6::{Association, Granted, Kind, Message};
use ferric_common::ids::MacAddress;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Requests for an offer until it is forgotten.
const REQUEST_TRIES: u32 = 10;
/// A lease that names no times is asked for again after this.
const USUAL_RENEWAL: Duration = Duration::from_secs(1800);
/// One association for each interface; the identifier need only be the same each time.
const ASSOCIATION: u32 = 1;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A router says that addresses come by DHCPv6.
    Managed,
    /// A router says that all but addresses does.
    Other,
    LinkDown,
    Timeout,
    Received(Box<Message>),
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// To all servers of the link.
    Send(Message),
    /// Use these addresses, name servers and time servers. Addresses that ran out are removed by the kernel itself.
    Configure(Lease),
    Say(String),
}

/// What a server gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub granted: Vec<Granted>,
    pub dns: Vec<std::net::Ipv6Addr>,
    pub domains: Vec<String>,
    pub ntp: Vec<std::net::Ipv6Addr>,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Idle,
    Soliciting,
    Requesting {
        offer: Box<Message>,
    },
    Bound,
    /// Asks again for what it has: first the server that granted, past the second time any.
    Renewing,
    Informing,
    Informed,
}

#[derive(Debug)]
pub struct Client {
    duid: Vec<u8>,
    state: State,
    xid: u32,
    tries: u32,
    began: Duration,
    deadline: Duration,
    /// The reply that holds, and when its addresses run out and any server may be asked.
    held: Option<(Message, Duration, Duration)>,
}

impl Client {
    pub fn new(mac: MacAddress) -> Client {
        // DUID-LL (RFC 8415, section 11.4): the servers of a provisioning network know machines by their MAC.
        let duid = [&[0, 3, 0, 1][..], &mac.0].concat();
        Client {
            duid,
            state: State::Idle,
            xid: 0,
            tries: 0,
            began: Duration::ZERO,
            deadline: Duration::MAX,
            held: None,
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Takes one event at time `now`. `random` is fresh at each call.
    pub fn on(&mut self, event: Event, now: Duration, random: u32) -> Vec<Action> {
        match (event, &self.state) {
            (Event::LinkDown, _) => {
                (self.state, self.deadline) = (State::Idle, Duration::MAX);
                Vec::new()
            }
            (Event::Managed, State::Idle | State::Informing | State::Informed) => {
                self.begin(State::Soliciting, now, random)
            }
            (Event::Other, State::Idle) => self.begin(State::Informing, now, random),
            (Event::Managed | Event::Other, _) => Vec::new(),
            (Event::Timeout, _) if now < self.deadline => Vec::new(),
            (Event::Timeout, State::Bound) => self.begin(State::Renewing, now, random),
            (Event::Timeout, State::Requesting { .. }) if self.tries >= REQUEST_TRIES => {
                self.begin(State::Soliciting, now, random)
            }
            (Event::Timeout, State::Renewing) if self.ran_out(now) => {
                self.held = None;
                let mut actions = vec![Action::Say("the dhcpv6 lease ran out".into())];
                actions.extend(self.begin(State::Soliciting, now, random));
                actions
            }
            (Event::Timeout, _) => self.send(now, random),
            (Event::Received(message), _) if message.xid != self.xid || message.client != self.duid => {
                Vec::new()
            }
            (Event::Received(message), _) => self.received(message, now, random),
        }
    }

    fn ran_out(&self, now: Duration) -> bool {
        self.held.as_ref().is_none_or(|(_, until, _)| now >= *until)
    }

    fn begin(&mut self, state: State, now: Duration, random: u32) -> Vec<Action> {
        (self.state, self.xid, self.tries, self.began) = (state, random & 0xff_ffff, 0, now);
        self.send(now, random)
    }

    fn send(&mut self, now: Duration, random: u32) -> Vec<Action> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(7)).min(LONGEST_PAUSE);
        self.deadline = now + super::super::client::jittered(pause, random);
        self.tries = self.tries.saturating_add(1);
        let empty = Association { id: ASSOCIATION, ..Association::default() };
        let (kind, server, association) = match &self.state {
            State::Soliciting => (Kind::Solicit, None, Some(empty)),
            State::Requesting { offer } => (Kind::Request, offer.server.clone(), offer.association.clone()),
            State::Renewing => {
                let Some((held, until, any)) = &self.held else { return Vec::new() };
                let own = now < *any;
                // Never past the time at which something else is to be done.
                self.deadline = self.deadline.min(if own { *any } else { *until });
                let kind = if own { Kind::Renew } else { Kind::Rebind };
                (kind, held.server.clone().filter(|_| own), held.association.clone())
            }
            State::Informing => (Kind::InformationRequest, None, None),
            State::Idle | State::Bound | State::Informed => return Vec::new(),
        };
        let mut message = Message::new(kind, self.xid, self.duid.clone());
        (message.server, message.association) = (server, association);
        let elapsed = now.saturating_sub(self.began).as_millis() / 10;
        message.elapsed = Some(u16::try_from(elapsed).unwrap_or(u16::MAX));
        let mut actions = vec![Action::Send(message)];
        if self.tries >= 4 && self.tries.is_power_of_two() {
            actions.push(Action::Say(format!(
                "a router says that dhcpv6 is to be asked, but no dhcpv6 server has answered {} messages in {} s; still \
                 asking. Check that a dhcpv6 server or relay is on this network",
                self.tries,
                now.saturating_sub(self.began).as_secs()
            )));
        }
        actions
    }

    fn received(&mut self, message: Box<Message>, now: Duration, random: u32) -> Vec<Action> {
        match (&self.state, message.kind) {
            (State::Soliciting, Kind::Advertise) if usable(&message) => {
                self.begin(State::Requesting { offer: message }, now, random)
            }
            (State::Requesting { .. } | State::Renewing, Kind::Reply) if usable(&message) => {
                self.bind(*message, now)
            }
            (State::Informing, Kind::Reply) => {
                (self.state, self.deadline) = (State::Informed, Duration::MAX);
                vec![Action::Configure(lease(&message))]
            }
            (State::Soliciting, Kind::Advertise)
            | (State::Requesting { .. } | State::Renewing, Kind::Reply) => {
                let (number, text) = message.refusal.unwrap_or((2, String::new()));
                let said = format!("the dhcpv6 server gave no address: status {number} {text}; still asking");
                // The same words at each answer would fill the console.
                if self.tries.is_power_of_two() { vec![Action::Say(said)] } else { Vec::new() }
            }
            _ => Vec::new(),
        }
    }

    fn bind(&mut self, message: Message, now: Duration) -> Vec<Action> {
        let seconds = |number: u32| Duration::from_secs(number.into());
        let association = message.association.clone().unwrap_or_default();
        let valid = association.granted.iter().map(|granted| granted.valid).max().unwrap_or(0);
        let until = if valid == u32::MAX { Duration::MAX } else { now + seconds(valid) };
        let preferred = association.granted.iter().map(|granted| granted.preferred).min().unwrap_or(0);
        let renew = match association.renew {
            0 if preferred == u32::MAX => USUAL_RENEWAL,
            0 => seconds(preferred / 2),
            after => seconds(after),
        };
        let any = match association.rebind {
            0 => renew.saturating_mul(8) / 5,
            after => seconds(after),
        };
        self.deadline = now.saturating_add(renew.max(Duration::from_secs(10)));
        let found = lease(&message);
        self.held = Some((message, until, now.saturating_add(any)));
        self.state = State::Bound;
        vec![Action::Configure(found)]
    }
}

/// Names its server and gives at least one address for a time.
fn usable(message: &Message) -> bool {
    let granted = message.association.as_ref().map(|association| association.granted.as_slice());
    message.server.is_some() && granted.unwrap_or_default().iter().any(good)
}

fn good(granted: &Granted) -> bool {
    let address = granted.address;
    granted.valid > 0
        && granted.preferred <= granted.valid
        && !(address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_unicast_link_local())
}

fn lease(message: &Message) -> Lease {
    let granted = message.association.iter().flat_map(|a| a.granted.iter().copied()).filter(good).collect();
    Lease { granted, dns: message.dns.clone(), domains: message.domains.clone(), ntp: message.ntp.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn sent(actions: &[Action]) -> &Message {
        let found = actions.iter().find_map(|a| if let Action::Send(m) = a { Some(m) } else { None });
        found.unwrap_or_else(|| panic!("nothing was sent: {actions:?}"))
    }

    fn answer(to: &Message, kind: Kind, valid: u32) -> Event {
        let mut reply = Message::new(kind, to.xid, to.client.clone());
        reply.server = Some(vec![1, 2, 3]);
        if to.association.is_some() {
            let granted = Granted { address: "2001:db8::9".parse().unwrap(), preferred: valid, valid };
            reply.association = Some(Association { id: 1, renew: 100, rebind: 160, granted: vec![granted] });
        }
        reply.dns = vec!["2001:db8::53".parse().unwrap()];
        Event::Received(Box::new(reply))
    }

    #[test]
    fn a_lease_is_got_renewed_rebound_and_given_up() {
        let mut client = Client::new(MAC);
        let solicit = sent(&client.on(Event::Managed, at(0), 7)).clone();
        assert_eq!((solicit.kind, solicit.xid), (Kind::Solicit, 7));
        assert_eq!(solicit.client, [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 1]);
        let request = sent(&client.on(answer(&solicit, Kind::Advertise, 200), at(0), 8)).clone();
        assert_eq!((request.kind, request.server.as_deref()), (Kind::Request, Some(&[1, 2, 3][..])));
        let bound = client.on(answer(&request, Kind::Reply, 200), at(0), 9);
        let [Action::Configure(lease)] = bound.as_slice() else { panic!("{bound:?}") };
        assert_eq!((lease.granted.len(), lease.dns.len()), (1, 1));
        assert_eq!(client.deadline(), at(100));
        let mut kinds = Vec::new();
        let mut said = Vec::new();
        while client.state != State::Soliciting {
            for action in client.on(Event::Timeout, client.deadline(), 1) {
                match action {
                    Action::Send(message) => kinds.push(message.kind),
                    Action::Say(text) => said.push(text),
                    Action::Configure(_) => panic!("nothing was answered"),
                }
            }
        }
        kinds.dedup();
        assert_eq!(kinds, [Kind::Renew, Kind::Rebind, Kind::Solicit]);
        assert_eq!(said.last().map(String::as_str), Some("the dhcpv6 lease ran out"));
    }

    #[test]
    fn without_managed_addresses_only_the_rest_is_asked_for() {
        let mut client = Client::new(MAC);
        let asked = sent(&client.on(Event::Other, at(0), 7)).clone();
        assert_eq!((asked.kind, asked.association.is_none()), (Kind::InformationRequest, true));
        let done = client.on(answer(&asked, Kind::Reply, 0), at(1), 1);
        assert!(matches!(done.as_slice(), [Action::Configure(lease)] if lease.dns.len() == 1), "{done:?}");
        assert!(client.on(Event::Other, at(2), 1).is_empty());
        assert_eq!(sent(&client.on(Event::Managed, at(3), 9)).kind, Kind::Solicit);
    }

    #[test]
    fn silence_and_refusals_are_said_and_asked_again() {
        let mut client = Client::new(MAC);
        let solicit = sent(&client.on(Event::Managed, at(0), u32::MAX / 2)).clone();
        let Event::Received(mut none) = answer(&solicit, Kind::Advertise, 0) else { unreachable!() };
        none.refusal = Some((2, "pool empty".into()));
        assert_eq!(
            client.on(Event::Received(none.clone()), at(0), 1),
            [Action::Say("the dhcpv6 server gave no address: status 2 pool empty; still asking".into())]
        );
        none.xid += 1;
        assert!(client.on(Event::Received(none), at(0), 1).is_empty());
        let mut said = Vec::new();
        for _ in 0..4 {
            let actions = client.on(Event::Timeout, client.deadline(), u32::MAX / 2);
            assert_eq!(sent(&actions).kind, Kind::Solicit);
            said.extend(actions.into_iter().filter(|a| matches!(a, Action::Say(_))));
        }
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(format!("{said:?}").contains("no dhcpv6 server has answered 4 messages in 7 s"), "{said:?}");
        client.on(Event::LinkDown, at(90), 1);
        assert_eq!(client.deadline(), Duration::MAX);
    }
}
