//! Is the start of an image what it was declared to be?
#![no_main]

use ferric_fuzz::image::{ImageFormat, Packing, formats};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let packed = [Packing::Gz, Packing::Xz, Packing::Zst, Packing::Bz2].map(ImageFormat::Packed);
    let all = [ImageFormat::Raw, ImageFormat::Qcow2].into_iter().chain(packed);
    let taken = all.filter(|format| formats::check(*format, data).is_ok()).count();
    // No image is two things.
    assert!(taken <= 1);
});
