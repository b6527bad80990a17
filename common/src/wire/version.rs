//! API microversions: `1.N`, negotiated by header.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

pub const HEADER: &str = "X-OpenStack-Ironic-API-Version";
pub const HEADER_MIN: &str = "X-OpenStack-Ironic-API-Minimum-Version";
pub const HEADER_MAX: &str = "X-OpenStack-Ironic-API-Maximum-Version";
/// The newer, generic header; its value is `baremetal 1.N`.
pub const HEADER_GENERIC: &str = "OpenStack-API-Version";

/// A microversion. Only major 1 exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion(pub u16);

impl ApiVersion {
    pub const MIN: ApiVersion = ApiVersion(1);
    /// What Ironic 39.0 speaks.
    pub const MAX: ApiVersion = ApiVersion(115);
    /// First version with agent tokens; with the agent's certificate in heartbeats.
    pub const AGENT_TOKEN: ApiVersion = ApiVersion(62);
    pub const AGENT_VERIFY_CA: ApiVersion = ApiVersion(68);
    pub const AGENT_VERSION: ApiVersion = ApiVersion(36);
    /// What an agent assumes for one call when it cannot ask.
    pub const FALLBACK: ApiVersion = ApiVersion(31);
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// A text that is not `1.N`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an API version of the form 1.N")]
pub struct VersionError(pub String);

impl FromStr for ApiVersion {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        text.trim()
            .strip_prefix("1.")
            .filter(|minor| minor.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|minor| minor.parse().ok())
            .map(ApiVersion)
            .ok_or_else(|| VersionError(text.chars().take(32).collect()))
    }
}
