//! The bodies of requests: what both programs take is what serde_json reads.
#![no_main]

use ferric_fuzz::{api, controller};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let plain = serde_json::from_slice::<Value>(data);
    for ours in [api::json::parse(data), controller::json::parse(data)] {
        match ours {
            Ok(value) => assert_eq!(Some(&value), plain.as_ref().ok()),
            Err(text) => assert!(!text.is_empty()),
        }
    }
});
