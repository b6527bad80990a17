//! The addresses of this machine, as getifaddrs(3) lists them, and the one it would speak from.

use crate::inventory::nics::Addresses;
use nix::ifaddrs::getifaddrs;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The first address of each family, by interface.
pub fn by_interface() -> BTreeMap<String, Addresses> {
    let mut found: BTreeMap<String, Addresses> = BTreeMap::new();
    for (name, address) in all() {
        let entry = found.entry(name.clone()).or_default();
        match address {
            IpAddr::V4(address) if entry.ipv4.is_none() => entry.ipv4 = Some(address.to_string()),
            IpAddr::V6(address) if entry.ipv6.is_none() => {
                let scope = if address.is_unicast_link_local() { format!("%{name}") } else { String::new() };
                entry.ipv6 = Some(format!("{address}{scope}"));
            }
            _ => {}
        }
    }
    found
}

/// Every address of every interface.
pub fn all() -> Vec<(String, IpAddr)> {
    let Ok(list) = getifaddrs() else { return Vec::new() };
    list.filter_map(|entry| {
        let address = entry.address?;
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        Some((entry.interface_name, ip))
    })
    .collect()
}

/// Waits until the machine has an address that others can reach, at most `limit`. Answers whether it has.
pub fn wait(limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        if all().iter().any(|(_, address)| is_routable(*address)) {
            return true;
        }
        if began.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The address the kernel would use as source towards `target`; no packet is sent.
pub fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    // The port plays no part in routing.
    socket.connect((target, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    // Loopback is right towards itself: tests and a conductor on the same machine.
    (is_routable(source) || source.is_loopback()).then_some(source)
}

/// Neither loopback nor valid on one link only.
pub fn is_routable(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_towards_loopback_is_loopback() {
        assert_eq!(source_towards(IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn link_local_addresses_reach_nobody() {
        for (address, yes) in [
            ("10.0.0.1", true),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("fe80::1", false),
            ("fd00::1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_routable(address.parse().unwrap()), yes, "{address}");
        }
    }
}
