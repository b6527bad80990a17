//! The text of a checksum, and of a file of them such as `SHA256SUMS`. Pure.

use super::{Failure, failure};
use ferric_common::ids::{Digest, DigestAlgorithm};

/// Algorithm by name, else by length. Upstream only warns where the two disagree; here it is an error, since no
/// image could ever match.
///
/// # Errors
/// [`failure::INVALID_PARAMS`].
pub fn parse(algorithm: Option<&str>, value: &str) -> Result<Digest, Failure> {
    let bad = |text: String| failure::INVALID_PARAMS.with(format!("Image checksum: {text}."));
    let algorithm = match algorithm {
        Some(name) => name.parse::<DigestAlgorithm>().map_err(|error| bad(error.to_string()))?,
        None => DigestAlgorithm::from_hex_len(value.len()).ok_or_else(|| {
            bad(format!(
                "its length of {} characters belongs to no algorithm; sha256 has 64 hexadecimal digits, sha512 128",
                value.len()
            ))
        })?,
    };
    Digest::from_hex(algorithm, value).map_err(|error| bad(error.to_string()))
}

/// Finds the digits for `name` in the text of a checksum file.
///
/// One word alone is the checksum. Otherwise the line must end with the name (after white space and an optional `*`), or
/// hold ` (name) `; its digits are at the line's beginning or end.
///
/// # Errors
/// Words for a person.
pub fn find(text: &str, name: &str) -> Result<String, String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [] => return Err("it is empty".into()),
        [only] if !only.contains(char::is_whitespace) => {
            return match is_digits(only) {
                true => Ok((*only).to_string()),
                false => Err("its only line is not a checksum of 32, 64 or 128 hexadecimal digits".into()),
            };
        }
        _ => {}
    }
    for line in lines.iter().filter(|line| !line.starts_with('#')) {
        let ends = line
            .strip_suffix(name)
            .map(|rest| rest.strip_suffix('*').unwrap_or(rest))
            .is_some_and(|rest| rest.ends_with(char::is_whitespace));
        if !name.is_empty() && (ends || line.contains(&format!(" ({name}) "))) {
            let mut words = line.split_whitespace();
            let (first, last) = (words.next(), words.next_back());
            if let Some(digits) = [first, last].into_iter().flatten().find(|word| is_digits(word)) {
                return Ok(digits.to_string());
            }
        }
    }
    Err(format!("Checksum file does not contain name {name}"))
}

fn is_digits(word: &str) -> bool {
    DigestAlgorithm::from_hex_len(word.len()).is_some() && word.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_file_is_read_in_every_form() {
        let (a, b) = ("a".repeat(64), "b".repeat(128));
        for (text, found) in [
            (format!("{a}\n"), Ok(a.clone())),
            (format!("# c\n{b}  other.img\n{a}  image.qcow2\n"), Ok(a.clone())),
            (format!("{a} *image.qcow2\n{b} x\n"), Ok(a.clone())),
            (format!("SHA512 (image.qcow2) = {b}\nSHA512 (x) = {b}"), Ok(b.clone())),
            (
                format!("{a}  my-image.qcow2\n{a} y"),
                Err("Checksum file does not contain name image.qcow2".into()),
            ),
            ("\n\n".into(), Err("it is empty".into())),
            ("abc".into(), Err("its only line is not a checksum of 32, 64 or 128 hexadecimal digits".into())),
        ] {
            assert_eq!(find(&text, "image.qcow2"), found, "{text}");
        }
    }

    #[test]
    fn algorithm_and_length_must_agree() {
        let refused = |algorithm, value: &str| parse(algorithm, value).unwrap_err().details;
        assert_eq!(
            refused(Some("sha512"), &"a".repeat(64)),
            "Image checksum: a sha512 checksum has 128 hexadecimal digits, this one has 64."
        );
        assert!(refused(None, "abc").contains("its length of 3 characters belongs to no algorithm"));
        assert!(
            refused(Some("sha3_256"), "abc").contains("'sha3_256' is not supported; use sha256 or sha512")
        );
        assert!(parse(None, &"A".repeat(64)).is_ok(), "upper case is as good");
    }
}
