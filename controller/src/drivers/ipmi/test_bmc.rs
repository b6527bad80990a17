//! A small BMC for tests: it speaks suites 17 and 3 over the same codec and spoils its answers on request.

use super::packet::{self, Frame, PAYLOAD_IPMI, Request};
use super::rakp::{Login, Opened, Privilege, Rakp2, Secret, Suite};
use super::session::Session;
use crate::drivers::DriverInfo;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What is sent in place of the n-th answer (from 0).
pub type Spoil = Arc<dyn Fn(usize, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync>;

pub struct Rules {
    pub password: &'static str,
    pub suites: Vec<Suite>,
    /// Highest level that Set Session Privilege grants.
    pub privilege: u8,
    /// Answers Open Session of an unknown suite with this status.
    pub unknown_suite: u8,
    pub bmc_key: Option<Vec<u8>>,
    pub speaks_2_0: bool,
    pub manufacturer: u32,
    pub spoil: Spoil,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            password: "right",
            suites: vec![Suite::Seventeen, Suite::Three],
            privilege: 4,
            unknown_suite: 0x11,
            bmc_key: None,
            speaks_2_0: true,
            manufacturer: 674,
            spoil: Arc::new(|_, answer| vec![answer]),
        }
    }
}

#[derive(Default)]
pub struct Seen {
    pub on: bool,
    pub boot: [u8; 5],
    /// Whether somebody is setting boot options, if this BMC keeps count of that.
    pub in_progress: Option<bool>,
    /// Requests carried out within sessions: network function, command, data.
    pub requests: Vec<(u8, u8, Vec<u8>)>,
    /// Suites offered by Open Session; logins tried (RAKP 1); sessions open now and at most.
    pub offered: Vec<u8>,
    pub logins: usize,
    pub open: usize,
    pub most_open: usize,
    pub busy_answers: usize,
}

pub struct TestBmc {
    pub port: u16,
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for TestBmc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestBmc {
    pub async fn start(rules: Rules) -> TestBmc {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut bmc = Bmc { rules, seen: Arc::clone(&seen), half: None, session: None };
        let task = tokio::spawn(async move { bmc.serve(socket).await });
        TestBmc { port, seen, task }
    }

    pub fn info(&self) -> DriverInfo {
        info(self.port, "right")
    }
}

pub fn info(port: u16, password: &str) -> DriverInfo {
    let value = json!({"ipmi_address": "127.0.0.1", "ipmi_port": port, "ipmi_username": "admin", "ipmi_password": password});
    value.as_object().unwrap().clone()
}

struct Bmc {
    rules: Rules,
    seen: Arc<Mutex<Seen>>,
    half: Option<(Opened, Option<(Login, Rakp2)>)>,
    session: Option<Session>,
}

impl Bmc {
    async fn serve(&mut self, socket: UdpSocket) {
        let mut buffer = [0; 1024];
        let mut answers = 0;
        loop {
            // A console that is gone makes the socket report its closed port: nothing to do with the next one.
            let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
            let from: SocketAddr = from;
            let Some(answer) = self.answer(&buffer[..len]) else { continue };
            for datagram in (self.rules.spoil)(answers, answer) {
                let _ = socket.send_to(&datagram, from).await;
            }
            answers += 1;
        }
    }

    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if let Ok(message) = packet::parse_sessionless(datagram) {
            let (sequence, request) = Request::parse(message).ok()?;
            let extended = if self.rules.speaks_2_0 { 0x03 } else { 0x01 };
            let status = if self.rules.bmc_key.is_some() { 0x24 } else { 0x04 };
            let data = [1, 0x80, status, extended, 0, 0, 0, 0];
            return Some(packet::sessionless(&request.encode_answer(sequence, 0, &data)));
        }
        let frame = Frame::parse(datagram).ok()?;
        match frame.payload_type {
            packet::PAYLOAD_OPEN_REQUEST => self.open_session(frame.payload),
            packet::PAYLOAD_RAKP1 => self.rakp1(frame.payload),
            packet::PAYLOAD_RAKP3 => self.rakp3(frame.payload),
            PAYLOAD_IPMI => self.message(datagram),
            _ => None,
        }
    }

    fn open_session(&mut self, ask: &[u8]) -> Option<Vec<u8>> {
        let console_id = u32::from_le_bytes(ask[4..8].try_into().unwrap());
        let algorithms = [ask[12], ask[20], ask[28]];
        let all = [Suite::Seventeen, Suite::Three];
        let suite = all.into_iter().find(|s| s.algorithms() == algorithms)?;
        self.seen.lock().unwrap().offered.push(suite.number());
        let known = self.rules.suites.contains(&suite);
        let mut out = vec![ask[0], if known { 0 } else { self.rules.unknown_suite }, 4, 0];
        out.extend(console_id.to_le_bytes());
        if known {
            let managed_id = 0x0BAD_CAFE;
            out.extend(u32::to_le_bytes(managed_id));
            for (kind, algorithm) in algorithms.into_iter().enumerate() {
                out.extend([kind as u8, 0, 0, 8, algorithm, 0, 0, 0]);
            }
            self.half = Some((Opened { suite, console_id, managed_id, console_random: [0; 16] }, None));
        }
        Some(packet::plain(packet::PAYLOAD_OPEN_RESPONSE, &out))
    }

    fn rakp1(&mut self, ask: &[u8]) -> Option<Vec<u8>> {
        self.seen.lock().unwrap().logins += 1;
        let (opened, known) = self.half.as_mut()?;
        opened.console_random = ask[8..24].try_into().unwrap();
        let privilege = match ask[24] & 0x0F {
            2 => Privilege::User,
            3 => Privilege::Operator,
            _ => Privilege::Administrator,
        };
        let user = String::from_utf8(ask[28..].to_vec()).unwrap();
        let mut out = vec![ask[0], 0, 0, 0];
        if user != "admin" {
            out[1] = 0x0D;
            return Some(packet::plain(packet::PAYLOAD_RAKP2, &out));
        }
        let password = Secret::new(self.rules.password.into());
        let login = Login { user, password, bmc_key: self.rules.bmc_key.clone().map(Secret::new), privilege };
        let message = Rakp2 { managed_random: [0x5A; 16], guid: [0x11; 16] };
        let proof = message.proof(opened, &login);
        let parts: Vec<&[u8]> = proof.iter().map(Vec::as_slice).collect();
        let code = opened.suite.mac(login.password.expose(), &parts);
        out.extend(opened.console_id.to_le_bytes());
        out.extend(message.managed_random);
        out.extend(message.guid);
        out.extend(code.iter());
        *known = Some((login, message));
        Some(packet::plain(packet::PAYLOAD_RAKP2, &out))
    }

    fn rakp3(&mut self, ask: &[u8]) -> Option<Vec<u8>> {
        let (opened, known) = self.half.as_ref()?;
        let (login, message) = known.as_ref()?;
        if ask[1] != 0 {
            self.half = None;
            return None;
        }
        let good = ask[8..] == message.rakp3_code(opened, login)[..];
        let mut out = vec![ask[0], if good { 0 } else { 0x0F }, 0, 0];
        out.extend(opened.console_id.to_le_bytes());
        if good {
            out.extend(message.rakp4_code(opened, login).iter());
            let keys = message.keys(opened, login);
            self.session = Some(Session::new(opened.suite, keys, opened.managed_id, opened.console_id));
            let mut seen = self.seen.lock().unwrap();
            seen.open += 1;
            seen.most_open = seen.most_open.max(seen.open);
        }
        Some(packet::plain(packet::PAYLOAD_RAKP4, &out))
    }

    fn message(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let session = self.session.as_mut()?;
        let (sequence, request) = Request::parse(&session.open(datagram).ok()?).ok()?;
        let mut seen = self.seen.lock().unwrap();
        seen.requests.push((request.netfn, request.command, request.data.clone()));
        let (code, data) = respond(&self.rules, &mut seen, &request);
        let answer = session.seal(&request.encode_answer(sequence, code, &data), [0x42; 16]);
        if (request.netfn, request.command) == (6, 0x3C) {
            seen.open -= 1;
            self.session = None;
        }
        Some(answer)
    }
}

fn respond(rules: &Rules, seen: &mut Seen, request: &Request) -> (u8, Vec<u8>) {
    if seen.busy_answers > 0 && request.netfn == 0 {
        seen.busy_answers -= 1;
        return (0xC0, vec![]);
    }
    match (request.netfn, request.command, request.data.as_slice()) {
        (6, 0x3B, [wanted]) if *wanted > rules.privilege => (0x81, vec![]),
        (6, 0x3B, [wanted]) => (0, vec![*wanted]),
        (6, 0x3C, _) => (0, vec![]),
        (6, 0x01, _) => {
            let [m0, m1, m2, _] = rules.manufacturer.to_le_bytes();
            (0, vec![0, 1, 4, 0x40, 2, 0, m0, m1, m2, 0, 1, 0, 0, 0, 0])
        }
        (0, 0x01, _) => (0, vec![u8::from(seen.on), 0, 0]),
        (0, 0x02, _) if rules.privilege < 3 => (0xD4, vec![]),
        (0, 0x02, [1]) if seen.on => (0xD5, vec![]),
        (0, 0x02, [0 | 2 | 3 | 5]) if !seen.on => (0xD5, vec![]),
        (0, 0x02, [action]) => {
            seen.on = matches!(action, 1..=3);
            (0, vec![])
        }
        (0, 0x08, [0, state]) => match seen.in_progress {
            Some(true) if *state == 1 => (0x81, vec![]),
            Some(_) => {
                seen.in_progress = Some(*state == 1);
                (0, vec![])
            }
            None => (0x80, vec![]),
        },
        // Of the other boot parameters this BMC knows only the flags.
        (0, 0x08, [5, flags @ ..]) => {
            seen.boot.copy_from_slice(flags);
            (0, vec![])
        }
        (0, 0x08, _) => (0x80, vec![]),
        (0, 0x09, _) => (0, [&[1, 5], seen.boot.as_slice()].concat()),
        _ => (0xC1, vec![]),
    }
}
