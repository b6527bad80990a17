//! Tells the kernel the hardware address of a machine that cannot answer ARP yet, so that a DHCP answer reaches it by unicast.
//!
//! One rtnetlink message (RTM_NEWNEIGH, linux/neighbour.h). Where it is refused, the caller broadcasts instead.

use ferric_common::ids::MacAddress;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A socket to the kernel's table of neighbours, for one interface.
#[derive(Debug)]
pub struct Neighbours {
    socket: OwnedFd,
    interface: u32,
}

impl Neighbours {
    /// # Errors
    /// When there is no such interface or the kernel gives no socket.
    pub fn open(interface: &str) -> io::Result<Neighbours> {
        let interface = nix::net::if_::if_nametoindex(interface)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Neighbours { socket, interface })
    }

    /// Sets an entry. The kernel answers within the call, so nothing waits here.
    ///
    /// # Errors
    /// What the kernel said, mostly that CAP_NET_ADMIN is missing.
    pub fn set(&self, address: Ipv4Addr, mac: MacAddress) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &message(self.interface, address, mac), MsgFlags::empty())?;
        let mut answer = [0u8; 512];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        // nlmsghdr, then a negated errno; 0 is the acknowledgement.
        let errno = answer.get(16..20).filter(|_| length >= 20).and_then(|b| b.try_into().ok());
        match errno.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(negative) => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn message(interface: u32, address: Ipv4Addr, mac: MacAddress) -> Vec<u8> {
    const RTM_NEWNEIGH: u16 = 28;
    /// REQUEST, ACK, REPLACE, CREATE.
    const FLAGS: u16 = 0x1 | 0x4 | 0x100 | 0x400;
    /// The kernel checks it again after its usual time.
    const NUD_REACHABLE: u16 = 0x02;
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const AF_INET: u8 = 2;
    let mut out = Vec::with_capacity(48);
    out.extend_from_slice(&48u32.to_ne_bytes());
    out.extend_from_slice(&RTM_NEWNEIGH.to_ne_bytes());
    out.extend_from_slice(&FLAGS.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[AF_INET, 0, 0, 0]);
    out.extend_from_slice(&interface.to_ne_bytes());
    out.extend_from_slice(&NUD_REACHABLE.to_ne_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&8u16.to_ne_bytes());
    out.extend_from_slice(&NDA_DST.to_ne_bytes());
    out.extend_from_slice(&address.octets());
    out.extend_from_slice(&10u16.to_ne_bytes());
    out.extend_from_slice(&NDA_LLADDR.to_ne_bytes());
    out.extend_from_slice(&mac.0);
    out.extend_from_slice(&[0, 0]);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_message_is_as_long_as_it_says() {
        let bytes =
            super::message(3, [10, 0, 0, 5].into(), ferric_common::ids::MacAddress([1, 2, 3, 4, 5, 6]));
        assert_eq!(bytes.len(), 48);
        assert_eq!(bytes[32..36], [10, 0, 0, 5]);
    }
}
