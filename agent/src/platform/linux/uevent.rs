//! The kernel's word that a device appeared: NETLINK_KOBJECT_UEVENT.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// Bytes the kernel may queue for us: a server with hundreds of disks sends thousands of events within a second.
const QUEUE: usize = 4 << 20;

pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Listens from now on.
    ///
    /// # Errors
    /// As socket(2) and bind(2).
    pub fn open() -> io::Result<Uevents> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // A smaller queue is worse, not wrong: the loss shows as ENOBUFS, and the reader then looks at every device.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Uevents { socket })
    }

    /// Waits up to `time` and returns what came.
    ///
    /// # Errors
    /// As poll(2) and recv(2); an overflow is no error but [`Event::Lost`].
    pub fn next(&self, time: Duration) -> io::Result<Event> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Ok(Event::Silence);
        }
        let mut buffer = [0u8; 8192];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => Ok(parse(buffer.get(..length).unwrap_or_default())),
            Err(nix::errno::Errno::ENOBUFS) => Ok(Event::Lost),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(Event::Other),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Nothing came in time.
    Silence,
    /// The queue overflowed.
    Lost,
    /// A device was added that names its driver thus.
    Added {
        modalias: String,
    },
    Other,
}

/// Reads `add@/devices/…\0KEY=value\0KEY=value\0`.
fn parse(message: &[u8]) -> Event {
    let mut fields = message.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    if !fields.next().is_some_and(|head| head.starts_with("add@")) {
        return Event::Other;
    }
    fields
        .find_map(|field| field.strip_prefix("MODALIAS=").map(str::to_owned))
        .map_or(Event::Other, |modalias| Event::Added { modalias })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_added_device_with_a_modalias_matters() {
        let added = b"add@/devices/x\0ACTION=add\0MODALIAS=pci:v1\0SEQNUM=5\0";
        assert_eq!(parse(added), Event::Added { modalias: "pci:v1".into() });
        for other in
            [&b"remove@/devices/x\0MODALIAS=pci:v1\0"[..], b"add@/devices/x\0SEQNUM=5\0", b"", b"\xff\0"]
        {
            assert_eq!(parse(other), Event::Other);
        }
    }
}
