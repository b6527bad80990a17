//! A config drive that becomes another: FAT is read, and written for other sectors. What was written is read as the same files.
#![no_main]

use ferric_common::formats::fat::{self, read};
use ferric_common::units::{ByteCount, SectorSize};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|image: &[u8]| {
    let most = ByteCount(1 << 20);
    let entries = match read::read(image, most) {
        Ok(entries) => entries,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(read::sector_size(image).is_some_and(|sector| sector.is_power_of_two()));
    assert!(entries.iter().enumerate().skip(1).all(|(at, entry)| entry.parent < at));
    let bytes: usize = entries.iter().filter_map(|entry| entry.bytes.as_deref()).map(<[u8]>::len).sum();
    assert!(bytes as u64 <= most.0);
    let Ok(made) = fat::build("CONFIG-2", 1, SectorSize(4096), &entries) else { return };
    assert!(made.len() >= bytes && made.len().is_multiple_of(4096));
    let again = read::read(&made, most).expect("what was written is read");
    assert_eq!(again.len(), entries.len());
    let mut names: Vec<_> = entries.iter().map(|entry| (&entry.name, &entry.bytes)).collect();
    let mut names_again: Vec<_> = again.iter().map(|entry| (&entry.name, &entry.bytes)).collect();
    names.sort();
    names_again.sort();
    assert_eq!(names, names_again);
});
