//! Nothing that meets bytes from elsewhere may end the program.

use crate::tree::{Source, assert_none, code_files, source};

/// Files that may contain a call that can panic, each with its reason.
pub const MAY_PANIC: &[(&str, &str)] = &[];

const PANICS: [&str; 6] =
    [".unwrap()", ".expect(\"", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];

/// The crates that meet bytes from elsewhere.
const NO_PANIC: [&str; 3] = ["agent/src", "common/src", "controller/src"];

/// A call that can panic, unless clippy's rule was switched off for it a few lines above, where the reason stands.
fn panics(source: &Source, allowed: &[(&str, &str)]) -> Vec<String> {
    let is_held = NO_PANIC.iter().any(|room| source.is_below(room));
    if !is_held || allowed.iter().any(|(path, _)| *path == source.path) {
        return vec![];
    }
    let code = source.code();
    let mut faults = Vec::new();
    for (i, (number, line)) in code.iter().enumerate() {
        let above = &code[i.saturating_sub(8)..i];
        let is_allowed =
            above.iter().any(|(_, l)| l.contains("allow(clippy::") || l.contains("expect(clippy::"));
        for word in PANICS.iter().filter(|word| line.contains(**word) && !is_allowed) {
            faults.push(format!(
                "{}:{number}: {word}: bytes from elsewhere must not end the program",
                source.path
            ));
        }
    }
    faults
}

#[test]
fn nothing_that_meets_input_can_panic() {
    assert_none(code_files().iter().flat_map(|s| panics(s, MAY_PANIC)).collect());
}

#[test]
fn a_panic_is_seen_unless_it_is_reasoned_or_a_test() {
    let fault = |text: &str| panics(&source("agent/src/a.rs", text), &[]).len();
    assert_eq!(fault("let a = b.unwrap();\nlet c = d.expect(\"e\");\n"), 2);
    assert_eq!(fault("let a = b.unwrap_or(1);\nparser.expect(Token::End)?;\n"), 0);
    assert_eq!(fault("// b.unwrap()\n#[cfg(test)]\nfn t() {\n    b.unwrap();\n}\n"), 0);
    assert_eq!(fault("#[allow(clippy::expect_used)] // a constant\nlet c = d.expect(\"e\");\n"), 0);
    assert_eq!(panics(&source("xtask/src/a.rs", "b.unwrap()"), &[]).len(), 0);
}
