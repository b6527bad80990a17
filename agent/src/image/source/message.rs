//! What a connection's bytes mean: heads, and bodies by their length, in chunks, or up to the connection's end. Follows RFC 9112
//! (message framing, chunked coding). Pure: the bytes are asked for as they are needed, and those of a body go from the connection
//! into the caller's buffer without a stop on the way.

use super::head::{self, Framing, Head};
use ferric_common::limits;
use http::header;
use std::io;

/// Bytes read at once while a head or the size of a chunk is looked for.
const AHEAD: usize = 8 << 10;
/// Longest line of a chunk's size (with its extensions) and of a trailer.
const LINE: usize = 1024;
const TRAILERS: usize = 100;
/// Heads that may come before an answer's own: 100 Continue, 103 Early Hints.
const INTERIM: usize = 16;

/// Why a read ended without a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Where the bytes come from.
pub trait Wire {
    /// The next bytes, of which `left` at least will come if all goes well (1 where that is not known); 0 at the end.
    ///
    /// # Errors
    /// Why there are none.
    fn receive(&mut self, place: &mut [u8], left: u64) -> Result<usize, Broken>;
}

/// The answers that come on one connection, one after the other.
pub struct Messages {
    framing: Framing,
    keep_alive: bool,
    /// Bytes received behind what was looked for.
    ahead: Vec<u8>,
    ahead_at: usize,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages { framing: Framing::Done, keep_alive: true, ahead: Vec::new(), ahead_at: 0 }
    }
}

impl Messages {
    /// The head of an answer.
    ///
    /// # Errors
    /// What came instead of a head.
    pub fn answer(&mut self, wire: &mut impl Wire) -> Result<Head, Broken> {
        for _ in 0..=INTERIM {
            let head = self.head(wire)?;
            if !head.status.is_informational() {
                return Ok(head);
            }
        }
        Err(Broken::Other(format!("more than {INTERIM} interim answers came instead of one")))
    }

    fn head(&mut self, wire: &mut impl Wire) -> Result<Head, Broken> {
        const LIMIT: usize = limits::IMAGE_SERVER_HEADERS;
        let too_long = || Broken::Other(format!("the head of the answer is longer than {LIMIT} bytes"));
        self.drop_used();
        let mut looked = 0;
        let end = loop {
            let from = looked.max(3) - 3;
            let fresh = self.ahead.get(from..).unwrap_or_default();
            if let Some(at) = fresh.windows(4).position(|w| w == b"\r\n\r\n") {
                break from + at + 4;
            }
            looked = self.ahead.len();
            if looked > LIMIT {
                return Err(too_long());
            }
            if self.more(wire)? == 0 {
                let words = "the connection was closed instead of an answer";
                return Err(Broken::Other(words.into()));
            }
        };
        // However much of it came at once.
        if end > LIMIT {
            return Err(too_long());
        }
        let parsed = head::parse(self.ahead.get(..end).unwrap_or_default());
        self.ahead_at = end;
        let (head, version) = parsed.map_err(Broken::Other)?;
        self.framing = head::framing(&head).map_err(Broken::Other)?;
        let close = head::tokens(&head.headers, header::CONNECTION, "close");
        self.keep_alive = version == 1 && !close && self.framing != Framing::UntilClose;
        Ok(head)
    }

    /// The next bytes of the body; 0 only at its end. The buffer has room for one byte or more.
    ///
    /// # Errors
    /// A connection that broke or ended early.
    pub fn read(&mut self, wire: &mut impl Wire, buffer: &mut [u8]) -> Result<usize, Broken> {
        loop {
            match self.framing {
                Framing::Done => return Ok(0),
                Framing::Length(0) => self.framing = Framing::Done,
                Framing::Chunk(0) => self.framing = Framing::NextChunk { after_data: true },
                Framing::NextChunk { after_data } => self.next_chunk(wire, after_data)?,
                Framing::Length(left) => {
                    let count = self.some(wire, buffer, left)?;
                    self.framing = Framing::Length(left - count as u64);
                    return if count == 0 { Err(Broken::Early) } else { Ok(count) };
                }
                Framing::Chunk(left) => {
                    let count = self.some(wire, buffer, left)?;
                    self.framing = Framing::Chunk(left - count as u64);
                    return if count == 0 { Err(Broken::Early) } else { Ok(count) };
                }
                Framing::UntilClose => {
                    let count = self.some(wire, buffer, u64::MAX)?;
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

    /// Gives up the body, since the connection will carry something else now. Whether nothing of that has come yet.
    pub fn end_of_talk(&mut self) -> bool {
        self.framing = Framing::Done;
        self.drop_used();
        self.ahead.is_empty()
    }

    /// At most `left` bytes of the connection: what was read ahead first.
    fn some(&mut self, wire: &mut impl Wire, buffer: &mut [u8], left: u64) -> Result<usize, Broken> {
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
        wire.receive(place, left)
    }

    /// Reads more bytes ahead; 0 at the end of the connection.
    fn more(&mut self, wire: &mut impl Wire) -> Result<usize, Broken> {
        let old = self.ahead.len();
        self.ahead.resize(old + AHEAD, 0);
        let count = wire.receive(self.ahead.get_mut(old..).unwrap_or_default(), 1);
        self.ahead.truncate(old + count.as_ref().copied().unwrap_or(0));
        count
    }

    fn drop_used(&mut self) {
        self.ahead.drain(..self.ahead_at.min(self.ahead.len()));
        self.ahead_at = 0;
    }

    fn line(&mut self, wire: &mut impl Wire) -> Result<Vec<u8>, Broken> {
        loop {
            let waiting = self.ahead.get(self.ahead_at..).unwrap_or_default();
            let end = waiting.iter().position(|b| *b == b'\n');
            // However much of it came at once.
            if end.unwrap_or(waiting.len()) > LINE {
                let words = format!("a chunk of the answer has no usable size in {LINE} bytes");
                return Err(Broken::Other(words));
            }
            if let Some(end) = end {
                let line = waiting.get(..end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.ahead_at += end + 1;
                return Ok(line);
            }
            self.drop_used();
            if self.more(wire)? == 0 {
                return Err(Broken::Early);
            }
        }
    }

    fn next_chunk(&mut self, wire: &mut impl Wire, after_data: bool) -> Result<(), Broken> {
        let unusable = || Broken::Other("a chunk of the answer has no usable size".into());
        if after_data && !self.line(wire)?.is_empty() {
            return Err(unusable());
        }
        let line = self.line(wire)?;
        let size = head::chunk_size(&line).ok_or_else(unusable)?;
        if size > 0 {
            self.framing = Framing::Chunk(size);
            return Ok(());
        }
        for _ in 0..TRAILERS {
            if self.line(wire)?.is_empty() {
                self.framing = Framing::Done;
                return Ok(());
            }
        }
        Err(Broken::Other("the answer ends with too many trailers".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// Bytes that come in pieces of one length.
    struct Pieces<'a> {
        left: &'a [u8],
        length: usize,
    }

    impl Wire for Pieces<'_> {
        fn receive(&mut self, place: &mut [u8], _: u64) -> Result<usize, Broken> {
            let count = self.length.min(place.len()).min(self.left.len());
            let (piece, left) = self.left.split_at(count);
            place[..count].copy_from_slice(piece);
            self.left = left;
            Ok(count)
        }
    }

    fn told(bytes: &[u8], length: usize) -> String {
        let (mut wire, mut messages, mut said) =
            (Pieces { left: bytes, length }, Messages::default(), String::new());
        match messages.answer(&mut wire) {
            Ok(head) => write!(said, "{}", head.status.as_u16()).unwrap(),
            Err(Broken::Other(words)) => return words,
            Err(other) => return format!("{other:?}"),
        }
        let mut buffer = [0; 7];
        loop {
            match messages.read(&mut wire, &mut buffer) {
                Ok(0) => return said,
                Ok(count) => said += &String::from_utf8_lossy(&buffer[..count]),
                Err(broken) => return format!("{said}{broken:?}"),
            }
        }
    }

    fn check(bytes: &str, expected: &str) {
        for length in [1, 2, 3, 1000, 8191, usize::MAX] {
            let said = told(bytes.as_bytes(), length);
            let start = &bytes[..bytes.len().min(200)];
            assert_eq!(said, expected, "{start:?} by {length}");
        }
    }

    #[test]
    fn answers_read_the_same_however_they_are_cut() {
        let chunks = "Transfer-Encoding: chunked\r\n\r\n5;ext\r\nhello\r\n1\n!\n";
        check("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world", "200hello world");
        check(&format!("HTTP/1.1 200 OK\r\n{chunks}0\r\nA: b\r\n\r\n"), "200hello!");
        check(&format!("HTTP/1.1 200 OK\r\n{chunks}0\r\n"), "200hello!Early");
        check("HTTP/1.1 200 OK\r\n\r\nto the end", "200to the end");
        check("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello", "200helloEarly");
        check("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\ny", "200y");
        check("HTTP/1.1 200 OK\r\n", "the connection was closed instead of an answer");
    }

    #[test]
    fn what_is_too_long_is_refused_however_it_is_cut() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let unusable = "200Other(\"a chunk of the answer has no usable size in 1024 bytes\")";
        check(&format!("{chunked}1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(1021)), "200x");
        check(&format!("{chunked}1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(1022)), unusable);
        check(&format!("{chunked}1;{}", "x".repeat(2000)), unusable);
        let trailers = |count: usize| format!("{chunked}0\r\n{}\r\n", "A: b\r\n".repeat(count));
        check(&trailers(99), "200");
        check(&trailers(100), "200Other(\"the answer ends with too many trailers\")");
        let head = |length: usize| format!("HTTP/1.1 204 x\r\nA: {}\r\n\r\n", "b".repeat(length - 23));
        check(&head(64 << 10), "204");
        check(&head((64 << 10) + 1), "the head of the answer is longer than 65536 bytes");
        let waiting = |count: usize| "HTTP/1.1 100 x\r\n\r\n".repeat(count) + "HTTP/1.1 204 x\r\n\r\n";
        check(&waiting(16), "204");
        check(&waiting(17), "more than 16 interim answers came instead of one");
    }
}
