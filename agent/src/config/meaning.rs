//! What the written options mean: each is checked, and what was left out gets the reference agent's default. Pure.

use super::ini::Written;
use super::reader::Reader;
use super::{Config, ConfigError, Curve, TlsMinimum, TlsRules, Trust, inspection, suites};
use crate::image::Patience;
use ferric_common::ids::AgentToken;
use ferric_common::limits;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

pub(super) fn meant(written: &Written, read: &Reader<'_>) -> Result<Config, ConfigError> {
    let api_urls = controllers(read)?;
    let inspection = inspection::read(read, &api_urls)?;
    if api_urls.is_empty() && inspection.is_none() {
        return Err(ConfigError::NoApi);
    }
    let mut told = Vec::new();
    let listen_identity = listen_identity(read, &mut told)?;
    let listen_port = read.port("listen_port", 9999)?;
    let (image_user, image_password) = image_login(read);
    let minimum = read.read("tls_min_version", "1.2 or 1.3", tls_minimum)?.unwrap_or(TlsMinimum::V12);
    Ok(Config {
        api_urls,
        api_version: read.read("ironic_api_version", "an API version such as 1.68", |t| t.parse().ok())?,
        request_id: read.read("global_request_id", "printable text without spaces", request_id)?,
        token: token(read, &mut told),
        debug: read.flag("debug", false)?,
        given: given(written),
        listen_host: listen_host(read)?,
        listen_port,
        advertise_host: read.text("advertise_host"),
        advertise_port: read.port("advertise_port", listen_port)?,
        advertise_https: read.read("advertise_protocol", "http or https", is_https)?.unwrap_or(false),
        network_interface: read.text("network_interface"),
        address_attempts: read.number("ip_lookup_attempts", 6)?.max(1),
        address_pause: read.seconds("ip_lookup_sleep", 10)?,
        lookup_timeout: read.seconds("lookup_timeout", 600)?,
        lookup_interval: read.seconds("lookup_interval", 1)?,
        request_timeout: read.seconds("http_request_timeout", 30)?.max(Duration::from_secs(1)),
        trust: trust(read)?,
        client_identity: read.pair("certfile", "keyfile")?,
        tls: TlsRules { minimum, suites: suites::read(read, minimum, &mut told) },
        curve: read.read("tls_certificate_curve", "p256, p384 or p521", curve)?.unwrap_or(Curve::P384),
        auto_tls: read.flag("enable_auto_tls", true)?,
        listen_identity,
        ntp_servers: read
            .read("ntp_server", "a comma-separated list of names or addresses of time servers", time_servers)?
            .unwrap_or_default(),
        clock_required: read.flag("fail_if_clock_not_set", false)?,
        hardware_delay: read.seconds("hardware_initialization_delay", 0)?,
        disk_wait_attempts: read.number("disk_wait_attempts", 10)?,
        disk_wait_delay: read.seconds("disk_wait_delay", 3)?,
        md5_enabled: read.flag("md5_enabled", false)?,
        permitted_image_formats: permitted_image_formats(read),
        image_user,
        image_password,
        ignore_bootloader_failure: read.flag("ignore_bootloader_failure", false)?,
        inject_files_priority: read
            .read("inject_files_priority", "a number from 0 to 99", |text| {
                text.parse().ok().filter(|priority| *priority <= 99)
            })?
            .unwrap_or(0),
        config_drive_rebuild: read.flag("config_drive_rebuild", false)?,
        guard_special_filesystems: read.flag("guard_special_filesystems", true)?,
        enable_discard_erase: read.flag("enable_discard_erase", false)?,
        verify: read.read("verify", "sample or all", |text| text.parse().ok())?.unwrap_or_default(),
        patience: patience(read)?,
        inspection,
        told,
    })
}

// ---- what more than one option decides

fn controllers(read: &Reader<'_>) -> Result<Vec<Url>, ConfigError> {
    if read.text("api_url").is_some_and(|text| text == "mdns") {
        return Err(ConfigError::Mdns);
    }
    let urls = read.read("api_url", "a comma-separated list of http:// or https:// addresses", |text| {
        text.split(',').filter(|part| !part.trim().is_empty()).map(api_url).collect::<Option<Vec<_>>>()
    })?;
    Ok(urls.unwrap_or_default())
}

fn trust(read: &Reader<'_>) -> Result<Trust, ConfigError> {
    Ok(match (read.flag("insecure", false)?, read.text("cafile")) {
        (true, _) => Trust::Insecure,
        (false, Some(file)) => Trust::CaFile(file.into()),
        (false, None) => Trust::SystemRoots,
    })
}

/// The operator's own certificate and key, where they are asked for.
fn listen_identity(
    read: &Reader<'_>,
    told: &mut Vec<String>,
) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let files = read.pair("tls_cert_file", "tls_key_file")?;
    if read.flag("listen_tls", false)? {
        return files.map(Some).ok_or(ConfigError::NoCertificate);
    }
    if files.is_some() {
        told.push("tls_cert_file and tls_key_file are not used without listen_tls = true".into());
    }
    Ok(None)
}

fn token(read: &Reader<'_>, told: &mut Vec<String>) -> Option<AgentToken> {
    let text = read.text("agent_token")?;
    let token = AgentToken::new(text);
    if token.is_none() {
        told.push("the agent token that was given is shorter than 32 characters and is not used".into());
    }
    token
}

/// None: all addresses.
fn listen_host(read: &Reader<'_>) -> Result<Option<IpAddr>, ConfigError> {
    let address = read.read("listen_host", "an IP address", |text| text.parse::<IpAddr>().ok())?;
    Ok(address.filter(|address| !address.is_unspecified()))
}

/// User and password for the image server, which are meant only where the strategy says so.
fn image_login(read: &Reader<'_>) -> (Option<String>, Option<String>) {
    let is_basic = read.text("image_server_auth_strategy").is_some_and(|strategy| strategy == "http_basic");
    let text = |name| read.text(name).filter(|_| is_basic);
    (text("image_server_user"), text("image_server_password"))
}

/// The parameters of downloads, where they are given; the times that a transfer may be silent or slow are ours.
fn patience(read: &Reader<'_>) -> Result<Patience, ConfigError> {
    let mut patience = Patience::default();
    let Patience { timeouts, attempts, pause } = &mut patience;
    if let Some(timeout) = read.seconds_given("image_download_connection_timeout")? {
        timeouts.silence = timeout.max(Duration::from_secs(1));
        timeouts.connect = timeouts.silence;
    }
    let retries = read.number("image_download_connection_retries", limits::DOWNLOAD_TRIES - 1)?;
    timeouts.tries = retries.saturating_add(1);
    *attempts = timeouts.tries;
    if let Some(interval) = read.seconds_given("image_download_connection_retry_interval")? {
        (timeouts.pause, *pause) = (interval, interval);
    }
    timeouts.whole = read.seconds_given("image_download_max_duration")?.filter(|whole| !whole.is_zero());
    Ok(patience)
}

fn permitted_image_formats(read: &Reader<'_>) -> Vec<String> {
    let formats = read.text("permitted_image_formats").unwrap_or_else(|| "raw,gpt,qcow2".to_string());
    formats.split(',').map(|format| format.trim().to_ascii_lowercase()).collect()
}

// ---- one value each

fn api_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim().trim_end_matches('/')).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn request_id(text: &str) -> Option<String> {
    (text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_string())
}

fn is_https(text: &str) -> Option<bool> {
    match text {
        "http" => Some(false),
        "https" => Some(true),
        _ => None,
    }
}

fn curve(text: &str) -> Option<Curve> {
    match text {
        "p256" => Some(Curve::P256),
        "p384" | "p521" => Some(Curve::P384),
        _ => None,
    }
}

/// `1.2` or `1.3`, as the kernel parameter and the lookup answer write it.
pub(super) fn tls_minimum(text: &str) -> Option<TlsMinimum> {
    match text {
        "1.2" => Some(TlsMinimum::V12),
        "1.3" => Some(TlsMinimum::V13),
        _ => None,
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

/// The options as they were written, without what must not be read by others.
fn given(written: &Written) -> String {
    let secret = |name: &str| ["token", "password", "secret"].iter().any(|word| name.contains(word));
    let shown = |(name, value): (&String, &String)| match secret(name) || value.contains('@') {
        true => format!("{name}=***"),
        false => format!("{name}={value}"),
    };
    written.iter().map(shown).collect::<Vec<_>>().join(" ")
}
