//! The address under which the conductor reaches our command API: what was configured, else the one the kernel uses as
//! source towards the API. It is a part of the callback URL and must stay the same for the whole boot.

use crate::config::Config;
use crate::platform::machine::Machine;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// No address was found after all tries.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent could not find a valid IP address of its own: tried {tries} times over {urls}; \
     check that a network interface has an address and a route to the controller, or set ipa-advertise-host"
)]
pub struct NoAddress {
    tries: u32,
    urls: String,
}

/// Waits until the machine has an address and a route towards the API, as the network comes up beside us. Gives up after a
/// minute where a controller has a name, since a lookup that fails then says more than silence; without a route to its address
/// no lookup can do anything.
///
/// Asking the kernel ten times a second costs nothing, while a failed lookup would be followed by a growing pause.
pub async fn wait_for_route(machine: &Arc<dyn Machine>, config: &Config) {
    let began = tokio::time::Instant::now();
    let mut said = ROUTE_SAY;
    let servers = config.servers();
    let named = servers.iter().any(|url| matches!(url.host(), Some(Host::Domain(_))));
    let limit = if named { ROUTE_WAIT } else { config.lookup_timeout.max(ROUTE_WAIT) };
    while source(machine, &servers).await.is_none() {
        let waited = began.elapsed();
        if waited >= limit {
            tracing::warn!("still no address or no route to the controller; trying to look up all the same");
            return;
        }
        if waited >= said {
            tracing::info!("waiting for an address and a route to the controller");
            said += if waited < ROUTE_WAIT { ROUTE_SAY } else { ROUTE_WAIT };
        }
        tokio::time::sleep(ROUTE_PAUSE).await;
    }
}

const ROUTE_WAIT: Duration = Duration::from_secs(60);
const ROUTE_SAY: Duration = Duration::from_secs(10);
const ROUTE_PAUSE: Duration = Duration::from_millis(100);

/// Finds the host part of the callback URL: an IP address, or the configured name as it is.
///
/// # Errors
/// [`NoAddress`] after `ip_lookup_attempts` rounds.
pub async fn advertised(
    machine: &Arc<dyn Machine>,
    config: &Config,
    urls: &[Url],
) -> Result<String, NoAddress> {
    if let Some(host) = &config.advertise_host {
        return Ok(host.trim_matches(['[', ']']).to_string());
    }
    for round in 0..config.address_attempts {
        if round > 0 {
            tokio::time::sleep(config.address_pause).await;
        }
        if let Some(address) = once(machine, config, urls).await {
            return Ok(address.to_string());
        }
    }
    let urls = urls.iter().map(crate::fetch::printable).collect::<Vec<_>>().join(", ");
    Err(NoAddress { tries: config.address_attempts, urls })
}

async fn once(machine: &Arc<dyn Machine>, config: &Config, urls: &[Url]) -> Option<IpAddr> {
    if let Some(nic) = config.network_interface.clone() {
        let machine = Arc::clone(machine);
        let inventory = tokio::task::spawn_blocking(move || machine.inventory()).await.ok()?;
        let found = inventory.interfaces.into_iter().find(|interface| interface.name == nic)?;
        return found.ipv4_address?.parse().ok();
    }
    source(machine, urls).await
}

async fn source(machine: &Arc<dyn Machine>, urls: &[Url]) -> Option<IpAddr> {
    for url in urls {
        for target in targets(url).await {
            let machine = Arc::clone(machine);
            let source = tokio::task::spawn_blocking(move || machine.source_address(target)).await;
            if let Some(address) = source.ok().flatten().filter(|a| !is_link_local(a)) {
                return Some(address);
            }
        }
    }
    None
}

async fn targets(url: &Url) -> Vec<IpAddr> {
    match url.host() {
        Some(Host::Ipv4(ip)) => vec![ip.into()],
        Some(Host::Ipv6(ip)) => vec![ip.into()],
        Some(Host::Domain(name)) => {
            let port = url.port_or_known_default().unwrap_or(80);
            let asked = tokio::time::timeout(Duration::from_secs(30), tokio::net::lookup_host((name, port)));
            match asked.await {
                Ok(Ok(found)) => {
                    found.take(ferric_common::limits::DNS_ANSWERS).map(|address| address.ip()).collect()
                }
                _ => Vec::new(),
            }
        }
        None => Vec::new(),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

/// `https://192.0.2.10:9999`; IPv6 in brackets, no path.
pub fn callback_url(https: bool, host: &str, port: u16) -> String {
    let scheme = if https { "https" } else { "http" };
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callback_url_has_brackets_where_needed_and_no_path() {
        assert_eq!(callback_url(true, "192.0.2.10", 9999), "https://192.0.2.10:9999");
        assert_eq!(callback_url(false, "2001:db8::1", 1), "http://[2001:db8::1]:1");
    }

    #[test]
    fn link_local_addresses_are_not_advertised() {
        for (text, local) in
            [("169.254.3.4", true), ("fe80::1", true), ("10.0.0.1", false), ("fd00::1", false)]
        {
            assert_eq!(is_link_local(&text.parse().unwrap()), local, "{text}");
        }
    }
}
