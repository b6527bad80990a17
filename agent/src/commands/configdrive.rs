//! A config drive as it arrives → the bytes of its image: base64 of gzip, or the address of such a file.
//!
//! Where it goes on the disk is [`crate::image`]'s matter. Texts are those that operators know from the reference agent.

use super::{Context, Failure, failure};
use crate::fetch::{self, Ask, Means};
use base64::Engine as _;
use ferric_common::limits;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::io::Read;
use std::time::Duration;
use url::Url;

/// Bytes of an encoded config drive that are fetched: base64 of incompressible 64 MiB, with line ends.
const ENCODED: usize = 88 << 20;
const WITHIN: Duration = Duration::from_secs(60);

/// The config drive's image, if one was given.
///
/// # Errors
/// [`failure::DEPLOYMENT`] with the reason.
pub fn bytes(context: &Context, given: Option<&Value>) -> Result<Option<Vec<u8>>, Failure> {
    let node = context.node().uuid;
    let text = match given {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim(),
        Some(_) => {
            return Err(
                failure::INVALID_PARAMS.with("'configdrive' must be a text: base64 of gzip, or an address")
            );
        }
    };
    if text.is_empty() {
        return Ok(None);
    }
    let lower: String = text.chars().take(8).collect::<String>().to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return fetched(context, text, &node).map(Some);
    }
    decode(text.as_bytes(), &node).map(Some)
}

fn fetched(context: &Context, text: &str, node: &str) -> Result<Vec<u8>, Failure> {
    let failed = |shown: &str, why: String| {
        failure::DEPLOYMENT
            .with(format!("Can't download the configdrive content for node {node} from '{shown}'. {why}"))
    };
    let url = Url::parse(text).map_err(|error| failed("(unreadable)", error.to_string()))?;
    let shown = fetch::printable(&url);
    // Straight, as the reference agent does: the proxies and credentials of an image are for its own servers.
    let means = Means::direct(&context.tls);
    let answer = context
        .runtime
        .block_on(fetch::follow(&means, Ask::get(url, ENCODED, WITHIN)))
        .map_err(|error| failed(&shown, error.to_string()))?;
    if answer.status >= 400 {
        return Err(failed(&shown, format!("Got status code {}", answer.status)));
    }
    // A server may hand out the encoded text or the image itself.
    let compact: Vec<u8> = answer.body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    match base64::engine::general_purpose::STANDARD.decode(&compact) {
        Ok(zipped) => unzip(&zipped, node),
        Err(_) => within_limit(answer.body.to_vec(), node),
    }
}

/// Decodes the text form.
fn decode(text: &[u8], node: &str) -> Result<Vec<u8>, Failure> {
    let compact: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let zipped = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|error| {
        failure::DEPLOYMENT.with(format!(
            "Config drive for node {node} is not base64 encoded or the content is malformed. {error}"
        ))
    })?;
    unzip(&zipped, node)
}

fn unzip(zipped: &[u8], node: &str) -> Result<Vec<u8>, Failure> {
    let mut image = Vec::new();
    MultiGzDecoder::new(zipped).take(limits::CONFIG_DRIVE.saturating_add(1)).read_to_end(&mut image).map_err(
        |error| {
            failure::DEPLOYMENT.with(format!(
                "Encountered error while decompressing and writing config drive for node {node}. Error: {error}"
            ))
        },
    )?;
    within_limit(image, node)
}

fn within_limit(image: Vec<u8>, node: &str) -> Result<Vec<u8>, Failure> {
    let length = u64::try_from(image.len()).unwrap_or(u64::MAX);
    if length > limits::CONFIG_DRIVE {
        return Err(failure::DEPLOYMENT.with(format!(
            "Config drive size exceeds maximum limit of 64MiB. Size of the given config drive is more than 64 MiB for \
             node {node}."
        )));
    }
    if image.is_empty() {
        return Err(failure::DEPLOYMENT.with(format!("Config drive for node {node} is empty.")));
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn encoded(image: &[u8]) -> String {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(image).unwrap();
        base64::engine::general_purpose::STANDARD.encode(gz.finish().unwrap())
    }

    #[test]
    fn the_text_form_round_trips_with_line_ends() {
        let mut text = encoded(b"CD001 image");
        text.insert(8, '\n');
        assert_eq!(decode(text.as_bytes(), "n").unwrap(), b"CD001 image");
    }

    #[test]
    fn what_is_wrong_is_said_in_the_known_words() {
        let details = |text: &str| decode(text.as_bytes(), "n1").unwrap_err().details;
        assert!(
            details("@@@")
                .starts_with("Config drive for node n1 is not base64 encoded or the content is malformed. ")
        );
        assert!(
            details("aGVsbG8=")
                .starts_with("Encountered error while decompressing and writing config drive for node n1. ")
        );
        let large = encoded(&vec![0; (64 << 20) + 1]);
        assert!(details(&large).starts_with("Config drive size exceeds maximum limit of 64MiB."));
        assert_eq!(details(&encoded(b"")), "Config drive for node n1 is empty.");
    }
}
