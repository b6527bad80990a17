//! The `[boot]` and `[dhcp]` tables of the configuration, and their checks.
//!
//! Only what can be said without touching the machine; files and ports are tried by [`super::serve::spawn`].

use crate::boot::ipxe::{self, ParameterError};
use ferric_common::limits::DHCP_RANGE;
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// `[boot]`: what machines fetch, and where from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// The network interface towards the machines; needed by DHCP only.
    #[serde(default)]
    pub interface: String,
    /// The address on it that machines are sent to.
    pub address: Ipv4Addr,
    #[serde(default = "http_port")]
    pub http_port: u16,
    /// Boot ROMs always ask port 69; another is of use behind a port forwarding and in tests.
    #[serde(default = "tftp_port")]
    pub tftp_port: u16,
    /// Where `undionly.kpxe` and `snponly.efi` are (Debian's package `ipxe`).
    #[serde(default = "ipxe_dir")]
    pub ipxe_dir: PathBuf,
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    #[serde(default)]
    pub extra_ramdisks: Vec<PathBuf>,
    /// A folder whose files are served under `/images/`.
    #[serde(default)]
    pub images_dir: Option<PathBuf>,
    /// Added to the kernel command line of every ramdisk.
    #[serde(default)]
    pub kernel_parameters: String,
}

/// `[dhcp]`: the built-in server. Leave it out where another one hands out addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhcpConfig {
    #[serde(default = "enabled")]
    pub enabled: bool,
    pub range_start: Ipv4Addr,
    pub range_end: Ipv4Addr,
    pub netmask: Ipv4Addr,
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    #[serde(default)]
    pub ntp: Vec<Ipv4Addr>,
    #[serde(default = "lease_seconds")]
    pub lease_seconds: u32,
    /// Whether machines that are not enrolled get an address too.
    #[serde(default)]
    pub discovery: bool,
}

fn http_port() -> u16 {
    6180
}
fn tftp_port() -> u16 {
    69
}
fn ipxe_dir() -> PathBuf {
    PathBuf::from("/usr/lib/ipxe")
}
fn enabled() -> bool {
    true
}
fn lease_seconds() -> u32 {
    3600
}

/// What is wrong with the two tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootConfigError {
    #[error("[boot] address is {0}; give the address on the machines' network that they shall fetch from")]
    Address(Ipv4Addr),
    #[error("[boot] {0} is 0; give a port number")]
    Port(&'static str),
    #[error("[boot] {key} is '{}'; give an absolute path", path.display())]
    RelativePath { key: &'static str, path: PathBuf },
    #[error("[boot] kernel_parameters: {0}")]
    Parameters(#[from] ParameterError),
    #[error("[boot] interface is '{0}'; the DHCP server needs the name of one interface, for instance eth1")]
    Interface(String),
    #[error("[dhcp] netmask {0} is not a mask of 8 to 30 leading ones")]
    Netmask(Ipv4Addr),
    #[error("[dhcp] range_start {start} is after range_end {end}")]
    RangeOrder { start: Ipv4Addr, end: Ipv4Addr },
    #[error("[dhcp] {start} to {end} holds {count} addresses; at most {DHCP_RANGE} are handed out")]
    RangeLength { start: Ipv4Addr, end: Ipv4Addr, count: u64 },
    #[error("[dhcp] {what} {address} is not in the network of range_start {start} with netmask {netmask}")]
    OtherNetwork { what: &'static str, address: Ipv4Addr, start: Ipv4Addr, netmask: Ipv4Addr },
    #[error("[dhcp] lease_seconds is {0}; give 120 to 604800 (two minutes to a week)")]
    Lease(u32),
    #[error("[dhcp] {0} names {1} servers; at most 8")]
    Servers(&'static str, usize),
    #[error("[dhcp] no address is left between {start} and {end} beside the server's and the gateway's")]
    EmptyRange { start: Ipv4Addr, end: Ipv4Addr },
}

impl BootConfig {
    /// Checks the table.
    ///
    /// # Errors
    /// [`BootConfigError`] names the key and what to write there.
    pub fn check(&self) -> Result<(), BootConfigError> {
        if self.address.is_unspecified() || self.address.is_multicast() || self.address.is_broadcast() {
            return Err(BootConfigError::Address(self.address));
        }
        for (key, port) in [("http_port", self.http_port), ("tftp_port", self.tftp_port)] {
            if port == 0 {
                return Err(BootConfigError::Port(key));
            }
        }
        let extra = self.extra_ramdisks.iter().map(|path| ("extra_ramdisks", path));
        let images = self.images_dir.iter().map(|path| ("images_dir", path));
        let fixed = [("ipxe_dir", &self.ipxe_dir), ("kernel", &self.kernel), ("ramdisk", &self.ramdisk)];
        for (key, path) in fixed.into_iter().chain(extra).chain(images) {
            if !path.is_absolute() {
                return Err(BootConfigError::RelativePath { key, path: path.clone() });
            }
        }
        ipxe::check_parameters(&self.kernel_parameters)?;
        Ok(())
    }

    /// `http://ADDRESS:PORT`, what every address of a boot script begins with.
    pub fn http_base(&self) -> String {
        format!("http://{}:{}", self.address, self.http_port)
    }
}

impl DhcpConfig {
    /// Checks the table beside the `[boot]` one.
    ///
    /// # Errors
    /// [`BootConfigError`] names the key and what to write there.
    pub fn check(&self, boot: &BootConfig) -> Result<(), BootConfigError> {
        // IFNAMSIZ is 16 with its NUL.
        let name = &boot.interface;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err(BootConfigError::Interface(name.clone()));
        }
        let (start, end) = (self.range_start, self.range_end);
        let mask = u32::from(self.netmask);
        if mask.count_ones() != mask.leading_ones() || !(8..=30).contains(&mask.count_ones()) {
            return Err(BootConfigError::Netmask(self.netmask));
        }
        if start > end {
            return Err(BootConfigError::RangeOrder { start, end });
        }
        let count = u64::from(u32::from(end).abs_diff(u32::from(start))) + 1;
        if count > u64::from(DHCP_RANGE) {
            return Err(BootConfigError::RangeLength { start, end, count });
        }
        for (what, address) in [("range_end", Some(end)), ("gateway", self.gateway)] {
            if let Some(address) = address.filter(|a| !self.holds(*a)) {
                let netmask = self.netmask;
                return Err(BootConfigError::OtherNetwork { what, address, start, netmask });
            }
        }
        if !(120..=604_800).contains(&self.lease_seconds) {
            return Err(BootConfigError::Lease(self.lease_seconds));
        }
        for (key, servers) in [("dns", &self.dns), ("ntp", &self.ntp)] {
            if servers.len() > 8 {
                return Err(BootConfigError::Servers(key, servers.len()));
            }
        }
        if self.addresses(boot.address).next().is_none() {
            return Err(BootConfigError::EmptyRange { start, end });
        }
        Ok(())
    }

    /// Whether an address is in the network that is served.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.netmask);
        u32::from(address) & mask == u32::from(self.range_start) & mask
    }

    /// The addresses handed out: the range without the network's own, its broadcast, the server's and the gateway's.
    pub fn addresses(&self, server: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let mask = u32::from(self.netmask);
        (u32::from(self.range_start)..=u32::from(self.range_end))
            .filter(move |a| a & !mask != 0 && a & !mask != !mask)
            .map(Ipv4Addr::from)
            .filter(move |a| *a != server && Some(*a) != self.gateway)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn boot() -> BootConfig {
        toml::from_str(
            "interface = 'eth1'\naddress = '10.0.0.1'\nkernel = '/srv/vmlinuz'\nramdisk = '/srv/initramfs.img'",
        )
        .unwrap()
    }
    pub(crate) fn dhcp() -> DhcpConfig {
        toml::from_str("range_start = '10.0.0.10'\nrange_end = '10.0.0.20'\nnetmask = '255.255.255.0'")
            .unwrap()
    }

    #[test]
    fn defaults_are_in() {
        let (boot, dhcp) = (boot(), dhcp());
        assert_eq!((boot.http_port, boot.tftp_port), (6180, 69));
        assert_eq!(boot.ipxe_dir, PathBuf::from("/usr/lib/ipxe"));
        assert_eq!(boot.http_base(), "http://10.0.0.1:6180");
        assert_eq!((dhcp.lease_seconds, dhcp.discovery, dhcp.enabled), (3600, false, true));
        boot.check().unwrap();
        dhcp.check(&boot).unwrap();
        assert!(toml::from_str::<DhcpConfig>("range = 'x'").is_err(), "a mistyped key is named, not ignored");
    }

    #[test]
    fn boot_mistakes_are_named() {
        let check = |change: &dyn Fn(&mut BootConfig), text: &str| {
            let mut config = boot();
            change(&mut config);
            assert_eq!(config.check().unwrap_err().to_string(), text);
        };
        check(
            &|c| c.address = Ipv4Addr::UNSPECIFIED,
            "[boot] address is 0.0.0.0; give the address on the machines' network that they shall fetch from",
        );
        check(&|c| c.http_port = 0, "[boot] http_port is 0; give a port number");
        check(&|c| c.kernel = "vmlinuz".into(), "[boot] kernel is 'vmlinuz'; give an absolute path");
        check(
            &|c| c.kernel_parameters = "a\nb".into(),
            "[boot] kernel_parameters: kernel parameters hold the character '\\n'; only printable ASCII is passed on",
        );
    }

    #[test]
    fn dhcp_mistakes_are_named() {
        let check = |change: &dyn Fn(&mut DhcpConfig), text: &str| {
            let mut config = dhcp();
            change(&mut config);
            assert_eq!(config.check(&boot()).unwrap_err().to_string(), text);
        };
        check(
            &|c| c.netmask = [255, 0, 255, 0].into(),
            "[dhcp] netmask 255.0.255.0 is not a mask of 8 to 30 leading ones",
        );
        check(
            &|c| c.range_end = [10, 0, 0, 9].into(),
            "[dhcp] range_start 10.0.0.10 is after range_end 10.0.0.9",
        );
        check(
            &|c| c.range_end = [10, 0, 1, 9].into(),
            "[dhcp] range_end 10.0.1.9 is not in the network of range_start 10.0.0.10 with netmask 255.255.255.0",
        );
        check(
            &|c| c.range_end = [10, 3, 0, 0].into(),
            "[dhcp] 10.0.0.10 to 10.3.0.0 holds 196599 addresses; at most 65536 are handed out",
        );
        check(
            &|c| c.gateway = Some([10, 9, 0, 1].into()),
            "[dhcp] gateway 10.9.0.1 is not in the network of range_start 10.0.0.10 with netmask 255.255.255.0",
        );
        check(
            &|c| c.lease_seconds = 5,
            "[dhcp] lease_seconds is 5; give 120 to 604800 (two minutes to a week)",
        );
        check(&|c| c.ntp = vec![[10, 0, 0, 2].into(); 9], "[dhcp] ntp names 9 servers; at most 8");
        check(
            &|c| (c.range_start, c.range_end) = ([10, 0, 0, 1].into(), [10, 0, 0, 1].into()),
            "[dhcp] no address is left between 10.0.0.1 and 10.0.0.1 beside the server's and the gateway's",
        );
    }

    #[test]
    fn dhcp_needs_an_interface() {
        let mut config = boot();
        config.interface = String::new();
        assert!(config.check().is_ok());
        assert!(dhcp().check(&config).unwrap_err().to_string().contains("interface is ''"));
    }

    #[test]
    fn special_addresses_are_not_handed_out() {
        let mut config = dhcp();
        config.range_start = [10, 0, 0, 0].into();
        config.range_end = [10, 0, 0, 255].into();
        config.gateway = Some([10, 0, 0, 254].into());
        let all: Vec<_> = config.addresses([10, 0, 0, 1].into()).collect();
        assert_eq!(all.len(), 256 - 4);
        assert_eq!(all.first(), Some(&Ipv4Addr::new(10, 0, 0, 2)));
    }
}
