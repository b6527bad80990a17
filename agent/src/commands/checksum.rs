//! From a declared checksum to a digest, also by way of a checksum file such as `SHA256SUMS`.

use super::image_info::{Image, MD5_REFUSED, Sum};
use super::{Context, Failure, failure};
use crate::fetch;
use ferric_common::ids::{Digest, DigestAlgorithm};
use ferric_common::limits;
use http::header::HeaderValue;
use std::time::Duration;
use url::Url;

/// For one try to fetch a small file.
const WITHIN: Duration = Duration::from_secs(60);

/// The digest that the image must have.
///
/// # Errors
/// [`failure::INVALID_PARAMS`] for a checksum that is none, or MD5 where it was not allowed;
/// [`failure::IMAGE_DOWNLOAD`] when the file that holds it cannot be fetched; [`failure::IMAGE_CHECKSUM`] when it does
/// not name the image.
pub fn digest(context: &Context, image: &Image) -> Result<Digest, Failure> {
    let digest = declared(context, image)?;
    // Whichever field it came in, a file that the address names included.
    match digest.algorithm == DigestAlgorithm::Md5 && !context.rules.md5 {
        true => Err(failure::INVALID_PARAMS.with(MD5_REFUSED)),
        false => Ok(digest),
    }
}

fn declared(context: &Context, image: &Image) -> Result<Digest, Failure> {
    match &image.sum {
        Sum::Hex { algorithm, value } => parse(algorithm.as_deref(), value),
        Sum::File { algorithm, url } => {
            let authorization =
                image.authorization.as_deref().filter(|_| same_origin(url, image)).and_then(|text| {
                    HeaderValue::from_str(text).ok().map(|mut value| {
                        value.set_sensitive(true);
                        value
                    })
                });
            let text = small_file(context, url, authorization).map_err(|why| {
                failure::IMAGE_DOWNLOAD.with(format!("Download of image {} failed: {why}", image.id))
            })?;
            let name =
                image.urls.first().and_then(|url| url.path_segments()?.next_back()).unwrap_or_default();
            let value = find(&text, name).map_err(|why| {
                failure::IMAGE_CHECKSUM.with(format!("checksum file {}: {why}", fetch::printable(url)))
            })?;
            parse(algorithm.as_deref(), &value)
        }
    }
}

/// Credentials go only to the host they were given for.
fn same_origin(url: &Url, image: &Image) -> bool {
    image.urls.iter().any(|known| known.origin() == url.origin())
}

/// Algorithm by name, else by length. Upstream only warns where the two disagree; here it is an error, since no
/// image could ever match.
fn parse(algorithm: Option<&str>, value: &str) -> Result<Digest, Failure> {
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

fn small_file(context: &Context, url: &Url, authorization: Option<HeaderValue>) -> Result<String, String> {
    let mut last = String::new();
    for attempt in 1..=limits::DOWNLOAD_TRIES {
        let asked = context.runtime.block_on(fetch::get_following(
            &context.tls,
            url.clone(),
            authorization.clone(),
            limits::CHECKSUM_FILE,
            WITHIN,
        ));
        match asked {
            Ok(answer) if answer.status == 200 => return Ok(answer.text()),
            Ok(answer) => {
                last = format!("{} answered {}", fetch::printable(url), answer.status);
                if answer.status < 500 {
                    return Err(last);
                }
            }
            Err(error) if error.is_transient() => last = error.to_string(),
            Err(error) => return Err(error.to_string()),
        }
        if attempt < limits::DOWNLOAD_TRIES {
            let pause = ferric_common::backoff::Backoff {
                floor: Duration::from_secs(1),
                ceiling: Duration::from_secs(30),
            };
            let random = getrandom::u32().unwrap_or(u32::MAX / 2);
            context.runtime.block_on(tokio::time::sleep(pause.pause(attempt, random)));
        }
    }
    Err(format!("{last} ({} tries)", limits::DOWNLOAD_TRIES))
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
