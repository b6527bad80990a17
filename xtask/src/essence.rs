//! What a person needs of a failed command's output: the sentences that say what went wrong, without the noise around them.
//!
//! Pure. Knows the shapes that cargo, rustc, rustfmt and the test harness print; of anything else the last lines are kept.

/// Lines told of one command, and the longest of them, in characters.
const LINES: usize = 30;
const LENGTH: usize = 400;
/// Lines of one panic or one error.
const BLOCK: usize = 12;

/// Ends of commands that say no more than that something failed.
const NOISE: &[&str] = &[
    "test failed, to rerun",
    "aborting due to",
    "could not compile",
    "process didn't exit",
    "targets failed",
];

/// The essential lines of `output`, in its order.
pub fn essence(output: &str) -> Vec<String> {
    let plain = without_colours(output);
    let lines: Vec<&str> = plain.lines().map(str::trim_end).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at).map(|line| without_dots(line)) {
        let rest = lines.get(at + 1..).unwrap_or_default();
        let following = match line {
            _ if line.starts_with("Error: ") => {
                let block = until(rest, ends_error);
                found.extend(causes(line, block));
                block.len()
            }
            _ if line.starts_with("thread '") && line.contains(" panicked at ") => {
                let block = until(rest, ends_panic);
                found.push(line);
                found.extend(block.iter().take(BLOCK));
                block.len()
            }
            _ if is_compiler_error(line) => {
                let place = rest.iter().take(2).find(|l| l.trim_start().starts_with("--> "));
                found.push(line);
                found.extend(place);
                0
            }
            _ if line.starts_with("Diff in ")
                || line.ends_with("--- FAILED")
                || line.ends_with("... FAILED") =>
            {
                found.push(line);
                0
            }
            _ => 0,
        };
        at += 1 + following;
    }
    if found.is_empty() {
        found = lines.iter().copied().filter(|line| !line.trim().is_empty()).collect();
    }
    let surplus = found.len().saturating_sub(LINES);
    found.into_iter().skip(surplus).map(|line| line.chars().take(LENGTH).collect()).collect()
}

/// The last cause of an error says what happened; what stands before it says where.
fn causes<'a>(first: &'a str, block: &[&'a str]) -> Vec<&'a str> {
    let causes = block.iter().rposition(|line| line.trim() == "Caused by:");
    let told: Vec<&str> = match causes {
        Some(at) => block.get(at + 1..).unwrap_or_default().to_vec(),
        None => std::iter::once(first).chain(block.iter().copied()).collect(),
    };
    // The quiet harness counts its marks: ` 1/2`.
    let count = |line: &str| line.chars().all(|c| c.is_ascii_digit() || c == '/' || c == ' ');
    told.into_iter().filter(|line| !count(line)).take(BLOCK).collect()
}

fn until<'a, 'b>(lines: &'b [&'a str], ends: fn(&str) -> bool) -> &'b [&'a str] {
    let end = lines.iter().position(|line| ends(line)).unwrap_or(lines.len());
    lines.get(..end).unwrap_or_default()
}

fn ends_error(line: &str) -> bool {
    line.starts_with("Stack backtrace:") || line.ends_with("--- FAILED") || line.starts_with("failures:")
}

fn ends_panic(line: &str) -> bool {
    line.is_empty() || line.starts_with("note: ") || line.starts_with("stack backtrace:") || ends_error(line)
}

fn is_compiler_error(line: &str) -> bool {
    (line.starts_with("error: ") || line.starts_with("error["))
        && !NOISE.iter().any(|noise| line.contains(noise))
}

/// The quiet harness prints a mark for each test, without a new line behind it.
fn without_dots(line: &str) -> &str {
    let rest = line.trim_start_matches(['.', 'i', 'F']);
    if rest.starts_with("Error: ") || rest.starts_with("thread '") { rest } else { line }
}

/// Takes away `ESC [ … letter`.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        rest = rest.get(1..).unwrap_or_default();
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_last_causes() {
        let output = "\nrunning 2 tests\n.Error: the scene 'kill' failed\n-- the node\n{\"error\": 1}\n\nCaused by:\n    0: GET /v1\n    \
                      1: connection refused\n 1/2\nsome_test --- FAILED\n\nfailures:\n    some_test\n\ntest result: FAILED.\n\
                      error: test failed, to rerun pass `-p x`\n";
        assert_eq!(essence(output), ["    0: GET /v1", "    1: connection refused", "some_test --- FAILED"]);
    }

    #[test]
    fn a_bare_error_is_told_whole_and_a_backtrace_is_not() {
        let output =
            "Error: first line\nsecond line\n\nStack backtrace:\n   0: anyhow::error\n   1: core::ops\n";
        assert_eq!(essence(output), ["Error: first line", "second line"]);
    }

    #[test]
    fn a_panic_tells_where_and_what() {
        let output = "---- a::b stdout ----\n\nthread 'a::b' (7) panicked at src/a.rs:3:5:\nassertion `left == right` failed\n  left: 1\n \
                      right: 2\nnote: run with `RUST_BACKTRACE=1`\n\nfailures:\n    a::b\n";
        let told = essence(output);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].contains("src/a.rs:3:5") && told[3].contains("right: 2"), "{told:?}");
    }

    #[test]
    fn compilers_and_formatters_are_understood_in_colour_too() {
        let output = "\u{1b}[1m\u{1b}[91merror[E0425]\u{1b}[0m: cannot find value `x`\n \u{1b}[94m--> \u{1b}[0msrc/a.rs:1:1\n  |\n\
                      error: could not compile `a`\nDiff in /src/b.rs:4:\n-x\n";
        assert_eq!(
            essence(output),
            ["error[E0425]: cannot find value `x`", " --> src/a.rs:1:1", "Diff in /src/b.rs:4:"]
        );
    }

    #[test]
    fn of_anything_else_the_end_is_told() {
        let output: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        let told = essence(&output);
        assert_eq!((told.len(), told[29].as_str()), (30, "line 99"));
        assert_eq!(essence(&"x".repeat(1000))[0].len(), 400);
    }
}
