//! Listens for LLDP frames on several interfaces at once: raw sockets (packet(7)), one deadline for all.
#![allow(unsafe_code)]

use ferric_common::formats::lldp;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// ETH_P_LLDP of linux/if_ether.h.
const LLDP: u16 = 0x88cc;
/// The three group addresses that bridges do not forward (IEEE 802.1AB, table 7-1).
const GROUPS: [[u8; 6]; 3] =
    [[1, 0x80, 0xc2, 0, 0, 0x0e], [1, 0x80, 0xc2, 0, 0, 3], [1, 0x80, 0xc2, 0, 0, 0]];
/// Bytes of a frame that are kept: a frame of a large network is no longer.
const FRAME: usize = 9216;
/// A link that is still coming up is given this long before it no longer delays the end.
const CARRIER_GRACE: Duration = Duration::from_secs(10);
/// How often carriers are looked at anew.
const LOOK: Duration = Duration::from_secs(1);
/// Where drivers of network cards can be spoken to.
const DEBUGFS: &str = "/sys/kernel/debug";

struct Ear {
    name: String,
    socket: OwnedFd,
}

/// What came of listening.
#[derive(Debug, Default)]
pub struct Heard {
    /// The first data unit (without the Ethernet header) of each interface that heard one.
    pub units: BTreeMap<String, Vec<u8>>,
    /// Why an interface, or none of them any longer, could be listened on: in words, for the caller to say. This room speaks in
    /// processes with and without a log of `tracing`.
    pub failed: Vec<String>,
}

/// Listens on each interface for `wait`. Ends early when all interfaces with a carrier have heard a unit. An interface that cannot
/// be listened on is left out.
pub fn hear(interfaces: &[String], wait: Duration) -> Heard {
    let mut heard = Heard::default();
    let mut ears = Vec::new();
    for name in interfaces {
        match open(name) {
            Ok(socket) => ears.push(Ear { name: name.clone(), socket }),
            Err(error) => heard.failed.push(format!("listening for LLDP on {name} failed: {error}")),
        }
    }
    let began = Instant::now();
    while let Some(left) = wait.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        let patient = began.elapsed() < CARRIER_GRACE;
        if !ears.iter().any(|ear| patient || has_carrier(&ear.name)) {
            break;
        }
        if let Err(error) = one_round(&mut ears, left.min(LOOK), &mut heard.units) {
            heard.failed.push(format!("listening for LLDP failed: {error}"));
            break;
        }
    }
    heard
}

/// Waits once; ears that heard something are taken away.
fn one_round(ears: &mut Vec<Ear>, time: Duration, heard: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let mut waiting: Vec<PollFd<'_>> =
        ears.iter().map(|ear| PollFd::new(ear.socket.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut waiting, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    ears.retain(|ear| {
        let mut frame = [0u8; FRAME];
        match nix::sys::socket::recv(ear.socket.as_raw_fd(), &mut frame, nix::sys::socket::MsgFlags::empty())
        {
            Ok(length) if length > 0 => {
                let unit = frame.get(..length).unwrap_or_default();
                // A neighbour that says goodbye says nothing else; what comes next is worth the wait.
                let is_goodbye = lldp::is_shutdown(unit);
                if !is_goodbye {
                    heard.insert(ear.name.clone(), unit.to_vec());
                }
                is_goodbye
            }
            // Nothing yet, or the link went down for a moment.
            _ => true,
        }
    });
    Ok(())
}

fn has_carrier(name: &str) -> bool {
    fs::read_to_string(Path::new("/sys/class/net").join(name).join("carrier"))
        .is_ok_and(|text| text.trim() == "1")
}

/// A socket that hears LLDP on one interface, whichever group it is sent to.
fn open(name: &str) -> io::Result<OwnedFd> {
    let index = i32::try_from(if_nametoindex(name)?).map_err(io::Error::other)?;
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0 receives nothing: frames of other interfaces cannot slip in before the bind below.
    // SAFETY: socket(2) takes plain numbers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, open and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    for group in GROUPS {
        join(&socket, index, group)?;
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: LLDP.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `address`, which lives through the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Has the card pass frames to a group address on; undone when the socket is closed.
fn join(socket: &OwnedFd, index: i32, group: [u8; 6]) -> io::Result<()> {
    let [a, b, c, d, e, f] = group;
    let request = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    // SAFETY: the pointer and length describe `request`, which lives through the call; the kernel copies it.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Intel's X710 and its like (driver i40e) keep LLDP frames for themselves until they are told not to, by
/// `/sys/kernel/debug/i40e/<pci address>/command`. Answers what failed, in words for the caller to say.
pub fn stop_firmware_agents(pci_addresses: &[String]) -> Vec<String> {
    if pci_addresses.is_empty() {
        return Vec::new();
    }
    let mount = super::process::Mount { kind: "debugfs", on: DEBUGFS, options: "", trusted: false };
    let mounted = super::process::mount_one(&mount)
        .err()
        .map(|error| format!("mounting {DEBUGFS}, to stop the LLDP agents of i40e cards, failed: {error}"));
    let unstopped = stop_below(&Path::new(DEBUGFS).join("i40e"), pci_addresses);
    mounted.into_iter().chain(unstopped).collect()
}

/// Answers what failed, in words.
fn stop_below(folder: &Path, pci_addresses: &[String]) -> Vec<String> {
    let stop = |pci: &String| {
        let command = folder.join(pci).join("command");
        let written = fs::OpenOptions::new().write(true).open(&command).and_then(|mut file| {
            use std::io::Write;
            file.write_all(b"lldp stop")
        });
        written.err().map(|error| {
            format!(
                "stopping the LLDP agent of {pci} by {} failed: {error}; LLDP may not be heard on this card",
                command.display()
            )
        })
    };
    pci_addresses.iter().filter_map(stop).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firmware_agent_is_told_by_its_file_and_a_missing_one_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let command = folder.path().join("0000:3b:00.0/command");
        fs::create_dir_all(command.parent().unwrap()).unwrap();
        fs::write(&command, "").unwrap();
        let failed = stop_below(folder.path(), &["0000:3b:00.0".into(), "0000:3b:00.1".into()]);
        assert_eq!(fs::read_to_string(&command).unwrap(), "lldp stop");
        assert_eq!(failed.len(), 1);
        assert!(failed[0].starts_with("stopping the LLDP agent of 0000:3b:00.1 by "), "{failed:?}");
    }

    #[test]
    fn a_goodbye_is_passed_over_and_what_comes_next_counts() {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut ears = vec![Ear { name: "eth0".into(), socket: near.into() }];
        let mut heard = BTreeMap::new();
        far.send(&[0x02, 0x02, 7, b'a', 0x04, 0x02, 7, b'b', 0x06, 0x02, 0, 0, 0, 0]).unwrap();
        one_round(&mut ears, Duration::from_secs(60), &mut heard).unwrap();
        assert!(heard.is_empty() && ears.len() == 1);
        let told = [0x02, 0x02, 7, b'a', 0x04, 0x02, 7, b'b', 0x06, 0x02, 0, 120, 0, 0];
        far.send(&told).unwrap();
        one_round(&mut ears, Duration::from_secs(60), &mut heard).unwrap();
        assert_eq!(heard.get("eth0").map(Vec::as_slice), Some(&told[..]));
        assert!(ears.is_empty());
    }

    #[test]
    fn an_interface_that_is_not_there_does_not_delay_and_is_said() {
        let heard = hear(&["no-such-link".into()], Duration::from_secs(60));
        assert!(heard.units.is_empty());
        assert_eq!(heard.failed.len(), 1);
        assert!(heard.failed[0].starts_with("listening for LLDP on no-such-link failed: "), "{heard:?}");
    }
}
