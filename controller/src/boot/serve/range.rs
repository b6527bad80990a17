//! Which bytes of a file a request wants: `Range`, `If-Range`, `If-None-Match` (RFC 9110, sections 13 and 14). Pure.

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    /// From `start` up to, not including, `end`.
    Part {
        start: u64,
        end: u64,
    },
    /// 416: nothing of the file is in the range.
    Unsatisfiable,
}

/// Reads `Range` for a file of `length` bytes. Several ranges, other units and malformed ones are answered with the whole
/// file, as the RFC allows.
pub fn wanted(range: Option<&str>, length: u64) -> Wanted {
    let Some((first, last)) = range
        .and_then(|r| r.trim().strip_prefix("bytes="))
        .filter(|r| !r.contains(','))
        .and_then(|r| r.split_once('-'))
    else {
        return Wanted::Whole;
    };
    // `parse` takes a sign, which is not in the grammar.
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    let (start, end) = match (number(first), number(last)) {
        (None, Some(tail)) if first.trim().is_empty() => (length.saturating_sub(tail), length),
        (Some(start), None) if last.trim().is_empty() => (start, length),
        (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(length)),
        _ => return Wanted::Whole,
    };
    if start < end { Wanted::Part { start, end } } else { Wanted::Unsatisfiable }
}

/// Whether `If-Range` names this very version of the file; weak tags never do.
pub fn is_same_version(if_range: &str, etag: &str, last_modified: &str) -> bool {
    if_range == etag || if_range == last_modified
}

/// Whether `If-None-Match` names this version, so that 304 is enough.
pub fn is_known(if_none_match: &str, etag: &str) -> bool {
    if_none_match.split(',').map(str::trim).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read() {
        let part = |start, end| Wanted::Part { start, end };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-", part(0, 100)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=90-1000", part(90, 100)),
            ("bytes=-5", part(95, 100)),
            ("bytes=-500", part(0, 100)),
            ("bytes=99-", part(99, 100)),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-18446744073709551615", part(5, 100)),
            ("bytes=9-5", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=+1-5", Wanted::Whole),
            ("bytes=a-", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ];
        for (text, expected) in cases {
            assert_eq!(wanted(Some(text), 100), expected, "{text}");
        }
        assert_eq!(wanted(None, 100), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn versions_compare() {
        assert!(is_same_version("\"a\"", "\"a\"", "d") && is_same_version("d", "\"a\"", "d"));
        assert!(!is_same_version("W/\"a\"", "\"a\"", "d"));
        assert!(is_known("\"x\", W/\"a\"", "\"a\"") && is_known("*", "\"a\"") && !is_known("\"b\"", "\"a\""));
    }

    proptest::proptest! {
        #[test]
        fn never_outside_the_file(text in "(bytes=)?[0-9,+ -]{0,30}", length in 0u64..1000) {
            if let Wanted::Part { start, end } = wanted(Some(&text), length) {
                assert!(start < end && end <= length);
            }
        }
    }
}
