//! Config drives: whatever files go in, their bytes come out.
#![no_main]

use ferric_common::formats::iso9660::{File, build};
use ferric_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (time, label) = (input.number(), input.text());
    let mut parts = Vec::new();
    while !input.0.is_empty() {
        parts.push((input.text(), input.part()));
    }
    let files = parts.iter().map(|(path, bytes)| File { path, bytes }).collect::<Vec<_>>();
    match build(&label, "ferric", &files, time) {
        Ok(image) => {
            assert!(image.len().is_multiple_of(2048) && image[0x8001..].starts_with(b"CD001"));
            let content = |bytes: &[u8]| image.chunks(2048).any(|sector| sector.starts_with(bytes));
            assert!(files.iter().all(|file| file.bytes.len() > 2048 || content(file.bytes)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
