//! The JSON that both programs and Ironic exchange: what was read is written and read again alike.
#![no_main]

use ferric_common::wire::command::{CommandList, CommandRequest, CommandResult, ImageInfo};
use ferric_common::wire::error::ironic_text;
use ferric_common::wire::heartbeat::Heartbeat;
use ferric_common::wire::inventory::Inventory;
use ferric_common::wire::lookup::LookupResponse;
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = ironic_text(text);
    again::<CommandRequest>(text);
    again::<CommandResult>(text);
    again::<CommandList>(text);
    again::<ImageInfo>(text);
    again::<Heartbeat>(text);
    again::<Inventory>(text);
    again::<LookupResponse>(text);
});

fn again<T: DeserializeOwned + Serialize>(text: &str) {
    let Ok(read) = serde_json::from_str::<T>(text) else { return };
    let written: Value = serde_json::to_value(&read).unwrap();
    let read: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), written);
}
