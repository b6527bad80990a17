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
                send(&stream, method, &file, fault, range.as_deref(), &shared.stop)?
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

/// Sends a file; whether the connection goes on.
fn send(
    mut stream: &TcpStream,
    method: &str,
    path: &Path,
    fault: Fault,
    range: Option<&str>,
    stop: &AtomicBool,
) -> Result<bool> {
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
        return Ok(true);
    }
    let limit = match fault {
        Fault::Truncate(n) | Fault::Reset(n) | Fault::ResetOnce(n) | Fault::Stall(n) => n.clamp(start, end),
        _ => end,
    };
    file.seek(SeekFrom::Start(start))?;
    match fault {
        Fault::Slow(rate) => trickle(file.take(limit - start), &mut stream, rate, stop)?,
        _ => drop(std::io::copy(&mut file.take(limit - start), &mut stream)?),
    }
    match fault {
        Fault::Reset(_) | Fault::ResetOnce(_) if limit < end => {
            // Closing with a linger of zero makes the kernel send RST.
            socket_linger_zero(stream)?;
            Ok(false)
        }
        Fault::Stall(_) if limit < end => {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(false)
        }
        _ => Ok(limit == end),
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
