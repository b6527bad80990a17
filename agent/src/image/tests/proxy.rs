//! A proxy: opens tunnels and passes plain requests on, or says what it is told to say instead.

use super::unpoisoned;
use crate::fetch::Proxies;
use std::collections::VecDeque;
use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// It is carried to where the request leads.
    Carry,
    /// These bytes are the answer, and the end; what follows the head of a yes is carried behind it.
    Say(&'static str),
    /// Nothing is said, but the connection stays.
    Mute,
}

struct Shared {
    script: Mutex<(VecDeque<Told>, Told)>,
    lines: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// A running proxy; ends with its handle.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Treats its first connections as `script` says, then all as `then`.
    pub fn new(script: impl IntoIterator<Item = Told>, then: Told) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new((script.into_iter().collect(), then)),
            lines: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let proxy = Proxy { address: listener.local_addr().unwrap(), shared: shared.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        proxy
    }
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Everything goes through this one.
    pub fn proxies(&self) -> Proxies {
        Proxies::read(&["http", "https"].map(|scheme| (scheme.to_owned(), self.url())).into(), "").unwrap()
    }
    /// The first line of each connection.
    pub fn lines(&self) -> Vec<String> {
        unpoisoned(&self.shared.lines).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let head = head(&mut stream)?;
    let line = head.lines().next().unwrap_or_default().to_string();
    unpoisoned(&shared.lines).push(line.clone());
    let told = {
        let mut script = unpoisoned(&shared.script);
        script.0.pop_front().unwrap_or(script.1)
    };
    let mut words = line.split(' ');
    let (is_tunnel, target) = (words.next() == Some("CONNECT"), words.next()?);
    let to = match is_tunnel {
        true => target,
        false => target.strip_prefix("http://")?.split('/').next()?,
    };
    match told {
        Told::Mute => {
            while !shared.stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            None
        }
        Told::Say(answer) => {
            stream.write_all(answer.as_bytes()).ok()?;
            if is_tunnel && answer.starts_with("HTTP/1.1 200 ") { carry(stream, to, "") } else { Some(()) }
        }
        Told::Carry if is_tunnel => {
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
            carry(stream, to, "")
        }
        Told::Carry => carry(stream, to, &head),
    }
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Carries bytes both ways, `first` before all others; the end of one side is the end of the other.
fn carry(mut stream: TcpStream, to: &str, first: &str) -> Option<()> {
    let mut behind = TcpStream::connect(to.parse::<SocketAddr>().ok()?).ok()?;
    behind.set_nodelay(true).ok()?;
    behind.write_all(first.as_bytes()).ok()?;
    let (mut from, mut back) = (behind.try_clone().ok()?, stream.try_clone().ok()?);
    std::thread::spawn(move || {
        copy(&mut from, &mut back).ok();
        back.shutdown(Shutdown::Both).ok();
    });
    copy(&mut stream, &mut behind).ok();
    behind.shutdown(Shutdown::Both).ok()
}
