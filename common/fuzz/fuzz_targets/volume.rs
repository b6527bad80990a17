//! What a file system calls itself.
#![no_main]

use ferric_common::formats::volume::{HEAD, read};
use ferric_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    // Superblocks stand far apart: the bytes go to one of the places where one is looked for.
    let at = [0, 1024, 32_768, 65_536][usize::from(input.byte() & 3)];
    let mut head = vec![0; HEAD];
    let count = input.0.len().min(HEAD - at);
    head[at..at + count].copy_from_slice(&input.0[..count]);
    let Some(volume) = read(&head) else { return };
    let uuid = volume.uuid.as_deref();
    match volume.kind {
        "iso9660" => assert!(uuid.is_none() && volume.publisher.is_some()),
        "vfat" => assert!(uuid.is_some_and(|uuid| uuid.len() == 9) && volume.publisher.is_none()),
        "ext4" | "xfs" | "btrfs" => assert!(uuid.is_none_or(|uuid| uuid.len() == 36)),
        other => panic!("{other} is none that is known"),
    }
});
