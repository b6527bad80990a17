//! Root device hints and lists of disks to skip, against disks of any kind.
#![no_main]

use ferric_common::hints::{Candidate, Hints, SkipList, choose, smallest};
use ferric_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (hints, disk, serial) = (input.part(), input.part(), input.text());
    let disk = serde_json::from_slice(disk).unwrap_or_default();
    let candidates = [Candidate { disk, serials: vec![serial], wwns: Vec::new() }, Candidate::default()];
    let _ = smallest(&candidates);
    let Ok(value) = serde_json::from_slice::<Value>(hints) else { return };
    if let Some(properties) = value.as_object()
        && let Ok(list) = SkipList::parse(properties)
    {
        let _ = list.skips(&candidates[0]);
    }
    match Hints::parse(&value) {
        Ok(Some(hints)) => {
            let found = choose(&hints, &candidates);
            let fits = candidates.iter().any(|candidate| hints.check(candidate).is_ok());
            assert_eq!(found.is_ok(), fits);
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
