//! A packet socket on one interface: how a DHCP client speaks before it has an address (packet(7)).
//!
//! A UDP socket would do on a machine with one NIC; with several, the kernel takes the address of another NIC as source.
#![allow(unsafe_code)]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const IPV4: u16 = libc::ETH_P_IP as u16;

/// Sends and receives whole IPv4 packets, without the Ethernet header.
pub struct PacketSocket {
    socket: OwnedFd,
    index: i32,
}

impl PacketSocket {
    /// # Errors
    /// As socket(2) and bind(2); needs CAP_NET_RAW.
    pub fn open(index: u32) -> io::Result<PacketSocket> {
        let index = i32::try_from(index).map_err(io::Error::other)?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0 receives nothing: packets of other interfaces cannot slip in before the bind below.
        // SAFETY: socket(2) takes plain numbers.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, open and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        filter(&socket)?;
        let address = address(index);
        // SAFETY: the pointer and length describe `address`, which lives through the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length()) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(PacketSocket { socket, index }) }
    }

    /// Sends an IPv4 packet to every station of the link.
    ///
    /// # Errors
    /// As sendto(2); `ENETDOWN` while the link is down.
    pub fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        let address = address(self.index);
        // SAFETY: both pointers come with the lengths of what they point at, which lives through the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                length(),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits up to `time` for a packet; `None` if none came. A longer packet than the buffer is cut.
    ///
    /// # Errors
    /// As poll(2) and recv(2).
    pub fn receive<'b>(&self, buffer: &'b mut [u8], time: Duration) -> io::Result<Option<&'b [u8]>> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Ok(None);
        }
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets only UDP to the DHCP client port through: a renewal must not wake for each packet of an image download.
fn filter(socket: &OwnedFd) -> io::Result<()> {
    const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf, k }
    }
    let mut program = [
        op(0x30, 0, 0, 9),      // protocol …
        op(0x15, 0, 6, 17),     // … is UDP,
        op(0x28, 0, 0, 6),      // fragment offset …
        op(0x45, 4, 0, 0x1fff), // … is none,
        op(0xb1, 0, 0, 0),      // behind the IP header …
        op(0x48, 0, 0, 2),      // … the destination port …
        op(0x15, 0, 1, 68),     // … is the client's:
        op(0x06, 0, 0, 0xffff), // take all of it,
        op(0x06, 0, 0, 0),      // else nothing.
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the pointer and length describe `filter`, whose program lives through the call; the kernel copies both.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(index: i32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: IPV4.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    }
}

fn length() -> libc::socklen_t {
    size_of::<libc::sockaddr_ll>() as libc::socklen_t
}
