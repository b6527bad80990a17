//! `image_info` as a conductor sends it → what is to be written. Pure.
//!
//! Source of fields, texts and the choice of checksum: ironic-python-agent, `extensions/standby.py`.

use super::{Failure, Rules, failure};
use crate::fetch::Proxies;
use crate::image::{ImageFormat, permit};
use base64::Engine as _;
use ferric_common::limits;
use ferric_common::wire::command::ImageInfo;
use http::header::HeaderValue;
use serde_json::Value;
use url::Url;

/// Checksum as declared: digits, or where to fetch them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    Hex { algorithm: Option<String>, value: String },
    File { algorithm: Option<String>, url: Url },
}

/// A checked `image_info`.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: String,
    pub urls: Vec<Url>,
    /// What the image is said to be. Not said: its first bytes decide in the pipeline, which holds them to what is permitted.
    pub declared: Option<ImageFormat>,
    pub sum: Sum,
    /// The whole header value.
    pub authorization: Option<HeaderValue>,
    pub proxies: Proxies,
}

/// What an operator whose image has an MD5 checksum alone is told.
pub const MD5_REFUSED: &str = "Image checksum is MD5, which neither the controller ([agent]allow_md5_checksum) nor this \
                               agent's configuration allows; give a sha256 or sha512 checksum.";
const NO_CHECKSUM: &str = "Image checksum is not available, either the 'checksum' field or the 'os_hash_algo' and \
                           'os_hash_value' fields pair must be set for image verification.";

/// Checks an `image_info` before anything is fetched or written.
///
/// # Errors
/// [`failure::INVALID_PARAMS`] for what is missing or malformed, [`failure::INVALID_IMAGE`] for formats and kinds of
/// image that are refused.
pub fn check(image_info: &Value, rules: &Rules) -> Result<Image, Failure> {
    let bad = |text: String| failure::INVALID_PARAMS.with(text);
    let Some(fields) = image_info.as_object() else {
        return Err(bad("Image information must be an object.".into()));
    };
    for field in ["id", "urls"] {
        if fields.get(field).is_none_or(Value::is_null) {
            return Err(bad(format!("Image is missing '{field}' field.")));
        }
    }
    let info: ImageInfo = serde_json::from_value(image_info.clone())
        .map_err(|error| bad(format!("Image information cannot be understood: {error}")))?;
    if info.urls.is_empty() {
        return Err(bad("Image 'urls' must be a list with at least one element.".into()));
    }
    let sum = choose_sum(&info, rules)?;
    let urls = info.urls.iter().map(|text| web_address(text)).collect::<Result<Vec<_>, _>>()?;
    if info.image_type.as_deref() == Some("partition") {
        return Err(failure::INVALID_IMAGE.with(format!(
            "image {} is a partition image (image_type is 'partition'); this agent writes whole-disk images only",
            info.id
        )));
    }
    let declared = declared(&info, rules)?;
    let proxies = Proxies::read(&info.proxies, info.no_proxy.as_deref().unwrap_or_default())
        .map_err(|why| bad(format!("Image 'proxies' cannot be used: {why}.")))?;
    Ok(Image { authorization: authorization(&info, rules)?, proxies, id: info.id, urls, declared, sum })
}

fn web_address(text: &str) -> Result<Url, Failure> {
    let parsed = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && text.len() <= limits::URL
    });
    parsed.ok_or_else(|| {
        let shown =
            Url::parse(text).map_or_else(|_| "(unreadable)".into(), |url| crate::fetch::printable(&url));
        failure::INVALID_PARAMS.with(format!(
            "Image URL {shown} is not an http or https address of at most {} bytes.",
            limits::URL
        ))
    })
}

fn choose_sum(info: &ImageInfo, rules: &Rules) -> Result<Sum, Failure> {
    let bad = |text: &str| failure::INVALID_PARAMS.with(text);
    let given =
        |field: &Option<String>| field.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(String::from);
    for (name, field) in [
        ("checksum", &info.checksum),
        ("os_hash_algo", &info.os_hash_algo),
        ("os_hash_value", &info.os_hash_value),
    ] {
        if field.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(bad(&format!("Image '{name}' must be a non-empty string.")));
        }
    }
    let pair = given(&info.os_hash_algo).zip(given(&info.os_hash_value));
    if let Some((algorithm, value)) = pair {
        return sum_of(Some(algorithm), value, rules);
    }
    match given(&info.checksum) {
        Some(value) => sum_of(None, value, rules),
        None => Err(bad(NO_CHECKSUM)),
    }
}

fn sum_of(algorithm: Option<String>, value: String, rules: &Rules) -> Result<Sum, Failure> {
    let lower = value.to_ascii_lowercase();
    let is_address = lower.starts_with("http://") || lower.starts_with("https://");
    let has_its_length = value.len() == 32 && !is_address;
    let is_md5 = algorithm.as_deref().map_or(has_its_length, |name| name.eq_ignore_ascii_case("md5"));
    if is_md5 && !rules.md5 {
        return Err(failure::INVALID_PARAMS.with(MD5_REFUSED));
    }
    if is_address {
        let url = web_address(&value)?;
        return Ok(Sum::File { algorithm, url });
    }
    Ok(Sum::Hex { algorithm, value })
}

/// The formats `raw.gz`, `raw.xz`, `raw.zst` and `raw.bz2` are ours; whoever permits raw permits them.
fn declared(info: &ImageInfo, rules: &Rules) -> Result<Option<ImageFormat>, Failure> {
    let format = info.disk_format.as_deref().unwrap_or("unknown").trim().to_ascii_lowercase();
    let known = match format.as_str() {
        "gpt" => ImageFormat::Raw,
        "" | "unknown" => return Ok(None),
        other => other.parse().map_err(|_| {
            failure::INVALID_IMAGE.with(format!(
                "image {} has the format '{other}', this agent writes raw and qcow2 only",
                info.id
            ))
        })?,
    };
    permit(&format, &rules.permitted_formats)
        .map_err(|error| failure::INVALID_IMAGE.with(error.to_string()))?;
    Ok(Some(known))
}

/// A supplied header wins, then credentials of the image, then those of the configuration.
fn authorization(info: &ImageInfo, rules: &Rules) -> Result<Option<HeaderValue>, Failure> {
    let engine = base64::engine::general_purpose::STANDARD;
    if let Some(encoded) = info.image_request_authorization.as_deref().filter(|text| !text.is_empty()) {
        let value = engine.decode(encoded).ok().and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
        let value = value.filter(|value| value.to_str().is_ok()).map(secret);
        return value.map(Some).ok_or_else(|| {
            failure::INVALID_PARAMS
                .with("Image 'image_request_authorization' is not base64 of a header value.")
        });
    }
    let basic = |user: &str, password: &str| {
        let text = format!("Basic {}", engine.encode(format!("{user}:{password}")));
        HeaderValue::from_str(&text).ok().map(secret)
    };
    if info.image_server_auth_strategy.as_deref() == Some("http_basic") {
        return match (&info.image_server_user, &info.image_server_password) {
            (Some(user), Some(password)) => Ok(basic(user, password)),
            (user, password) => {
                let missing = [("image_server_user", user), ("image_server_password", password)];
                let names: Vec<&str> = missing.iter().filter(|(_, v)| v.is_none()).map(|(n, _)| *n).collect();
                Err(failure::INVALID_PARAMS.with(format!(
                    "Image server authentication strategy http_basic is set, but {} is missing.",
                    names.join(" and ")
                )))
            }
        };
    }
    let configured = rules.image_user.as_deref().zip(rules.image_password.as_deref());
    Ok(configured.and_then(|(user, password)| basic(user, password)))
}

fn secret(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> Rules {
        Rules { permitted_formats: vec!["raw".into(), "gpt".into(), "qcow2".into()], ..Rules::default() }
    }
    fn base() -> Value {
        json!({"id": "x", "urls": ["http://192.0.2.1/image.qcow2"], "disk_format": "qcow2",
               "os_hash_algo": "sha256", "os_hash_value": "ab".repeat(32)})
    }
    fn with(changes: Value) -> Value {
        let mut info = base();
        for (key, value) in changes.as_object().unwrap() {
            info[key] = value.clone();
        }
        info
    }
    fn refusal(changes: Value) -> (&'static str, String) {
        let failure = check(&with(changes), &rules()).unwrap_err();
        (failure.class.kind, failure.details)
    }

    #[test]
    fn what_is_missing_is_named_as_the_reference_agent_names_it() {
        for (info, text) in [
            (json!({"urls": []}), "Image is missing 'id' field."),
            (json!({"id": "x"}), "Image is missing 'urls' field."),
            (json!({"id": "x", "urls": []}), "Image 'urls' must be a list with at least one element."),
            (json!({"id": "x", "urls": ["http://a/b"]}), NO_CHECKSUM),
        ] {
            let failure = check(&info, &rules()).unwrap_err();
            assert_eq!((failure.class, failure.details.as_str()), (failure::INVALID_PARAMS, text), "{info}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (changes, kind, part) in [
            (
                json!({"urls": ["file:///etc/passwd"]}),
                "InvalidCommandParamsError",
                "not an http or https address",
            ),
            (json!({"image_type": "partition"}), "InvalidImage", "whole-disk images only"),
            (json!({"disk_format": "vmdk"}), "InvalidImage", "'vmdk', this agent writes raw and qcow2 only"),
            (json!({"os_hash_algo": "md5"}), "InvalidCommandParamsError", "Image checksum is MD5"),
            (
                json!({"os_hash_algo": null, "checksum": "a".repeat(32)}),
                "InvalidCommandParamsError",
                "Image checksum is MD5",
            ),
            (
                json!({"image_server_auth_strategy": "http_basic", "image_server_user": "u"}),
                "InvalidCommandParamsError",
                "image_server_password is missing",
            ),
            (
                json!({"image_request_authorization": "QmVhcmVyCg=="}),
                "InvalidCommandParamsError",
                "is not base64 of a header value",
            ),
            (
                json!({"proxies": {"http": "https://u:pw@p"}}),
                "InvalidCommandParamsError",
                "the http proxy https://p/ wants TLS up to the proxy itself",
            ),
        ] {
            let (found, details) = refusal(changes.clone());
            assert!(found == kind && details.contains(part), "{changes}: {found} {details}");
        }
    }

    #[test]
    fn the_hash_pair_wins_over_the_checksum_and_addresses_are_told_from_digits() {
        let sum = |changes| check(&with(changes), &rules()).unwrap().sum;
        let hex = Sum::Hex { algorithm: Some("sha256".into()), value: "ab".repeat(32) };
        assert_eq!(sum(json!({"checksum": "cd".repeat(64)})), hex);
        let url = Url::parse("https://h/SHA256SUMS").unwrap();
        assert_eq!(
            sum(json!({"os_hash_algo": null, "checksum": "https://h/SHA256SUMS"})),
            Sum::File { algorithm: None, url }
        );
    }

    #[test]
    fn a_format_that_was_not_permitted_is_refused() {
        let mut rules = rules();
        rules.permitted_formats = vec!["raw".into()];
        let failure = check(&base(), &rules).unwrap_err();
        assert_eq!(failure.details, "Security: Detected image format was qcow2, but only raw are allowed");
    }

    #[test]
    fn credentials_and_proxies_follow_their_precedence() {
        let image = check(&with(json!({"image_request_authorization": "QmVhcmVyIHg="})), &rules()).unwrap();
        assert_eq!(image.authorization.unwrap(), "Bearer x");
        let mut rules = rules();
        (rules.image_user, rules.image_password) = (Some("u".into()), Some("p".into()));
        assert_eq!(check(&base(), &rules).unwrap().authorization.unwrap(), "Basic dTpw");
        let proxied = with(json!({"urls": ["http://h/i", "http://a.example.com/i"],
                                  "proxies": {"http": "http://p:1", "https": ""}, "no_proxy": ".example.com"}));
        let image = check(&proxied, &rules).unwrap();
        let through = |url: &Url| image.proxies.of(url).map(Url::as_str);
        assert_eq!(image.urls.iter().map(through).collect::<Vec<_>>(), [Some("http://p:1/"), None]);
    }
}
