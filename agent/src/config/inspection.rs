//! Whether and how this boot is an inspection: the part of the settings that [`crate::inspection`] reads.

use super::{ConfigError, Reader};
use std::time::Duration;
use url::Url;

/// What is collected when nobody says otherwise.
const COLLECTORS: &str = "default,logs";
/// Where the API takes the data when only its base is known.
const PATH: &str = "/v1/continue_inspection";

/// What is meant. Present only when inspection is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Where the data is posted, in the order to try.
    pub urls: Vec<Url>,
    /// Names as they were written; whether they are known is said in the data, so that an operator sees it there.
    pub collectors: Vec<String>,
    /// LLDP inside the inventory, too.
    pub collect_lldp: bool,
    /// One deadline for all interfaces together.
    pub lldp_timeout: Duration,
    /// How long interfaces may take to get an address; zero: not waited for.
    pub dhcp_wait: Duration,
    /// All interfaces, not only the one that booted.
    pub dhcp_all: bool,
}

/// Asked for by a callback URL, or by collectors where there is an API to post to.
pub(super) fn read(read: &Reader<'_>, api_urls: &[Url]) -> Result<Option<Inspection>, ConfigError> {
    let callbacks = read.read(
        "inspection_callback_url",
        "a comma-separated list of http:// or https:// addresses",
        urls,
    )?;
    let collectors = read.text("inspection_collectors");
    // Read in any case, so that a mistake in them is told.
    let collect_lldp = read.flag("collect_lldp", false)?;
    let lldp_timeout = read.seconds("lldp_timeout", 30)?;
    let dhcp_wait = read.seconds("inspection_dhcp_wait_timeout", 60)?;
    let dhcp_all = read.flag("inspection_dhcp_all_interfaces", false)?;
    let urls = match (callbacks, &collectors) {
        (Some(urls), _) if !urls.is_empty() => urls,
        (_, Some(_)) if !api_urls.is_empty() => api_urls.iter().filter_map(continuation).collect(),
        _ => return Ok(None),
    };
    let collectors = names(collectors.as_deref().unwrap_or(COLLECTORS));
    Ok(Some(Inspection { urls, collectors, collect_lldp, lldp_timeout, dhcp_wait, dhcp_all }))
}

fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Complete addresses: what stands behind the host is kept as it is.
fn urls(text: &str) -> Option<Vec<Url>> {
    let one = |text: &str| {
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    };
    names(text).iter().map(|text| one(text)).collect()
}

fn continuation(base: &Url) -> Option<Url> {
    Url::parse(&format!("{}{PATH}", base.as_str().trim_end_matches('/'))).ok()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, parse};
    use std::time::Duration;

    fn with(cmdline: &str) -> Result<Config, ConfigError> {
        parse(cmdline, &[], &[])
    }

    #[test]
    fn a_callback_url_is_enough_and_needs_no_api() {
        let config =
            with("ipa-inspection-callback-url=http://192.0.2.1:6385/v1/continue_inspection BOOTIF=x")
                .unwrap();
        assert!(config.api_urls.is_empty());
        let found = config.inspection.unwrap();
        assert_eq!(found.urls[0].as_str(), "http://192.0.2.1:6385/v1/continue_inspection");
        assert_eq!(found.collectors, ["default", "logs"]);
        assert_eq!((found.lldp_timeout, found.dhcp_wait), (Duration::from_secs(30), Duration::from_secs(60)));
        assert!(!found.collect_lldp && !found.dhcp_all);
    }

    #[test]
    fn collectors_alone_go_to_the_api_and_nothing_at_all_is_no_inspection() {
        let config = with("ipa-api-url=http://a:1/,http://b:2 ipa-inspection-collectors=default,,lldp ipa-lldp-timeout=2.5 ipa-collect-lldp=1 ipa-inspection-dhcp-all-interfaces=1 ipa-inspection-dhcp-wait-timeout=0").unwrap();
        let found = config.inspection.unwrap();
        assert_eq!(
            found.urls.iter().map(|url| url.as_str()).collect::<Vec<_>>(),
            ["http://a:1/v1/continue_inspection", "http://b:2/v1/continue_inspection"]
        );
        assert_eq!(found.collectors, ["default", "lldp"]);
        assert_eq!((found.lldp_timeout, found.dhcp_wait), (Duration::from_millis(2500), Duration::ZERO));
        assert!(found.collect_lldp && found.dhcp_all);
        assert_eq!(with("ipa-api-url=http://a:1").unwrap().inspection, None);
        assert_eq!(with("ipa-inspection-collectors=default").unwrap_err(), ConfigError::NoApi);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_named() {
        let error = with("ipa-inspection-callback-url=mdns").unwrap_err().to_string();
        assert!(
            error.starts_with("setting 'inspection_callback_url' has the value 'mdns', which is not a comma"),
            "{error}"
        );
    }
}
