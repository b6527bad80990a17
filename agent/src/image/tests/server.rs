//! An image server that does what it is told, mostly wrong: HTTP/1.1 on a thread of its own, on the loopback.

use super::unpoisoned;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a body ends, counted in bytes of this body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Whole,
    /// Closed in order, short of what Content-Length says.
    Close(u64),
    /// Reset.
    Reset(u64),
    /// Nothing more comes, but the connection stays.
    Stall(u64),
    /// So many bytes every 20 ms.
    Trickle(usize),
    /// Nothing comes, not even a head.
    Mute,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub ranges: bool,
    pub etag: Option<&'static str>,
    /// Last-Modified.
    pub modified: Option<&'static str>,
    /// What If-Range is held against, where the answer does not say it.
    pub held: Option<&'static str>,
    pub end: End,
    pub status: Option<u16>,
    pub location: Option<String>,
    pub chunked: bool,
    /// Bytes sent behind the body.
    pub extra: usize,
    /// A byte of the file that is sent with one bit turned.
    pub flip: Option<u64>,
    /// What Content-Range says wrongly: start and total are shifted.
    pub shift: (i64, i64),
    /// What Content-Length says wrongly: by how much. More than comes ends with the connection closed.
    pub stated: i64,
    /// Another file.
    pub content: Option<Arc<Vec<u8>>>,
    /// Sent instead of any HTTP.
    pub raw: Option<&'static [u8]>,
}

impl Default for Answer {
    fn default() -> Answer {
        Answer {
            ranges: true,
            etag: Some("\"one\""),
            modified: None,
            held: None,
            end: End::Whole,
            status: None,
            location: None,
            chunked: false,
            extra: 0,
            flip: None,
            shift: (0, 0),
            stated: 0,
            content: None,
            raw: None,
        }
    }
}

impl Answer {
    pub fn end(end: End) -> Answer {
        Answer { end, ..Answer::default() }
    }
    pub fn status(status: u16) -> Answer {
        Answer { status: Some(status), ..Answer::default() }
    }
    pub fn redirect(to: impl Into<String>) -> Answer {
        Answer { status: Some(302), location: Some(to.into()), ..Answer::default() }
    }
    pub fn no_ranges() -> Answer {
        Answer { ranges: false, ..Answer::default() }
    }
}

/// A request as it came in; header names in lower case.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

struct Shared {
    content: Arc<Vec<u8>>,
    script: Mutex<(VecDeque<Answer>, Answer)>,
    seen: Mutex<Vec<Seen>>,
    sent: AtomicU64,
    stop: AtomicBool,
}

/// A running server; ends with its handle.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers with each of `script` once, then always with `then`.
    pub fn new(content: &[u8], script: impl IntoIterator<Item = Answer>, then: Answer) -> Server {
        Server::of(Arc::new(content.to_vec()), script, then)
    }
    pub fn of(content: Arc<Vec<u8>>, script: impl IntoIterator<Item = Answer>, then: Answer) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            content,
            script: Mutex::new((script.into_iter().collect(), then)),
            seen: Mutex::default(),
            sent: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let owned = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if owned.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, owned.clone()) else { continue };
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Server { address, shared, thread: Some(thread) }
    }
    pub fn honest(content: &[u8]) -> Server {
        Server::new(content, [], Answer::default())
    }
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    pub fn url(&self) -> String {
        format!("http://{}/disk.img", self.address)
    }
    /// The same server under another host name.
    pub fn other_host(&self) -> String {
        format!("http://localhost:{}/disk.img", self.address.port())
    }
    /// Body bytes sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
    pub fn seen(&self) -> Vec<Seen> {
        unpoisoned(&self.shared.seen).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok();
    stream.set_write_timeout(Some(Duration::from_secs(20))).ok();
    stream.set_nodelay(true).ok();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        unpoisoned(&shared.seen).push(request.clone());
        let answer = {
            let mut script = unpoisoned(&shared.script);
            script.0.pop_front().unwrap_or_else(|| script.1.clone())
        };
        if reply(stream, shared, &request, &answer).is_none() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_string();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_string()),
            None => return Some(Seen { path, headers }),
        };
    }
}

/// `None` when the connection is over.
fn reply(mut stream: &TcpStream, shared: &Shared, request: &Seen, answer: &Answer) -> Option<()> {
    if let Some(raw) = answer.raw {
        stream.write_all(raw).ok();
        return None;
    }
    if answer.end == End::Mute {
        return wait(shared);
    }
    if let Some(status) = answer.status {
        let location = answer.location.as_ref().map_or(String::new(), |l| format!("Location: {l}\r\n"));
        let head = format!("HTTP/1.1 {status} Told So\r\n{location}Content-Length: 6\r\n\r\nsorry\n");
        return stream.write_all(head.as_bytes()).ok();
    }
    let content = answer.content.as_ref().unwrap_or(&shared.content);
    let length = content.len() as u64;
    let (mut head, range) = match asked(request, answer, length) {
        Some((start, _)) if start >= length => {
            let head =
                format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{length}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes()).ok();
        }
        Some((start, end)) => {
            let said =
                (start.saturating_add_signed(answer.shift.0), length.saturating_add_signed(answer.shift.1));
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n",
                said.0,
                end - 1,
                said.1
            );
            (head, start..end)
        }
        None => ("HTTP/1.1 200 OK\r\n".to_string(), 0..length),
    };
    if let Some(etag) = answer.etag {
        head += &format!("ETag: {etag}\r\n");
    }
    if let Some(modified) = answer.modified {
        head += &format!("Last-Modified: {modified}\r\n");
    }
    let mut body = content[range.start as usize..range.end as usize].to_vec();
    if let Some(at) = answer.flip.filter(|at| range.contains(at)) {
        body[(at - range.start) as usize] ^= 4;
    }
    body.resize(body.len() + answer.extra, 0x77);
    head += &match answer.chunked {
        true => "Transfer-Encoding: chunked\r\n\r\n".to_string(),
        false => {
            let stated = (range.end - range.start).saturating_add_signed(answer.stated);
            format!("Content-Length: {stated}\r\n\r\n")
        }
    };
    stream.write_all(head.as_bytes()).ok()?;
    if answer.chunked {
        return send_chunked(stream, shared, &body, answer.end);
    }
    send(stream, shared, &body, answer.end).filter(|()| answer.stated <= 0)
}

/// The range to be sent: start and end (exclusive).
fn asked(request: &Seen, answer: &Answer, length: u64) -> Option<(u64, u64)> {
    let range = request.headers.get("range").filter(|_| answer.ranges)?.strip_prefix("bytes=")?;
    let held = answer.held.or(answer.etag).or(answer.modified);
    if request.headers.get("if-range").is_some_and(|validator| Some(validator.as_str()) != held) {
        return None;
    }
    let (start, last) = range.split_once('-')?;
    let last = last.parse::<u64>().map_or(length, |last| last + 1);
    Some((start.parse().ok()?, last.min(length)))
}

fn send(mut stream: &TcpStream, shared: &Shared, body: &[u8], end: End) -> Option<()> {
    let (count, piece, pause) = match end {
        End::Whole | End::Mute => (body.len(), 256 << 10, None),
        End::Close(n) | End::Reset(n) | End::Stall(n) => (body.len().min(n as usize), 256 << 10, None),
        End::Trickle(n) => (body.len(), n, Some(Duration::from_millis(20))),
    };
    for part in body[..count].chunks(piece) {
        stream.write_all(part).ok()?;
        shared.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
    }
    match end {
        End::Reset(_) if count < body.len() => reset(stream),
        End::Close(_) if count < body.len() => None,
        End::Stall(_) if count < body.len() => wait(shared),
        _ => Some(()),
    }
}

/// Does nothing for as long as the server lives, at the most so long that whoever waits for it shows.
fn wait(shared: &Shared) -> Option<()> {
    let until = Instant::now() + Duration::from_secs(120);
    while Instant::now() < until && !shared.stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn send_chunked(mut stream: &TcpStream, shared: &Shared, body: &[u8], end: End) -> Option<()> {
    let count = match end {
        End::Close(n) | End::Reset(n) => body.len().min(n as usize),
        _ => body.len(),
    };
    for part in body[..count].chunks(64 << 10) {
        stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).ok()?;
        stream.write_all(part).ok()?;
        stream.write_all(b"\r\n").ok()?;
        shared.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
    }
    match end {
        End::Reset(_) if count < body.len() => reset(stream),
        End::Close(_) if count < body.len() => None,
        _ => stream.write_all(b"0\r\n\r\n").ok(),
    }
}

/// Ends the connection with RST instead of FIN. What the peer's kernel has not taken yet is lost.
fn reset(stream: &TcpStream) -> Option<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
    None
}
