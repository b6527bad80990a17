//! One HTTP/1.1 connection to an image server, straight or through a proxy, in plain blocking calls.
//!
//! Body bytes go from the socket into the caller's aligned buffer without a stop on the way: an asynchronous client would
//! hand out small pieces that have to be copied together again. Follows RFC 9112 (message framing,
//! chunked coding).

use super::Timeouts;
use super::head::{self, Framing, Head};
use crate::image::CancelFlag;
use ferric_common::limits;
use http::StatusCode;
use http::header;
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// How long a read may go without looking at the cancellation and the clock.
const TICK: Duration = Duration::from_millis(250);
/// Bytes the kernel gathers before it wakes the reader: fewer switches at the speed of a fast wire.
const WAKE: u64 = 256 << 10;
/// Bytes read at once while a head or the size of a chunk is looked for.
const AHEAD: usize = 8 << 10;
/// Longest line of a chunk's size (with its extensions) and of a trailer.
const LINE: usize = 1024;
const TRAILERS: usize = 100;

enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Secure(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buffer),
            Stream::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(bytes),
            Stream::Secure(stream) => stream.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.flush(),
            Stream::Secure(stream) => stream.flush(),
        }
    }
}

/// Why a read ended without a byte.
pub enum Broken {
    Cancelled,
    /// The connection ended in order, but the body was not complete.
    Early,
    Other(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        match error.kind() {
            // What TLS calls an end without a farewell.
            io::ErrorKind::UnexpectedEof => Broken::Early,
            _ => Broken::Other(error.to_string()),
        }
    }
}

/// A connection that may serve several requests to the same origin, one at a time.
pub struct Connection {
    pub origin: String,
    /// Requests carry the whole URL: plain HTTP through a proxy.
    pub absolute: bool,
    stream: Stream,
    framing: Framing,
    keep_alive: bool,
    /// Bytes received behind what was looked for.
    ahead: Vec<u8>,
    ahead_at: usize,
    silence: Duration,
    cancel: CancelFlag,
    wake: u64,
}

/// `scheme://host:port` of a URL.
pub fn origin(url: &Url) -> String {
    format!(
        "{}://{}:{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(0)
    )
}

fn bare_host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

impl Connection {
    /// Opens a connection for requests to `url`.
    ///
    /// # Errors
    /// The last address's error, a proxy's refusal, what is wrong with the server's certificate.
    pub fn open(
        url: &Url,
        proxy: Option<&Url>,
        tls: &Arc<rustls::ClientConfig>,
        timeouts: &Timeouts,
        cancel: &CancelFlag,
    ) -> Result<Connection, Broken> {
        let tcp = connect(proxy.unwrap_or(url), timeouts)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TICK.min(timeouts.silence)))?;
        tcp.set_write_timeout(Some(timeouts.connect))?;
        let secure = url.scheme() == "https";
        let mut connection = Connection {
            origin: origin(url),
            absolute: !secure && proxy.is_some(),
            stream: Stream::Plain(tcp),
            framing: Framing::Done,
            keep_alive: true,
            ahead: Vec::new(),
            ahead_at: 0,
            silence: timeouts.connect,
            cancel: cancel.clone(),
            wake: 1,
        };
        if secure {
            if proxy.is_some() {
                connection.tunnel(url)?;
            }
            connection = connection.secure(url, tls)?;
        }
        connection.silence = timeouts.silence;
        Ok(connection)
    }

    /// Asks a proxy for a tunnel to the origin of `url` (RFC 9110, CONNECT).
    fn tunnel(&mut self, url: &Url) -> Result<(), Broken> {
        let port = url.port_or_known_default().unwrap_or(443);
        let authority = format!("{}:{port}", url.host_str().unwrap_or_default());
        let head = self.ask(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))?;
        if head.status != StatusCode::OK {
            let said = format!("the proxy refused a tunnel to {authority}: {}", head.status);
            return Err(Broken::Other(said));
        }
        self.framing = Framing::Done;
        self.drop_used();
        match self.ahead.is_empty() {
            true => Ok(()),
            false => Err(Broken::Other(format!("the proxy sent data into the tunnel to {authority}"))),
        }
    }

    fn secure(mut self, url: &Url, tls: &Arc<rustls::ClientConfig>) -> Result<Connection, Broken> {
        let name = ServerName::try_from(bare_host(url).to_string()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        let Stream::Plain(mut tcp) = self.stream else { return Ok(self) };
        let until = Instant::now() + self.silence;
        while session.is_handshaking() {
            match session.complete_io(&mut tcp) {
                Ok(_) => {}
                Err(e) if !is_tick(&e) => return Err(e.into()),
                Err(_) if self.cancel.is_set() => return Err(Broken::Cancelled),
                Err(_) if Instant::now() < until => {}
                Err(_) => return Err(Broken::Other(format!("no TLS answer within {:?}", self.silence))),
            }
        }
        self.stream = Stream::Secure(Box::new(StreamOwned::new(session, tcp)));
        Ok(self)
    }

    /// Sends a request without a body and reads the head of its answer.
    ///
    /// # Errors
    /// What the connection gave instead of a head.
    pub fn ask(&mut self, request: &str) -> Result<Head, Broken> {
        self.wake_at(1);
        self.stream.write_all(request.as_bytes())?;
        self.stream.flush()?;
        loop {
            let head = self.head()?;
            // 100 Continue, 103 Early Hints: the answer is still to come.
            if !head.status.is_informational() {
                return Ok(head);
            }
        }
    }

    fn head(&mut self) -> Result<Head, Broken> {
        self.drop_used();
        let mut looked = 0;
        let end = loop {
            let from = looked.max(3) - 3;
            let fresh = self.ahead.get(from..).unwrap_or_default();
            if let Some(at) = fresh.windows(4).position(|w| w == b"\r\n\r\n") {
                break from + at + 4;
            }
            looked = self.ahead.len();
            if looked > limits::IMAGE_SERVER_HEADERS {
                let limit = limits::IMAGE_SERVER_HEADERS;
                return Err(Broken::Other(format!("the head of the answer is longer than {limit} bytes")));
            }
            if self.more()? == 0 {
                let words = "the connection was closed instead of an answer";
                return Err(Broken::Other(words.into()));
            }
        };
        let parsed = head::parse(self.ahead.get(..end).unwrap_or_default());
        self.ahead_at = end;
        let (head, version) = parsed.map_err(Broken::Other)?;
        self.framing = head::framing(&head).map_err(Broken::Other)?;
        let close = head::tokens(&head.headers, header::CONNECTION, "close");
        self.keep_alive = version == 1 && !close && self.framing != Framing::UntilClose;
        Ok(head)
    }

    /// The next bytes of the body; 0 only at its end.
    ///
    /// # Errors
    /// A connection that broke, ended early, or was silent for too long.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        loop {
            match self.framing {
                Framing::Done => return Ok(0),
                Framing::Length(0) => self.framing = Framing::Done,
                Framing::Chunk(0) => self.framing = Framing::NextChunk { after_data: true },
                Framing::NextChunk { after_data } => self.next_chunk(after_data)?,
                Framing::Length(left) => {
                    let count = self.some(buffer, left)?;
                    self.framing = Framing::Length(left - count as u64);
                    return if count == 0 { Err(Broken::Early) } else { Ok(count) };
                }
                Framing::Chunk(left) => {
                    let count = self.some(buffer, left)?;
                    self.framing = Framing::Chunk(left - count as u64);
                    return if count == 0 { Err(Broken::Early) } else { Ok(count) };
                }
                Framing::UntilClose => {
                    let count = self.some(buffer, u64::MAX)?;
                    if count == 0 {
                        self.framing = Framing::Done;
                    }
                    return Ok(count);
                }
            }
        }
    }

    /// Whether the body was read to its end and another request may follow.
    pub fn is_idle(&self) -> bool {
        let over = matches!(self.framing, Framing::Done | Framing::Length(0));
        over && self.keep_alive && self.ahead_at == self.ahead.len()
    }

    /// At most `left` bytes of the connection: what was read ahead first.
    fn some(&mut self, buffer: &mut [u8], left: u64) -> Result<usize, Broken> {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(place) = buffer.get_mut(..room) else { return Ok(0) };
        let waiting = self.ahead.get(self.ahead_at..).unwrap_or_default();
        if !waiting.is_empty() {
            let count = waiting.len().min(room);
            if let (Some(to), Some(from)) = (place.get_mut(..count), waiting.get(..count)) {
                to.copy_from_slice(from);
            }
            self.ahead_at += count;
            return Ok(count);
        }
        self.wake_at(gathered(left, room as u64));
        patiently(&mut self.stream, self.silence, &self.cancel, place)
    }

    /// Reads more bytes ahead; 0 at the end of the connection.
    fn more(&mut self) -> Result<usize, Broken> {
        let old = self.ahead.len();
        self.ahead.resize(old + AHEAD, 0);
        let place = self.ahead.get_mut(old..).unwrap_or_default();
        let count = patiently(&mut self.stream, self.silence, &self.cancel, place);
        self.ahead.truncate(old + count.as_ref().copied().unwrap_or(0));
        count
    }

    fn drop_used(&mut self) {
        self.ahead.drain(..self.ahead_at.min(self.ahead.len()));
        self.ahead_at = 0;
    }

    fn line(&mut self) -> Result<Vec<u8>, Broken> {
        self.wake_at(1);
        loop {
            let waiting = self.ahead.get(self.ahead_at..).unwrap_or_default();
            if let Some(end) = waiting.iter().position(|b| *b == b'\n') {
                let line = waiting.get(..end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.ahead_at += end + 1;
                return Ok(line);
            }
            if waiting.len() > LINE {
                return Err(Broken::Other("a chunk of the answer has no usable size".into()));
            }
            self.drop_used();
            if self.more()? == 0 {
                return Err(Broken::Early);
            }
        }
    }

    fn next_chunk(&mut self, after_data: bool) -> Result<(), Broken> {
        let unusable = || Broken::Other("a chunk of the answer has no usable size".into());
        if after_data && !self.line()?.is_empty() {
            return Err(unusable());
        }
        let line = self.line()?;
        let size = head::chunk_size(&line).ok_or_else(unusable)?;
        if size > 0 {
            self.framing = Framing::Chunk(size);
            return Ok(());
        }
        for _ in 0..TRAILERS {
            if self.line()?.is_empty() {
                self.framing = Framing::Done;
                return Ok(());
            }
        }
        Err(Broken::Other("the answer ends with too many trailers".into()))
    }

    /// How many bytes wake a read. Only a hint to the kernel: one that cannot do it wakes more often.
    fn wake_at(&mut self, bytes: u64) {
        let plain = matches!(self.stream, Stream::Plain(_));
        let wanted = if plain { bytes.max(1) } else { 1 };
        if wanted != self.wake {
            self.wake = wanted;
            crate::platform::linux::socket::wake_at(self.stream.tcp(), wanted);
        }
    }
}

/// Bytes the kernel may gather before a read of `room` bytes, of a body of which `left` are to come.
///
/// One at the end of a body: a server's last packet, if it is a small one, waits until those before it are acknowledged, and the
/// kernel does that only when they are read, or a quarter of a second later.
fn gathered(left: u64, room: u64) -> u64 {
    if left < 2 * WAKE { 1 } else { WAKE.min(room) }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A read that looks at the cancellation and gives up after a long silence.
fn patiently(
    stream: &mut Stream,
    silence: Duration,
    cancel: &CancelFlag,
    place: &mut [u8],
) -> Result<usize, Broken> {
    let heard = Instant::now();
    loop {
        match stream.read(place) {
            Ok(count) => return Ok(count),
            Err(e) if !is_tick(&e) => return Err(e.into()),
            Err(_) if cancel.is_set() => return Err(Broken::Cancelled),
            Err(_) if heard.elapsed() < silence => {}
            Err(_) => return Err(Broken::Other(format!("no byte for {silence:?}"))),
        }
    }
}

fn connect(url: &Url, timeouts: &Timeouts) -> Result<TcpStream, Broken> {
    let (host, port) = (bare_host(url), url.port_or_known_default().unwrap_or(80));
    let answers = (host, port)
        .to_socket_addrs()
        .map_err(|e| Broken::Other(format!("looking up the name {host}: {e}")))?;
    let mut last = Broken::Other(format!("the name {host} has no address"));
    for address in answers.take(limits::DNS_ANSWERS) {
        match TcpStream::connect_timeout(&address, timeouts.connect) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Broken::Other(format!("connecting to {address}: {e}")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::{WAKE, gathered};

    #[test]
    fn the_end_of_a_body_is_never_waited_for_whole() {
        for (left, room, bytes) in [
            (u64::MAX, 4 * WAKE, WAKE),
            (u64::MAX, 9, 9),
            (2 * WAKE, 4 * WAKE, WAKE),
            (2 * WAKE - 1, 4 * WAKE, 1),
            (57_629, 57_629, 1),
        ] {
            assert_eq!(gathered(left, room), bytes, "{left} left, room for {room}");
        }
    }
}
