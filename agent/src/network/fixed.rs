//! An interface with the addresses that the boot medium gives it.

use super::board::{Board, Six};
use super::network_data::Settings;
use super::settings::{Fixed, Nic};
use crate::platform::linux::netlink::{Link, Netlink, Route};
use crate::{logging, timeline};
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often carrier is looked at, for those who read what was found.
const WATCH: Duration = Duration::from_secs(2);

pub struct Served {
    pub link: Link,
    pub boot: bool,
    pub board: Arc<Board>,
    pub settings: Settings,
}

impl Served {
    /// Configures the interface, then keeps an eye on it until it is gone.
    pub fn serve(&self) {
        if !self.settings.router_adverts {
            // What the operator fixed is all: a stranger's router on the link adds nothing.
            drop(fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", self.link.name), "0"));
        }
        self.apply();
        while let Some(carrier) = super::carrier(&self.link.name) {
            self.put(carrier);
            std::thread::sleep(WATCH);
        }
        logging::say(&format!("{}: the interface is gone", self.link.name));
        self.board.put(self.link.index, None);
    }

    /// Sets MTU, addresses and routes; what the kernel refuses is said.
    pub fn apply(&self) {
        let name = &self.link.name;
        let mut kernel = match Netlink::open(0) {
            Ok(kernel) => kernel,
            Err(error) => {
                logging::say(&format!("{name}: talking to the kernel about the network failed: {error}"));
                return;
            }
        };
        if let Some(mtu) = self.settings.mtu
            && let Err(error) = kernel.set_mtu(self.link.index, mtu)
        {
            logging::say(&format!("{name}: the driver refuses an mtu of {mtu}: {error}"));
        }
        for (address, prefix) in &self.settings.addresses {
            match kernel.add_address(self.link.index, *address, *prefix) {
                Ok(()) => {
                    logging::say(&format!("{name}: address {address}/{prefix} from the boot medium"));
                    static FIRST: std::sync::Once = std::sync::Once::new();
                    FIRST.call_once(|| timeline::mark(timeline::ADDRESS));
                }
                Err(error) => logging::say(&format!("{name}: setting the address {address} failed: {error}")),
            }
        }
        for (destination, prefix, by) in &self.settings.routes {
            if let Err(error) = kernel.add_route(self.link.index, &self.route(*destination, *prefix, *by)) {
                logging::say(&format!(
                    "{name}: adding the route to {destination}/{prefix} by {by} failed: {error}"
                ));
            }
        }
        self.put(super::carrier(name) == Some(true));
    }

    fn route(&self, destination: IpAddr, prefix: u8, by: IpAddr) -> Route {
        let metric = super::metric(&self.link, self.boot);
        let gateway = Some(by).filter(|by| !by.is_unspecified());
        Route { destination, prefix, gateway, source: None, metric }
    }

    fn put(&self, carrier: bool) {
        let Some(mac) = self.link.mac else { return };
        let fixed = Fixed {
            addresses: self.settings.addresses.iter().map(|(address, _)| *address).collect(),
            dns: self.settings.dns.clone(),
            ntp: self.settings.ntp.clone(),
        };
        let nic = Nic {
            name: self.link.name.clone(),
            mac,
            boot: self.boot,
            carrier,
            lease: None,
            six: Six::default(),
            fixed: Some(fixed),
        };
        self.board.put(self.link.index, Some(nic));
    }
}
