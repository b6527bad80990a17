//! Partition tables of the older kind.
#![no_main]

use ferric_common::formats::mbr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(entries) = mbr::parse(data) else { return };
    let before = entries.collect::<Vec<_>>();
    let mut head = data.to_vec();
    mbr::fit_protective(&mut head, 1 << 40);
    assert_eq!(mbr::is_protective(&head), mbr::is_protective(data));
    let Some(number) = (1..=4).find(|n| before.iter().all(|entry| entry.number != *n)) else { return };
    let one = mbr::Entry { number, kind: mbr::FAT32_LBA, first: 77, count: 88 };
    let mut head = data.to_vec();
    mbr::add(&mut head, &one);
    let after = mbr::parse(&head).unwrap().collect::<Vec<_>>();
    assert!(after.len() == before.len() + 1 && after.contains(&one));
    assert!(before.iter().all(|entry| after.contains(entry)));
});
