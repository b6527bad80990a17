//! The head of an image server's answer, sizes of chunks, and its date.
#![no_main]

use ferric_fuzz::conductor::clock;
use ferric_fuzz::image::head::{self, Framing};
use httparse::Status;
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, UNIX_EPOCH};

fuzz_target!(|data: &[u8]| {
    let line = [data, b"\r\n"].concat();
    // An empty size is 0 to httparse, and none to us.
    if data.first().is_some_and(u8::is_ascii_hexdigit)
        && let (Some(size), Ok(Status::Complete((_, other)))) =
            (head::chunk_size(data), httparse::parse_chunk_size(&line))
    {
        assert_eq!(size, other);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let _ = clock::correction(text, now);
    }
    let Ok((head, version)) = head::parse(data) else { return };
    assert!(version <= 1 && (100..1000).contains(&head.status.as_u16()));
    let _ = head::validator(&head.headers);
    if let Some((start, total)) = head::content_range(&head.headers) {
        assert!(start < total);
    }
    if let Ok(Framing::Length(length)) = head::framing(&head) {
        assert_eq!(head::content_length(&head.headers), Some(length));
    }
});
