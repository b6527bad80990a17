//! Compressed raw images: the same comes out however the stream is cut and whatever room there is, and no more than is taken.
#![no_main]

use ferric_fuzz::image::buffers::Pool;
use ferric_fuzz::image::queue::{Queue, Stop};
use ferric_fuzz::image::unpack::{self, Feed};
use ferric_fuzz::image::{ImageError, Packing};
use ferric_fuzz::{Cuts, Input};
use libfuzzer_sys::fuzz_target;
use std::io::Read;
use std::sync::atomic::AtomicU64;

/// Bytes after which no more is taken.
const MOST: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let packing = [Packing::Gz, Packing::Xz, Packing::Zst, Packing::Bz2][input.byte() as usize % 4];
    let seed = input.number();
    let file = input.0;
    let (whole, end) = taken(packing, file, std::iter::repeat(usize::MAX));
    let (parts, other_end) = taken(packing, file, Cuts(seed));
    let damaged = Some("Data corruption detected".to_owned());
    // libzstd compares a frame's length to the one it states only where it does not end with an empty block, or came at once.
    let unsaid = packing == Packing::Zst && (end == damaged || other_end == damaged);
    assert!(unsaid || end == other_end, "{end:?} {other_end:?}");
    // Damage may be found before or after the bytes in front of it are given out.
    match (&end, &other_end) {
        (None, None) => assert!(whole == parts),
        _ => assert!(whole.starts_with(&parts) || parts.starts_with(&whole)),
    }
    match (unpack::preview(packing, file), end) {
        (Ok(start), None) => assert!(start == whole[..start.len()] && start.len() == whole.len().min(MOST)),
        (Ok(start), Some(_)) => assert!(whole.starts_with(&start) || start.starts_with(&whole)),
        (Err(_), end) => assert!(end.or(other_end).is_some()),
    }
});

/// What comes out, and what was wrong.
fn taken(packing: Packing, file: &[u8], mut cuts: impl Iterator<Item = usize>) -> (Vec<u8>, Option<String>) {
    let (queue, stop, waited) = (Queue::new(usize::MAX), Stop::default(), AtomicU64::new(0));
    let mut at = 0;
    while at < file.len() {
        let length = cuts.next().unwrap_or(1).min(file.len() - at);
        let pool = Pool::new(1, length);
        let mut buffer = pool.take(&stop).unwrap();
        buffer.bytes_mut().copy_from_slice(&file[at..at + length]);
        queue.push(pool.chunk(buffer, at as u64, length), &stop);
        at += length;
    }
    queue.close();
    let mut bytes = Vec::new();
    let words = |at: usize, error| match unpack::fault(packing, at as u64, &error) {
        ImageError::Unpack { what, .. } if !what.is_empty() => Some(what),
        other => panic!("{other}"),
    };
    let mut reader = match unpack::open(packing, Feed::new(&queue, &stop, &waited)) {
        Ok(reader) => reader,
        Err(error) => return (bytes, words(0, error)),
    };
    let mut room = vec![0; MOST];
    while bytes.len() < MOST {
        let most = cuts.next().unwrap_or(1).min(MOST - bytes.len());
        match reader.read(&mut room[..most]) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&room[..count]),
            Err(error) => return (bytes, words(0, error)),
        }
    }
    (bytes, None)
}
