//! Datagrams of a BMC: within a session and outside, and what its answers hold.
#![no_main]

use ferric_fuzz::Input;
use ferric_fuzz::drivers::ipmi::commands::{self, AuthCapabilities, DeviceId};
use ferric_fuzz::drivers::ipmi::packet::{Frame, Request, parse_sessionless};
use ferric_fuzz::drivers::ipmi::rakp::{Keys, Suite};
use ferric_fuzz::drivers::ipmi::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let kind = input.byte();
    let suite = [Suite::Seventeen, Suite::Three][usize::from(kind & 1)];
    let bytes = input.0;
    if let Ok(frame) = Frame::parse(bytes) {
        let _ = frame.integrity(suite.code_len());
    }
    let request = Request { netfn: 6, command: 0x38, data: Vec::new() };
    let _ = parse_sessionless(bytes).map(|message| request.answer(kind, message));
    let _ = request.answer(kind, bytes);
    let _ = (AuthCapabilities::parse(bytes), commands::parse_chassis_status(bytes));
    let _ = (commands::parse_boot_flags(bytes), commands::completion_text(kind));
    if let Ok(device) = DeviceId::parse(bytes) {
        assert!(!device.describe().is_empty());
    }
    let keys = || Keys { integrity: vec![1; 32].into(), encryption: [2; 16].into() };
    let mut session = Session::new(suite, keys(), 7, 9);
    // Nobody without the keys is believed.
    assert!(session.open(bytes).is_err());
    // The BMC's side of the session, with anything in its message.
    let sealed = Session::new(suite, keys(), 9, 7).seal(bytes, [kind; 16]);
    if bytes.len() < 1000 {
        assert_eq!(session.open(&sealed).as_deref(), Ok(bytes));
        assert!(session.open(&sealed).is_err(), "a datagram was taken twice");
    }
});
