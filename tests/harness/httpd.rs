//! A small image server, honest or broken on purpose.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What goes wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Says the whole length, closes in order after this many bytes. A `Range` request gets no more either.
    Truncate(u64),
    /// Says the whole length, resets the connection after this many bytes, each time anew.
    Reset(u64),
    /// As `Reset`, but only on the first request: a retry that continues succeeds.
    ResetOnce(u64),
    /// Resets the connection after so many bytes of an answer, so many times; then it is honest.
    Cuts {
        after: u64,
        left: u32,
    },
    /// Sends this many bytes, then nothing while the server lives.
    Stall(u64),
    /// A slow line: this many bytes a second.
    Slow(u64),
    NotFound,
    /// Ignores `Range`: always the whole file with status 200.
    NoRanges,
}

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<String, (PathBuf, Fault)>>,
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// A running server; ends with its handle.
#[derive(Debug)]
pub struct Httpd {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Httpd {
    /// Serves on a free port of `address`, in this thread's network.
    pub fn start(address: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let (address, owned) = (listener.local_addr()?, shared.clone());
        let thread = std::thread::Builder::new()
            .name("image server".into())
            .spawn(move || serve(&listener, &owned))?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Offers `file` as `/NAME` and gives its URL. Offering a name again replaces it.
    pub fn offer(&self, name: &str, file: &Path, fault: Fault) -> String {
        if let Ok(mut files) = self.shared.files.lock() {
            files.insert(format!("/{name}"), (file.to_owned(), fault));
        }
        format!("http://{}/{name}", self.address)
    }

    /// Request lines so far, with the range asked for: `GET /disk.qcow2 bytes=0-`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().map(|r| r.clone()).unwrap_or_default()
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                // A client that goes away in the middle is its own affair.
                std::thread::spawn(move || answer(stream, &shared).ok());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(_) => return,
        }
    }
}

/// One request after the other on one connection.
fn answer(stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut range = None;
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = Some(value.trim().to_owned());
            }
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Ok(mut requests) = shared.requests.lock() {
            requests
                .push(format!("{method} {path} {}", range.as_deref().unwrap_or_default()).trim().to_owned());
        }
        let found = shared.files.lock().ok().and_then(|files| files.get(path).cloned());
        let keep = match found {
            Some((file, fault)) if fault != Fault::NotFound => {
                if let Fault::ResetOnce(_) = fault
                    && method == "GET"
                    && let Ok(mut files) = shared.files.lock()
                {
                    files.insert(path.to_owned(), (file.clone(), Fault::None));
                }
                let range = range.as_deref();
                let ended = send(&stream, method, &file, fault, range, &shared.stop)?;
                if let Fault::Cuts { after, left } = fault
                    && ended == Ended::Cut
                    && let Ok(mut files) = shared.files.lock()
                {
                    let less = if left > 1 { Fault::Cuts { after, left: left - 1 } } else { Fault::None };
                    files.insert(path.to_owned(), (file, less));
                }
                ended == Ended::Whole
            }
            _ => {
                (&stream).write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                true
            }
        };
        if !keep {
            return Ok(());
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The connection goes on.
    Whole,
    /// Early, with an orderly close.
    Short,
    /// Early, with a reset.
    Cut,
}

/// Sends a file.
fn send(
    mut stream: &TcpStream,
    method: &str,
    path: &Path,
    fault: Fault,
    range: Option<&str>,
    stop: &AtomicBool,
) -> Result<Ended> {
    let mut file = File::open(path)?;
    let total = file.metadata()?.len();
    let range = range.filter(|_| fault != Fault::NoRanges).and_then(|text| parse_range(text, total));
    let (status, start, end) = match range {
        Some((start, end)) => ("206 Partial Content", start, end),
        None => ("200 OK", 0, total),
    };
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{total}\"\r\n", end - start);
    if fault != Fault::NoRanges {
        head.push_str("Accept-Ranges: bytes\r\n");
    }
    if range.is_some() {
        head.push_str(&format!("Content-Range: bytes {start}-{}/{total}\r\n", end.saturating_sub(1)));
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if method == "HEAD" {
        return Ok(Ended::Whole);
    }
    let limit = match fault {
        Fault::Truncate(n) | Fault::Reset(n) | Fault::ResetOnce(n) | Fault::Stall(n) => n.clamp(start, end),
        Fault::Cuts { after, .. } => start.saturating_add(after).min(end),
        _ => end,
    };
    file.seek(SeekFrom::Start(start))?;
    match fault {
        Fault::Slow(rate) => trickle(file.take(limit - start), &mut stream, rate, stop)?,
        _ => drop(std::io::copy(&mut file.take(limit - start), &mut stream)?),
    }
    match fault {
        Fault::Reset(_) | Fault::ResetOnce(_) | Fault::Cuts { .. } if limit < end => {
            // Closing with a linger of zero makes the kernel send RST.
            socket_linger_zero(stream)?;
            Ok(Ended::Cut)
        }
        Fault::Stall(_) if limit < end => {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(Ended::Short)
        }
        _ if limit < end => Ok(Ended::Short),
        _ => Ok(Ended::Whole),
    }
}

/// Sends ten pieces a second.
fn trickle(mut from: impl Read, to: &mut impl Write, rate: u64, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if std::io::copy(&mut from.by_ref().take((rate / 10).max(1)), to)? == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn socket_linger_zero(stream: &TcpStream) -> Result<()> {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger)
        .context("setting SO_LINGER")
}

/// `bytes=5-9`, `bytes=5-`, `bytes=-3`, as first byte and end; others are ignored, as the standard allows.
fn parse_range(text: &str, total: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (from.parse::<u64>().ok(), to.parse::<u64>().ok()) {
        (Some(from), Some(to)) => (from, to.checked_add(1)?.min(total)),
        (Some(from), None) if to.is_empty() => (from, total),
        (None, Some(length)) if from.is_empty() => (total.saturating_sub(length), total),
        _ => return None,
    };
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for a file from a byte on; what came of it until the connection ended.
    fn fetch(host: &str, start: u64) -> Vec<u8> {
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "GET /f HTTP/1.1\r\nRange: bytes={start}-\r\n\r\n").unwrap();
        // The honest answer ends because nothing more is asked; one that is cut may have ended by now.
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        // A reset is an error; what came before it is kept.
        stream.read_to_end(&mut answer).ok();
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        answer.split_off(head + 4)
    }

    #[test]
    fn a_connection_is_cut_as_often_as_was_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        std::fs::write(file.path(), &content).unwrap();
        let server = Httpd::start("127.0.0.1").unwrap();
        let url = server.offer("f", file.path(), Fault::Cuts { after: 300, left: 2 });
        let host = url.strip_prefix("http://").unwrap().strip_suffix("/f").unwrap();
        let parts = [0, 300, 600].map(|start| fetch(host, start));
        assert_eq!(parts.each_ref().map(Vec::len), [300, 300, 400]);
        assert_eq!(parts.concat(), content);
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("bytes=0-9", Some((0, 10))),
            ("bytes=5-", Some((5, 100))),
            ("bytes=-3", Some((97, 100))),
            ("bytes=90-500", Some((90, 100))),
            ("bytes=100-", None),
            ("bytes=5-4", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(parse_range(text, 100), expected, "{text}");
        }
    }
}
