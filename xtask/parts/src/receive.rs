//! Receives a file over HTTP and throws it away.

use crate::meter::{MIB, plain};
use anyhow::{Context, Result, ensure};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

pub fn measure(url: &str) -> Result<()> {
    let length = length(url)?;
    plain("receive over HTTP", length, || receive(url, length))
}

fn length(url: &str) -> Result<usize> {
    Ok(ask(url, "HEAD")?.1)
}

fn receive(url: &str, length: usize) -> Result<()> {
    let (mut stream, _) = ask(url, "GET")?;
    let mut buffer = vec![0; MIB];
    let mut got = 0;
    while got < length {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "{url} ended after {got} of {length} bytes");
        black_box(&buffer);
        got += count;
    }
    Ok(())
}

/// Sends a request; the stream behind the answer's header, and the length it promises.
fn ask(url: &str, method: &str) -> Result<(impl Read + use<>, usize)> {
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .with_context(|| format!("{url} is not http://HOST:PORT/PATH"))?;
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    // Reads larger than this buffer pass it by.
    let mut lines = BufReader::with_capacity(4096, stream);
    let mut status = String::new();
    lines.read_line(&mut status)?;
    ensure!(status.split_whitespace().nth(1) == Some("200"), "{url}: {}", status.trim());
    let mut length = None;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.trim().parse()?);
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok((lines, length.with_context(|| format!("{url}: no Content-Length"))?))
}
