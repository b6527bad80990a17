//! Bringing the network up: a child of process 1 that switches every NIC on, asks for addresses on each, all at once, and keeps
//! the leases; or that does what `network_data.json` of the boot medium says.
//!
//! [`plan`] says which interfaces to make and how each is served; [`four`] and [`six`] serve one each, with the clients
//! [`client`] (DHCP) and [`six::client`] (DHCPv6). The NIC named by `BOOTIF` gets the preferred default route; of the
//! others each has a route of a higher metric, so that the kernel itself falls back when one goes.

pub mod board;
pub mod client;
pub mod fixed;
pub mod four;
pub mod frame;
mod moved;
pub mod network_data;
pub mod plan;
pub mod settings;
pub mod six;
mod told;

use crate::platform::linux::netlink::{GROUP_LINK, Link, Netlink};
use crate::platform::linux::{self, clock};
use crate::{logging, media};
use board::Board;
use ferric_common::ids::MacAddress;
use plan::{How, Plan, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use told::Told;

/// Longest wait for new interfaces before the list is read again, should the kernel's word be lost.
const LINKS_WATCH: Duration = Duration::from_secs(5);
/// The same while switches may still name tags.
const TAGS_WATCH: Duration = Duration::from_secs(1);
/// Route metrics: the boot NIC, and the base of all others.
const BOOT_METRIC: u32 = 100;
const OTHER_METRIC: u32 = 1000;
/// Network cards served at once; each has two threads, as has each of [`plan::VLANS`] interfaces that are made.
const NICS: usize = 64;

/// Serves all NICs until killed.
pub fn run() -> ExitCode {
    if !linux::in_ramdisk() {
        logging::say("network: refused to change the network: this is not the ramdisk");
        return ExitCode::from(2);
    }
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            logging::say(&format!("network: reading the list of interfaces failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<std::convert::Infallible> {
    let command_line = media::take(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let mut plan = planned(&command_line);
    let (mut told, patience) = (Told::default(), settings::lldp_patience(&command_line));
    let mut room = Room {
        boot_mac: settings::boot_interface(&command_line),
        kernel: Netlink::open(0)?,
        board: Arc::new(Board::default()),
        served: BTreeMap::new(),
        refused: BTreeMap::new(),
        on: BTreeSet::new(),
    };
    accept_router_advertisements();
    let news = Netlink::open(GROUP_LINK)?;
    loop {
        let mut links: Vec<Link> = room.kernel.links()?;
        links.sort_by_key(|link| (!room.is_boot(link), link.index));
        room.served.retain(|_, served| !served.thread.is_finished());
        let listeners = plan::listeners(&links, &plan, is_nic);
        told.listen(&listeners, patience);
        // Asked before the news is read: who ends in between has its news read.
        let is_listening = told.is_listening();
        for (name, tags) in told.news() {
            plan.hear(&name, &tags).iter().for_each(|text| logging::say(text));
        }
        let steps = plan::next(&links, &plan, is_nic);
        let made = steps.iter().any(|step| !matches!(step, Step::Serve { .. }));
        for step in steps {
            room.take(step, &links);
        }
        // What was made is in the next list.
        news.wait(match (made, is_listening) {
            (true, _) => Duration::from_millis(200),
            (false, true) => TAGS_WATCH,
            (false, false) => LINKS_WATCH,
        })?;
    }
}

/// What the kernel parameters and the boot medium ask for; whatever of it cannot be read is said and left out.
fn planned(command_line: &str) -> Plan {
    let (vlans, by_lldp, refused) = plan::vlans(command_line);
    for text in refused {
        logging::say(&format!("network: {text}"));
    }
    let data = fs::read(Path::new(linux::STATE_DIR).join("network_data.json"));
    let fixed = data.ok().and_then(|bytes| match network_data::parse(&bytes) {
        Ok(fixed) => Some(fixed),
        Err(error) => {
            logging::say(&format!(
                "network: network_data.json of the boot medium cannot be used: {error}; using DHCP"
            ));
            None
        }
    });
    Plan { vlans, by_lldp, fixed }
}

/// All that is served, and what the kernel refused.
struct Room {
    boot_mac: Option<MacAddress>,
    kernel: Netlink,
    board: Arc<Board>,
    served: BTreeMap<u32, Served>,
    refused: BTreeMap<String, String>,
    on: BTreeSet<u32>,
}

/// Who serves an interface, and whether that is a network card and not one that was made.
struct Served {
    is_nic: bool,
    thread: JoinHandle<()>,
}

/// Whether one more can be served. Cards and what is made on them are counted apart: no card is crowded out by tags.
fn has_slot(served: impl Iterator<Item = bool>, is_nic: bool) -> io::Result<()> {
    let (most, what) = match is_nic {
        true => (NICS, "network cards"),
        false => (plan::VLANS, "tagged interfaces and bonds"),
    };
    match served.filter(|other| *other == is_nic).count() < most {
        true => Ok(()),
        false => Err(io::Error::other(format!("{most} {what} are served, and that is the most"))),
    }
}

impl Room {
    fn take(&mut self, step: Step, links: &[Link]) {
        match step {
            Step::Vlan { parent, name, id } => {
                let outcome =
                    self.kernel.set_up(parent).and_then(|()| self.kernel.add_vlan(parent, &name, id));
                self.note(&name, "making the tagged interface", outcome);
            }
            Step::Bond { name, bond } => {
                let outcome = self.kernel.add_bond(&name, bond);
                self.note(&name, "making the bond", outcome);
            }
            Step::Join { member, bond, name } => {
                let outcome = self.kernel.join(member, bond);
                self.note(&name, "making it a member of its bond", outcome);
            }
            Step::Serve { index, how } => {
                if let Some(link) = links.iter().find(|link| link.index == index) {
                    self.start(link.clone(), how);
                }
            }
        }
    }

    /// Says a refusal when it is new; the step comes again.
    fn note(&mut self, name: &str, what: &str, outcome: io::Result<()>) -> bool {
        let text = match outcome {
            Ok(()) => return true,
            // It appeared meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => return true,
            Err(error) => format!("{name}: {what} failed: {error}; trying again"),
        };
        if self.refused.insert(name.to_owned(), text.clone()).as_ref() != Some(&text) {
            logging::say(&text);
        }
        false
    }

    fn start(&mut self, link: Link, how: How) {
        if self.served.contains_key(&link.index) || self.on.contains(&link.index) {
            return;
        }
        let is_nic = is_nic(&link);
        let slot = has_slot(self.served.values().map(|served| served.is_nic), is_nic);
        if !self.note(&link.name, "serving it", slot) {
            return;
        }
        let outcome = self.kernel.set_up(link.index);
        if !self.note(&link.name, "switching the link on", outcome) {
            return;
        }
        let (boot, board, index) = (self.is_boot(&link), Arc::clone(&self.board), link.index);
        let wants_six = match &how {
            How::Dynamic => true,
            How::Fixed(settings) => settings.router_adverts,
            How::Off => false,
        };
        if wants_six {
            let six = six::Served { link: link.clone(), board: Arc::clone(&board) };
            std::thread::spawn(move || six.serve());
        }
        match how {
            How::Fixed(settings) if !settings.dhcp => {
                let fixed = fixed::Served { link, boot, board, settings };
                let thread = std::thread::spawn(move || fixed.serve());
                self.served.insert(index, Served { is_nic, thread });
            }
            How::Off => drop(self.on.insert(index)),
            How::Dynamic | How::Fixed(_) => {
                if let How::Fixed(settings) = how {
                    fixed::Served { link: link.clone(), boot, board: Arc::clone(&board), settings }.apply();
                }
                let four = four::Served { link, boot, board };
                let thread = std::thread::spawn(move || four.serve());
                self.served.insert(index, Served { is_nic, thread });
            }
        }
    }

    fn is_boot(&self, link: &Link) -> bool {
        self.boot_mac.is_some() && (link.mac == self.boot_mac || link.permanent == self.boot_mac)
    }
}

/// Ethernet with a device behind it: no loopback, bridges, tunnels.
fn is_nic(link: &Link) -> bool {
    link.hardware == 1
        && link.mac.is_some()
        && Path::new("/sys/class/net").join(&link.name).join("device").exists()
}

/// Whether the link has carrier; `None` when the interface is gone.
fn carrier(name: &str) -> Option<bool> {
    match fs::read_to_string(Path::new("/sys/class/net").join(name).join("carrier")) {
        Ok(text) => Some(text.trim() == "1"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // EINVAL while the link is switched off.
        Err(_) => Some(false),
    }
}

fn metric(link: &Link, boot: bool) -> u32 {
    if boot { BOOT_METRIC } else { OTHER_METRIC.saturating_add(link.index) }
}

fn accept_router_advertisements() {
    for (setting, value) in [("accept_ra", "1"), ("autoconf", "1")] {
        for scope in ["default", "all"] {
            // Missing: a kernel without IPv6.
            drop(fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/{setting}"), value));
        }
    }
}

fn random() -> u32 {
    // Without the kernel's random numbers: the clock, good enough to tell two transactions apart.
    getrandom::u32().unwrap_or_else(|_| clock::since_boot().subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_interface_too_many_is_said_and_no_card_is_crowded_out() {
        let served = |index| (index, Served { is_nic: false, thread: std::thread::spawn(|| {}) });
        let mut room = Room {
            boot_mac: None,
            kernel: Netlink::open(0).unwrap(),
            board: Arc::default(),
            served: (1000..).map(served).take(plan::VLANS).collect(),
            refused: BTreeMap::new(),
            on: BTreeSet::new(),
        };
        let (index, name) = (2000, "eth0.4000".to_owned());
        let (mac, permanent, master) = (None, None, None);
        let link =
            Link { index, name, hardware: 1, mac, permanent, up: false, carrier: false, mtu: 1500, master };
        room.start(link, How::Dynamic);
        assert_eq!(room.served.len(), plan::VLANS);
        assert_eq!(
            room.refused.get("eth0.4000").map(String::as_str),
            Some(
                "eth0.4000: serving it failed: 64 tagged interfaces and bonds are served, and that is the most; trying again"
            )
        );
        let served = || room.served.values().map(|served| served.is_nic);
        assert!(has_slot(served(), true).is_ok());
        assert!(has_slot(served().chain([true; NICS]), true).is_err());
    }

    #[test]
    fn outside_the_ramdisk_the_network_is_left_alone() {
        assert!(!linux::in_ramdisk(), "tests must not run in the ramdisk");
        assert_eq!(format!("{:?}", run()), format!("{:?}", ExitCode::from(2)));
    }
}
