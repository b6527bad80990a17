//! A checksum file and the digits in it.
#![no_main]

use ferric_fuzz::Input;
use ferric_fuzz::commands::checksum_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (name, algorithm) = (input.text(), input.text());
    let text = String::from_utf8_lossy(input.0);
    let Ok(digits) = checksum_file::find(&text, &name) else { return };
    assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let algorithm = (!algorithm.is_empty()).then_some(algorithm.as_str());
    if let Ok(digest) = checksum_file::parse(algorithm, &digits) {
        assert_eq!(digest.hex(), digits.to_ascii_lowercase());
    }
});
