//! Archives: whatever names and content go in come out again.
#![no_main]

use ferric_common::formats::cpio::{Archive, Node};
use ferric_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut archive = Archive::new();
    while !input.0.is_empty() {
        let name = input.text();
        let node = match input.byte() % 4 {
            0 => Node::Folder(0o755),
            1 => Node::File(0o644, input.part().to_vec()),
            2 => Node::Link(input.text()),
            _ => Node::Device(0o600, 5, 1),
        };
        let _ = archive.add(&name, node);
    }
    let bytes = archive.to_bytes().unwrap();
    let (mut at, mut found) = (0, 0);
    loop {
        let number = |n: usize| {
            let digits = std::str::from_utf8(&bytes[at + 6 + n * 8..][..8]).unwrap();
            usize::from_str_radix(digits, 16).unwrap()
        };
        let (size, name_size) = (number(6), number(11));
        let name = &bytes[at + 110..][..name_size - 1];
        if name == b"TRAILER!!!" && size == 0 && number(0) == 0 {
            break;
        }
        let name = std::str::from_utf8(name).unwrap();
        assert!(archive.entries().any(|(known, _)| known == name));
        found += 1;
        at = ((at + 110 + name_size).next_multiple_of(4) + size).next_multiple_of(4);
    }
    assert_eq!(found, archive.entries().count());
});
