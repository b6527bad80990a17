//! From a declared checksum to a digest, also by way of a checksum file such as `SHA256SUMS`.

use super::checksum_file::{find, parse};
use super::image_info::{Image, MD5_REFUSED, Sum};
use super::{Context, Failure, failure};
use crate::fetch::{self, Ask, Means};
use ferric_common::ids::{Digest, DigestAlgorithm};
use ferric_common::limits;
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
            let mut means = means(context, image);
            means.authorization = means.authorization.filter(|_| same_origin(url, image));
            let text = small_file(context, &means, url).map_err(|why| {
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

/// How an image, and what stands beside it, is asked for.
fn means<'a>(context: &'a Context, image: &'a Image) -> Means<'a> {
    Means { tls: &context.tls, authorization: image.authorization.clone(), proxies: Some(&image.proxies) }
}

/// Credentials go only to the host they were given for.
fn same_origin(url: &Url, image: &Image) -> bool {
    image.urls.iter().any(|known| known.origin() == url.origin())
}

fn small_file(context: &Context, means: &Means<'_>, url: &Url) -> Result<String, String> {
    let mut last = String::new();
    for attempt in 1..=limits::DOWNLOAD_TRIES {
        let ask = Ask::get(url.clone(), limits::CHECKSUM_FILE, WITHIN);
        match context.runtime.block_on(fetch::follow(means, ask)) {
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
            context.runtime.block_on(tokio::time::sleep(pause(attempt)));
        }
    }
    Err(format!("{last} ({} tries)", limits::DOWNLOAD_TRIES))
}

/// How long to wait after so many tries.
pub(super) fn pause(attempt: u32) -> Duration {
    let pause =
        ferric_common::backoff::Backoff { floor: Duration::from_secs(1), ceiling: Duration::from_secs(30) };
    pause.pause(attempt, getrandom::u32().unwrap_or(u32::MAX / 2))
}
