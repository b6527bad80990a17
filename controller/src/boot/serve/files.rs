//! A file as an HTTP answer: ranges, validators, and a body that is read as fast as it is taken and no faster.

use super::range::{self, Wanted};
use bytes::Bytes;
use ferric_common::limits::{BODY_IDLE, BOOT_CHUNK};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// What every answer of the boot server carries.
pub(super) type ResponseBody = Either<Full<Bytes>, FileBody>;

/// A regular file, opened.
pub(super) struct Opened {
    file: Arc<File>,
    length: u64,
    etag: String,
    last_modified: String,
}

/// Opens a regular file for serving.
pub(super) async fn open(path: PathBuf) -> io::Result<Opened> {
    tokio::task::spawn_blocking(move || open_now(&path)).await.map_err(io::Error::other)?
}

fn open_now(path: &Path) -> io::Result<Opened> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A file that is replaced or written to has another tag: place, time of change and length.
    let etag =
        format!("\"{:x}-{:x}{:09x}-{:x}\"", facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.len());
    let modified = jiff::Timestamp::from_second(facts.mtime()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let last_modified = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&modified)
        .map_err(io::Error::other)?;
    Ok(Opened { file: Arc::new(file), length: facts.len(), etag, last_modified })
}

/// Answers a GET or HEAD for the file. `done` runs when the file's last byte went into the connection.
pub(super) fn respond<F>(
    opened: Opened,
    method: &Method,
    asked: &HeaderMap,
    done: F,
) -> Response<ResponseBody>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Opened { file, length, etag, last_modified } = opened;
    let text = |name| asked.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| range::is_known(tags, &etag)) {
        return with_validators(Response::new(empty()), StatusCode::NOT_MODIFIED, &etag, &last_modified);
    }
    let current = text(header::IF_RANGE).is_none_or(|v| range::is_same_version(v, &etag, &last_modified));
    // RFC 9110: a range is defined for GET only; HEAD describes the whole file.
    let range = text(header::RANGE).filter(|_| current && method == Method::GET);
    let (status, start, end) = match range::wanted(range, length) {
        Wanted::Whole => (StatusCode::OK, 0, length),
        Wanted::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let send = status != StatusCode::RANGE_NOT_SATISFIABLE && method == Method::GET;
    let body = if send {
        let done = (end == length).then_some(done);
        Either::Right(FileBody::start(file, start, end, done))
    } else {
        empty()
    };
    let mut response = with_validators(Response::new(body), status, &etag, &last_modified);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end.saturating_sub(start)));
    let content_range = match status {
        StatusCode::PARTIAL_CONTENT => format!("bytes {start}-{}/{length}", end.saturating_sub(1)),
        StatusCode::RANGE_NOT_SATISFIABLE => format!("bytes */{length}"),
        _ => return response,
    };
    if let Ok(value) = HeaderValue::try_from(content_range) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}

fn empty() -> ResponseBody {
    Either::Left(Full::default())
}

fn with_validators(
    mut response: Response<ResponseBody>,
    status: StatusCode,
    etag: &str,
    last_modified: &str,
) -> Response<ResponseBody> {
    *response.status_mut() = status;
    for (name, value) in [(header::ETAG, etag), (header::LAST_MODIFIED, last_modified)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Bytes of a file on their way: one chunk with the connection, one waiting, one being read.
pub(super) struct FileBody {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    /// Told once the connection has taken the last byte; dropped when it broke before.
    taken: Option<oneshot::Sender<()>>,
}

impl FileBody {
    fn start<F>(file: Arc<File>, start: u64, end: u64, done: Option<F>) -> FileBody
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, chunks) = mpsc::channel(1);
        let (taken, all_taken) = oneshot::channel();
        tokio::spawn(async move {
            feed(file, start, end, sender).await;
            // Of the receiver's errors there is one: the connection broke before.
            if let (Ok(()), Some(done)) = (all_taken.await, done) {
                done.await;
            }
        });
        let mut body = FileBody { chunks, left: end.saturating_sub(start), taken: Some(taken) };
        body.took(0);
        body
    }

    fn took(&mut self, length: usize) {
        self.left = self.left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
        if self.left == 0
            && let Some(taken) = self.taken.take()
        {
            // Nobody waits for it when the reader failed.
            let _ = taken.send(());
        }
    }
}

/// Reads chunk after chunk while they are taken. A client that takes nothing for long is left.
async fn feed(file: Arc<File>, start: u64, end: u64, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut at = start;
    while at < end {
        let Ok(Ok(place)) = tokio::time::timeout(BODY_IDLE, sender.reserve()).await else { return };
        let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(BOOT_CHUNK).min(BOOT_CHUNK);
        let reader = file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0u8; wanted];
            // The file may have been cut since its length was promised: an error ends the connection, not a silent end.
            reader.read_exact_at(&mut chunk, at).map(|()| Bytes::from(chunk))
        });
        let chunk = read.await.map_err(io::Error::other).and_then(|result| result);
        let (good, length) = (chunk.is_ok(), chunk.as_ref().map_or(0, Bytes::len));
        place.send(chunk);
        if !good {
            return;
        }
        at = at.saturating_add(u64::try_from(length).unwrap_or(0));
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(cx).map(|received| match received {
            Some(Ok(chunk)) => {
                self.took(chunk.len());
                Some(Ok(Frame::data(chunk)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(io::Error::other("the file's reader stopped"))),
        })
    }
    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
