//! The configuration file: what was written, checked into what is meant. Only this room knows the file.
//!
//! Mistakes are told with the file, the key and what is allowed; the program then ends with [`EXIT_CONFIG`].

mod deploy;

use crate::boot::config::{BootConfig, DhcpConfig};
use crate::conductor::{Network, Patience, RamdiskFiles, Settings};
use crate::domain::provision::Deadlines;
use deploy::DeployTable;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Exit code of a bad configuration (sysexits' EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("configuration {path}: {reason}")]
    Syntax { path: PathBuf, reason: String },
    #[error("configuration {path}: {key} is {found}; {allowed}")]
    Value { path: PathBuf, key: &'static str, found: String, allowed: String },
    #[error("configuration {path}: {reason}")]
    Boot { path: PathBuf, reason: String },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state_dir: PathBuf,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    api: ApiTable,
    #[serde(default)]
    boot: Option<BootConfig>,
    #[serde(default)]
    dhcp: Option<DhcpConfig>,
    #[serde(default)]
    deploy: DeployTable,
    #[serde(default)]
    agent: AgentTable,
    #[serde(default)]
    ipmi: IpmiTable,
    #[serde(default)]
    power: PowerTable,
    #[serde(default)]
    images: ImagesTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApiTable {
    listen: SocketAddr,
    public_url: Option<String>,
}

impl Default for ApiTable {
    fn default() -> ApiTable {
        ApiTable { listen: SocketAddr::from(([0, 0, 0, 0], 6385)), public_url: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentTable {
    require_tls: bool,
    heartbeat_timeout: u64,
    networks: Vec<String>,
    allow_md5: bool,
    /// A second machine that claims a node stops its deployment.
    second_machine_is_error: bool,
}

impl Default for AgentTable {
    fn default() -> AgentTable {
        AgentTable {
            require_tls: true,
            heartbeat_timeout: 300,
            networks: Vec::new(),
            allow_md5: false,
            second_machine_is_error: true,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IpmiTable {
    /// How often a question is sent before the BMC counts as silent.
    tries: u32,
    /// Milliseconds to wait after the first try; doubles with each further one.
    first_wait_ms: u64,
    /// Seconds that one talk with a BMC may take.
    talk_seconds: u64,
    allow_empty_password: bool,
}

impl Default for IpmiTable {
    fn default() -> IpmiTable {
        IpmiTable { tries: 3, first_wait_ms: 2000, talk_seconds: 60, allow_empty_password: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PowerTable {
    /// Seconds between reads of every machine's power; 0 switches them off.
    sync_interval: u64,
    /// Seconds that a machine may take to follow a power action.
    change_timeout: u64,
    /// Seconds that an operating system may take to power its machine off.
    soft_off_timeout: u64,
}

impl Default for PowerTable {
    fn default() -> PowerTable {
        PowerTable { sync_interval: 60, change_timeout: 60, soft_off_timeout: 600 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ImagesTable {
    /// Images may be asked for on loopback and link-local addresses.
    allow_local_addresses: bool,
    /// A PEM file of authorities trusted beside the system's.
    ca_file: Option<PathBuf>,
}

/// How patient the IPMI client is.
#[derive(Clone, Debug)]
pub struct IpmiPatience {
    pub tries: u32,
    pub first_wait: Duration,
    pub talk: Duration,
    pub allow_empty_password: bool,
}

/// The configuration as it is meant.
#[derive(Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub public_url: Option<String>,
    pub boot: Option<BootConfig>,
    pub dhcp: Option<DhcpConfig>,
    pub ipmi: IpmiPatience,
    pub allow_local_images: bool,
    pub image_ca_file: Option<PathBuf>,
    pub settings: Settings,
}

/// Reads and checks the file.
///
/// # Errors
/// [`ConfigError`].
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError::Read { path: path.to_path_buf(), reason: e.to_string() })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let file: File = toml::from_str(text)
        .map_err(|e| ConfigError::Syntax { path: path.to_path_buf(), reason: e.to_string() })?;
    let value = |key: &'static str, found: String, allowed: &str| ConfigError::Value {
        path: path.to_path_buf(),
        key,
        found,
        allowed: allowed.to_string(),
    };
    if !file.state_dir.is_absolute() {
        return Err(value(
            "state_dir",
            format!("'{}'", file.state_dir.display()),
            "an absolute path is needed",
        ));
    }
    for (key, seconds) in [
        ("[deploy] callback_timeout", file.deploy.callback_timeout),
        ("[deploy] clean_callback_timeout", file.deploy.clean_callback_timeout),
        ("[agent] heartbeat_timeout", file.agent.heartbeat_timeout),
        ("[power] change_timeout", file.power.change_timeout),
        ("[power] soft_off_timeout", file.power.soft_off_timeout),
    ] {
        if !(1..=604_800).contains(&seconds) {
            return Err(value(key, seconds.to_string(), "1 to 604800 seconds are allowed"));
        }
    }
    if !(1..=64).contains(&file.deploy.disk_erasure_concurrency) {
        let found = file.deploy.disk_erasure_concurrency.to_string();
        return Err(value("[deploy] disk_erasure_concurrency", found, "1 to 64 disks at once are allowed"));
    }
    if file.deploy.shred_random_overwrite_iterations > 100 {
        let found = file.deploy.shred_random_overwrite_iterations.to_string();
        return Err(value(
            "[deploy] shred_random_overwrite_iterations",
            found,
            "0 to 100 passes are allowed",
        ));
    }
    if !["uefi", "bios"].contains(&file.deploy.default_boot_mode.as_str()) {
        let found = format!("'{}'", file.deploy.default_boot_mode);
        return Err(value("[deploy] default_boot_mode", found, "'uefi' and 'bios' are allowed"));
    }
    if !(1..=10).contains(&file.ipmi.tries) || !(1..=600).contains(&file.ipmi.talk_seconds) {
        let found = format!("{} / {}", file.ipmi.tries, file.ipmi.talk_seconds);
        return Err(value(
            "[ipmi] tries / talk_seconds",
            found,
            "1 to 10 tries and 1 to 600 seconds are allowed",
        ));
    }
    let networks = file
        .agent
        .networks
        .iter()
        .map(|text| {
            network(text).ok_or_else(|| {
                value("[agent] networks", format!("'{text}'"), "networks look like 10.0.0.0/8")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let public_url = file.api.public_url.map(|url| url.trim_end_matches('/').to_string());
    if let Some(url) = &public_url {
        let good =
            url::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.query().is_none());
        if !good {
            return Err(value(
                "[api] public_url",
                format!("'{url}'"),
                "an http or https URL is needed, for instance http://10.0.0.1:6385",
            ));
        }
    }
    if let Some(boot) = &file.boot {
        let wrong = |e: crate::boot::config::BootConfigError| ConfigError::Boot {
            path: path.to_path_buf(),
            reason: e.to_string(),
        };
        boot.check().map_err(wrong)?;
        if let Some(dhcp) = file.dhcp.as_ref().filter(|d| d.enabled) {
            dhcp.check(boot).map_err(wrong)?;
        }
    } else if file.dhcp.as_ref().is_some_and(|d| d.enabled) {
        return Err(value("[dhcp] enabled", "true".into(), "a [boot] table is needed with it"));
    }
    let api_url = public_url.clone().unwrap_or_else(|| {
        let address = match (&file.boot, file.api.listen.ip()) {
            (_, ip) if !ip.is_unspecified() => ip,
            (Some(boot), _) => IpAddr::V4(boot.address),
            (None, ip) => ip,
        };
        format!("http://{}", SocketAddr::new(address, file.api.listen.port()))
    });
    let s = Duration::from_secs;
    let deploy = &file.deploy;
    let callback = s(deploy.callback_timeout);
    let settings = Settings {
        hostname: file.hostname.unwrap_or_else(hostname),
        state_dir: file.state_dir,
        api_url,
        ramdisk: file.boot.as_ref().map(|b| RamdiskFiles {
            kernel: b.kernel.clone(),
            ramdisk: b.ramdisk.clone(),
            extra: b.extra_ramdisks.clone(),
            kernel_parameters: b.kernel_parameters.clone(),
        }),
        deadlines: Deadlines {
            deploy: callback,
            clean: s(deploy.clean_callback_timeout),
            inspect: callback,
            rescue: callback,
            service: callback,
        },
        automated_clean: deploy.automated_clean,
        clean_priorities: deploy.priorities(),
        erasure: deploy.erasure(),
        power_off_after_failure: deploy.power_off_after_failure,
        default_boot_mode: deploy.default_boot_mode.clone(),
        require_tls: file.agent.require_tls,
        allow_md5: file.agent.allow_md5,
        conflict_is_error: file.agent.second_machine_is_error,
        heartbeat_timeout: s(file.agent.heartbeat_timeout),
        networks,
        patience: Patience {
            power_change: s(file.power.change_timeout),
            soft_power_off: s(file.power.soft_off_timeout),
            power_sync: s(file.power.sync_interval),
            ..Patience::default()
        },
    };
    Ok(Config {
        listen: file.api.listen,
        public_url,
        boot: file.boot,
        dhcp: file.dhcp,
        ipmi: IpmiPatience {
            tries: file.ipmi.tries,
            first_wait: Duration::from_millis(file.ipmi.first_wait_ms),
            talk: s(file.ipmi.talk_seconds),
            allow_empty_password: file.ipmi.allow_empty_password,
        },
        allow_local_images: file.images.allow_local_addresses,
        image_ca_file: file.images.ca_file,
        settings,
    })
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = prefix.parse().ok().filter(|p| *p <= widest)?;
    Some(Network { address, prefix })
}

fn hostname() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match read.trim() {
        "" => "ferric".to_string(),
        name => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        parse(text, Path::new("/etc/ferric.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_shortest_file_is_enough() {
        let config = check("state_dir = '/var/lib/ferric'").unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:6385");
        assert_eq!(config.settings.deadlines.deploy, Duration::from_secs(1800));
        assert!(config.settings.require_tls && config.settings.automated_clean);
    }

    #[test]
    fn the_address_for_machines_is_that_of_the_boot_network() {
        let boot = "[boot]\naddress = '10.0.0.1'\nkernel = '/k'\nramdisk = '/r'\n";
        let config = check(&format!("state_dir = '/s'\n{boot}")).unwrap();
        assert_eq!(config.settings.api_url, "http://10.0.0.1:6385");
        let config =
            check(&format!("state_dir = '/s'\n[api]\npublic_url = 'https://ironic.example/'\n{boot}"))
                .unwrap();
        assert_eq!(config.settings.api_url, "https://ironic.example");
    }

    #[test]
    fn erasing_is_off_by_default_and_follows_the_file() {
        let plain = check("state_dir = '/s'").unwrap().settings;
        assert_eq!(
            (plain.clean_priorities.erase_devices, plain.clean_priorities.erase_devices_metadata),
            (0, 10)
        );
        assert_eq!(plain.erasure.internal_info()["disk_erasure_concurrency"], 4);
        let file = "state_dir = '/s'\n[deploy]\nerase_devices_priority = 20\ncontinue_if_disk_secure_erase_fails = true\n";
        let settings = check(file).unwrap().settings;
        assert_eq!(settings.clean_priorities.erase_devices, 20);
        assert_eq!(settings.erasure.internal_info()["agent_continue_if_secure_erase_failed"], true);
    }

    #[test]
    fn mistakes_are_told_with_file_key_and_what_is_allowed() {
        for (text, words) in [
            ("state_dir = 'x'", "state_dir is 'x'; an absolute path"),
            ("", "state_dir"),
            ("state_dir = '/s'\nnosuch = 1", "nosuch"),
            ("state_dir = '/s'\n[api]\nlisten = 'x'", "listen"),
            (
                "state_dir = '/s'\n[deploy]\ncallback_timeout = 0",
                "[deploy] callback_timeout is 0; 1 to 604800",
            ),
            ("state_dir = '/s'\n[deploy]\ndisk_erasure_concurrency = 0", "1 to 64 disks at once"),
            ("state_dir = '/s'\n[deploy]\nshred_random_overwrite_iterations = 101", "0 to 100 passes"),
            ("state_dir = '/s'\n[deploy]\ndefault_boot_mode = 'efi'", "'uefi' and 'bios'"),
            ("state_dir = '/s'\n[agent]\nnetworks = ['10.0.0.0']", "10.0.0.0/8"),
            ("state_dir = '/s'\n[agent]\nnetworks = ['10.0.0.0/33']", "[agent] networks is '10.0.0.0/33'"),
            ("state_dir = '/s'\n[ipmi]\ntries = 0", "1 to 10 tries"),
            ("state_dir = '/s'\n[api]\npublic_url = 'ftp://x'", "[api] public_url"),
            (
                "state_dir = '/s'\n[boot]\naddress = '0.0.0.0'\nkernel = '/k'\nramdisk = '/r'",
                "[boot] address is 0.0.0.0",
            ),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(words) && error.contains("/etc/ferric.toml"), "{error}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (net, ip, inside) in [
            ("10.0.0.0/8", "10.9.9.9", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("10.0.0.0/8", "::1", false),
        ] {
            assert_eq!(network(net).unwrap().contains(ip.parse().unwrap()), inside, "{net} {ip}");
        }
    }
}
