//! What a file is, by its first bytes.
#![no_main]

use ferric_fuzz::controller::boot_file::FileKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert!(!FileKind::of(data).describe().is_empty());
});
