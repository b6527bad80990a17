//! A command's body: parsed while it comes, within a bound, so that a config drive of 64 MiB is held once and not as text
//! of a request as well.

use super::error::ApiError;
use super::json;
use bytes::Bytes;
use ferric_common::limits;
use http::header::HeaderValue;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Pieces that wait for the parser; one is what a single read of the socket gave.
const WAITING: usize = 4;

/// Reads a body whose sender showed the token.
///
/// # Errors
/// [`ApiError`]: too large, too slow, cut off, or no JSON.
pub async fn read(body: Incoming, length: Option<&HeaderValue>) -> Result<Value, ApiError> {
    let declared = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    if declared > limits::BODY_COMMAND as u64 {
        return Err(ApiError::TooLarge(limits::BODY_COMMAND));
    }
    let (pieces, inbox) = mpsc::channel(WAITING);
    // A thread that may block: it waits for pieces, and ends with the sender.
    let parser = tokio::task::spawn_blocking(|| json::parse(Pieces { inbox, current: Bytes::new() }));
    feed(body, pieces).await?;
    let parsed = parser.await.map_err(|error| ApiError::Crash(format!("parsing the body: {error}")))?;
    parsed.map_err(ApiError::Json)
}

/// Hands the body on piece by piece. What comes after an error of the parser is read and dropped, as the client sends all
/// before it listens.
async fn feed(body: Incoming, pieces: mpsc::Sender<Bytes>) -> Result<(), ApiError> {
    let mut body = Limited::new(body, limits::BODY_COMMAND);
    loop {
        let frame = tokio::time::timeout(limits::BODY_IDLE, body.frame())
            .await
            .map_err(|_| ApiError::Slow(limits::BODY_IDLE.as_secs()))?;
        match frame {
            None => return Ok(()),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    let _ = pieces.send(data).await;
                }
            }
            Some(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(ApiError::TooLarge(limits::BODY_COMMAND));
            }
            Some(Err(error)) => return Err(ApiError::Request(format!("reading the body: {error}"))),
        }
    }
}

/// The body as the parser reads it.
struct Pieces {
    inbox: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.inbox.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        let piece = self.current.split_to(count);
        if let Some(room) = buffer.get_mut(..count) {
            room.copy_from_slice(&piece);
        }
        Ok(count)
    }
}
