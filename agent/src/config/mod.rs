//! Where the agent's settings come from and what they mean: kernel command line and INI files in, a typed [`Config`] out.
//!
//! Pure: the caller reads the files. Two steps: what was written (a flat map of option names and texts), then what is
//! meant (checked, defaults in). Kernel parameters are defaults, a config file beats them, process arguments beat both;
//! only `ipa-debug` beats the file. Names and defaults are ironic-python-agent 13.0.0's, so that any conductor's ramdisk
//! parameters work. `ferric-verify` is ours; all other `ferric-…` parameters are left to [`crate::init`].

mod ini;
mod inspection;
pub mod kernel;
mod meaning;
mod reader;
mod suites;
mod unheeded;

pub use inspection::Inspection;
pub use suites::Suite;

use crate::image::{Patience, Verify};
use ferric_common::ids::AgentToken;
use ferric_common::wire::version::ApiVersion;
use ini::Written;
use reader::Reader;
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
    #[error(
        "ipa-api-url=mdns asks the network who the controller is, and anybody may answer: this agent does not; \
         name it as ipa-api-url=http://ADDRESS:6385"
    )]
    Mdns,
    #[error("listen_tls = true needs tls_cert_file and tls_key_file")]
    NoCertificate,
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

/// What is spoken by TLS, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRules {
    pub minimum: TlsMinimum,
    /// Suites of TLS 1.2 in the order preferred; none: all that there are. Those of TLS 1.3 are not chosen among.
    pub suites: Option<Vec<Suite>>,
}

impl From<TlsMinimum> for TlsRules {
    fn from(minimum: TlsMinimum) -> TlsRules {
        TlsRules { minimum, suites: None }
    }
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
    /// What was written and does nothing, in words: said once at the start.
    pub told: Vec<String>,
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
    pub tls: TlsRules,
    pub curve: Curve,
    pub auto_tls: bool,
    /// The operator's own certificate and key for the command API.
    pub listen_identity: Option<(PathBuf, PathBuf)>,
    /// Time servers by name or address, in the order given; port 123.
    pub ntp_servers: Vec<String>,
    /// Without the time of one of them the agent does not start, and does not end the machine.
    pub clock_required: bool,
    pub hardware_delay: Duration,
    pub disk_wait_attempts: u32,
    pub disk_wait_delay: Duration,
    pub md5_enabled: bool,
    pub permitted_image_formats: Vec<String>,
    pub image_user: Option<String>,
    pub image_password: Option<String>,
    pub ignore_bootloader_failure: bool,
    pub config_drive_rebuild: bool,
    pub guard_special_filesystems: bool,
    pub enable_discard_erase: bool,
    pub inject_files_priority: u32,
    /// How much of an image is read back.
    pub verify: Verify,
    /// How an image is asked for.
    pub patience: Patience,
    pub inspection: Option<Inspection>,
}

impl Config {
    /// Everyone that this boot must reach.
    pub fn servers(&self) -> Vec<Url> {
        let callbacks = self.inspection.iter().flat_map(|inspection| &inspection.urls);
        self.api_urls.iter().chain(callbacks).cloned().collect()
    }
}

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
    let kernel = kernel::parameters(cmdline);
    let mut written = Written::new();
    for (parameter, option) in kernel::options() {
        if let Some(value) = kernel.get(parameter) {
            written.insert(option.to_string(), value.clone());
        }
    }
    for (name, text) in files {
        ini::read(name, text, &mut written)?;
    }
    if let Some(debug) = kernel.get("ipa-debug") {
        written.insert("debug".to_string(), debug.clone());
    }
    for (option, value) in arguments {
        written.insert((*option).to_string(), value.clone());
    }
    let read = Reader::new(&written);
    let mut config = meaning::meant(&written, &read)?;
    config.told.extend(kernel::told(cmdline));
    config.told.extend(unheeded::told(&written, &read.asked()));
    Ok(config)
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
        assert_eq!(config.tls, TlsMinimum::V12.into());
        assert!(config.auto_tls && !config.md5_enabled && config.token.is_none());
    }

    #[test]
    fn the_parameters_of_downloads_are_the_patience_with_images() {
        let (none, seconds) = (with("ipa-api-url=http://a", "").unwrap().patience, Duration::from_secs);
        assert_eq!((none.timeouts.connect, none.timeouts.silence), (seconds(20), seconds(60)));
        assert_eq!((none.attempts, none.timeouts.tries, none.timeouts.pause), (5, 5, seconds(1)));
        assert_eq!(none.timeouts.whole, None);
        let cmdline = "ipa-api-url=http://a ipa-image-download-connection-timeout=90 \
                       ipa-image-download-connection-retries=9 ipa-image-download-connection-retry-interval=10 \
                       ipa-image-download-max-duration=7200";
        let some = with(cmdline, "").unwrap();
        assert!(some.told.is_empty(), "{:?}", some.told);
        let Patience { timeouts, attempts, pause } = some.patience;
        assert_eq!((timeouts.connect, timeouts.silence), (seconds(90), seconds(90)));
        assert_eq!((timeouts.tries, attempts), (10, 10));
        assert_eq!((timeouts.pause, pause), (seconds(10), seconds(10)));
        assert_eq!(timeouts.whole, Some(seconds(7200)));
        let least = "image_download_connection_timeout=0\nimage_download_connection_retries=0\n\
                     image_download_max_duration=0\n";
        let Patience { timeouts, attempts, .. } = with(cmdline, least).unwrap().patience;
        assert_eq!((timeouts.silence, timeouts.tries, attempts, timeouts.whole), (seconds(1), 1, 1, None));
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
    fn an_option_that_nobody_reads_is_told() {
        let file = "introspection_daemon = true\ntls_cert_file=/c\ntls_key_file=/k\n[mdns]\nuse_mdns=1\n";
        assert_eq!(
            with("ipa-api-url=http://a ipa-lldp-timeout=3 ipa-agent-token=short", file).unwrap().told,
            [
                "tls_cert_file and tls_key_file are not used without listen_tls = true",
                "the agent token that was given is shorter than 32 characters and is not used",
                "option introspection_daemon does nothing here: the agent inspects once, at its start",
                "option mdns.use_mdns does nothing here: multicast DNS is not asked, as anybody may answer; name the \
                 controller in api_url",
            ]
        );
        let file = "listen_tls = on\n[ssl]\ncert_file=/c\nkey_file=/k\n";
        let config = with("ipa-api-url=http://a", file).unwrap();
        assert_eq!((config.listen_identity, config.told), (Some(("/c".into(), "/k".into())), vec![]));
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
            (
                "ipa-api-url=mdns",
                "",
                "ipa-api-url=mdns asks the network who the controller is, and anybody may answer: this agent does not; \
                 name it as ipa-api-url=http://ADDRESS:6385",
            ),
            (
                "ipa-api-url=http://a",
                "listen_tls=1",
                "listen_tls = true needs tls_cert_file and tls_key_file",
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
