//! Takes what an inspection posts, as a conductor would, and keeps it; the first post is refused as by one that restarts.

use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of a body that are taken: what a controller takes.
const BODY: u64 = 16 << 20;
/// Where the posts are taken, behind the host.
pub const PATH: &str = "/v1/continue_inspection";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Request line and headers, lower case.
    pub head: String,
    pub body: Value,
}

/// A running server; ends with its handle.
#[derive(Debug)]
pub struct Inspector {
    posted: Arc<Mutex<Vec<Posted>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Inspector {
    /// Listens in this thread's network; names the node `uuid` in its answers.
    pub fn start(address: &str, port: u16, uuid: &str) -> Result<Self> {
        let listener =
            TcpListener::bind((address, port)).with_context(|| format!("listening on {address}:{port}"))?;
        listener.set_nonblocking(true)?;
        let (posted, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, ending, uuid) = (posted.clone(), stop.clone(), uuid.to_owned());
        let thread = std::thread::Builder::new()
            .name("inspector".into())
            .spawn(move || serve(&listener, &kept, &ending, &uuid))?;
        Ok(Self { posted, stop, thread: Some(thread) })
    }

    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().map(|posted| posted.clone()).unwrap_or_default()
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(listener: &TcpListener, posted: &Mutex<Vec<Posted>>, stop: &AtomicBool, uuid: &str) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(answer(&stream, posted, uuid)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(_) => return,
        }
    }
}

fn answer(stream: &TcpStream, posted: &Mutex<Vec<Posted>>, uuid: &str) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while lines.read_line(&mut head)? > 2 {}
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: u64 = length.context("no length")?.trim().parse()?;
    let mut body = Vec::new();
    lines.take(length.min(BODY)).read_to_end(&mut body)?;
    let body: Value = serde_json::from_slice(&body)?;
    let first = posted.lock().is_ok_and(|mut posted| {
        posted.push(Posted { head, body });
        posted.len() == 1
    });
    let (status, body) = match first {
        true => ("503 Service Unavailable", "{}".to_owned()),
        false => ("202 Accepted", format!(r#"{{"uuid": "{uuid}"}}"#)),
    };
    let length = body.len();
    write!(
        &mut &*stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}
