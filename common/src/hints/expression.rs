//! One hint's expression, `[<op>] value`, and how it meets a device's value.
//!
//! Behaves as oslo.utils' `specs_matcher` under ironic-python-agent's `device_hints`, whose quirks operators have come
//! to rely on: texts are compared without case and percent-encoded, `=` means at least, an expression without an
//! operator is equality. Which hints exist and which disk wins is the parent's.

use super::HintError;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt::Write;

/// Operators with one value. The order decides: a prefix of another stands behind it, and the first that fits wins.
const UNARY: [&str; 14] =
    ["==", "=", "!=", "<in>", ">=", "<=", ">", "<", "s==", "s!=", "s<=", "s<", "s>=", "s>"];
const OR: &str = "<or>";
const ALL_IN: &str = "<all-in>";
const RANGE_IN: &str = "<range-in>";

/// What an expression asks of a device's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Number(Compare, f64),
    Text(Compare, String),
    /// The hint is a part of the device's value.
    Within(String),
    AnyOf(Vec<String>),
    Never,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Compare {
    fn holds<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        let order = left.partial_cmp(right);
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

impl Test {
    /// Parses the expression of a hint that is a text.
    pub(super) fn text(name: &'static str, expression: &str) -> Result<Test, HintError> {
        let (op, values) = split(name, expression)?;
        let quoted = values.iter().map(|v| quote(v)).collect::<Vec<_>>();
        let first = quoted.first().cloned().unwrap_or_default();
        Ok(match op {
            None => Test::Text(Compare::Equal, first),
            Some(OR) => Test::AnyOf(quoted),
            Some("<in>") => Test::Within(first),
            Some(op @ (ALL_IN | RANGE_IN)) => return Err(unfit(name, expression, op, "a text")),
            Some(op) => match text_compare(op) {
                Some(compare) => Test::Text(compare, first),
                None => Test::Number(
                    number_compare(op),
                    first.parse().map_err(|_| not_a_number(name, expression))?,
                ),
            },
        })
    }

    /// Parses the expression of a hint that is a whole number; `shown` is the value as the operator wrote it.
    pub(super) fn integer(name: &'static str, shown: &str) -> Result<Test, HintError> {
        let (op, values) = split(name, shown)?;
        let mut first = None;
        for value in &values {
            let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(HintError::NotAnInteger { name, value: shown.into() });
            }
            let number: f64 = digits.parse().map_err(|_| not_a_number(name, shown))?;
            if value.starts_with('-') || number == 0.0 {
                return Err(HintError::NotPositive { name, value: shown.into() });
            }
            first.get_or_insert(number);
        }
        let number = first.ok_or(HintError::Empty { name })?;
        Ok(match op {
            None => Test::Number(Compare::Equal, number),
            // A number is never equal to a text.
            Some(OR | "s==") => Test::Never,
            Some("s!=") => Test::Always,
            Some(op) if op.starts_with('s') || op.starts_with("<in") || [ALL_IN, RANGE_IN].contains(&op) => {
                return Err(unfit(name, shown, op, "a number"));
            }
            Some(op) => Test::Number(number_compare(op), number),
        })
    }

    /// Whether a number passes.
    pub(super) fn accepts_number(&self, value: f64) -> bool {
        match self {
            Test::Number(compare, wanted) => compare.holds(&value, wanted),
            Test::Always => true,
            _ => false,
        }
    }

    /// Whether a device's text passes. An empty text never does.
    pub(super) fn accepts_text(&self, value: &str) -> bool {
        let Some(value) = normalize(value) else { return false };
        match self {
            // Upstream gives up on the whole machine here; a disk whose serial is no number is just another disk.
            Test::Number(compare, wanted) => value.parse().is_ok_and(|v: f64| compare.holds(&v, wanted)),
            Test::Text(compare, wanted) => compare.holds(&value, wanted),
            Test::Within(part) => value.contains(part.as_str()),
            Test::AnyOf(values) => values.contains(&value),
            Test::Never => false,
            Test::Always => true,
        }
    }
}

/// The expression for an error text: operator and value, the operator added where it was left out.
pub(super) fn describe(expression: &str, default: &str) -> String {
    let expression = expression.trim();
    let quoted = |text: &str| if default == "==" { text.to_string() } else { format!("'{text}'") };
    match operator(&expression.to_lowercase()) {
        Some(Some(OR)) => expression.to_string(),
        Some(Some(op)) => format!("{op} {}", quoted(expression.get(op.len()..).unwrap_or_default().trim())),
        _ => format!("{default} {}", quoted(expression)),
    }
}

/// A device's text as it is compared: trimmed, lower case, percent-encoded; `None` if nothing is left.
fn normalize(value: &str) -> Option<String> {
    let value = value.trim().to_lowercase();
    (!value.is_empty()).then(|| quote(&value))
}

/// Operator and values of an expression, lower case. There is at least one value, and none is empty.
fn split(name: &'static str, expression: &str) -> Result<(Option<&'static str>, Vec<String>), HintError> {
    let text = expression.trim().to_lowercase();
    if text.is_empty() {
        return Err(HintError::Empty { name });
    }
    let unreadable = || HintError::Unreadable { name, expression: expression.into() };
    let Some(op) = operator(&text).ok_or_else(unreadable)? else {
        return Ok((None, Vec::from([text])));
    };
    // A value of several words is one value; a second operator of the same kind starts another.
    let values: Vec<String> =
        text.split(op).map(str::trim).filter(|v| !v.is_empty()).map(ToString::to_string).collect();
    if values.is_empty() { Err(unreadable()) } else { Ok((Some(op), values)) }
}

/// The operator at the start: `None` if the text cannot be read, `Some(None)` if it has no operator.
fn operator(text: &str) -> Option<Option<&'static str>> {
    for (op, atoms) in [(OR, 1), (ALL_IN, 1), (RANGE_IN, 4)] {
        if text.strip_prefix(op).is_some_and(|rest| has_atoms(rest, atoms)) {
            return Some(Some(op));
        }
    }
    match UNARY.into_iter().find(|op| text.starts_with(op)) {
        Some(op) => has_atoms(text.get(op.len()..)?, 1).then_some(Some(op)),
        None => has_atoms(text, 1).then_some(None),
    }
}

/// Whether `count` words follow of which none begins like an operator.
fn has_atoms(text: &str, count: usize) -> bool {
    let is_operator =
        |word: &str| UNARY.into_iter().chain([OR, ALL_IN, RANGE_IN]).any(|op| word.starts_with(op));
    text.split_whitespace().take(count).filter(|word| !is_operator(word)).count() == count
}

fn text_compare(op: &str) -> Option<Compare> {
    op.strip_prefix('s').map(number_compare)
}

fn number_compare(op: &str) -> Compare {
    match op {
        "!=" => Compare::NotEqual,
        "<" => Compare::Less,
        "<=" => Compare::AtMost,
        ">" => Compare::Greater,
        // `=` means at least, an old mistake that configurations rely on.
        ">=" | "=" => Compare::AtLeast,
        _ => Compare::Equal,
    }
}

/// RFC 3986 percent-encoding of all but unreserved characters and `/`.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"_.-~/".contains(&b) {
            out.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

fn unfit(name: &'static str, expression: &str, op: &'static str, kind: &'static str) -> HintError {
    HintError::UnfitOperator { name, expression: expression.into(), op, kind }
}

fn not_a_number(name: &'static str, expression: &str) -> HintError {
    HintError::NotANumber { name, expression: expression.into() }
}
