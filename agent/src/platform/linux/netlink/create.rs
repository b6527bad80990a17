//! Interfaces that are made: tagged ones on another, and bonds of several (linux/if_link.h).

use super::{ACK, CREATE, NEW_LINK, Netlink, attribute, link_header};
use std::io;

/// Fails if there is one of that name already.
const EXCLUSIVE: u16 = 0x200;
const IFF_UP: u32 = 1;

/// How the members of a bond share the work; numbers as in linux/if_bonding.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    /// 0 balance-rr … 4 802.3ad … 6 balance-alb.
    pub mode: u8,
    /// Milliseconds between looks at the members' carrier.
    pub miimon: u32,
    /// 0 layer2, 1 layer3+4, 2 layer2+3 …
    pub hash: u8,
}

impl Netlink {
    /// Makes the tagged interface `name` with VLAN `id` on the interface `parent`.
    ///
    /// # Errors
    /// As the kernel answers: `EEXIST` for a taken name, `EOPNOTSUPP` without the module 8021q.
    pub fn add_vlan(&mut self, parent: u32, name: &str, id: u16) -> io::Result<()> {
        let mut data = Vec::new();
        attribute(&mut data, 1, &id.to_ne_bytes());
        let mut body = link_header(0, 0, 0);
        attribute(&mut body, 5, &parent.to_ne_bytes());
        self.add_link(body, name, b"vlan", &data)
    }

    /// Makes the bond `name`, without members yet.
    ///
    /// # Errors
    /// As the kernel answers: `EEXIST` for a taken name, `EOPNOTSUPP` without the module bonding.
    pub fn add_bond(&mut self, name: &str, bond: Bond) -> io::Result<()> {
        let mut data = Vec::new();
        attribute(&mut data, 1, &[bond.mode]);
        attribute(&mut data, 3, &bond.miimon.to_ne_bytes());
        // Only these modes spread by a hash: balance-xor, 802.3ad, balance-tlb.
        if matches!(bond.mode, 2 | 4 | 5) {
            attribute(&mut data, 14, &[bond.hash]);
        }
        self.add_link(link_header(0, 0, 0), name, b"bond", &data)
    }

    /// Makes `member` a part of `bond`; the kernel wants it switched off for that.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn join(&mut self, member: u32, bond: u32) -> io::Result<()> {
        self.request(NEW_LINK, 0, &link_header(member, 0, IFF_UP))?;
        let mut body = link_header(member, 0, 0);
        attribute(&mut body, 10, &bond.to_ne_bytes());
        self.request(NEW_LINK, 0, &body)?;
        self.request(NEW_LINK, 0, &link_header(member, IFF_UP, IFF_UP))
    }

    fn add_link(&mut self, mut body: Vec<u8>, name: &str, kind: &[u8], data: &[u8]) -> io::Result<()> {
        attribute(&mut body, 3, &[name.as_bytes(), &[0]].concat());
        let mut info = Vec::new();
        attribute(&mut info, 1, kind);
        attribute(&mut info, 2, data);
        attribute(&mut body, 18, &info);
        self.request(NEW_LINK, ACK | CREATE | EXCLUSIVE, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::linux::netlink::Route;
    use std::net::Ipv6Addr;

    /// Asks the kernel in a network namespace that this thread makes and that ends with it; needs root.
    fn in_a_namespace(ask: impl FnOnce(&mut Netlink) + Send + 'static) {
        let asked = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("not root: the kernel was not asked");
                return;
            }
            ask(&mut Netlink::open(0).unwrap());
        });
        asked.join().unwrap();
    }

    /// A kernel without the modules must at least understand the question: nonsense would be `EINVAL`.
    #[test]
    fn the_kernel_makes_bonds_and_tagged_interfaces() {
        in_a_namespace(|kernel| {
            let named = |kernel: &mut Netlink, name: &str| {
                kernel.links().unwrap().into_iter().find(|link| link.name == name).unwrap().index
            };
            match kernel.add_bond("bond0", Bond { mode: 4, miimon: 100, hash: 1 }) {
                Ok(()) => {
                    let bond = named(kernel, "bond0");
                    kernel.add_vlan(bond, "bond0.7", 7).unwrap();
                    let tagged = named(kernel, "bond0.7");
                    kernel.set_up(tagged).unwrap();
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}"),
            }
        });
    }

    #[test]
    fn addresses_and_routes_of_ipv6_are_set_and_removed() {
        in_a_namespace(|kernel| {
            kernel.set_up(1).unwrap();
            let address: Ipv6Addr = "2001:db8::5".parse().unwrap();
            kernel.add_leased(1, address, 60, 90).unwrap();
            kernel.add_leased(1, address, 70, 100).unwrap();
            let route = Route {
                destination: "2001:db8:1::".parse().unwrap(),
                prefix: 48,
                gateway: None,
                source: None,
                metric: 100,
            };
            kernel.add_route(1, &route).unwrap();
            kernel.add_route(1, &route).unwrap();
            kernel.remove_address(1, address, 128).unwrap();
            let again = kernel.remove_address(1, address, 128).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        });
    }
}
