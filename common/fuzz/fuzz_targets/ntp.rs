//! Answers of time servers.
#![no_main]

use ferric_common::formats::ntp::Answer;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    assert!(Answer::parse(data, 0).is_err());
    // The nonce that the answer repeats.
    let nonce = data.get(24..).and_then(|rest| rest.first_chunk::<8>()).map_or(1, |b| u64::from_be_bytes(*b));
    let Ok(answer) = Answer::parse(data, nonce) else { return };
    assert!(answer.held < Duration::from_secs(60) && answer.stratum > 0);
    for elapsed in [Duration::ZERO, answer.held, Duration::MAX] {
        assert!(answer.on_arrival(elapsed) >= answer.sent);
    }
});
