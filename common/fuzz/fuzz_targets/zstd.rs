//! The window of a zstd frame.
#![no_main]

use ferric_common::formats::zstd::window;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let found = window(data);
    let framed = [&[0x28, 0xb5, 0x2f, 0xfd], data].concat();
    assert!(found.is_none() || data.starts_with(&framed[..4]));
    // What follows the header does not matter.
    if let Some(found) = window(&framed) {
        assert_eq!(window(&[&framed[..], &[0xff; 16]].concat()), Some(found));
    }
});
