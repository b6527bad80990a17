//! The least of a conductor: answers an agent's version question, lookup and heartbeats, over IPv6 and IPv4, and remembers what
//! it was told. For tests that are about the way to the controller.

use crate::wait;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub const PORT: u16 = 6385;
pub const NODE: &str = "11111111-2222-4333-8444-555555555555";
/// The token that it hands out: 43 characters.
pub const TOKEN: &str = "lookup-server-token-0123456789-abcdefghijkl";

/// A running server; ends with its handle.
#[derive(Debug)]
pub struct Lookup {
    told: Arc<Mutex<Vec<(String, Value)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lookup {
    /// Serves at all addresses of this thread's network.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("opening port 6385")?;
        listener.set_nonblocking(true)?;
        let (told, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (heard, stopped) = (Arc::clone(&told), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("lookup server".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, &heard)),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        })?;
        Ok(Self { told, stop, thread: Some(thread) })
    }

    /// The first heartbeat.
    pub fn heartbeat(&self, within: Duration, state: impl FnOnce() -> String) -> Result<Value> {
        let found = || {
            let told = self.told.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            Ok(told
                .iter()
                .find(|(target, _)| target.contains("/v1/heartbeat/"))
                .map(|(_, body)| body.clone()))
        };
        wait::until("a heartbeat", within, found, state)
    }

    /// The request lines so far.
    pub fn requests(&self) -> Vec<String> {
        self.told
            .lock()
            .map(|told| told.iter().map(|(target, _)| target.clone()).collect())
            .unwrap_or_default()
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// One request, one answer, and the connection ends.
fn answer(stream: TcpStream, told: &Mutex<Vec<(String, Value)>>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0_u64);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    reader.take(length.min(1 << 20)).read_to_end(&mut body)?;
    let (status, text) = if first.contains("/v1/lookup") {
        let node = json!({"uuid": NODE, "properties": {}, "instance_info": {}, "driver_internal_info": {}, "links": []});
        let config = json!({"heartbeat_timeout": 300, "agent_token": TOKEN, "agent_token_required": true});
        ("200 OK", json!({"node": node, "config": config}).to_string())
    } else if first.contains("/v1/heartbeat/") {
        ("202 Accepted", String::new())
    } else {
        ("200 OK", json!({"default_version": {"version": "1.90"}}).to_string())
    };
    let parsed = serde_json::from_slice(&body).unwrap_or(Value::Null);
    told.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.push((first.trim().to_owned(), parsed));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    Ok(())
}
