//! A config drive that becomes another: ISO 9660 is read, FAT is written.
#![no_main]

use ferric_common::formats::{fat, iso9660::read, volume};
use ferric_common::units::{ByteCount, SectorSize};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // What stands before the descriptors means nothing.
    let mut image = vec![0; 32_768];
    image.extend_from_slice(data);
    let most = ByteCount(1 << 20);
    let entries = match read::read(&image, most) {
        Ok(entries) => entries,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(entries.iter().enumerate().skip(1).all(|(at, entry)| entry.parent < at));
    let bytes: usize = entries.iter().filter_map(|entry| entry.bytes.as_deref()).map(<[u8]>::len).sum();
    assert!(bytes as u64 <= most.0);
    let Ok(made) = fat::build("CONFIG-2", 1, SectorSize(4096), &entries) else { return };
    assert!(made.len() >= bytes && made.len().is_multiple_of(4096));
    assert_eq!(volume::read(&made).map(|volume| volume.label).as_deref(), Some("CONFIG-2"));
});
