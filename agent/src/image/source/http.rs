//! An image over HTTP: one stream that survives cut connections, and ranges of the same file.
//!
//! A transfer is taken up again with `Range` and `If-Range`; a file that changed meanwhile is never glued. The digest of
//! the whole covers every seam in any case.

use super::connection::{self, Connection};
use super::{START, Timeouts};
use crate::image::{CancelFlag, ImageError, ImageRequest};
use bytes::{Buf, Bytes};
use ferric_common::limits;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use url::Url;

/// Progress that makes the count of tries start anew, in bytes.
const PROGRESS: u64 = 1 << 20;

/// How long a cancellation may go unheard while a server is silent.
const CANCEL_TICK: Duration = Duration::from_millis(500);

/// What tells two versions of a file apart.
#[derive(Clone, Debug, PartialEq)]
struct Validator(HeaderValue);

struct Place {
    url: Url,
    validator: Option<Validator>,
}

pub struct HttpSource {
    runtime: Runtime,
    places: Vec<Place>,
    current: usize,
    name: String,
    tls: Arc<rustls::ClientConfig>,
    authorization: Option<HeaderValue>,
    proxies: Vec<(String, Url)>,
    timeouts: Timeouts,
    cancel: CancelFlag,
    born: Instant,
    connection: Option<Connection>,
    length: Option<u64>,
    ranges: bool,
    start: Vec<u8>,
    // the stream
    at: u64,
    body: Option<Incoming>,
    /// Bytes still to be skipped: the server began at 0 again.
    skip: u64,
    pending: Bytes,
    resumes: u32,
    tries: u32,
    last_progress: u64,
    window: (Instant, u64),
}

/// Why one try failed.
enum Failure {
    /// Another try may help.
    Transient(String),
    /// The body ended in order but early, after so many bytes of it; another try may help.
    Ended(u64),
    Fatal(ImageError),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        Failure::Fatal(error)
    }
}

/// Whether a body ended in order, but before its Content-Length.
fn is_early_end(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<std::io::Error>());
    error.is_incomplete_message() || source.is_some_and(|e| e.kind() == std::io::ErrorKind::UnexpectedEof)
}

fn transient(error: impl std::error::Error) -> Failure {
    Failure::Transient(crate::image::error::chain(&error))
}

/// What an answer to a range request holds.
enum Answer {
    /// 206, begins where asked.
    Partial(Response<Incoming>),
    /// 200, begins at byte 0.
    Whole(Response<Incoming>),
}

impl HttpSource {
    pub fn open(
        image: &ImageRequest,
        tls: Arc<rustls::ClientConfig>,
        timeouts: Timeouts,
        cancel: CancelFlag,
    ) -> Result<HttpSource, ImageError> {
        let places = image.urls.iter().map(|u| Ok(Place { url: parse_url(u)?, validator: None }));
        let places = places.collect::<Result<Vec<_>, ImageError>>()?;
        let Some(first) = places.first() else {
            return Err(ImageError::Url { url: String::new(), why: "no URL was given".into() });
        };
        let name = display(&first.url);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| ImageError::Internal { what: format!("starting the network runtime: {e}") })?;
        let authorization = match &image.authorization {
            Some(text) => {
                let mut value = HeaderValue::from_str(text).map_err(|_| ImageError::Url {
                    url: name.clone(),
                    why: "the Authorization value holds characters that no header may hold".into(),
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let proxies = image
            .proxies
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(scheme, value)| Ok((scheme.clone(), parse_url(value)?)))
            .collect::<Result<Vec<_>, ImageError>>()?;
        let now = Instant::now();
        let mut source = HttpSource {
            runtime,
            places,
            current: 0,
            name,
            tls,
            authorization,
            proxies,
            timeouts,
            cancel,
            born: now,
            connection: None,
            length: None,
            ranges: false,
            start: Vec::new(),
            at: 0,
            body: None,
            skip: 0,
            pending: Bytes::new(),
            resumes: 0,
            tries: 0,
            last_progress: 0,
            window: (now, 0),
        };
        source.probe()?;
        Ok(source)
    }

    pub fn start(&self) -> &[u8] {
        &self.start
    }
    pub fn length(&self) -> Option<u64> {
        self.length
    }
    pub fn has_ranges(&self) -> bool {
        self.ranges
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    /// The first request: asks for the first MiB as a range, which also tells whether ranges work and how long the file
    /// is. What arrives is the beginning of the stream, so nothing is transferred twice.
    fn probe(&mut self) -> Result<(), ImageError> {
        loop {
            match self.probe_once() {
                Ok(()) => {
                    self.tries = 0;
                    return Ok(());
                }
                Err(failure) => self.after(failure, 0)?,
            }
        }
    }

    fn probe_once(&mut self) -> Result<(), Failure> {
        match self.request(Some(0..START as u64), true)? {
            Answer::Partial(response) => {
                self.length = Some(
                    content_range(response.headers())
                        .ok_or_else(|| {
                            Failure::Transient(
                                "the answer to a range request has no usable Content-Range".into(),
                            )
                        })?
                        .1,
                );
                let want = self.length.unwrap_or(0).min(START as u64) as usize;
                self.start = self.collect(response.into_body(), want)?;
                self.ranges = true;
                self.rewind();
            }
            Answer::Whole(response) => {
                self.length = content_length(response.headers());
                self.ranges = false;
                self.body = Some(response.into_body());
                let want = self.length.unwrap_or(START as u64).min(START as u64) as usize;
                let mut start = Vec::new();
                self.window = (Instant::now(), 0);
                while start.len() < want {
                    self.check_rate(start.len() as u64)?;
                    match self.next_frame() {
                        Ok(Some(frame)) => start.extend_from_slice(&frame),
                        Ok(None) => break,
                        Err(Failure::Ended(_)) => return Err(Failure::Ended(start.len() as u64)),
                        Err(failure) => return Err(failure),
                    }
                }
                self.pending = Bytes::from(start.clone());
                start.truncate(START);
                self.start = start;
            }
        }
        Ok(())
    }

    pub fn rewind(&mut self) {
        self.body = None;
        self.skip = 0;
        // With ranges the start is at hand and the stream goes on behind it.
        self.pending = if self.ranges { Bytes::from(self.start.clone()) } else { Bytes::new() };
        self.at = 0;
        self.last_progress = 0;
    }

    pub fn fetch(&mut self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        if let Some(bytes) = self.start.get(range.start as usize..range.end as usize) {
            return Ok(bytes.to_vec());
        }
        loop {
            match self.fetch_once(range.clone()) {
                Ok(bytes) => {
                    self.tries = 0;
                    return Ok(bytes);
                }
                Err(failure) => self.after(failure, range.start)?,
            }
        }
    }

    fn fetch_once(&mut self, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let want = range.end.saturating_sub(range.start) as usize;
        match self.request(Some(range), false)? {
            Answer::Partial(response) => self.collect(response.into_body(), want),
            Answer::Whole(_) => {
                Err(self.changed("it no longer answers range requests, or has another ETag").into())
            }
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let mut filled = 0;
        while filled < buffer.len() {
            if !self.pending.is_empty() {
                let space = buffer.get_mut(filled..).unwrap_or_default();
                let count = self.pending.len().min(space.len());
                if let (Some(to), Some(from)) = (space.get_mut(..count), self.pending.get(..count)) {
                    to.copy_from_slice(from);
                }
                self.pending.advance(count);
                filled += count;
                self.at += count as u64;
                continue;
            }
            if let Some(length) = self.length.filter(|length| self.at >= *length) {
                self.check_end(length)?;
                break;
            }
            match self.advance() {
                Ok(Some(frame)) => self.pending = frame,
                Ok(None) => break,
                Err(failure) => {
                    self.body = None;
                    if self.at >= self.last_progress + PROGRESS {
                        self.tries = 0;
                        self.last_progress = self.at;
                    }
                    self.after(failure, self.at)?;
                    self.resumes += 1;
                }
            }
        }
        Ok(filled)
    }

    /// A body without Content-Length may go on behind the length that was announced.
    fn check_end(&mut self, expected: u64) -> Result<(), ImageError> {
        let more = match self.next_frame() {
            Ok(Some(frame)) => !frame.is_empty(),
            // Everything is here; how the connection ends does not matter.
            Ok(None) | Err(_) => false,
        };
        self.body = None;
        match more {
            true => Err(ImageError::TooLong { url: self.name.clone(), expected: expected.into() }),
            false => Ok(()),
        }
    }

    /// The next frame of the stream at `self.at`, opening the transfer (again) where needed.
    fn advance(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.body.is_none() {
            self.reopen()?;
        }
        loop {
            self.check_rate(self.at)?;
            let Some(mut frame) = self.next_frame()? else {
                return match self.length {
                    Some(expected) if self.at < expected => Err(Failure::Ended(0)),
                    _ => Ok(None),
                };
            };
            if self.skip > 0 {
                let count = self.skip.min(frame.len() as u64);
                frame.advance(count as usize);
                self.skip -= count;
            }
            if let Some(expected) = self.length
                && self.at + frame.len() as u64 > expected
            {
                let url = self.name.clone();
                return Err(ImageError::TooLong { url, expected: expected.into() }.into());
            }
            if !frame.is_empty() {
                return Ok(Some(frame));
            }
        }
    }

    fn reopen(&mut self) -> Result<(), Failure> {
        let at = self.at;
        let range = (at > 0).then_some(at..self.length.unwrap_or(u64::MAX));
        let response = match self.request(range, false)? {
            Answer::Partial(response) => response,
            Answer::Whole(response) => {
                if let (Some(before), Some(now)) = (self.length, content_length(response.headers()))
                    && before != now
                {
                    return Err(self.changed(&format!("its length is now {now}, it was {before}")).into());
                }
                // The server knows no ranges: what we have is skipped, the digest covers the seam.
                self.skip = at;
                response
            }
        };
        self.window = (Instant::now(), self.at);
        self.body = Some(response.into_body());
        Ok(())
    }

    /// A server that trickles is as useless as a silent one. `got` counts on from where [`Self::window`] began.
    fn check_rate(&mut self, got: u64) -> Result<(), Failure> {
        if self.cancel.is_set() {
            return Err(ImageError::Cancelled.into());
        }
        if self.born.elapsed() > self.timeouts.whole {
            return Err(self.give_up(format!("not complete after {:?}", self.timeouts.whole)).into());
        }
        let (since, from) = self.window;
        if since.elapsed() >= self.timeouts.slow_time {
            let rate = got.saturating_sub(from) / since.elapsed().as_secs().max(1);
            if rate < self.timeouts.slow_rate {
                return Err(Failure::Transient(format!(
                    "only {rate} bytes a second over {:?}",
                    since.elapsed()
                )));
            }
            self.window = (Instant::now(), got);
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, Failure> {
        let silence = self.timeouts.silence;
        let Some(body) = self.body.as_mut() else { return Ok(None) };
        let cancel = self.cancel.clone();
        self.runtime.block_on(async {
            let heard = Instant::now();
            loop {
                // Short waits, so that a cancellation does not wait for a silent server.
                let wait = silence.saturating_sub(heard.elapsed()).min(CANCEL_TICK);
                match tokio::time::timeout(wait, body.frame()).await {
                    Err(_) if cancel.is_set() => return Err(ImageError::Cancelled.into()),
                    Err(_) if heard.elapsed() < silence => {}
                    Err(_) => return Err(Failure::Transient(format!("no byte for {silence:?}"))),
                    Ok(None) => return Ok(None),
                    Ok(Some(Err(e))) if is_early_end(&e) => return Err(Failure::Ended(0)),
                    Ok(Some(Err(e))) => return Err(transient(e)),
                    Ok(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => return Ok(Some(data)),
                        Err(_trailers) => {}
                    },
                }
            }
        })
    }

    /// The whole of a small body.
    fn collect(&mut self, body: Incoming, want: usize) -> Result<Vec<u8>, Failure> {
        let kept = self.body.replace(body);
        let mut bytes = Vec::with_capacity(want);
        let window = std::mem::replace(&mut self.window, (Instant::now(), 0));
        let result = loop {
            if let Err(failure) = self.check_rate(bytes.len() as u64) {
                break Err(failure);
            }
            match self.next_frame() {
                Ok(Some(frame)) if bytes.len() + frame.len() <= want => bytes.extend_from_slice(&frame),
                Ok(Some(_)) => {
                    break Err(Failure::Transient("the answer is longer than the range asked for".into()));
                }
                Ok(None) if bytes.len() == want => break Ok(bytes),
                Ok(None) | Err(Failure::Ended(_)) => break Err(Failure::Ended(bytes.len() as u64)),
                Err(failure) => break Err(failure),
            }
        };
        self.body = kept;
        self.window = window;
        result
    }

    /// Sends one GET, follows redirects, judges status and headers.
    fn request(&mut self, range: Option<Range<u64>>, first: bool) -> Result<Answer, Failure> {
        let place = self.places.get(self.current).ok_or_else(|| self.give_up("no URL left".into()))?;
        let (start_url, validator) = (place.url.clone(), place.validator.clone());
        let mut url = start_url.clone();
        for _ in 0..=limits::REDIRECTS {
            let response = self.send(&url, &start_url, range.as_ref(), validator.as_ref())?;
            if response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED {
                url = redirect(&url, response.headers())?;
                continue;
            }
            return self.judge(response, range, first);
        }
        let why = format!("more than {} redirects", limits::REDIRECTS);
        Err(ImageError::Url { url: display(&start_url), why }.into())
    }

    fn send(
        &mut self,
        url: &Url,
        origin_url: &Url,
        range: Option<&Range<u64>>,
        validator: Option<&Validator>,
    ) -> Result<Response<Incoming>, Failure> {
        let origin = connection::origin(url);
        let proxy = self.proxies.iter().find(|(scheme, _)| scheme == url.scheme()).map(|(_, p)| p.clone());
        let (runtime, timeouts, tls) = (&self.runtime, &self.timeouts, &self.tls);
        let mut kept = self.connection.take().filter(|c| c.origin == origin);
        if let Some(connection) = kept.as_mut()
            && runtime.block_on(connection.sender.ready()).is_err()
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                runtime.block_on(connection::open(url, proxy.as_ref(), tls, timeouts)).map_err(transient)?
            }
        };
        let target = if connection.absolute { url.to_string() } else { path_and_query(url) };
        let mut request = Request::get(target)
            .header(header::HOST, host_header(url))
            .header(header::USER_AGENT, concat!("ferric-agent/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            let last = range.end.saturating_sub(1);
            let value = if range.end == u64::MAX {
                format!("bytes={}-", range.start)
            } else {
                format!("bytes={}-{last}", range.start)
            };
            request = request.header(header::RANGE, value);
            if let Some(Validator(value)) = validator {
                request = request.header(header::IF_RANGE, value);
            }
        }
        if let Some(value) = &self.authorization
            && connection::origin(origin_url) == origin
        {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(transient)?;
        let silence = timeouts.silence;
        let response = runtime.block_on(async {
            match tokio::time::timeout(silence, connection.sender.send_request(request)).await {
                Ok(response) => response.map_err(transient),
                Err(_) => Err(Failure::Transient(format!("no answer within {silence:?}"))),
            }
        })?;
        self.connection = Some(connection);
        Ok(response)
    }

    fn judge(
        &mut self,
        response: Response<Incoming>,
        range: Option<Range<u64>>,
        first: bool,
    ) -> Result<Answer, Failure> {
        let status = response.status();
        let url = self.name.clone();
        if let Some(place) = self.places.get_mut(self.current) {
            let now = validator(response.headers());
            match &place.validator {
                None => place.validator = now,
                Some(before) if status.is_success() && now.as_ref() != Some(before) => {
                    return Err(self.changed("its ETag or date is another").into());
                }
                Some(_) => {}
            }
        }
        match (status, range) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                let found = content_range(response.headers());
                match found {
                    Some((start, total)) if start == range.start => {
                        if !first && self.length.is_some_and(|length| length != total) {
                            return Err(self.changed(&format!("its length is now {total}")).into());
                        }
                        Ok(Answer::Partial(response))
                    }
                    _ => Err(Failure::Transient(
                        "the server answered with another range than was asked for".into(),
                    )),
                }
            }
            (StatusCode::OK, _) => Ok(Answer::Whole(response)),
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(range)) if range.start == 0 => {
                Err(ImageError::Empty.into())
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(range)) => {
                let expected = self.length.unwrap_or(0).into();
                Err(ImageError::Truncated { url, got: range.start.into(), expected }.into())
            }
            (status, _) if status.is_server_error() || matches!(status.as_u16(), 408 | 429) => {
                Err(Failure::Transient(format!("the server answered {status}")))
            }
            (status, _) => {
                let hint = match status.as_u16() {
                    401 | 403 | 407 => ": the server wants other credentials",
                    404 | 410 => ": the image is not there; check image_source",
                    _ => "",
                };
                Err(ImageError::Refused { url, status: status.to_string(), hint }.into())
            }
        }
    }

    /// Decides after a failed try: another URL, a pause, or the end.
    fn after(&mut self, failure: Failure, at: u64) -> Result<(), ImageError> {
        self.connection = None;
        if self.cancel.is_set() {
            return Err(ImageError::Cancelled);
        }
        let ended = match failure {
            Failure::Ended(more) => Some(at + more),
            _ => None,
        };
        let cause = match failure {
            Failure::Transient(cause) => cause,
            Failure::Ended(more) => format!("the connection ended after {} bytes", at + more),
            // Another server may have what this one refuses.
            Failure::Fatal(error @ ImageError::Refused { .. }) if self.current + 1 < self.places.len() => {
                error.to_string()
            }
            Failure::Fatal(error) => return Err(error),
        };
        self.tries += 1;
        let others = self.places.len() as u32;
        if self.tries >= self.timeouts.tries.saturating_mul(others.max(1)) {
            return Err(match (ended, self.length) {
                (Some(got), Some(expected)) => ImageError::Truncated {
                    url: self.name.clone(),
                    got: got.into(),
                    expected: expected.into(),
                },
                _ => ImageError::Fetch { url: self.name.clone(), at, tries: self.tries, cause },
            });
        }
        if others > 1 {
            self.current = (self.current + 1) % self.places.len();
            if let Some(place) = self.places.get(self.current) {
                self.name = display(&place.url);
            }
        }
        let pause = self.timeouts.pause.saturating_mul(1 << ((self.tries - 1) / others.max(1)).min(6));
        tracing::warn!("{} at byte {at}: {cause}; try {} in {pause:?}", self.name, self.tries + 1);
        self.cancel.pause(pause.min(Duration::from_secs(60)));
        Ok(())
    }

    fn changed(&self, what: &str) -> ImageError {
        ImageError::Changed { url: self.name.clone(), what: what.to_string() }
    }
    fn give_up(&self, cause: String) -> ImageError {
        ImageError::Fetch { url: self.name.clone(), at: self.at, tries: self.tries + 1, cause }
    }
}

fn parse_url(text: &str) -> Result<Url, ImageError> {
    let fault = |why: String| ImageError::Url { url: text.chars().take(200).collect(), why };
    if text.len() > limits::URL {
        return Err(fault(format!("longer than {} bytes", limits::URL)));
    }
    let url = Url::parse(text).map_err(|e| fault(e.to_string()))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        (scheme, _) => Err(fault(format!("scheme '{scheme}' is not served; use http, https or file"))),
    }
}

/// A URL as errors show it: no user, password or query, which may hold secrets.
fn display(url: &Url) -> String {
    format!("{}{}", connection::origin(url), url.path())
}

fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let fault = |why: &str| ImageError::Url { url: display(from), why: why.to_string() };
    let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let location = location.ok_or_else(|| fault("it redirects to nowhere"))?;
    let to = from.join(location).map_err(|e| fault(&format!("it redirects to something unusable: {e}")))?;
    match (from.scheme(), to.scheme()) {
        ("https", "http") => Err(fault("it redirects from https to http").into()),
        (_, "http" | "https") => Ok(to),
        _ => Err(fault("it redirects to something that is not http").into()),
    }
}

/// The text from the path on, without the fragment.
fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_string(),
    }
}

fn host_header(url: &Url) -> String {
    match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_string(),
    }
}

fn validator(headers: &HeaderMap) -> Option<Validator> {
    let strong = headers.get(header::ETAG).filter(|v| !v.as_bytes().starts_with(b"W/"));
    strong.or_else(|| headers.get(header::LAST_MODIFIED)).cloned().map(Validator)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// `bytes START-END/TOTAL` → (START, TOTAL).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end, total): (u64, u64, u64) = (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    (start <= end && end < total).then_some((start, total))
}
