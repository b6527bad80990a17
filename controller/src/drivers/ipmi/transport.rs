//! The acting part: one UDP socket, one question at a time, repeated until its answer or the end of patience.
//!
//! Every byte is made and judged by `packet`, `rakp`, `session` and `commands`; this file sends, waits, and turns
//! what went wrong into words. Nothing here repeats a login that the BMC refused.

use super::IpmiSettings;
use super::commands::{self, AuthCapabilities, Command};
use super::explain::{LinkError, OPEN, Silence, Stage, local, no_privilege, protocol, session_refused};
use super::packet::{
    self, DATAGRAM, Frame, PAYLOAD_OPEN_REQUEST, PAYLOAD_OPEN_RESPONSE, PAYLOAD_RAKP1, PAYLOAD_RAKP2,
    PAYLOAD_RAKP3, PAYLOAD_RAKP4, Refusal, Response,
};
use super::rakp::{self, Opened, Rakp2, SetupError, Suite};
use super::session::{Ask, Session};
use super::target::Target;
use crate::drivers::DriverError;
use ferric_common::limits;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout_at};

/// After "nothing listens on this port" a try ends this soon: no answer is to be expected.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Pause before a busy BMC is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for the end of a session to be confirmed, beyond the time of the talk.
const CLOSING: Duration = Duration::from_secs(2);
const BUSY: u8 = 0xC0;
const NO_PRIVILEGE: u8 = 0xD4;

/// A question: its datagram for each try, and the judge of what comes in.
trait Exchange: Send {
    type Answer: Send;
    fn datagram(&mut self) -> Result<Vec<u8>, LinkError>;
    fn hear(&mut self, datagram: &[u8]) -> Result<Self::Answer, SetupError>;
}

/// A question of the session set-up: the same bytes each time.
struct Step<F> {
    bytes: Vec<u8>,
    judge: F,
}

impl<T: Send, F: FnMut(&[u8]) -> Result<T, SetupError> + Send> Exchange for Step<F> {
    type Answer = T;

    fn datagram(&mut self) -> Result<Vec<u8>, LinkError> {
        Ok(self.bytes.clone())
    }

    fn hear(&mut self, datagram: &[u8]) -> Result<T, SetupError> {
        (self.judge)(datagram)
    }
}

impl Exchange for Ask<'_> {
    type Answer = Response;

    fn datagram(&mut self) -> Result<Vec<u8>, LinkError> {
        Ok(Ask::datagram(self, random()?))
    }

    fn hear(&mut self, datagram: &[u8]) -> Result<Response, SetupError> {
        Ok(self.accept(datagram)?)
    }
}

fn random<const N: usize>() -> Result<[u8; N], LinkError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|e| LinkError::Local(format!("no random numbers: {e}")))?;
    Ok(out)
}

/// A socket that hears one BMC only.
struct Link {
    socket: UdpSocket,
    tries: u32,
    first_wait: Duration,
    /// End of the whole talk.
    deadline: Instant,
}

impl Link {
    async fn to(bmc: SocketAddr, settings: &IpmiSettings, deadline: Instant) -> io::Result<Link> {
        let any: SocketAddr = match bmc {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        // Connected, the kernel drops datagrams from others and reports a closed port.
        socket.connect(bmc).await?;
        Ok(Link { socket, tries: settings.tries.max(1), first_wait: settings.first_wait, deadline })
    }

    /// Asks up to `tries` times; each wait is twice the one before. An answer to an earlier try counts.
    async fn ask<E: Exchange>(
        &self,
        stage: &'static str,
        tries: u32,
        question: &mut E,
    ) -> Result<E::Answer, LinkError> {
        let start = Instant::now();
        let mut silence = Silence::at(stage);
        let mut wait = self.first_wait;
        while silence.tries < tries && Instant::now() < self.deadline {
            silence.tries += 1;
            let until = (Instant::now() + wait).min(self.deadline);
            if let Err(e) = self.socket.send(&question.datagram()?).await {
                silence.note(&e);
            }
            if let Some(answer) = self.hear(until, question, &mut silence).await? {
                return Ok(answer);
            }
            wait = wait.saturating_mul(2);
        }
        silence.waited = start.elapsed();
        Err(LinkError::Silent(silence))
    }

    async fn hear<E: Exchange>(
        &self,
        mut until: Instant,
        question: &mut E,
        silence: &mut Silence,
    ) -> Result<Option<E::Answer>, LinkError> {
        let mut buffer = [0; DATAGRAM];
        // Asked each time: a flood of datagrams would keep the timer from ever being looked at.
        while Instant::now() < until {
            match timeout_at(until, self.socket.recv(&mut buffer)).await {
                Err(_) => return Ok(None),
                Ok(Err(e)) => {
                    silence.note(&e);
                    until = until.min(Instant::now() + REFUSED_PAUSE);
                    // A socket that only fails must not be asked in a tight loop.
                    sleep(Duration::from_millis(10)).await;
                }
                Ok(Ok(len)) => match question.hear(buffer.get(..len).unwrap_or_default()) {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(SetupError::Ignored(refusal)) => silence.dropped = Some(refusal),
                    Err(other) => return Err(LinkError::Refused(other)),
                },
            }
        }
        Ok(None)
    }
}

/// An open session with a BMC.
pub struct Talk<'a> {
    target: &'a Target,
    link: Link,
    session: Session,
    /// Number of the last message; six bits travel.
    messages: u8,
    /// Close Session was sent.
    closed: bool,
}

const CAPABILITIES: &str = "Get Channel Authentication Capabilities";

impl<'a> Talk<'a> {
    /// Opens a session with the wanted privilege.
    ///
    /// `suites` are tried in order; the next one only when the BMC says that it does not know this one.
    ///
    /// # Errors
    /// One per stage: no answer, session refused, wrong password, privilege.
    pub async fn open(
        target: &'a Target,
        settings: &IpmiSettings,
        suites: &[Suite],
        deadline: Instant,
    ) -> Result<Talk<'a>, DriverError> {
        let (link, capabilities) = find(target, settings, deadline).await?;
        if !capabilities.speaks_2_0 {
            return Err(session_refused(
                target,
                "it speaks IPMI 1.5 only, and IPMI 1.5 is never used: enable IPMI 2.0 (RMCP+) on the BMC",
            ));
        }
        let session = login(target, &link, suites, capabilities).await?;
        let mut talk = Talk { target, link, session, messages: 0, closed: false };
        match talk.raise_privilege().await {
            Ok(()) => Ok(talk),
            Err(error) => {
                talk.close().await;
                Err(error)
            }
        }
    }

    pub fn suite(&self) -> Suite {
        self.session.suite()
    }

    /// Sends a command and returns the data of its answer; a tolerated refusal gives no data.
    pub async fn run(&mut self, command: &Command) -> Result<Vec<u8>, DriverError> {
        let mut tries = 1;
        loop {
            let answer = self.ask(command, self.link.tries).await?;
            match answer.code {
                0 => return Ok(answer.data),
                BUSY if tries < self.link.tries => {
                    tries += 1;
                    sleep(BUSY_PAUSE).await;
                }
                code if command.tolerated.contains(&code) => return Ok(Vec::new()),
                NO_PRIVILEGE => {
                    let reason =
                        format!("it answered '{}' with 'insufficient privilege level'", command.name);
                    return Err(self.no_privilege(&reason));
                }
                code => return Err(self.completion(command.name, code)),
            }
        }
    }

    /// Sends a command and reads its answer with `parse`.
    pub async fn read<T>(
        &mut self,
        command: &Command,
        parse: impl FnOnce(&[u8]) -> Result<T, Refusal>,
    ) -> Result<T, DriverError> {
        let data = self.run(command).await?;
        parse(&data).map_err(|refusal| DriverError::Protocol {
            address: self.target.address.clone(),
            what: format!("the answer to '{}' is {refusal}", command.name),
        })
    }

    /// Ends the session, also after the end of the talk: a BMC has few of them. One that does not answer this gets them back
    /// by its own timer.
    pub async fn close(mut self) {
        self.closed = true;
        self.link.deadline = Instant::now() + CLOSING;
        let id = self.session.their_id();
        if let Err(error) = self.ask(&commands::close_session(id), 1).await {
            tracing::debug!(bmc = %self.target.address, %error, "the session was not closed in order");
        }
    }

    async fn ask(&mut self, command: &Command, tries: u32) -> Result<Response, DriverError> {
        self.messages = self.messages.wrapping_add(1) & 0x3F;
        let sequence = self.messages;
        let mut question = Ask { session: &mut self.session, request: &command.request, sequence };
        let said = self.link.ask(command.name, tries, &mut question).await;
        said.map_err(|error| self.target.explain(error, Stage::InSession(command.name)))
    }

    async fn raise_privilege(&mut self) -> Result<(), DriverError> {
        let wanted = self.target.login.privilege;
        let answer = self.ask(&commands::set_privilege(wanted), self.link.tries).await?;
        match answer.code {
            // Some BMCs grant less without saying no.
            0 => match answer.data.first() {
                Some(given) if given & 0x0F < wanted as u8 => {
                    Err(self.no_privilege("it gave the session a lower one"))
                }
                _ => Ok(()),
            },
            0x80 => Err(self.no_privilege("the level is not available for this user")),
            0x81 | NO_PRIVILEGE => {
                Err(self.no_privilege("the level is above the limit of the user or of the LAN channel"))
            }
            code => Err(self.completion("Set Session Privilege Level", code)),
        }
    }

    fn no_privilege(&self, reason: &str) -> DriverError {
        no_privilege(self.target, reason)
    }

    fn completion(&self, command: &'static str, code: u8) -> DriverError {
        let address = self.target.address.clone();
        DriverError::Command { address, command, code, meaning: commands::completion_text(code) }
    }
}

/// Who waited for the talk went away in the middle of it: nobody can wait for an answer any more.
impl Drop for Talk<'_> {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let close = commands::close_session(self.session.their_id()).request;
        let sequence = self.messages.wrapping_add(1) & 0x3F;
        let mut question = Ask { session: &mut self.session, request: &close, sequence };
        if let Ok(datagram) = Exchange::datagram(&mut question) {
            // Only a courtesy: a BMC that misses it ends the session by its own timer.
            let _ = self.link.socket.try_send(&datagram);
        }
    }
}

/// The first of the BMC's addresses that answers, and what it says about logging in.
async fn find(
    target: &Target,
    settings: &IpmiSettings,
    deadline: Instant,
) -> Result<(Link, AuthCapabilities), DriverError> {
    let name = (target.address.as_str(), target.port);
    let found = match timeout_at(deadline, tokio::net::lookup_host(name)).await {
        Ok(found) => found.map_err(|e| local(target, format!("looking up its name failed: {e}")))?,
        Err(_) => return Err(local(target, "looking up its name took too long")),
    };
    let mut last = local(target, "its name has no address");
    for address in found.take(limits::DNS_ANSWERS) {
        let link = match Link::to(address, settings, deadline).await {
            Ok(link) => link,
            Err(e) => {
                last = local(target, format!("opening a UDP socket for {address} failed: {e}"));
                continue;
            }
        };
        let ask = commands::auth_capabilities(target.login.privilege);
        let mut step = Step {
            bytes: packet::sessionless(&ask.request.encode(0)),
            judge: |datagram: &[u8]| Ok(ask.request.answer(0, packet::parse_sessionless(datagram)?)?),
        };
        match link.ask(CAPABILITIES, link.tries, &mut step).await {
            Ok(Response { code: 0, data }) => {
                let parsed = AuthCapabilities::parse(&data);
                return match parsed {
                    Ok(capabilities) => Ok((link, capabilities)),
                    Err(refusal) => {
                        Err(protocol(target, format!("the answer to '{CAPABILITIES}' is {refusal}")))
                    }
                };
            }
            Ok(Response { code, .. }) => {
                let meaning = commands::completion_text(code);
                let address = target.address.clone();
                return Err(DriverError::Command { address, command: CAPABILITIES, code, meaning });
            }
            Err(error) => last = target.explain(error, Stage::First),
        }
    }
    Err(last)
}

/// Logs in with the first suite that the BMC knows.
async fn login(
    target: &Target,
    link: &Link,
    suites: &[Suite],
    capabilities: AuthCapabilities,
) -> Result<Session, DriverError> {
    let mut restarts = 0;
    let mut left = suites.iter().copied().peekable();
    while let Some(suite) = left.peek().copied() {
        match handshake(target, link, suite).await {
            Ok(session) => return Ok(session),
            Err((OPEN, LinkError::Refused(SetupError::Status(status))))
                if rakp::suite_unsupported(status) =>
            {
                left.next();
                if left.peek().is_none() {
                    let tried: Vec<String> = suites.iter().map(|s| s.number().to_string()).collect();
                    return Err(session_refused(
                        target,
                        &format!(
                            "it knows none of the cipher suites tried ({}); it says: {}",
                            tried.join(", then "),
                            rakp::status_text(status)
                        ),
                    ));
                }
            }
            // The BMC lost the half-open session, for instance because its answer got lost: begin anew.
            Err((stage, LinkError::Refused(SetupError::Status(0x02 | 0x08))))
                if stage != OPEN && restarts + 1 < link.tries =>
            {
                restarts += 1;
            }
            Err((stage, error)) => {
                let stage =
                    Stage::Login { stage, suite, more: suites.len() > 1, key_set: capabilities.bmc_key_set };
                return Err(target.explain(error, stage));
            }
        }
    }
    Err(session_refused(target, "no cipher suite is allowed"))
}

/// Open Session and RAKP 1 to 4 with one suite; the error says at which stage.
async fn handshake(target: &Target, link: &Link, suite: Suite) -> Result<Session, (&'static str, LinkError)> {
    let login = &target.login;
    let [tag, id @ ..] = random::<5>().map_err(|e| (OPEN, e))?;
    let console_id = u32::from_le_bytes(id).max(1);
    let console_random = random().map_err(|e| (OPEN, e))?;

    let mut step = Step {
        bytes: packet::plain(PAYLOAD_OPEN_REQUEST, &rakp::open_request(tag, suite, console_id)),
        judge: |d: &[u8]| rakp::open_response(payload(d, PAYLOAD_OPEN_RESPONSE)?, tag, suite, console_id),
    };
    let managed_id = link.ask(OPEN, link.tries, &mut step).await.map_err(|e| (OPEN, e))?;
    let opened = Opened { suite, console_id, managed_id, console_random };

    let tag = tag.wrapping_add(1);
    let mut step = Step {
        bytes: packet::plain(PAYLOAD_RAKP1, &rakp::rakp1(tag, &opened, login)),
        judge: |d: &[u8]| Rakp2::parse(payload(d, PAYLOAD_RAKP2)?, tag, &opened, login),
    };
    let rakp2 = match link.ask("RAKP 1", link.tries, &mut step).await {
        Err(LinkError::Refused(SetupError::Password)) => {
            let goodbye = packet::plain(PAYLOAD_RAKP3, &rakp::rakp3_refuse(tag.wrapping_add(1), managed_id));
            // Only a courtesy: a BMC that misses it forgets the session by itself.
            let _ = link.socket.send(&goodbye).await;
            return Err(("RAKP 1", LinkError::Refused(SetupError::Password)));
        }
        other => other.map_err(|e| ("RAKP 1", e))?,
    };

    let tag = tag.wrapping_add(1);
    let mut step = Step {
        bytes: packet::plain(PAYLOAD_RAKP3, &rakp2.rakp3(tag, &opened, login)),
        judge: |d: &[u8]| rakp2.rakp4(payload(d, PAYLOAD_RAKP4)?, tag, &opened, login),
    };
    let keys = link.ask("RAKP 3", link.tries, &mut step).await.map_err(|e| ("RAKP 3", e))?;
    Ok(Session::new(suite, keys, console_id, managed_id))
}

/// The payload of a set-up datagram of the expected type.
fn payload(datagram: &[u8], expected: u8) -> Result<&[u8], Refusal> {
    let frame = Frame::parse(datagram)?;
    match (frame.payload_type == expected, frame.session) {
        (true, 0) => Ok(frame.payload),
        (true, _) => Err(Refusal::OtherSession),
        (false, _) => Err(Refusal::NotAsked),
    }
}
