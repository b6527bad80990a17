//! By way of which proxy an address is asked, and with which user. Pure.
//!
//! Source of the rules: what ironic-python-agent does with `proxies` and `no_proxy` of an image (python-requests 2).

use base64::Engine as _;
use http::header::HeaderValue;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use url::{Host, Url};

/// Entries of a `no_proxy` that are looked at, and bytes of one proxy's address.
const ENTRIES: usize = 1024;
const ADDRESS: usize = 2048;

/// Proxies by scheme of what is asked for (`http`, `https`), and what is asked without them.
#[derive(Clone, Default)]
pub struct Proxies {
    by_scheme: Vec<(String, Url)>,
    direct: Vec<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.by_scheme.iter().map(|(scheme, proxy)| (scheme, super::printable(proxy)));
        f.debug_struct("Proxies").field("proxies", &shown.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Proxies {
    /// Reads them as an image's fields `proxies` and `no_proxy` give them.
    ///
    /// # Errors
    /// A proxy that has no address or wants to be talked to by TLS, in words without its user and password.
    pub fn read(given: &BTreeMap<String, String>, no_proxy: &str) -> Result<Proxies, String> {
        let given = given.iter().map(|(scheme, text)| (scheme, text.trim())).filter(|(_, t)| !t.is_empty());
        let by_scheme = given
            .map(|(scheme, text)| {
                let scheme = scheme.trim().to_ascii_lowercase();
                address(text)
                    .map(|url| (scheme.clone(), url))
                    .map_err(|why| format!("the {scheme} proxy {why}"))
            })
            .collect::<Result<_, _>>()?;
        let direct = no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase());
        let direct = direct.filter(|entry| !entry.is_empty()).take(ENTRIES).collect();
        Ok(Proxies { by_scheme, direct })
    }

    /// The proxy to be asked for this address.
    pub fn of(&self, url: &Url) -> Option<&Url> {
        let (_, proxy) = self.by_scheme.iter().find(|(scheme, _)| scheme == url.scheme())?;
        let is_direct = self.direct.iter().any(|entry| names(entry, url));
        (!is_direct).then_some(proxy)
    }
}

fn address(text: &str) -> Result<Url, String> {
    // A proxy without a scheme is valid for conductors.
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole).ok().filter(|url| url.has_host() && text.len() <= ADDRESS);
    match url {
        Some(url) if url.scheme() == "http" => Ok(url),
        Some(url) if url.scheme() == "https" => Err(format!(
            "{} wants TLS up to the proxy itself, which this agent does not speak; give its http:// address \
             (https images go through it by a tunnel)",
            super::printable(&url)
        )),
        _ => Err("is not an http address".into()),
    }
}

/// Whether an entry of a `no_proxy` means the host of an address: `*`, a name and all below it, a network, each with or
/// without a port.
fn names(entry: &str, url: &Url) -> bool {
    if entry == "*" || is_network_of(entry, url) {
        return true;
    }
    let Some(host) = url.host_str() else { return false };
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    let has_port = port.is_none() || port == url.port_or_known_default();
    let name = name.trim_start_matches('.');
    let is_below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    has_port && !name.is_empty() && is_below
}

fn is_network_of(entry: &str, url: &Url) -> bool {
    let host: IpAddr = match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        _ => return false,
    };
    let (network, length) = entry.split_once('/').map_or((entry, None), |(net, len)| (net, Some(len)));
    let (Ok(network), length) = (network.parse::<IpAddr>(), length.map(str::parse::<u32>)) else {
        return false;
    };
    let (bits, width) = match (network, host) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32_u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    match length {
        None => bits == 0,
        // A shift by the whole width leaves nothing: 0 names every address of its family.
        Some(Ok(length)) if length <= width => {
            bits.checked_shr(width.saturating_sub(length)).unwrap_or(0) == 0
        }
        Some(_) => false,
    }
}

/// The user and password that stand in an address, as the value of a header of basic authentication.
pub fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain: Vec<u8> = percent_decode_str(url.username()).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(url.password().unwrap_or_default()));
    let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain));
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }
    fn proxies(no_proxy: &str) -> Proxies {
        let given = [("http", "proxy:3128"), ("https", "http://u:p@p2"), ("ftp", "")];
        let given = given.map(|(scheme, text)| (scheme.to_owned(), text.to_owned()));
        Proxies::read(&given.into(), no_proxy).unwrap()
    }

    #[test]
    fn each_scheme_has_its_proxy_unless_the_host_is_direct() {
        let through = |no_proxy: &str, to: &str| proxies(no_proxy).of(&url(to)).map(Url::to_string);
        assert_eq!(through("", "http://a/").as_deref(), Some("http://proxy:3128/"));
        assert_eq!(through("", "https://a/").as_deref(), Some("http://u:p@p2/"));
        for (no_proxy, to, direct) in [
            ("a.example, b.example", "http://b.example/x", true),
            (".example", "http://a.B.example/x", true),
            ("B.example", "http://b.example:81/x", true),
            ("b.example:81", "http://b.example:81/x", true),
            ("b.example:81", "http://b.example/x", false),
            ("b.example:80", "http://b.example/x", true),
            ("ample", "http://b.example/x", false),
            (".", "http://b.example/x", false),
            ("*", "https://[::1]/x", true),
            ("192.0.2.7", "http://192.0.2.7/x", true),
            ("2.0.2.7", "http://192.0.2.7/x", false),
            ("192.0.2.0/24", "http://192.0.2.7/x", true),
            ("192.0.2.0/24", "http://192.0.3.7/x", false),
            ("192.0.2.0/33", "http://192.0.2.0/x", false),
            ("0.0.0.0/0", "http://192.0.2.7/x", true),
            ("0.0.0.0/0", "http://[2001:db8::1]/x", false),
            ("2001:db8::/32", "https://[2001:db8:1::1]:8443/x", true),
            ("2001:db8::1", "https://[2001:db8::1]/x", true),
            ("[2001:db8::1]:443", "https://[2001:db8::1]/x", true),
            ("::/0", "https://[2001:db8::1]/x", true),
            (",,", "http://b.example/x", false),
        ] {
            assert_eq!(through(no_proxy, to).is_none(), direct, "{no_proxy} {to}");
        }
    }

    #[test]
    fn a_proxy_that_is_none_is_refused_without_its_password() {
        let refused = |text: &str| {
            let given = BTreeMap::from([("http".to_owned(), text.to_owned())]);
            Proxies::read(&given, "").unwrap_err()
        };
        assert!(refused("https://u:secret@p:1").starts_with("the http proxy https://p:1/ wants TLS"));
        for bad in
            ["socks5://u:secret@p", "http://", "http://u:secret@p:x", &format!("http://{}", "p".repeat(3000))]
        {
            assert_eq!(refused(bad), "the http proxy is not an http address", "{bad}");
        }
        assert!(!format!("{:?}", proxies("")).contains("u:p"));
    }

    #[test]
    fn user_and_password_of_an_address_become_a_header() {
        let value = |text: &str| basic(&url(text)).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(value("http://h/"), None);
        assert_eq!(
            value("http://Aladdin:open%20sesame@h/").as_deref(),
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        assert_eq!(value("http://u@h/").as_deref(), Some("Basic dTo="));
    }
}
