//! The kernel command line and a file of settings.
#![no_main]

use ferric_fuzz::Input;
use ferric_fuzz::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let cmdline = input.text();
    let file = ("agent.conf".to_owned(), String::from_utf8_lossy(input.0).into_owned());
    if let Err(error) = config::parse(&cmdline, &[file], &[]) {
        assert!(!error.to_string().is_empty());
    }
});
