//! An image over HTTP: one stream that survives cut connections, and ranges of the same file.
//!
//! A transfer is taken up again with `Range` and `If-Range`; a file that changed meanwhile is never glued. The digest of
//! the whole covers every seam in any case.

mod request;
mod retry;

use super::START;
use super::Way;
use super::answer::{self, Answer};
use super::head::{self, Head, Validator};
use super::message::Broken;
use super::wire::{self, Connection};
use crate::fetch::{Proxies, basic};
use crate::image::{CancelFlag, ImageError, ImageRequest, ProgressCell, Timeouts};
use ferric_common::limits;
use http::StatusCode;
use http::header::HeaderValue;
use request::Wanted;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use url::Url;

/// Progress that makes the count of tries start anew, in bytes.
const PROGRESS: u64 = 1 << 20;
/// Bytes read at once while what a server sends again is skipped.
const SKIP: usize = 64 << 10;

struct Place {
    url: Url,
    /// For the URL's own host.
    authorization: Option<HeaderValue>,
    validator: Option<Validator>,
    /// Bytes of the image came from here.
    gave: bool,
    /// It refused, or what it has is something else: it is not asked again.
    dropped: bool,
    /// Failed tries since there was progress.
    tries: u32,
}

pub struct HttpSource {
    places: Vec<Place>,
    current: usize,
    name: String,
    tls: Arc<rustls::ClientConfig>,
    proxies: Proxies,
    timeouts: Timeouts,
    cancel: CancelFlag,
    /// When the write began.
    began: Instant,
    /// Where retries are told, and whether one is told there.
    progress: ProgressCell,
    troubled: bool,
    /// A connection between two requests.
    idle: Option<Connection>,
    length: Option<u64>,
    ranges: bool,
    start: Vec<u8>,
    // the stream
    at: u64,
    /// The connection on which the stream comes.
    stream: Option<Connection>,
    /// Bytes still to be skipped: the server began at 0 again.
    skip: u64,
    resumes: u32,
    /// Failed tries since there was progress, of all places together.
    tries: u32,
    /// The connection that failed had brought so much that the next is asked for at once.
    moved: bool,
    last_progress: u64,
    window: (Instant, u64),
}

/// Why one try failed.
pub(super) enum Failure {
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

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        match broken {
            Broken::Cancelled => Failure::Fatal(ImageError::Cancelled),
            Broken::Early => Failure::Ended(0),
            Broken::Other(cause) => Failure::Transient(cause),
        }
    }
}

impl HttpSource {
    pub fn open(image: &ImageRequest, way: Way) -> Result<HttpSource, ImageError> {
        let Way { tls, timeouts, began, cancel, progress } = way;
        let place = |text: &String| {
            let url = answer::parse_url(text)?;
            let authorization = image.authorization.clone().or_else(|| basic(&url));
            Ok(Place { url, authorization, validator: None, gave: false, dropped: false, tries: 0 })
        };
        let (mut places, mut unusable) = (Vec::new(), Vec::new());
        for url in &image.urls {
            match place(url) {
                Ok(place) => places.push(place),
                Err(error) => unusable.push(error),
            }
        }
        let Some(first) = places.first() else {
            let none = || ImageError::Url { url: String::new(), why: "no URL was given".into() };
            return Err(unusable.pop().unwrap_or_else(none));
        };
        for error in unusable {
            tracing::warn!("{error}; the other addresses are asked");
        }
        let name = answer::display(&first.url);
        let mut source = HttpSource {
            places,
            current: 0,
            name,
            tls,
            proxies: image.proxies.clone(),
            timeouts,
            cancel,
            began,
            progress,
            troubled: false,
            idle: None,
            length: None,
            ranges: false,
            start: Vec::new(),
            at: 0,
            stream: None,
            skip: 0,
            resumes: 0,
            tries: 0,
            moved: false,
            last_progress: 0,
            window: (Instant::now(), 0),
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
                    self.count_anew();
                    self.mark_giver();
                    return Ok(());
                }
                Err(failure) => self.after(failure, 0)?,
            }
        }
    }

    fn probe_once(&mut self) -> Result<(), Failure> {
        let (found, mut connection) = self.request(Some(0..START as u64), true)?;
        match found {
            Answer::Partial(head) => {
                let (_, total) = head::content_range(&head.headers).ok_or_else(|| {
                    Failure::Transient("the answer to a range request has no usable Content-Range".into())
                })?;
                self.length = Some(total);
                self.start = self.collect(connection, total.min(START as u64) as usize)?;
                self.ranges = true;
            }
            Answer::Whole(head) => {
                self.length = head::content_length(&head.headers);
                self.ranges = false;
                let want = self.length.unwrap_or(START as u64).min(START as u64) as usize;
                self.start = self.gather(&mut connection, want)?;
                self.stream = Some(connection);
            }
        }
        // Another server may have more than nothing.
        if self.start.is_empty() { Err(ImageError::Empty.into()) } else { Ok(()) }
    }

    /// Sets the stream back to byte 0; the start is at hand and need not be sent again.
    pub fn rewind(&mut self) {
        self.stream = None;
        self.skip = 0;
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
                    self.count_anew();
                    self.mark_giver();
                    return Ok(bytes);
                }
                Err(failure) => self.after(failure, range.start)?,
            }
        }
    }

    fn fetch_once(&mut self, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let want = range.end.saturating_sub(range.start) as usize;
        match self.request(Some(range), false)? {
            (Answer::Partial(_), connection) => self.collect(connection, want),
            (Answer::Whole(_), _) => {
                Err(self.changed("it no longer answers range requests, or has another ETag").into())
            }
        }
    }

    /// The next bytes of the stream: 0 only at the proper end of the file.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let known = self.start.get(usize::try_from(self.at).unwrap_or(usize::MAX)..).unwrap_or_default();
        if !known.is_empty() {
            let count = known.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), known.get(..count)) {
                to.copy_from_slice(from);
            }
            self.at += count as u64;
            return Ok(count);
        }
        loop {
            if let Some(length) = self.length.filter(|length| self.at >= *length) {
                self.check_end(length)?;
                return Ok(0);
            }
            match self.advance(buffer) {
                Ok(count) => {
                    self.at += count as u64;
                    self.mark_giver();
                    return Ok(count);
                }
                Err(failure) => {
                    self.stream = None;
                    self.moved = self.at >= self.last_progress + PROGRESS;
                    if self.moved {
                        self.count_anew();
                        self.last_progress = self.at;
                    }
                    self.after(failure, self.at)?;
                    self.resumes += 1;
                }
            }
        }
    }

    /// A body without Content-Length may go on behind the length that was announced.
    fn check_end(&mut self, expected: u64) -> Result<(), ImageError> {
        let mut byte = [0];
        // Everything is here; how the connection ends does not matter.
        match self.stream.take().map(|mut stream| stream.read(&mut byte)) {
            Some(Ok(1..)) => Err(ImageError::TooLong { url: self.name.clone(), expected: expected.into() }),
            _ => Ok(()),
        }
    }

    /// Bytes of the stream from `self.at` on, opening the transfer (again) where needed.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.reopen()?,
        };
        self.check_rate(self.at - self.skip)?;
        while self.skip > 0 {
            let mut scratch = [0; SKIP];
            let room = self.skip.min(SKIP as u64) as usize;
            let count = stream.read(scratch.get_mut(..room).unwrap_or_default())?;
            if count == 0 {
                return Err(Failure::Ended(0));
            }
            self.skip -= count as u64;
            self.check_rate(self.at - self.skip)?;
        }
        let count = stream.read(buffer)?;
        match self.length {
            Some(expected) if count == 0 && self.at < expected => return Err(Failure::Ended(0)),
            Some(expected) if self.at + count as u64 > expected => {
                let url = self.name.clone();
                return Err(ImageError::TooLong { url, expected: expected.into() }.into());
            }
            _ => {}
        }
        self.stream = Some(stream);
        Ok(count)
    }

    fn reopen(&mut self) -> Result<Connection, Failure> {
        let at = self.at;
        // Parts are asked for only of a file whose length is known: the answer must say it.
        let range = self.length.filter(|_| at > 0).map(|length| at..length);
        self.skip = 0;
        let (found, connection) = self.request(range, false)?;
        if let Answer::Whole(head) = found {
            if let (Some(before), Some(now)) = (self.length, head::content_length(&head.headers))
                && before != now
            {
                return Err(self.changed(&format!("its length is now {now}, it was {before}")).into());
            }
            // The server knows no ranges: what we have is skipped, the digest covers the seam.
            self.skip = at;
        }
        self.window = (Instant::now(), at - self.skip);
        Ok(connection)
    }

    /// A server that trickles is as useless as a silent one. `got` counts on from where [`Self::window`] began: of a stream, what
    /// is skipped counts too.
    fn check_rate(&mut self, got: u64) -> Result<(), Failure> {
        if self.cancel.is_set() {
            return Err(ImageError::Cancelled.into());
        }
        self.check_whole()?;
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

    pub(super) fn check_whole(&self) -> Result<(), ImageError> {
        match self.timeouts.whole {
            Some(whole) if self.began.elapsed() > whole => {
                Err(ImageError::Overtime { url: self.name.clone(), at: self.at.into(), whole })
            }
            _ => Ok(()),
        }
    }

    /// The whole of a small body; the connection is kept for the next request where it can be.
    fn collect(&mut self, mut connection: Connection, want: usize) -> Result<Vec<u8>, Failure> {
        let bytes = self.gather(&mut connection, want)?;
        let short = bytes.len() as u64;
        if bytes.len() < want {
            return Err(Failure::Ended(short));
        }
        match connection.read(&mut [0])? {
            0 if connection.is_idle() => self.idle = Some(connection),
            0 => {}
            _ => return Err(Failure::Transient("the answer is longer than the range asked for".into())),
        }
        Ok(bytes)
    }

    /// The first `want` bytes of a body, fewer where it ends before.
    fn gather(&mut self, connection: &mut Connection, want: usize) -> Result<Vec<u8>, Failure> {
        let stream_window = std::mem::replace(&mut self.window, (Instant::now(), 0));
        let mut bytes = vec![0; want];
        let mut filled = 0;
        while filled < want {
            self.check_rate(filled as u64)?;
            match connection.read(bytes.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Broken::Early) => return Err(Failure::Ended(filled as u64)),
                Err(broken) => return Err(broken.into()),
            }
        }
        self.window = stream_window;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Sends one GET, follows redirects, judges status and headers.
    fn request(&mut self, range: Option<Range<u64>>, first: bool) -> Result<(Answer, Connection), Failure> {
        let place = self.places.get(self.current).ok_or_else(|| self.give_up("no URL left".into()))?;
        let wanted = Wanted {
            url: place.url.clone(),
            authorization: place.authorization.clone(),
            validator: place.validator.clone(),
            range: range.clone(),
        };
        let mut url = wanted.url.clone();
        for _ in 0..=limits::REDIRECTS {
            let (head, connection) = self.send(&url, &wanted)?;
            if head.status.is_redirection() && head.status.as_u16() != 304 {
                url = answer::redirect(&url, &head.headers)?;
                continue;
            }
            return Ok((self.judge(head, range, first)?, connection));
        }
        let why = format!("more than {} redirects", limits::REDIRECTS);
        Err(ImageError::Url { url: answer::display(&wanted.url), why }.into())
    }

    fn send(&mut self, url: &Url, wanted: &Wanted) -> Result<(Head, Connection), Failure> {
        let origin = wire::origin(url);
        if let Some(mut connection) = self.idle.take().filter(|c| c.origin == origin) {
            match connection.ask(&wanted.compose(&connection, url)) {
                Ok(head) => return Ok((head, connection)),
                Err(Broken::Cancelled) => return Err(ImageError::Cancelled.into()),
                // A server may close what was idle at any time: that is no failed try.
                Err(_) => {}
            }
        }
        let proxy = self.proxies.of(url);
        let mut connection = Connection::open(url, proxy, &self.tls, &self.timeouts, &self.cancel)?;
        let head = connection.ask(&wanted.compose(&connection, url))?;
        Ok((head, connection))
    }

    fn judge(&mut self, head: Head, range: Option<Range<u64>>, first: bool) -> Result<Answer, Failure> {
        if head.status.is_success()
            && let Some(place) = self.places.get_mut(self.current)
        {
            // With the validator went If-Range: a part then is of the same file, and need not say so again.
            let is_part = range.is_some() && head.status == StatusCode::PARTIAL_CONTENT;
            match &place.validator {
                None => place.validator = head::validator(&head.headers),
                Some(before) if !before.is_still(&head.headers).unwrap_or(is_part) => {
                    return Err(self.changed("its ETag or date is another").into());
                }
                Some(_) => {}
            }
        }
        let known = if first { None } else { self.length };
        answer::judge(head, range, known, &self.name)
    }

    fn changed(&self, what: &str) -> ImageError {
        ImageError::Changed { url: self.name.clone(), what: what.to_string() }
    }
    fn give_up(&self, cause: String) -> ImageError {
        ImageError::Fetch { url: self.name.clone(), at: self.at, tries: self.tries + 1, cause }
    }
}
