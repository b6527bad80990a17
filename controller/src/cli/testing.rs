//! A tiny HTTP server for tests: it plays answers one after the other and keeps what was asked.

use super::client::Api;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Answer {
    status: u16,
    body: String,
}

pub fn answer(status: u16, body: Value) -> Answer {
    Answer { status, body: if body.is_null() { String::new() } else { body.to_string() } }
}

/// A request as it came: "METHOD path", headers in lower case, body.
#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub head: String,
    pub body: Value,
}

pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves the answers in order; the last one again and again.
    pub fn start(answers: Vec<Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for n in 0.. {
                let Ok((stream, _)) = listener.accept() else { return };
                let mut reader = BufReader::new(stream);
                let Some(asked) = read(&mut reader) else { continue };
                log.lock().unwrap().push(asked);
                let Answer { status, body } = &answers[n.min(answers.len() - 1)];
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = reader.get_mut().write_all((head + body).as_bytes());
            }
        });
        Server { url, seen }
    }

    pub fn api(&self) -> Api {
        let mut api = Api::new(&self.url).unwrap();
        api.pause = Duration::from_millis(1);
        api
    }

    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }

    /// "METHOD path" of each request.
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|asked| asked.line).collect()
    }
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.rsplit_once(' ')?.0.to_string();
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(n) = header.strip_prefix("content-length: ") {
            length = n.parse().unwrap();
        }
        head.push_str(&header);
        head.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, head, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}
