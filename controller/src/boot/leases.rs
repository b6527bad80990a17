//! Who has which address, and what a DHCP message does to that.
//!
//! Pure: time is handed in, the file is read and written by [`super::serve`]. One lease a MAC address, whatever client runs
//! on it: ROM, iPXE, ramdisk and operating system of one machine share one address. Follows RFC 2131, section 4.3.

use crate::boot::config::DhcpConfig;
use ferric_common::formats::dhcp::{Message, MessageType, Op};
use ferric_common::ids::MacAddress;
use ferric_common::limits::DHCP_UNKNOWN_LEASES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How long an offer is kept for its client; how long an address that a client found in use is left alone. Seconds.
const OFFER_SECONDS: u64 = 60;
const DECLINE_SECONDS: u64 = 600;

/// Whether the asking machine is enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Enrolled,
    Unknown,
}

/// One machine's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub mac: MacAddress,
    pub address: Ipv4Addr,
    /// When it ends, in seconds of Unix time. After that the machine still gets it again unless it had to be given away.
    pub expires: u64,
    pub standing: Standing,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct LeaseFile {
    pub leases: Vec<Lease>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Offer(Ipv4Addr),
    Ack(Ipv4Addr),
    Nak(String),
    /// Options without an address.
    Inform,
    /// No answer; the reason is for the log, empty when nothing is amiss.
    Silent(String),
}

#[derive(Clone, Debug)]
struct Entry {
    lease: Lease,
    /// The end that the file holds; ahead of `lease.expires` so that not every renewal writes it.
    stored: u64,
    /// Offered but never confirmed: not written to the file.
    offered_only: bool,
}

/// The table.
#[derive(Debug)]
pub struct Leases {
    config: DhcpConfig,
    server: Ipv4Addr,
    pool: Vec<Ipv4Addr>,
    by_mac: BTreeMap<MacAddress, Entry>,
    by_address: BTreeMap<Ipv4Addr, MacAddress>,
    declined: BTreeMap<Ipv4Addr, u64>,
    dirty: bool,
}

impl Leases {
    /// A table with what the file held. Leases outside the range, and a second one of a MAC or an address, are dropped.
    pub fn new(config: DhcpConfig, server: Ipv4Addr, file: LeaseFile) -> Leases {
        let pool: Vec<Ipv4Addr> = config.addresses(server).collect();
        let mut table = Leases {
            config,
            server,
            pool,
            by_mac: BTreeMap::new(),
            by_address: BTreeMap::new(),
            declined: BTreeMap::new(),
            dirty: false,
        };
        for lease in file.leases {
            let taken =
                table.by_mac.contains_key(&lease.mac) || table.by_address.contains_key(&lease.address);
            if !taken && table.in_pool(lease.address) {
                let stored = lease.expires;
                table.insert(Entry { lease, stored, offered_only: false });
            }
        }
        table
    }

    /// What the file shall hold, if that changed since the last call. Must be on stable storage before the answers that
    /// caused the change are sent.
    pub fn take_changes(&mut self) -> Option<LeaseFile> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let kept = self.by_mac.values().filter(|e| !e.offered_only);
        Some(LeaseFile { leases: kept.map(|e| Lease { expires: e.stored, ..e.lease.clone() }).collect() })
    }

    /// The file could not be written: try again with the next change.
    pub fn changes_not_stored(&mut self) {
        self.dirty = true;
    }

    /// Who holds an address.
    pub fn mac_of(&self, address: Ipv4Addr) -> Option<MacAddress> {
        self.by_address.get(&address).copied()
    }

    /// Decides about one message of a client. `now` in seconds of Unix time.
    pub fn decide(&mut self, message: &Message, standing: Standing, now: u64) -> Decision {
        let silent = |why: &str| Decision::Silent(why.to_owned());
        if message.op != Op::Request {
            return silent("a reply came to the server's port");
        }
        let [first, ..] = message.chaddr.0;
        if first & 1 != 0 || message.chaddr.0 == [0; 6] {
            return silent("the hardware address is not one of a single machine");
        }
        let relayed = !message.giaddr.is_unspecified();
        let link = if relayed { message.giaddr } else { self.server };
        // A renewal is sent to us directly, from whatever network.
        if message.ciaddr.is_unspecified() && !self.config.holds(link) {
            return Decision::Silent(format!("no addresses for the network of {link}"));
        }
        let Some(kind) = message.message_type() else { return silent("no message type") };
        // Where another server may answer such a machine, a refusal would harm it.
        if standing == Standing::Unknown && !self.config.discovery {
            return silent("the machine is not enrolled and [dhcp] discovery is off");
        }
        match kind {
            MessageType::Discover => match self.allocate(message, standing, now) {
                Ok(address) => Decision::Offer(address),
                Err(why) => Decision::Silent(why),
            },
            MessageType::Request => self.request(message, standing, now),
            MessageType::Inform => Decision::Inform,
            MessageType::Decline => self.decline(message, now),
            MessageType::Release => self.release(message, now),
            MessageType::Offer | MessageType::Ack | MessageType::Nak => silent("a message of a server"),
        }
    }

    fn request(&mut self, message: &Message, standing: Standing, now: u64) -> Decision {
        let wanted = if message.ciaddr.is_unspecified() {
            match message.requested_ip() {
                Some(address) => address,
                None => return Decision::Silent("a request names no address".to_owned()),
            }
        } else {
            message.ciaddr
        };
        if message.server_id().is_some_and(|id| id != self.server) {
            // It took another server's offer: ours is void.
            if self.by_mac.get(&message.chaddr).is_some_and(|e| e.offered_only) {
                self.remove(message.chaddr);
            }
            return Decision::Silent("the machine took the offer of another server".to_owned());
        }
        if !self.in_pool(wanted) {
            return Decision::Nak(format!("{wanted} is not an address of this network"));
        }
        match self.by_mac.get(&message.chaddr) {
            Some(entry) if entry.lease.address != wanted => {
                return Decision::Nak(format!("this machine's address is {}", entry.lease.address));
            }
            Some(_) => {}
            // It holds an address that this table forgot: confirm it when nobody else has it, so that a lost table
            // interrupts no machine.
            None if self.is_free(wanted, now) => {
                if let Err(why) = self.admit(standing, now) {
                    return Decision::Silent(why);
                }
            }
            None => return Decision::Nak(format!("{wanted} is another machine's address")),
        }
        self.confirm(message.chaddr, wanted, standing, now);
        Decision::Ack(wanted)
    }

    fn confirm(&mut self, mac: MacAddress, address: Ipv4Addr, standing: Standing, now: u64) {
        let length = u64::from(self.config.lease_seconds);
        let expires = now.saturating_add(length);
        let before = self.by_mac.get(&mac).filter(|e| !e.offered_only && e.lease.standing == standing);
        let mut stored = before.map_or(0, |e| e.stored);
        if stored < expires {
            stored = expires.saturating_add(length);
            self.dirty = true;
        }
        self.insert(Entry { lease: Lease { mac, address, expires, standing }, stored, offered_only: false });
    }

    fn decline(&mut self, message: &Message, now: u64) -> Decision {
        let Some(address) = message.requested_ip() else {
            return Decision::Silent("a decline names no address".to_owned());
        };
        // Only its holder may say that an address is in use: others could empty the range.
        if self.mac_of(address) != Some(message.chaddr) {
            return Decision::Silent(format!("{address} was declined by a machine that does not hold it"));
        }
        self.remove(message.chaddr);
        self.declined.retain(|_, until| *until > now);
        self.declined.insert(address, now.saturating_add(DECLINE_SECONDS));
        Decision::Silent(format!("the machine found {address} in use by another one"))
    }

    fn release(&mut self, message: &Message, now: u64) -> Decision {
        if self.mac_of(message.ciaddr) == Some(message.chaddr)
            && let Some(entry) = self.by_mac.get_mut(&message.chaddr)
        {
            (entry.lease.expires, entry.stored) = (now, now);
            self.dirty |= !entry.offered_only;
        }
        Decision::Silent(String::new())
    }

    /// An address for a machine that asks for any: its own, the one it wishes, one never used, the longest expired.
    fn allocate(&mut self, message: &Message, standing: Standing, now: u64) -> Result<Ipv4Addr, String> {
        let mac = message.chaddr;
        if let Some(entry) = self.by_mac.get_mut(&mac) {
            let until = now.saturating_add(OFFER_SECONDS);
            entry.lease.expires = entry.lease.expires.max(until);
            return Ok(entry.lease.address);
        }
        self.admit(standing, now)?;
        let wish = message.requested_ip().filter(|a| self.in_pool(*a) && self.is_free(*a, now));
        let address = wish
            .or_else(|| self.unused(mac, now))
            .or_else(|| self.longest_expired(now))
            .ok_or_else(|| {
                format!(
                    "all {} addresses from {} to {} are in use; widen [dhcp] range_end",
                    self.pool.len(),
                    self.config.range_start,
                    self.config.range_end
                )
            })?;
        let expires = now.saturating_add(OFFER_SECONDS);
        self.insert(Entry {
            lease: Lease { mac, address, expires, standing },
            stored: 0,
            offered_only: true,
        });
        Ok(address)
    }

    /// Keeps machines that nobody knows from using the range up.
    fn admit(&mut self, standing: Standing, now: u64) -> Result<(), String> {
        if standing == Standing::Enrolled {
            return Ok(());
        }
        let count =
            |table: &Leases| table.by_mac.values().filter(|e| e.lease.standing == Standing::Unknown).count();
        if count(self) >= DHCP_UNKNOWN_LEASES {
            let old = |e: &&Entry| e.lease.standing == Standing::Unknown && e.lease.expires <= now;
            let expired: Vec<MacAddress> = self.by_mac.values().filter(old).map(|e| e.lease.mac).collect();
            expired.into_iter().for_each(|mac| self.remove(mac));
        }
        if count(self) >= DHCP_UNKNOWN_LEASES {
            return Err(format!("{DHCP_UNKNOWN_LEASES} machines that are not enrolled hold leases already"));
        }
        Ok(())
    }

    /// The first address that nobody ever had, searched from a place that depends on the MAC: a machine tends to get the
    /// same one even from an empty table.
    fn unused(&self, mac: MacAddress, now: u64) -> Option<Ipv4Addr> {
        let hash = mac.0.iter().fold(5381usize, |h, b| h.wrapping_mul(33) ^ usize::from(*b));
        let start = hash.checked_rem(self.pool.len())?;
        let (before, after) = self.pool.split_at_checked(start)?;
        let unused = |a: &&Ipv4Addr| !self.by_address.contains_key(a) && self.is_free(**a, now);
        after.iter().chain(before).find(unused).copied()
    }

    fn longest_expired(&self, now: u64) -> Option<Ipv4Addr> {
        let expired = self.by_mac.values().filter(|e| e.lease.expires <= now);
        expired.min_by_key(|e| e.lease.expires).map(|e| e.lease.address)
    }

    fn in_pool(&self, address: Ipv4Addr) -> bool {
        self.pool.binary_search(&address).is_ok()
    }

    fn is_free(&self, address: Ipv4Addr, now: u64) -> bool {
        let held = self.mac_of(address).and_then(|mac| self.by_mac.get(&mac));
        held.is_none_or(|e| e.lease.expires <= now) && self.declined.get(&address).is_none_or(|t| *t <= now)
    }

    fn insert(&mut self, entry: Entry) {
        let (mac, address) = (entry.lease.mac, entry.lease.address);
        if self.mac_of(address).is_some_and(|holder| holder != mac) {
            self.by_address.remove(&address).into_iter().for_each(|holder| self.remove(holder));
        }
        if let Some(old) = self.by_mac.insert(mac, entry) {
            self.by_address.remove(&old.lease.address);
        }
        self.by_address.insert(address, mac);
    }

    fn remove(&mut self, mac: MacAddress) {
        if let Some(entry) = self.by_mac.remove(&mac) {
            self.dirty |= !entry.offered_only;
            if self.mac_of(entry.lease.address) == Some(mac) {
                self.by_address.remove(&entry.lease.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::config::tests::dhcp;
    use ferric_common::formats::dhcp::code;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn mac(n: u32) -> MacAddress {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddress([0x52, 0x54, a, b, c, d])
    }
    fn table() -> Leases {
        Leases::new(dhcp(), SERVER, LeaseFile::default())
    }
    fn discover(n: u32) -> Message {
        Message::request(1, mac(n), MessageType::Discover)
    }
    fn request(n: u32, address: Ipv4Addr) -> Message {
        let mut message = Message::request(1, mac(n), MessageType::Request);
        message.set_address(code::REQUESTED_IP, address);
        message
    }
    fn offered(table: &mut Leases, n: u32, now: u64) -> Ipv4Addr {
        match table.decide(&discover(n), Standing::Enrolled, now) {
            Decision::Offer(address) => address,
            other => panic!("{other:?}"),
        }
    }
    fn lease(table: &mut Leases, n: u32, now: u64) -> Ipv4Addr {
        let address = offered(table, n, now);
        assert_eq!(table.decide(&request(n, address), Standing::Enrolled, now), Decision::Ack(address));
        address
    }

    #[test]
    fn a_machine_keeps_its_address() {
        let mut table = table();
        let first = lease(&mut table, 1, 0);
        assert_eq!(lease(&mut table, 1, 10), first);
        assert_eq!(lease(&mut table, 1, 999_999), first, "also long after its lease ended");
        assert_ne!(lease(&mut table, 2, 10), first);
        assert_eq!(table.mac_of(first), Some(mac(1)));
    }

    #[test]
    fn a_restart_keeps_addresses() {
        let mut before = table();
        let first = lease(&mut before, 1, 0);
        offered(&mut before, 2, 0);
        let file = before.take_changes().unwrap();
        assert_eq!(file.leases.len(), 1, "an offer alone is not kept");
        let text = serde_json::to_string(&file).unwrap();
        let mut after = Leases::new(dhcp(), SERVER, serde_json::from_str(&text).unwrap());
        assert_eq!(offered(&mut after, 1, 5), first);
        assert!(after.take_changes().is_none());
    }

    #[test]
    fn renewals_seldom_write() {
        let mut table = table();
        let address = lease(&mut table, 1, 0);
        assert!(table.take_changes().is_some());
        let mut renewal = Message::request(1, mac(1), MessageType::Request);
        renewal.ciaddr = address;
        assert_eq!(table.decide(&renewal, Standing::Enrolled, 1800), Decision::Ack(address));
        assert!(table.take_changes().is_none());
        table.decide(&renewal, Standing::Enrolled, 5000);
        assert_eq!(table.take_changes().unwrap().leases[0].expires, 5000 + 7200);
        table.changes_not_stored();
        assert!(table.take_changes().is_some());
    }

    #[test]
    fn wrong_addresses_are_refused() {
        let mut table = table();
        let mine = lease(&mut table, 1, 0);
        let other = lease(&mut table, 2, 0);
        let check = |table: &mut Leases, n, address: Ipv4Addr, text: &str| {
            assert_eq!(table.decide(&request(n, address), Standing::Enrolled, 1), Decision::Nak(text.into()));
        };
        check(&mut table, 1, [192, 168, 7, 9].into(), "192.168.7.9 is not an address of this network");
        check(&mut table, 1, other, &format!("this machine's address is {mine}"));
        check(&mut table, 3, mine, &format!("{mine} is another machine's address"));
        check(&mut table, 3, SERVER, "10.0.0.1 is not an address of this network");
    }

    #[test]
    fn a_forgotten_lease_is_confirmed() {
        let address = Ipv4Addr::new(10, 0, 0, 15);
        assert_eq!(table().decide(&request(7, address), Standing::Enrolled, 0), Decision::Ack(address));
    }

    #[test]
    fn another_servers_client_is_left_alone() {
        let mut table = table();
        let address = offered(&mut table, 1, 0);
        let mut taken = request(1, address);
        taken.set_address(code::SERVER_ID, [10, 0, 0, 99].into());
        assert!(matches!(table.decide(&taken, Standing::Enrolled, 0), Decision::Silent(_)));
        assert_eq!(table.mac_of(address), None);
    }

    #[test]
    fn unknown_machines_wait_for_discovery() {
        let mut closed = table();
        let silent = closed.decide(&discover(1), Standing::Unknown, 0);
        assert_eq!(
            silent,
            Decision::Silent("the machine is not enrolled and [dhcp] discovery is off".into())
        );
        let mut config = dhcp();
        config.discovery = true;
        config.range_end = [10, 0, 40, 0].into();
        config.netmask = [255, 255, 0, 0].into();
        let mut open = Leases::new(config, SERVER, LeaseFile::default());
        for n in 0..1024 {
            assert!(matches!(open.decide(&discover(n), Standing::Unknown, 0), Decision::Offer(_)), "{n}");
        }
        assert_eq!(
            open.decide(&discover(5000), Standing::Unknown, 0),
            Decision::Silent("1024 machines that are not enrolled hold leases already".into())
        );
        assert!(matches!(open.decide(&discover(5000), Standing::Enrolled, 0), Decision::Offer(_)));
        assert!(matches!(open.decide(&discover(5001), Standing::Unknown, 61), Decision::Offer(_)));
    }

    #[test]
    fn a_full_range_gives_away_the_longest_expired() {
        let mut table = table();
        let first = lease(&mut table, 0, 0);
        for n in 1..11 {
            lease(&mut table, n, 100);
        }
        let refused = table.decide(&discover(11), Standing::Enrolled, 200);
        let text = "all 11 addresses from 10.0.0.10 to 10.0.0.20 are in use; widen [dhcp] range_end";
        assert_eq!(refused, Decision::Silent(text.into()));
        assert_eq!(offered(&mut table, 11, 4000), first);
        assert_eq!(table.mac_of(first), Some(mac(11)));
    }

    #[test]
    fn a_declined_address_rests() {
        let mut table = table();
        let address = lease(&mut table, 1, 0);
        let mut decline = Message::request(1, mac(2), MessageType::Decline);
        decline.set_address(code::REQUESTED_IP, address);
        table.decide(&decline, Standing::Enrolled, 0);
        assert_eq!(table.mac_of(address), Some(mac(1)), "others cannot decline it");
        decline.chaddr = mac(1);
        table.decide(&decline, Standing::Enrolled, 0);
        assert_ne!(offered(&mut table, 1, 1), address);
        assert!(!table.is_free(address, 599) && table.is_free(address, 600));
    }

    #[test]
    fn a_released_address_is_kept_for_its_machine_while_others_are_unused() {
        let mut table = table();
        let address = lease(&mut table, 1, 0);
        let mut release = Message::request(1, mac(1), MessageType::Release);
        release.ciaddr = address;
        table.decide(&release, Standing::Enrolled, 5);
        assert!(table.is_free(address, 5));
        for n in 2..12 {
            assert_ne!(lease(&mut table, n, 6), address);
        }
        assert_eq!(lease(&mut table, 1, 7), address);
    }

    #[test]
    fn relays_of_other_networks_get_nothing() {
        let mut table = table();
        let mut message = discover(1);
        message.giaddr = [10, 0, 0, 254].into();
        assert!(matches!(table.decide(&message, Standing::Enrolled, 0), Decision::Offer(_)));
        message.giaddr = [10, 9, 0, 1].into();
        let silent = Decision::Silent("no addresses for the network of 10.9.0.1".into());
        assert_eq!(table.decide(&message, Standing::Enrolled, 0), silent);
    }

    #[test]
    fn nobody_leases_to_a_group_address() {
        let mut message = discover(1);
        message.chaddr = MacAddress([0xff; 6]);
        assert!(matches!(table().decide(&message, Standing::Enrolled, 0), Decision::Silent(_)));
    }

    #[test]
    fn a_damaged_file_is_cleaned() {
        let lease = |n, last| Lease {
            mac: mac(n),
            address: [10, 0, 0, last].into(),
            expires: 9,
            standing: Standing::Enrolled,
        };
        let file = LeaseFile { leases: vec![lease(1, 12), lease(1, 13), lease(2, 12), lease(3, 99)] };
        let table = Leases::new(dhcp(), SERVER, file);
        assert_eq!(table.by_mac.len(), 1);
        assert_eq!(table.mac_of([10, 0, 0, 12].into()), Some(mac(1)));
    }
}
