//! The configuration file: what was written, checked into what is meant. Only this room knows the file.
//!
//! Mistakes are told with the file, the key and what is allowed; the program then ends with [`EXIT_CONFIG`].

mod check;
mod deploy;

pub use check::Fault;

use crate::boot::config::{BootConfig, DhcpConfig};
use crate::conductor::{LogRoom, Network, Patience, RamdiskFiles, Settings};
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
    #[error("configuration {path}: {fault}")]
    Value { path: PathBuf, fault: Fault },
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
    /// Archives of logs of agents whose machine failed; 0 keeps none. MiB of them together.
    logs_kept: u32,
    logs_mib: u64,
}

impl Default for AgentTable {
    fn default() -> AgentTable {
        AgentTable {
            require_tls: true,
            heartbeat_timeout: 300,
            networks: Vec::new(),
            allow_md5: false,
            second_machine_is_error: true,
            logs_kept: 500,
            logs_mib: 1024,
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
    check::check(&file)
        .and_then(|()| meant(file))
        .map_err(|fault| ConfigError::Value { path: path.to_path_buf(), fault })
}

/// A checked file's meaning, with what was left out.
fn meant(file: File) -> Result<Config, Fault> {
    let networks = file.agent.networks.iter().map(|text| network(text)).collect::<Result<_, _>>()?;
    let public_url = file.api.public_url.as_deref().map(|url| url.trim_end_matches('/').to_string());
    let settings = Settings {
        api_url: public_url.clone().unwrap_or_else(|| api_url(&file)),
        ramdisk: file.boot.as_ref().map(ramdisk),
        deadlines: deadlines(&file.deploy),
        automated_clean: file.deploy.automated_clean,
        clean_priorities: file.deploy.priorities(),
        erasure: file.deploy.erasure(),
        power_off_after_failure: file.deploy.power_off_after_failure,
        logs: LogRoom { number: file.agent.logs_kept, bytes: file.agent.logs_mib.saturating_mul(1 << 20) },
        default_boot_mode: file.deploy.default_boot_mode,
        require_tls: file.agent.require_tls,
        allow_md5: file.agent.allow_md5,
        conflict_is_error: file.agent.second_machine_is_error,
        heartbeat_timeout: Duration::from_secs(file.agent.heartbeat_timeout),
        networks,
        patience: patience(&file.power),
        hostname: file.hostname.unwrap_or_else(hostname),
        state_dir: file.state_dir,
    };
    Ok(Config {
        listen: file.api.listen,
        public_url,
        boot: file.boot,
        dhcp: file.dhcp,
        ipmi: ipmi(&file.ipmi),
        allow_local_images: file.images.allow_local_addresses,
        image_ca_file: file.images.ca_file,
        settings,
    })
}

/// The API as machines reach it where nobody says: the address that it listens on, else the one that machines boot from.
fn api_url(file: &File) -> String {
    let address = match (&file.boot, file.api.listen.ip()) {
        (Some(boot), ip) if ip.is_unspecified() => IpAddr::V4(boot.address),
        (_, ip) => ip,
    };
    format!("http://{}", SocketAddr::new(address, file.api.listen.port()))
}

fn ramdisk(boot: &BootConfig) -> RamdiskFiles {
    RamdiskFiles {
        kernel: boot.kernel.clone(),
        ramdisk: boot.ramdisk.clone(),
        extra: boot.extra_ramdisks.clone(),
        kernel_parameters: boot.kernel_parameters.clone(),
    }
}

fn deadlines(deploy: &DeployTable) -> Deadlines {
    let callback = Duration::from_secs(deploy.callback_timeout);
    Deadlines {
        deploy: callback,
        clean: Duration::from_secs(deploy.clean_callback_timeout),
        inspect: callback,
        rescue: callback,
        service: callback,
    }
}

fn patience(power: &PowerTable) -> Patience {
    Patience {
        power_change: Duration::from_secs(power.change_timeout),
        soft_power_off: Duration::from_secs(power.soft_off_timeout),
        power_sync: Duration::from_secs(power.sync_interval),
        ..Patience::default()
    }
}

fn ipmi(table: &IpmiTable) -> IpmiPatience {
    IpmiPatience {
        tries: table.tries,
        first_wait: Duration::from_millis(table.first_wait_ms),
        talk: Duration::from_secs(table.talk_seconds),
        allow_empty_password: table.allow_empty_password,
    }
}

fn network(text: &str) -> Result<Network, Fault> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= widest)?;
        Some(Network { address, prefix })
    };
    parse().ok_or_else(|| Fault::of("[agent] networks", format!("'{text}'"), "networks look like 10.0.0.0/8"))
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

    /// The TOML of the page for operators.
    fn page() -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let page = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap().to_owned()
    }

    #[test]
    fn the_page_is_a_file_that_works_and_shows_the_defaults() {
        check(&page()).unwrap();
        let (shown, plain): (File, File) =
            (toml::from_str(&page()).unwrap(), toml::from_str("state_dir = '/s'").unwrap());
        let tables = |file: File| {
            format!("{:#?}", (file.api, file.deploy, file.agent, file.ipmi, file.power, file.images))
        };
        assert_eq!(tables(shown), tables(plain));
        let boot = "[boot]\naddress = '192.0.2.1'\nkernel = '/srv/ferric/vmlinuz'\nramdisk = '/srv/ferric/initramfs.img'\n\
                    interface = 'eno1'\n[dhcp]\nrange_start = '192.0.2.100'\nrange_end = '192.0.2.200'\nnetmask = '255.255.255.0'";
        let (shown, plain) = (check(&page()).unwrap(), check(&format!("state_dir = '/s'\n{boot}")).unwrap());
        assert_eq!((shown.boot, shown.dhcp), (plain.boot, plain.dhcp));
    }

    /// What the parser expects in a table, taken from how it refuses another key.
    #[test]
    fn the_page_shows_every_key() {
        let page = page();
        for table in ["", "api", "boot", "dhcp", "deploy", "agent", "ipmi", "power", "images"] {
            let head = if table.is_empty() { String::new() } else { format!("[{table}]") };
            let refusal = toml::from_str::<File>(&format!("{head}\nnosuch = 1")).unwrap_err().to_string();
            let expected = refusal.split("expected ").nth(1).unwrap();
            let keys: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            assert!(keys.len() > 1, "{refusal}");
            let lines = page.split("\n[").find(|part| table.is_empty() || part.starts_with(table)).unwrap();
            for key in keys {
                let is_key = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
                let shown = lines.lines().any(is_key) || page.contains(&format!("\n[{key}]"));
                assert!(shown, "[{table}] {key} is not on the page");
            }
        }
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
            ("state_dir = '/s'\n[agent]\nlogs_kept = 100001", "0 to 100000 archives"),
            ("state_dir = '/s'\n[agent]\nlogs_mib = 0", "1 to 1048576 MiB"),
            ("state_dir = '/s'\n[ipmi]\ntries = 0", "1 to 10 tries"),
            ("state_dir = '/s'\n[ipmi]\nfirst_wait_ms = 0", "1 to 60000 milliseconds"),
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
