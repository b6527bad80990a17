//! Where image bytes come from: a file, or HTTP(S) with ranges, resume and fail-over. Blocking; runs on the reader thread.

mod answer;
mod head;
mod http;
mod message;
mod wire;

use super::{CancelFlag, ImageError, ImageRequest, ProgressCell, Timeouts};
use http::HttpSource;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of the file that are looked at before anything is decided.
pub const START: usize = 1 << 20;

/// An open image.
pub enum Source {
    File(FileSource),
    Http(Box<HttpSource>),
}

/// A local image.
pub struct FileSource {
    name: String,
    file: File,
    length: u64,
    at: u64,
    start: Vec<u8>,
}

/// How an image is fetched, apart from what it is.
#[derive(Clone)]
pub struct Way {
    pub tls: Arc<rustls::ClientConfig>,
    pub timeouts: Timeouts,
    /// When the write began: from here the time for the whole runs.
    pub began: Instant,
    pub cancel: CancelFlag,
    /// Where retries are told.
    pub progress: ProgressCell,
}

/// Where an image may be.
#[derive(Debug, PartialEq)]
enum Place<'a> {
    File(&'a str),
    /// All that are given.
    Servers(Vec<String>),
}

/// In the order in which they are tried.
fn places(urls: &[String]) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for url in urls {
        match url.strip_prefix("file://") {
            Some(path) => places.push(Place::File(path)),
            None if places.iter().any(|p| matches!(p, Place::Servers(_))) => {}
            None => {
                let servers = urls.iter().filter(|url| !url.starts_with("file://"));
                places.push(Place::Servers(servers.cloned().collect()));
            }
        }
    }
    places
}

impl Source {
    /// Opens the first place that has the image, from the `first` on, and reads the start of it; which one it was stands in `first`
    /// then. Files are tried in their turn, and all servers together in that of the first: one takes over from another in
    /// mid-transfer.
    ///
    /// # Errors
    /// [`ImageError::Url`], [`ImageError::Refused`], [`ImageError::Fetch`], [`ImageError::Overtime`], [`ImageError::Empty`]: of the
    /// last place, or of one where another try may help.
    pub fn open(image: &ImageRequest, way: &Way, first: &mut usize) -> Result<Source, ImageError> {
        let mut failed: Option<ImageError> = None;
        let places = places(&image.urls);
        let count = places.len().max(1);
        let turn = places.iter().enumerate().cycle().skip(*first % count).take(places.len());
        for (nth, place) in turn {
            if let Some(error) = &failed {
                tracing::warn!("{error}; trying the next place of image {}", image.id);
            }
            match Source::open_place(place, image, way) {
                Ok(source) => {
                    *first = nth;
                    return Ok(source);
                }
                Err(ImageError::Cancelled) => return Err(ImageError::Cancelled),
                Err(error) if failed.as_ref().is_some_and(|f| f.is_transient() && !error.is_transient()) => {
                    tracing::warn!("{error}");
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed
            .unwrap_or_else(|| ImageError::Url { url: String::new(), why: "no URL was given".to_string() }))
    }

    fn open_place(place: &Place, image: &ImageRequest, way: &Way) -> Result<Source, ImageError> {
        let source = match place {
            Place::File(path) => Source::File(FileSource::open(path)?),
            Place::Servers(urls) => {
                let image = ImageRequest { urls: urls.clone(), ..image.clone() };
                Source::Http(Box::new(HttpSource::open(&image, way.clone())?))
            }
        };
        if source.start().is_empty() {
            return Err(ImageError::Empty);
        }
        Ok(source)
    }
    /// The first bytes of the file, at most [`START`].
    pub fn start(&self) -> &[u8] {
        match self {
            Source::File(file) => &file.start,
            Source::Http(http) => http.start(),
        }
    }
    /// Length of the file, where the server says it.
    pub fn length(&self) -> Option<u64> {
        match self {
            Source::File(file) => Some(file.length),
            Source::Http(http) => http.length(),
        }
    }
    /// Whether [`Source::fetch`] works.
    pub fn has_ranges(&self) -> bool {
        match self {
            Source::File(_) => true,
            Source::Http(http) => http.has_ranges(),
        }
    }
    /// Whether asking for many small parts costs next to nothing.
    pub fn is_local(&self) -> bool {
        matches!(self, Source::File(_))
    }
    /// The name under which errors speak of it; holds no password.
    pub fn name(&self) -> &str {
        match self {
            Source::File(file) => &file.name,
            Source::Http(http) => http.name(),
        }
    }
    /// How many times the transfer was taken up again.
    pub fn resumes(&self) -> u32 {
        match self {
            Source::File(_) => 0,
            Source::Http(http) => http.resumes(),
        }
    }
    /// Exactly these bytes of the file.
    ///
    /// # Errors
    /// [`ImageError::Fetch`], [`ImageError::Changed`], [`ImageError::Truncated`].
    pub fn fetch(&mut self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        match self {
            Source::File(file) => file.fetch(range),
            Source::Http(http) => http.fetch(range),
        }
    }
    /// Sets the stream back to byte 0.
    pub fn rewind(&mut self) {
        match self {
            Source::File(file) => file.at = 0,
            Source::Http(http) => http.rewind(),
        }
    }
    /// The next bytes of the stream; 0 only at the proper end of the file.
    ///
    /// # Errors
    /// As [`Source::fetch`], when no further try helped.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        match self {
            Source::File(file) => file.read(buffer),
            Source::Http(http) => http.read(buffer),
        }
    }
}

impl FileSource {
    fn open(path: &str) -> Result<FileSource, ImageError> {
        let fault = |e: std::io::Error| ImageError::Url { url: path.to_string(), why: e.to_string() };
        let file = File::open(path).map_err(fault)?;
        let meta = file.metadata().map_err(fault)?;
        if !meta.is_file() {
            return Err(ImageError::Url { url: path.to_string(), why: "not a regular file".into() });
        }
        let mut source =
            FileSource { name: path.to_string(), file, length: meta.len(), at: 0, start: Vec::new() };
        source.start = source.fetch(0..meta.len().min(START as u64))?;
        Ok(source)
    }
    fn fault(&self, at: u64, e: &std::io::Error) -> ImageError {
        ImageError::Fetch { url: self.name.clone(), at, tries: 1, cause: e.to_string() }
    }
    fn fetch(&mut self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![0u8; range.end.saturating_sub(range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start).map_err(|e| self.fault(range.start, &e))?;
        Ok(bytes)
    }
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let count = self.file.read_at(buffer, self.at).map_err(|e| self.fault(self.at, &e))?;
        self.at += count as u64;
        if count == 0 && self.at < self.length && !buffer.is_empty() {
            let (got, expected) = (self.at.into(), self.length.into());
            return Err(ImageError::Truncated { url: self.name.clone(), got, expected });
        }
        Ok(count)
    }
}
