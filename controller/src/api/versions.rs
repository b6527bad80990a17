//! Microversions: which one a request asks for, and the headers of every answer.

use super::answer::Problem;
use ferric_common::wire::version::{
    ApiVersion, HEADER, HEADER_GENERIC, HEADER_MAX, HEADER_MIN, VersionError,
};
use http::HeaderMap;

/// Header names (lower case, as the `http` crate wants them) and values.
pub type VersionHeaders = Vec<(http::HeaderName, String)>;

fn asked(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let read = |name: &str| -> Result<Option<String>, Problem> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let text = value.to_str().map_err(|_| unsupported("?"))?;
        Ok(Some(text.trim().to_string()))
    };
    let own = read(HEADER)?;
    let generic = read(HEADER_GENERIC)?.and_then(|text| {
        text.split(',').find_map(|part| part.trim().strip_prefix("baremetal ").map(|v| v.trim().to_string()))
    });
    match (own, generic) {
        (Some(a), Some(b)) if !a.eq_ignore_ascii_case(&b) => Err(Problem::not_acceptable(format!(
            "The headers {HEADER} ({}) and {HEADER_GENERIC} ({}) ask for mutually exclusive versions.",
            clip(&a),
            clip(&b)
        ))),
        (a, b) => Ok(a.or(b)),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(32).collect()
}

fn unsupported(text: &str) -> Problem {
    Problem::not_acceptable(format!(
        "Version {} was requested but the requested API version is not supported: it must be between {} and {}.",
        clip(text),
        ApiVersion::MIN,
        ApiVersion::MAX
    ))
}

fn parse(text: &str) -> Result<ApiVersion, Problem> {
    if text.eq_ignore_ascii_case("latest") {
        return Ok(ApiVersion::MAX);
    }
    match text.parse::<ApiVersion>() {
        Ok(version) if (ApiVersion::MIN..=ApiVersion::MAX).contains(&version) => Ok(version),
        Ok(_) | Err(VersionError(_)) => Err(unsupported(text)),
    }
}

/// The version of a request (1.1 if it asks for none), and the headers of its answer.
pub fn negotiate(headers: &HeaderMap) -> (Result<u16, Problem>, VersionHeaders) {
    let version = match asked(headers) {
        Ok(None) => Ok(ApiVersion::MIN),
        Ok(Some(text)) => parse(&text),
        Err(problem) => Err(problem),
    };
    let name = |text: &str| http::HeaderName::from_bytes(text.as_bytes()).ok();
    let mut out = VersionHeaders::new();
    let used = version.as_ref().ok().map(ToString::to_string);
    let fixed = [
        (HEADER_MIN, Some(ApiVersion::MIN.to_string())),
        (HEADER_MAX, Some(ApiVersion::MAX.to_string())),
        (HEADER, used),
    ];
    for (header, value) in fixed {
        if let (Some(header), Some(value)) = (name(header), value) {
            out.push((header, value));
        }
    }
    (version.map(|v| v.0), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_version_it_asks_for_or_406() {
        for (own, generic, want) in [
            (None, None, Some(1)),
            (Some("1.96"), None, Some(96)),
            (Some("latest"), None, Some(115)),
            (None, Some("baremetal 1.52"), Some(52)),
            (None, Some("compute 2.1, baremetal 1.52"), Some(52)),
            (Some("1.89"), Some("baremetal 1.89"), Some(89)),
            (Some("1.89"), Some("baremetal 1.90"), None),
            (Some("1.116"), None, None),
            (Some("1.0"), None, None),
            (Some("2.1"), None, None),
            (Some("1.x"), None, None),
            (Some(""), None, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(own) = own {
                headers.insert(
                    HEADER.to_ascii_lowercase().parse::<http::HeaderName>().unwrap(),
                    own.parse().unwrap(),
                );
            }
            if let Some(generic) = generic {
                headers.insert(
                    HEADER_GENERIC.to_ascii_lowercase().parse::<http::HeaderName>().unwrap(),
                    generic.parse().unwrap(),
                );
            }
            let (version, out) = negotiate(&headers);
            assert_eq!(version.as_ref().ok().copied(), want, "{own:?} {generic:?}");
            assert_eq!(out.len(), if want.is_some() { 3 } else { 2 });
            if let Err(problem) = version {
                assert_eq!(problem.status.as_u16(), 406);
            }
        }
    }
}
