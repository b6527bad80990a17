//! One HTTP/1.1 connection to an image server, straight or through a proxy, in plain blocking calls.
//!
//! Body bytes go from the socket into the caller's aligned buffer without a stop on the way: an asynchronous client would
//! hand out small pieces that have to be copied together again. What the bytes mean is told by `message.rs`.

use super::head::Head;
use super::message::{Broken, Messages, Wire};
use crate::fetch::basic;
use crate::image::{CancelFlag, Timeouts};
use ferric_common::limits;
use http::StatusCode;
use http::header::HeaderValue;
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

/// A connection that may serve several requests to the same origin, one at a time.
pub struct Connection {
    pub origin: String,
    /// Requests carry the whole URL: plain HTTP through a proxy.
    pub absolute: bool,
    /// The user and password of the proxy.
    pub proxy_authorization: Option<HeaderValue>,
    line: Line,
    messages: Messages,
}

/// What is at this end of a connection: the stream, and how patient a read of it is.
struct Line {
    stream: Stream,
    silence: Duration,
    /// When what is being waited for must have come.
    until: Instant,
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
            proxy_authorization: proxy.and_then(basic),
            line: Line {
                stream: Stream::Plain(tcp),
                silence: timeouts.connect,
                until: Instant::now(),
                cancel: cancel.clone(),
                wake: 1,
            },
            messages: Messages::default(),
        };
        if secure {
            if proxy.is_some() {
                connection.tunnel(url)?;
            }
            connection = connection.secure(url, tls)?;
        }
        connection.line.silence = timeouts.silence;
        Ok(connection)
    }

    /// Asks a proxy for a tunnel to the origin of `url` (RFC 9110, CONNECT).
    fn tunnel(&mut self, url: &Url) -> Result<(), Broken> {
        let port = url.port_or_known_default().unwrap_or(443);
        let authority = format!("{}:{port}", url.host_str().unwrap_or_default());
        let mut text = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(value) = self.proxy_authorization.as_ref().and_then(|value| value.to_str().ok()) {
            text.push_str(&format!("Proxy-Authorization: {value}\r\n"));
        }
        text.push_str("\r\n");
        let head = self.ask(&text)?;
        if head.status != StatusCode::OK {
            let said = format!("the proxy refused a tunnel to {authority}: {}", head.status);
            return Err(Broken::Other(said));
        }
        match self.messages.end_of_talk() {
            true => Ok(()),
            false => Err(Broken::Other(format!("the proxy sent data into the tunnel to {authority}"))),
        }
    }

    fn secure(mut self, url: &Url, tls: &Arc<rustls::ClientConfig>) -> Result<Connection, Broken> {
        let name = ServerName::try_from(bare_host(url).to_string()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        let Stream::Plain(mut tcp) = self.line.stream else { return Ok(self) };
        let silence = self.line.silence;
        let until = Instant::now() + silence;
        while session.is_handshaking() {
            match session.complete_io(&mut tcp) {
                Ok(_) => {}
                Err(e) if !is_tick(&e) => return Err(e.into()),
                Err(_) if self.line.cancel.is_set() => return Err(Broken::Cancelled),
                Err(_) if Instant::now() < until => {}
                Err(_) => return Err(Broken::Other(format!("no TLS answer within {silence:?}"))),
            }
        }
        self.line.stream = Stream::Secure(Box::new(StreamOwned::new(session, tcp)));
        Ok(self)
    }

    /// Sends a request without a body and reads the head of its answer.
    ///
    /// # Errors
    /// What the connection gave instead of a head.
    pub fn ask(&mut self, request: &str) -> Result<Head, Broken> {
        // The answer may be no longer than this.
        self.line.wake_at(1);
        self.line.stream.write_all(request.as_bytes())?;
        self.line.stream.flush()?;
        self.line.be_patient();
        self.messages.answer(&mut self.line)
    }

    /// The next bytes of the body; 0 only at its end.
    ///
    /// # Errors
    /// A connection that broke, ended early, or was silent for too long.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        self.line.be_patient();
        self.messages.read(&mut self.line, buffer)
    }

    /// Whether the body was read to its end and another request may follow.
    pub fn is_idle(&self) -> bool {
        self.messages.is_idle()
    }
}

impl Line {
    fn be_patient(&mut self) {
        self.until = Instant::now() + self.silence;
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

impl Wire for Line {
    /// A read that looks at the cancellation and gives up when it took too long.
    fn receive(&mut self, place: &mut [u8], left: u64) -> Result<usize, Broken> {
        self.wake_at(gathered(left, place.len() as u64));
        // Bytes came all the time, but nothing that could be handed on.
        if Instant::now() >= self.until {
            return Err(Broken::Other(format!("no whole head or chunk for {:?}", self.silence)));
        }
        loop {
            if self.cancel.is_set() {
                return Err(Broken::Cancelled);
            }
            match self.stream.read(place) {
                Ok(count) => return Ok(count),
                Err(e) if !is_tick(&e) => return Err(e.into()),
                Err(_) if Instant::now() < self.until => {}
                Err(_) => return Err(Broken::Other(format!("no byte for {:?}", self.silence))),
            }
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
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::{self, JoinHandle};

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

    /// Bytes at the end of a body that a corked server holds back.
    const HELD: usize = 100;

    /// A server that sends the last bytes of its body when those before them were taken, as one does whose kernel gathers small
    /// packets (Nagle's algorithm, TCP_CORK). Says in the end whether they were; if not, it closes after ten seconds.
    fn corked(length: usize, were_taken: Receiver<()>) -> (SocketAddr, JoinHandle<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(&stream).lines();
            assert!(lines.map_while(Result::ok).any(|line| line.is_empty()), "no request came");
            let body = vec![7; length];
            let (first, held) = body.split_at(length - HELD);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").unwrap();
            stream.write_all(first).unwrap();
            let in_time = were_taken.recv_timeout(Duration::from_secs(10)).is_ok();
            in_time && stream.write_all(held).is_ok()
        };
        (address, thread::spawn(serve))
    }

    /// A small answer, and one in whose middle the kernel gathers.
    #[test]
    fn what_came_is_taken_while_a_corked_server_holds_back_the_rest() {
        for length in [57_629, 3 * WAKE as usize] {
            let (taken, were_taken) = channel();
            let (address, server) = corked(length, were_taken);
            let url = Url::parse(&format!("http://{address}/image")).unwrap();
            let (tls, cancel) = (crate::image::tests::no_trust(), CancelFlag::default());
            let opened = Connection::open(&url, None, &tls, &Timeouts::default(), &cancel);
            let mut connection = opened.unwrap_or_else(|broken| panic!("{broken:?}"));
            connection.ask("GET /image HTTP/1.1\r\n\r\n").unwrap();
            // Without ticks, a read that waits for more than there is waits for good.
            connection.line.stream.tcp().set_read_timeout(None).unwrap();
            let (mut room, mut got, mut most) = (vec![0; 1 << 20], 0, 0);
            while let Ok(count @ 1..) = connection.read(&mut room) {
                got += count;
                most = most.max(connection.line.wake);
                if got == length - HELD {
                    taken.send(()).unwrap();
                }
            }
            assert!(server.join().unwrap(), "{got} of {length} bytes were taken before the server closed");
            assert_eq!((got, most), (length, gathered(length as u64, 1 << 20)));
        }
    }
}
