//! Compressed raw images: one stream in, the disk's bytes out. gzip, xz, zstd and bzip2, with all their members or frames,
//! every checksum they bring checked, and memory that the stream cannot raise.

use super::Packing;
use super::buffers::Chunk;
use super::error::ImageError;
use super::queue::{Queue, Stop};
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Memory that xz may take, in bytes: its dictionary and little more. `xz -8` needs 33 MiB, `xz -9` 65.
pub const WINDOW: u64 = 48 << 20;
/// Largest window of zstd as a power of two: 8 MiB, what `zstd -19` uses; `--ultra` and `--long` ask for more.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Bytes unpacked to see what the image begins with.
const PREVIEW: usize = 1 << 20;

/// A reader of what the stream holds.
///
/// # Errors
/// The decoder's, from its reads: damage, a wrong checksum, too much memory, an end that comes too early.
pub fn open<'a>(packing: Packing, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        Packing::Gz => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Packing::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(WINDOW, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Packing::Zst => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Packing::Bz2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
    })
}

/// What went wrong at byte `at` of the output, in an operator's words.
pub fn fault(packing: Packing, at: u64, error: &io::Error) -> ImageError {
    let text = error.to_string();
    let memory = "needs more memory to unpack than is set aside for it; compress the image";
    let what = match packing {
        Packing::Xz if text.contains("memory") || text.contains("limit") => {
            format!("it {memory} with xz -8 or less")
        }
        Packing::Zst if text.contains("memory") => {
            format!("it {memory} with zstd -19 or less, without --long")
        }
        // What is meant is a frame that holds more than it says, not our buffer.
        Packing::Zst if text.contains("buffer is too small") => "Data corruption detected".to_string(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "it ends too early".to_string(),
        _ => text,
    };
    ImageError::Unpack { packing: packing.name(), at, what }
}

/// The first bytes of the unpacked image, as many as the first bytes of the file hold.
///
/// # Errors
/// [`ImageError::Unpack`] if even the start is damaged.
pub fn preview(packing: Packing, start: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut reader = open(packing, start).map_err(|e| fault(packing, 0, &e))?;
    let mut bytes = vec![0; PREVIEW];
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(bytes.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => filled += count,
            // The start of the file ends in the middle of the stream.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(fault(packing, filled as u64, &e)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The file as a decoder reads it: chunk after chunk from a queue.
pub struct Feed<'a> {
    queue: &'a Queue<Arc<Chunk>>,
    stop: &'a Stop,
    chunk: Option<Arc<Chunk>>,
    at: usize,
    /// Nanoseconds spent waiting for the file.
    waited: &'a AtomicU64,
}

impl<'a> Feed<'a> {
    pub fn new(queue: &'a Queue<Arc<Chunk>>, stop: &'a Stop, waited: &'a AtomicU64) -> Feed<'a> {
        Feed { queue, stop, chunk: None, at: 0, waited }
    }
    fn left(&self) -> &[u8] {
        self.chunk.as_ref().and_then(|chunk| chunk.bytes().get(self.at..)).unwrap_or_default()
    }
}

impl BufRead for Feed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left().is_empty() {
            let start = Instant::now();
            self.at = 0;
            self.chunk = self.queue.pop(self.stop);
            self.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            if self.stop.is_set() {
                return Err(io::Error::other("stopped"));
            }
        }
        Ok(self.left())
    }
    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let count = bytes.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
