//! Sets the machine's clock from time servers, before a certificate is made or looked at: those of `ipa-ntp-server` first, then
//! those that DHCP named. The former are asked again before the machine ends. Bounded, and best effort unless
//! `fail_if_clock_not_set` is on: whatever fails is said, and the agent goes on with the clock it has.
//!
//! What a packet means is [`ferric_common::formats::ntp`]'s. All servers of a group are asked at once, and the first answer
//! that may be believed counts: an hour more or less is what matters here, not which server is the best.

use crate::config::Config;
use crate::platform::linux::clock;
use crate::platform::machine::Machine;
use ferric_common::formats::ntp::{self, Answer, NtpError};
use ferric_common::limits;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// A clock that is off by less is left alone (RFC 5905's step threshold).
const STEP: Duration = Duration::from_millis(128);
/// Bytes of an answer that are read; extensions after the packet are not looked at.
const ANSWER: usize = 512;

/// How long is waited.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For an answer, once for each question; questions are repeated because one datagram is easily lost.
    pub answers: Vec<Duration>,
    /// For the addresses of all names.
    pub names: Duration,
    /// UDP port of the servers.
    pub port: u16,
}

impl Default for Patience {
    fn default() -> Patience {
        let s = Duration::from_secs;
        Patience { answers: vec![s(1), s(1), s(2)], names: s(5), port: ntp::PORT }
    }
}

/// Why a server's time is not taken.
#[derive(Debug, thiserror::Error)]
enum TimeError {
    #[error("no answer in {0:?}")]
    Silent(Duration),
    #[error("asking it: {0}")]
    Io(io::Error),
    #[error("its answer: {0}")]
    Answer(NtpError),
    #[error("its clock is wrong: it says {0} s after 1970, which was before this program was built")]
    Past(u64),
    #[error("finding its address: {0}")]
    Name(String),
}

/// The time, as it was when an answer arrived.
#[derive(Clone, Copy, Debug)]
struct Told {
    since_1970: Duration,
    at: Instant,
}

impl Told {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_1970.saturating_add(self.at.elapsed())
    }
}

/// Whether the machine's clock is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// A time server says so: whoever else names another time is wrong.
    Known,
    Unknown,
}

/// No configured server set the clock, and the configuration does not let that pass.
#[derive(Debug, thiserror::Error)]
#[error(
    "the clock was not set by {servers} (the warnings before this say why), and fail_if_clock_not_set is on: see that a time \
     server answers on UDP port 123, or switch the option off"
)]
pub struct NotSet {
    servers: String,
}

/// Asks the configured servers, else those of the network, and sets the clock.
///
/// # Errors
/// [`NotSet`], where the configuration asks for both: servers, and an end without them. As upstream, nothing is required where no
/// server is configured.
pub async fn synchronise(
    machine: &Arc<dyn Machine>,
    config: &Config,
    patience: &Patience,
) -> Result<Clock, NotSet> {
    let clock = set_clock(machine, &config.ntp_servers, patience).await;
    let is_enough = clock == Clock::Known || !config.clock_required || config.ntp_servers.is_empty();
    if is_enough { Ok(clock) } else { Err(NotSet { servers: config.ntp_servers.join(", ") }) }
}

async fn set_clock(machine: &Arc<dyn Machine>, configured: &[String], patience: &Patience) -> Clock {
    let network = machine.time_servers().iter().map(IpAddr::to_string).collect();
    for servers in [configured.to_vec(), network] {
        let Some(told) = ask(&servers, patience).await else { continue };
        let off = match told.now().duration_since(SystemTime::now()) {
            Ok(behind) => behind,
            Err(ahead) => ahead.duration(),
        };
        if off < STEP {
            tracing::info!("the clock is right, by a time server");
            return Clock::Known;
        }
        let machine = Arc::clone(machine);
        // The battery clock may take a second to be set.
        let set = tokio::task::spawn_blocking(move || machine.set_clock(told.now())).await;
        let failed = match set {
            Ok(Ok(())) => {
                tracing::info!("the clock was {off:?} off and is set by a time server");
                return Clock::Known;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!("the clock is {off:?} off and stays so: {failed}");
        return Clock::Unknown;
    }
    Clock::Unknown
}

/// The first answer of any of these servers.
async fn ask(servers: &[String], patience: &Patience) -> Option<Told> {
    let mut asked = JoinSet::new();
    for (name, address) in addresses(servers, patience).await {
        let patience = patience.clone();
        asked.spawn(async move {
            match ask_one(address, &patience).await {
                Ok(told) => Ok((name, told)),
                Err(error) => Err((name, error)),
            }
        });
    }
    while let Some(outcome) = asked.join_next().await {
        match outcome {
            Ok(Ok((name, told))) => {
                tracing::debug!("time server {name} answered");
                return Some(told);
            }
            Ok(Err((name, error))) => tracing::warn!("time server {name}: {error}"),
            Err(_) => {}
        }
    }
    None
}

/// Names and addresses to ask, at most [`limits::NTP_SERVERS`].
async fn addresses(servers: &[String], patience: &Patience) -> Vec<(String, SocketAddr)> {
    let end = Instant::now() + patience.names;
    let mut found = Vec::new();
    for server in servers.iter().take(limits::NTP_SERVERS) {
        if let Ok(address) = server.parse::<IpAddr>() {
            found.push((server.clone(), SocketAddr::new(address, patience.port)));
            continue;
        }
        let failed = |why: String| tracing::warn!("time server {server}: {}", TimeError::Name(why));
        match timeout_at(end, tokio::net::lookup_host((server.as_str(), patience.port))).await {
            Ok(Ok(all)) => found.extend(all.map(|address| (server.clone(), address))),
            Ok(Err(error)) => failed(error.to_string()),
            Err(_) => failed(format!("no answer in {:?}", patience.names)),
        }
    }
    found.truncate(limits::NTP_SERVERS);
    found
}

async fn ask_one(server: SocketAddr, patience: &Patience) -> Result<Told, TimeError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(TimeError::Io)?;
    // Datagrams of anybody else do not get here.
    socket.connect(server).await.map_err(TimeError::Io)?;
    let mut last = TimeError::Silent(patience.answers.iter().sum());
    for wait in &patience.answers {
        let end = Instant::now() + *wait;
        match one_try(&socket, end).await {
            Ok(Some(told)) => return Ok(told),
            Ok(None) => {}
            // A refusal to listen (ICMP) may be that of a machine which is still starting: ask again, but not at once.
            Err(TimeError::Io(error)) => {
                last = TimeError::Io(error);
                tokio::time::sleep_until(end).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// One question; `None` if no answer to it came before `end`.
async fn one_try(socket: &UdpSocket, end: Instant) -> Result<Option<Told>, TimeError> {
    let nonce = getrandom::u64().map_err(|error| TimeError::Io(io::Error::other(error.to_string())))?.max(1);
    let sent = Instant::now();
    socket.send(&ntp::question(nonce)).await.map_err(TimeError::Io)?;
    let mut buffer = [0u8; ANSWER];
    loop {
        let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await else { return Ok(None) };
        let at = Instant::now();
        let bytes = buffer.get(..received.map_err(TimeError::Io)?).unwrap_or_default();
        match Answer::parse(bytes, nonce) {
            Ok(answer) => {
                let since_1970 = answer.on_arrival(at - sent);
                if since_1970.as_secs() < clock::BUILT {
                    return Err(TimeError::Past(since_1970.as_secs()));
                }
                return Ok(Some(Told { since_1970, at }));
            }
            // A late answer to the question before, or a forged one: the right one may still come.
            Err(NtpError::NotOurs | NtpError::Short(_)) => {}
            Err(error) => return Err(TimeError::Answer(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::machine::{Call, FakeMachine};
    use tokio::time::timeout;

    /// Seconds since 1970 that the servers of these tests tell: a while after the build, far from now.
    const TOLD: u64 = clock::BUILT + 100_000_000;

    /// A server that answers each question with what `reply` makes of it; its port, and how often it was asked.
    async fn server(reply: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0u8; 512];
            for number in 0.. {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                for answer in reply(number, &buffer[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        port
    }

    /// A right answer to a question, telling [`TOLD`].
    fn right(question: &[u8]) -> Vec<u8> {
        assert_eq!((question.len(), question[0]), (ntp::LENGTH, 0x23));
        let mut answer = vec![0; ntp::LENGTH];
        answer[..2].copy_from_slice(&[0x24, 1]);
        answer[24..32].copy_from_slice(&question[40..48]);
        let stamp = (TOLD + 2_208_988_800) << 32;
        answer[32..40].copy_from_slice(&stamp.to_be_bytes());
        answer[40..48].copy_from_slice(&stamp.to_be_bytes());
        answer
    }

    fn patience(port: u16) -> Patience {
        let wait = Duration::from_millis(300);
        Patience { answers: vec![wait; 3], names: Duration::from_secs(5), port }
    }

    /// What the machine's clock was set to, in seconds from [`TOLD`].
    async fn outcome(port: u16, configured: &[&str], network: &[&str]) -> Option<i64> {
        let mut machine = FakeMachine::new();
        machine.time_servers = network.iter().map(|text| text.parse().unwrap()).collect();
        let machine = Arc::new(machine);
        let configured: Vec<String> = configured.iter().map(|text| text.to_string()).collect();
        let shared: Arc<dyn Machine> = machine.clone();
        let patience = patience(port);
        let asked = set_clock(&shared, &configured, &patience);
        let clock = timeout(Duration::from_secs(30), asked).await.expect("bounded");
        match machine.calls().as_slice() {
            [] => None,
            [Call::ClockSet(to)] => {
                assert_eq!(clock, Clock::Known);
                Some(to.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 - TOLD as i64)
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_clock_is_set_from_the_first_server_that_answers() {
        let port = server(|_, question| vec![right(question)]).await;
        for (configured, network) in [
            (vec!["127.0.0.1"], vec![]),
            (vec!["localhost"], vec![]),
            (vec!["127.0.0.2", "no-such-name.invalid", "127.0.0.1"], vec![]),
            (vec![], vec!["127.0.0.1"]),
            (vec!["127.0.0.2"], vec!["127.0.0.1"]),
        ] {
            assert!(
                outcome(port, &configured, &network).await.is_some_and(|off| (0..30).contains(&off)),
                "{configured:?} {network:?}"
            );
        }
        assert_eq!(outcome(port, &[], &[]).await, None, "nobody to ask");
    }

    #[tokio::test]
    async fn a_lost_question_is_repeated_and_strange_answers_are_passed_over() {
        let port = server(|number, question| match number {
            0 => vec![],
            1 => vec![b"noise".to_vec(), vec![0x24; 48]],
            _ => {
                let mut forged = right(question);
                forged[24] ^= 1;
                vec![forged, right(question)]
            }
        })
        .await;
        assert!(outcome(port, &["127.0.0.1"], &[]).await.is_some());
    }

    #[tokio::test]
    async fn a_server_that_must_not_be_believed_changes_nothing() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: &[(&str, Spoil)] = &[
            ("a kiss of death", |a| a[1] = 0),
            ("not synchronised", |a| a[0] = 0xE4),
            ("a client's packet", |a| a[0] = 0x23),
            ("a time before the build", |a| {
                let stamp = (clock::BUILT - 86_400 + 2_208_988_800) << 32;
                a[32..40].copy_from_slice(&stamp.to_be_bytes());
                a[40..48].copy_from_slice(&stamp.to_be_bytes());
            }),
            ("silence", |a| a.clear()),
        ];
        for (name, spoil) in cases {
            let port = server(move |_, question| {
                let mut answer = right(question);
                spoil(&mut answer);
                vec![answer]
            })
            .await;
            assert_eq!(outcome(port, &["127.0.0.1"], &[]).await, None, "{name}");
        }
        let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(outcome(nobody, &["127.0.0.1"], &[]).await, None, "a port that nobody has");
    }

    #[tokio::test]
    async fn a_clock_that_must_be_set_is_an_error_where_no_configured_server_answers() {
        let port = server(|_, question| vec![right(question)]).await;
        for (required, server, passes) in [
            (true, "127.0.0.1", true),
            (true, "127.0.0.2", false),
            (false, "127.0.0.2", true),
            // Nobody to ask.
            (true, "", true),
        ] {
            let words = format!("ipa-api-url=http://a ipa-ntp-server={server}");
            let mut config = crate::config::parse(&words, &[], &[]).unwrap();
            config.clock_required = required;
            let machine: Arc<dyn Machine> = Arc::new(FakeMachine::new());
            let outcome = synchronise(&machine, &config, &patience(port)).await;
            assert_eq!(outcome.is_ok(), passes, "required {required}, server '{server}'");
            if let Err(error) = outcome {
                let said = error.to_string();
                assert!(said.starts_with("the clock was not set by 127.0.0.2 "), "{said}");
                assert!(
                    said.contains("fail_if_clock_not_set is on: see that a time server answers"),
                    "{said}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_right_is_left_alone() {
        let port = server(|_, question| {
            let mut answer = right(question);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
            let stamp = (now.as_secs() + 2_208_988_800) << 32 | fraction;
            answer[32..40].copy_from_slice(&stamp.to_be_bytes());
            answer[40..48].copy_from_slice(&stamp.to_be_bytes());
            vec![answer]
        })
        .await;
        assert_eq!(outcome(port, &["127.0.0.1"], &[]).await, None);
    }
}
