//! Places of signatures on disks of any size, and types of partitions.
#![no_main]

use ferric_common::formats::signatures::{protected_gpt_type, protected_mbr_type, spots};
use ferric_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let size = input.number();
    for spot in spots(size) {
        assert!(spot.at + spot.magic.len() as u64 <= size && !spot.magic.is_empty());
    }
    let _ = protected_mbr_type(input.byte());
    if let Some(guid) = input.0.first_chunk() {
        let _ = protected_gpt_type(guid);
    }
});
