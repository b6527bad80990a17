//! TFTP packets: whatever was read is written and read again alike.
#![no_main]

use ferric_common::formats::tftp::{Packet, negotiate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::parse(data) else { return };
    if packet != Packet::Write {
        assert_eq!(Packet::parse(&packet.encode()).as_ref(), Ok(&packet));
    }
    if let Packet::Read { options, .. } | Packet::OptionAck(options) = &packet {
        let terms = negotiate(options, 1 << 33);
        assert!((8..=1468).contains(&terms.block) && (1..=8).contains(&terms.window));
        assert!(terms.accepted.len() <= 4);
    }
});
