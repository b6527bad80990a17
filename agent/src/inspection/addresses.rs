//! Waits until the interfaces that matter have an address, so that the controller learns it.

use super::LOOK;
use crate::config::Inspection;
use crate::platform::machine::Machine;
use ferric_common::wire::inventory::{Interface, Inventory};
use std::sync::Arc;
use tokio::time::Instant;

/// Waits for the interface that booted, or for all where that is asked for; gives up in words after the time set.
pub async fn wait(machine: &Arc<dyn Machine>, settings: &Inspection) {
    let began = Instant::now();
    loop {
        let look = Arc::clone(machine);
        let inventory = tokio::task::spawn_blocking(move || look.inventory()).await.unwrap_or_default();
        let missing = missing(&inventory, settings.dhcp_all);
        if missing.is_empty() {
            return;
        }
        if began.elapsed() >= settings.dhcp_wait {
            if !settings.dhcp_wait.is_zero() {
                let (names, seconds) = (missing.join(", "), settings.dhcp_wait.as_secs());
                tracing::warn!("inspection: no address for {names} within {seconds} s; going on without");
            }
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Names of interfaces that still lack an address.
fn missing(inventory: &Inventory, all: bool) -> Vec<String> {
    let boot = inventory.boot.pxe_interface.as_deref().map(mac_of);
    let counts =
        |nic: &&Interface| all || boot.as_deref() == Some(nic.mac_address.to_ascii_lowercase().as_str());
    inventory
        .interfaces
        .iter()
        .filter(counts)
        .filter(|nic| !has_address(nic))
        .map(|nic| nic.name.clone())
        .collect()
}

/// A link-local IPv6 address came without anybody's help and says nothing.
fn has_address(nic: &Interface) -> bool {
    let v6 =
        nic.ipv6_address.as_deref().is_some_and(|address| !address.to_ascii_lowercase().starts_with("fe8"));
    v6 || nic.ipv4_address.is_some()
}

/// `01-aa-bb-cc-dd-ee-ff`, as boot loaders write it, or a plain MAC.
fn mac_of(bootif: &str) -> String {
    let text = bootif.to_ascii_lowercase();
    match text.split_once('-') {
        Some((_, mac)) => mac.replace('-', ":"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, mac: &str, v4: Option<&str>, v6: Option<&str>) -> Interface {
        Interface {
            name: name.into(),
            mac_address: mac.into(),
            ipv4_address: v4.map(str::to_owned),
            ipv6_address: v6.map(str::to_owned),
            ..Interface::default()
        }
    }

    fn check(bootif: Option<&str>, all: bool, expected: &[&str]) {
        let mut inventory = Inventory {
            interfaces: vec![
                nic("eno1", "52:54:00:00:00:01", None, Some("fe80::1%eno1")),
                nic("eno2", "52:54:00:00:00:02", Some("10.0.0.2"), None),
                nic("eno3", "52:54:00:00:00:0a", None, Some("2001:db8::3")),
                nic("eno4", "52:54:00:00:00:04", None, None),
            ],
            ..Inventory::default()
        };
        inventory.boot.pxe_interface = bootif.map(str::to_owned);
        assert_eq!(missing(&inventory, all), expected, "{bootif:?} {all}");
    }

    #[test]
    fn the_interface_that_booted_counts_or_all_do() {
        check(Some("01-52-54-00-00-00-01"), false, &["eno1"]);
        check(Some("01-52-54-00-00-00-02"), false, &[]);
        check(Some("52:54:00:00:00:0A"), false, &[]);
        check(None, false, &[]);
        check(None, true, &["eno1", "eno4"]);
    }
}
