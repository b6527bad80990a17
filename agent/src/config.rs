//! Where the agent's settings come from and what they mean: kernel command line and INI files in, a typed [`Config`] out.
//!
//! Pure: the caller reads the files. Two steps: what was written (a flat map of option names and texts), then what is
//! meant (checked, defaults in). Kernel parameters are defaults, a config file beats them, process arguments beat both;
//! only `ipa-debug` beats the file. Names and defaults are ironic-python-agent 13.0.0's, so that any conductor's ramdisk
//! parameters work. `ferric-verify` is ours; all other `ferric-…` parameters are left to [`crate::init`].

mod inspection;

pub use inspection::Inspection;

use crate::image::Verify;
use ferric_common::ids::AgentToken;
use ferric_common::limits;
use ferric_common::wire::version::ApiVersion;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// A setting that cannot be used. The process ends with its own exit code; the text is all that the console shows.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    #[error("setting '{name}' has the value '{value}', which is not {wanted}")]
    Value { name: String, value: String, wanted: &'static str },
    #[error("{file} line {line}: '{text}' is neither a [group], a comment nor 'name = value'")]
    Line { file: String, line: usize, text: String },
    #[error(
        "no controller is named: add ipa-api-url=http://ADDRESS:6385 to the kernel parameters (or api_url to a config file)"
    )]
    NoApi,
    #[error("'{0}' and '{1}' are only useful together")]
    Half(&'static str, &'static str),
}

/// Whom outgoing TLS believes. Never a silent fallback from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The ramdisk's CA bundle if it has one, else the built-in public roots.
    SystemRoots,
    /// Only the certificates in this PEM file.
    CaFile(PathBuf),
    /// Nobody is checked. Asked for by name (`ipa-insecure=1`) and logged each time.
    Insecure,
}

/// Oldest TLS version that is spoken, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMinimum {
    V12,
    V13,
}

/// Curve of the key that the agent makes for its own certificate. P-521 cannot be made by our library and counts as P-384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
}

/// What is meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bases of the API without trailing slash, in the order to try. Empty only in an inspection that nobody follows up.
    pub api_urls: Vec<Url>,
    /// Set: no detection.
    pub api_version: Option<ApiVersion>,
    pub request_id: Option<String>,
    pub token: Option<AgentToken>,
    /// More words in the log.
    pub debug: bool,
    /// Every option that was written, secrets left out: for the log.
    pub given: String,
    /// None: all addresses, IPv6 and IPv4.
    pub listen_host: Option<IpAddr>,
    pub listen_port: u16,
    pub advertise_host: Option<String>,
    pub advertise_port: u16,
    pub advertise_https: bool,
    pub network_interface: Option<String>,
    pub address_attempts: u32,
    pub address_pause: Duration,
    pub lookup_timeout: Duration,
    pub lookup_interval: Duration,
    pub request_timeout: Duration,
    pub trust: Trust,
    /// Certificate chain and key that we show to servers, both PEM.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    pub tls_minimum: TlsMinimum,
    pub curve: Curve,
    pub auto_tls: bool,
    /// The operator's own certificate and key for the command API.
    pub listen_identity: Option<(PathBuf, PathBuf)>,
    /// Time servers by name or address, in the order given; port 123.
    pub ntp_servers: Vec<String>,
    pub hardware_delay: Duration,
    pub disk_wait_attempts: u32,
    pub disk_wait_delay: Duration,
    pub md5_enabled: bool,
    pub permitted_image_formats: Vec<String>,
    pub image_user: Option<String>,
    pub image_password: Option<String>,
    pub ignore_bootloader_failure: bool,
    pub guard_special_filesystems: bool,
    pub enable_discard_erase: bool,
    /// How much of an image is read back.
    pub verify: Verify,
    pub inspection: Option<Inspection>,
}

impl Config {
    /// Everyone that this boot must reach.
    pub fn servers(&self) -> Vec<Url> {
        let callbacks = self.inspection.iter().flat_map(|inspection| &inspection.urls);
        self.api_urls.iter().chain(callbacks).cloned().collect()
    }
}

/// Kernel parameter and the option that it is the default of.
const KERNEL: &[(&str, &str)] = &[
    ("ipa-api-url", "api_url"),
    ("ipa-global-request-id", "global_request_id"),
    ("ipa-agent-token", "agent_token"),
    ("ipa-debug", "debug"),
    ("ipa-listen-host", "listen_host"),
    ("ipa-listen-port", "listen_port"),
    ("ipa-advertise-host", "advertise_host"),
    ("ipa-advertise-port", "advertise_port"),
    ("ipa-advertise-protocol", "advertise_protocol"),
    ("ipa-ip-lookup-attempts", "ip_lookup_attempts"),
    ("ipa-ip-lookup-timeout", "ip_lookup_sleep"),
    ("ipa-network-interface", "network_interface"),
    ("ipa-lookup-timeout", "lookup_timeout"),
    ("ipa-lookup-interval", "lookup_interval"),
    ("ipa-http-request-timeout", "http_request_timeout"),
    ("ipa-ironic-api-version", "ironic_api_version"),
    ("ipa-insecure", "insecure"),
    ("ipa-tls-min-version", "tls_min_version"),
    ("ipa-tls-certificate-curve", "tls_certificate_curve"),
    ("ipa-ntp-server", "ntp_server"),
    ("ipa-hardware-initialization-delay", "hardware_initialization_delay"),
    ("ipa-disk-wait-attempts", "disk_wait_attempts"),
    ("ipa-disk-wait-delay", "disk_wait_delay"),
    ("ipa-ignore-bootloader-failure", "ignore_bootloader_failure"),
    ("ipa-guard-special-filesystems", "guard_special_filesystems"),
    ("ipa-enable-discard-erase", "enable_discard_erase"),
    ("ipa-inspection-callback-url", "inspection_callback_url"),
    ("ipa-inspection-collectors", "inspection_collectors"),
    ("ipa-inspection-dhcp-wait-timeout", "inspection_dhcp_wait_timeout"),
    ("ipa-inspection-dhcp-all-interfaces", "inspection_dhcp_all_interfaces"),
    ("ipa-collect-lldp", "collect_lldp"),
    ("ipa-lldp-timeout", "lldp_timeout"),
    ("ferric-verify", "verify"),
];

type Written = BTreeMap<String, String>;

/// Puts the sources together and checks every value.
///
/// `files` are name and content of the `*.conf` files in the order read (later ones win); `arguments` are option names
/// and values from the process's own command line.
///
/// # Errors
/// The first setting that cannot be used, by name.
pub fn parse(
    cmdline: &str,
    files: &[(String, String)],
    arguments: &[(&str, String)],
) -> Result<Config, ConfigError> {
    let kernel = kernel_parameters(cmdline);
    let mut written = Written::new();
    for (parameter, option) in KERNEL {
        if let Some(value) = kernel.get(*parameter) {
            written.insert((*option).to_string(), value.clone());
        }
    }
    for (name, text) in files {
        read_ini(name, text, &mut written)?;
    }
    if let Some(debug) = kernel.get("ipa-debug") {
        written.insert("debug".to_string(), debug.clone());
    }
    for (option, value) in arguments {
        written.insert((*option).to_string(), value.clone());
    }
    meant(&written)
}

/// Splits a kernel command line: white space, first `=`, later duplicates win, no quotes.
pub fn kernel_parameters(cmdline: &str) -> BTreeMap<String, String> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// Reads the `[DEFAULT]` group (and what stands before any group); other groups have no option that this agent knows.
fn read_ini(file: &str, text: &str, into: &mut Written) -> Result<(), ConfigError> {
    let mut ours = true;
    let mut last: Option<String> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if raw.starts_with([' ', '\t'])
            && let Some(value) = last.as_ref().and_then(|name| into.get_mut(name))
        {
            value.push(' ');
            value.push_str(line);
            continue;
        }
        last = None;
        if let Some(group) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            ours = group == "DEFAULT";
            continue;
        }
        let Some((name, value)) = line.split_once(['=', ':']) else {
            return Err(ConfigError::Line {
                file: file.to_string(),
                line: index.saturating_add(1),
                text: line.chars().take(80).collect(),
            });
        };
        if ours {
            let name = name.trim().replace('-', "_");
            into.insert(name.clone(), unquoted(value.trim()).to_string());
            last = Some(name);
        }
    }
    Ok(())
}

fn unquoted(text: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(text)
}

/// Typed reading of the flat map; an empty text counts as not written.
struct Reader<'a>(&'a Written);

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| text.trim().to_string()).filter(|text| !text.is_empty())
    }
    fn read<T>(
        &self,
        name: &str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Value {
                name: name.to_string(),
                value: text.chars().take(80).collect(),
                wanted,
            }),
        }
    }
    fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        let value = self.read(name, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Some(true),
            "false" | "0" | "off" | "no" => Some(false),
            _ => None,
        })?;
        Ok(value.unwrap_or(default))
    }
    fn number(&self, name: &str, default: u32) -> Result<u32, ConfigError> {
        Ok(self.read(name, "a whole number", |text| text.parse().ok())?.unwrap_or(default))
    }
    fn port(&self, name: &str, default: u16) -> Result<u16, ConfigError> {
        Ok(self.read(name, "a port number", |text| text.parse().ok())?.unwrap_or(default))
    }
    fn seconds(&self, name: &str, default: u64) -> Result<Duration, ConfigError> {
        // A week is longer than any of these waits can mean; the bound keeps deadline sums from overflowing.
        let value = self.read(name, "a number of seconds up to 604800", |text| {
            text.parse::<f64>().ok().filter(|s| (0.0..=604_800.0).contains(s))
        })?;
        Ok(value.map_or(Duration::from_secs(default), Duration::from_secs_f64))
    }
    fn pair(
        &self,
        first: &'static str,
        second: &'static str,
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (self.text(first), self.text(second)) {
            (Some(a), Some(b)) => Ok(Some((a.into(), b.into()))),
            (None, None) => Ok(None),
            _ => Err(ConfigError::Half(first, second)),
        }
    }
}

/// One name or address, as the reference agent takes it, or several.
fn time_servers(text: &str) -> Option<Vec<String>> {
    let good = |server: &str| {
        (1..=253).contains(&server.len())
            && server.bytes().all(|b| b.is_ascii_alphanumeric() || b".:_-".contains(&b))
    };
    let servers: Vec<String> =
        text.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty()).map(String::from).collect();
    (servers.len() <= limits::NTP_SERVERS && servers.iter().all(|server| good(server))).then_some(servers)
}

fn api_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim().trim_end_matches('/')).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn meant(written: &Written) -> Result<Config, ConfigError> {
    let read = Reader(written);
    let api_urls = read
        .read("api_url", "a comma-separated list of http:// or https:// addresses", |text| {
            text.split(',').filter(|part| !part.trim().is_empty()).map(api_url).collect::<Option<Vec<_>>>()
        })?
        .unwrap_or_default();
    let inspection = inspection::read(&read, &api_urls)?;
    if api_urls.is_empty() && inspection.is_none() {
        return Err(ConfigError::NoApi);
    }
    let trust = match (read.flag("insecure", false)?, read.text("cafile")) {
        (true, _) => Trust::Insecure,
        (false, Some(file)) => Trust::CaFile(file.into()),
        (false, None) => Trust::SystemRoots,
    };
    let listen_identity =
        if read.flag("listen_tls", false)? { read.pair("tls_cert_file", "tls_key_file")? } else { None };
    let formats = read.text("permitted_image_formats").unwrap_or_else(|| "raw,gpt,qcow2".to_string());
    let basic = read.text("image_server_auth_strategy").is_some_and(|s| s == "http_basic");
    let listen_port = read.port("listen_port", 9999)?;
    Ok(Config {
        api_urls,
        api_version: read.read("ironic_api_version", "an API version such as 1.68", |t| t.parse().ok())?,
        request_id: read.read("global_request_id", "printable text without spaces", |text| {
            (text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_string())
        })?,
        token: read.text("agent_token").and_then(AgentToken::new),
        debug: read.flag("debug", false)?,
        given: given(written),
        listen_host: read
            .read("listen_host", "an IP address", |text| text.parse::<IpAddr>().ok())?
            .filter(|address| !address.is_unspecified()),
        listen_port,
        advertise_host: read.text("advertise_host"),
        advertise_port: read.port("advertise_port", listen_port)?,
        advertise_https: read
            .read("advertise_protocol", "http or https", |text| match text {
                "http" => Some(false),
                "https" => Some(true),
                _ => None,
            })?
            .unwrap_or(false),
        network_interface: read.text("network_interface"),
        address_attempts: read.number("ip_lookup_attempts", 6)?.max(1),
        address_pause: read.seconds("ip_lookup_sleep", 10)?,
        lookup_timeout: read.seconds("lookup_timeout", 600)?,
        lookup_interval: read.seconds("lookup_interval", 1)?,
        request_timeout: read.seconds("http_request_timeout", 30)?.max(Duration::from_secs(1)),
        trust,
        client_identity: read.pair("certfile", "keyfile")?,
        tls_minimum: read.read("tls_min_version", "1.2 or 1.3", tls_minimum)?.unwrap_or(TlsMinimum::V12),
        curve: read
            .read("tls_certificate_curve", "p256, p384 or p521", |text| match text {
                "p256" => Some(Curve::P256),
                "p384" | "p521" => Some(Curve::P384),
                _ => None,
            })?
            .unwrap_or(Curve::P384),
        auto_tls: read.flag("enable_auto_tls", true)?,
        listen_identity,
        ntp_servers: read
            .read("ntp_server", "a comma-separated list of names or addresses of time servers", time_servers)?
            .unwrap_or_default(),
        hardware_delay: read.seconds("hardware_initialization_delay", 0)?,
        disk_wait_attempts: read.number("disk_wait_attempts", 10)?,
        disk_wait_delay: read.seconds("disk_wait_delay", 3)?,
        md5_enabled: read.flag("md5_enabled", false)?,
        permitted_image_formats: formats.split(',').map(|f| f.trim().to_ascii_lowercase()).collect(),
        image_user: read.text("image_server_user").filter(|_| basic),
        image_password: read.text("image_server_password").filter(|_| basic),
        ignore_bootloader_failure: read.flag("ignore_bootloader_failure", false)?,
        guard_special_filesystems: read.flag("guard_special_filesystems", true)?,
        enable_discard_erase: read.flag("enable_discard_erase", false)?,
        verify: read.read("verify", "sample or all", |text| text.parse().ok())?.unwrap_or_default(),
        inspection,
    })
}

/// The options as they were written, without what must not be read by others.
fn given(written: &Written) -> String {
    let secret = |name: &str| ["token", "password", "secret"].iter().any(|word| name.contains(word));
    let shown = |(name, value): (&String, &String)| match secret(name) || value.contains('@') {
        true => format!("{name}=***"),
        false => format!("{name}={value}"),
    };
    written.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// `1.2` or `1.3`, as the kernel parameter and the lookup answer write it.
pub fn tls_minimum(text: &str) -> Option<TlsMinimum> {
    match text {
        "1.2" => Some(TlsMinimum::V12),
        "1.3" => Some(TlsMinimum::V13),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cmdline: &str, file: &str) -> Result<Config, ConfigError> {
        parse(cmdline, &[("a.conf".to_string(), file.to_string())], &[])
    }

    #[test]
    fn defaults_are_those_of_the_python_agent() {
        let config = with("quiet ipa-api-url=http://192.0.2.1:6385/ BOOTIF=01-aa", "").unwrap();
        assert_eq!(config.api_urls, [Url::parse("http://192.0.2.1:6385").unwrap()]);
        assert_eq!((config.listen_port, config.advertise_port), (9999, 9999));
        assert_eq!(config.lookup_timeout, Duration::from_secs(600));
        assert_eq!(config.lookup_interval, Duration::from_secs(1));
        assert_eq!(config.request_timeout, Duration::from_secs(30));
        assert_eq!((config.trust, config.curve), (Trust::SystemRoots, Curve::P384));
        assert_eq!(config.tls_minimum, TlsMinimum::V12);
        assert!(config.auto_tls && !config.md5_enabled && config.token.is_none());
    }

    #[test]
    fn the_later_source_wins_except_for_debug() {
        let base = "ipa-api-url=http://a ipa-lookup-timeout=1 ipa-lookup-timeout=2 ipa-debug=0";
        assert_eq!(with(base, "").unwrap().lookup_timeout, Duration::from_secs(2));
        let config = with(
            base,
            "# c\n[DEFAULT]\nlookup_timeout = 3\ndebug=true\ncafile = /ca.pem\n[mdns]\nlookup_timeout=9\n",
        );
        let config = config.unwrap();
        assert_eq!(config.lookup_timeout, Duration::from_secs(3));
        assert!(!config.debug);
        assert_eq!(config.trust, Trust::CaFile("/ca.pem".into()));
        let argued = parse(base, &[], &[("lookup_timeout", "4".into())]).unwrap();
        assert_eq!(argued.lookup_timeout, Duration::from_secs(4));
    }

    #[test]
    fn time_servers_are_names_and_addresses_and_nothing_else() {
        let servers = |text: &str| with(&format!("ipa-api-url=http://a ipa-ntp-server={text}"), "");
        assert_eq!(
            servers("ntp1.example.org,192.0.2.7,2001:db8::7").unwrap().ntp_servers,
            ["ntp1.example.org", "192.0.2.7", "2001:db8::7"]
        );
        assert!(servers("").unwrap().ntp_servers.is_empty());
        for bad in ["a;reboot", "$(reboot)", "http://a/", "1,2,3,4,5,6,7,8,9", &"x".repeat(254)] {
            let said = servers(bad).unwrap_err().to_string();
            assert!(said.contains("'ntp_server'") && said.contains("time servers"), "{said}");
        }
    }

    #[test]
    fn several_addresses_keep_their_order_and_lose_the_slash() {
        let config = with("ipa-api-url=https://a:1/,http://[2001:db8::1]:6385/baremetal/", "").unwrap();
        let urls: Vec<&str> = config.api_urls.iter().map(Url::as_str).collect();
        assert_eq!(urls, ["https://a:1/", "http://[2001:db8::1]:6385/baremetal"]);
    }

    #[test]
    fn what_was_given_is_told_without_secrets() {
        let config = with(
            &format!("ipa-api-url=https://me:pw@a/ ipa-debug=1 ipa-agent-token={}", "t".repeat(43)),
            "image_server_password = hunter2\nlookup_timeout = 7\n",
        );
        let config = config.unwrap();
        assert!(config.debug);
        assert_eq!(
            config.given,
            "agent_token=*** api_url=*** debug=1 image_server_password=*** lookup_timeout=7"
        );
    }

    #[test]
    fn a_bad_value_names_the_setting() {
        for (cmdline, file, text) in [
            (
                "",
                "",
                "no controller is named: add ipa-api-url=http://ADDRESS:6385 to the kernel parameters (or api_url to a config file)",
            ),
            (
                "ipa-api-url=ftp://a",
                "",
                "setting 'api_url' has the value 'ftp://a', which is not a comma-separated list of http:// or https:// addresses",
            ),
            (
                "ipa-api-url=http://a ipa-insecure=maybe",
                "",
                "setting 'insecure' has the value 'maybe', which is not true or false",
            ),
            (
                "ipa-api-url=http://a ipa-listen-port=70000",
                "",
                "setting 'listen_port' has the value '70000', which is not a port number",
            ),
            (
                "ipa-api-url=http://a ipa-lookup-timeout=-1",
                "",
                "setting 'lookup_timeout' has the value '-1', which is not a number of seconds up to 604800",
            ),
            ("ipa-api-url=http://a", "certfile=/x", "'certfile' and 'keyfile' are only useful together"),
            (
                "ipa-api-url=http://a",
                "\nnonsense",
                "a.conf line 2: 'nonsense' is neither a [group], a comment nor 'name = value'",
            ),
        ] {
            assert_eq!(with(cmdline, file).unwrap_err().to_string(), text);
        }
    }
}
