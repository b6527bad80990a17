//! What a source opens with, and how long it may be.

use crate::tree::{Source, assert_none, code_files, files, source, without_tests};

/// Files that may be longer than 500 lines without their tests, each with its reason.
pub const LONG: &[(&str, &str)] = &[
    ("agent/src/image/source/http.rs", "one request's life: redirects, ranges, resumption share their state"),
    (
        "common/src/formats/dhcp.rs",
        "one codec, both directions side by side; most of it is the table of options",
    ),
    (
        "controller/src/drivers/ipmi/transport.rs",
        "one session's life: opening, retries and closing share their state",
    ),
];

const LONGEST: usize = 500;

fn unopened(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").map(str::trim).unwrap_or_default();
    match says.is_empty() {
        true => vec![format!("{}:1: must open with //! and what the file is for", source.path)],
        false => vec![],
    }
}

fn too_long(source: &Source, allowed: &[(&str, &str)]) -> Vec<String> {
    // Below tests/ all is test: there a long file is a long list of cases.
    let lines = if source.is_below("tests") { 0 } else { without_tests(&source.text).len() };
    match lines > LONGEST && !allowed.iter().any(|(path, _)| *path == source.path) {
        true => vec![format!(
            "{}: {lines} lines without tests, more than {LONGEST}: look for the second room inside",
            source.path
        )],
        false => vec![],
    }
}

#[test]
fn every_source_says_what_it_is_for() {
    assert_none(files(&[".rs"]).iter().flat_map(unopened).collect());
}

#[test]
fn no_file_is_too_long() {
    assert_none(code_files().iter().flat_map(|s| too_long(s, LONG)).collect());
}

#[test]
fn a_file_must_say_something_at_once() {
    for (text, faults) in
        [("//! Disks.\n", 0), ("//!\n", 1), ("use x;\n//! Disks.\n", 1), ("// Disks.", 1), ("", 1)]
    {
        assert_eq!(unopened(&source("a.rs", text)).len(), faults, "{text:?}");
    }
}

#[test]
fn a_long_file_needs_a_reason_and_tests_do_not_count() {
    let long = "x();\n".repeat(501);
    assert_eq!(too_long(&source("a.rs", &long), &[]).len(), 1);
    assert_eq!(too_long(&source("a.rs", &long), &[("a.rs", "a table")]).len(), 0);
    let tested = format!("x();\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    x();\n".repeat(501));
    assert_eq!(too_long(&source("a.rs", &tested), &[]).len(), 0);
}
