//! IP packets from the link; and what is wrapped is unwrapped.
#![no_main]

use ferric_fuzz::network::frame;
use libfuzzer_sys::fuzz_target;
use std::net::Ipv4Addr;

fuzz_target!(|data: &[u8]| {
    let _ = frame::unwrap(data);
    let payload = &data[..data.len().min(1400)];
    let packet = frame::wrap(Ipv4Addr::new(192, 0, 2, 1), payload);
    // Wrapped for a server's port: a client does not take it for an answer.
    assert_eq!(frame::unwrap(&packet), None);
});
