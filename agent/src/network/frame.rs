//! IPv4 and UDP around a DHCP message, for packet sockets (RFC 791, RFC 768). Pure.

use ferric_common::formats::dhcp::{CLIENT_PORT, SERVER_PORT};
use std::net::Ipv4Addr;

const IP: usize = 20;
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// A packet from the client port of `source` to the server port of everyone.
pub fn wrap(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let target = Ipv4Addr::BROADCAST;
    let udp_length = u16::try_from(UDP + payload.len()).unwrap_or(u16::MAX);
    let total = udp_length.saturating_add(20);
    let mut ip = vec![0x45, 0x10];
    ip.extend_from_slice(&total.to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0]);
    ip.extend_from_slice(&source.octets());
    ip.extend_from_slice(&target.octets());
    let sum = checksum(&[&ip]).to_be_bytes();
    if let Some(slot) = ip.get_mut(10..12) {
        slot.copy_from_slice(&sum);
    }
    let mut udp = Vec::new();
    udp.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    udp.extend_from_slice(&SERVER_PORT.to_be_bytes());
    udp.extend_from_slice(&udp_length.to_be_bytes());
    let pseudo =
        [&source.octets()[..], &target.octets(), &[0, PROTOCOL_UDP], &udp_length.to_be_bytes()].concat();
    // A sum of zero is sent as all ones: zero means "not computed".
    let sum = match checksum(&[&pseudo, &udp, &[0, 0], payload]) {
        0 => 0xffff,
        sum => sum,
    };
    udp.extend_from_slice(&sum.to_be_bytes());
    [&ip, &udp, payload].concat()
}

/// The payload of a packet to the DHCP client port, and who sent it; `None` for any other packet and for fragments.
///
/// The UDP checksum is not looked at: between virtual machines on one host it is not filled in.
pub fn unwrap(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    if first >> 4 != 4 || header < IP || *packet.get(9)? != PROTOCOL_UDP || u16_at(packet, 6)? & 0x3fff != 0 {
        return None;
    }
    let udp = packet.get(header..total)?;
    if u16_at(udp, 0)? != SERVER_PORT || u16_at(udp, 2)? != CLIENT_PORT {
        return None;
    }
    let payload = udp.get(UDP..usize::from(u16_at(udp, 4)?))?;
    let sender = packet.get(12..)?.first_chunk::<4>()?;
    Some((Ipv4Addr::from(*sender), payload))
}

/// The internet checksum over the parts one after the other (RFC 1071). All parts but the last have even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Swaps the ports, as the server's answer has them.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut packet = wrap(Ipv4Addr::new(10, 0, 0, 1), payload);
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    #[test]
    fn sums_hold_over_header_and_payload() {
        for payload in [&b"odd"[..], b"even", b""] {
            let packet = wrap(Ipv4Addr::new(10, 0, 0, 7), payload);
            assert_eq!(checksum(&[&packet[..20]]), 0);
            let length = (packet.len() as u16 - 20).to_be_bytes();
            let pseudo = [&packet[12..20], &[0, 17], &length].concat();
            assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0, "{payload:?}");
        }
    }

    #[test]
    fn only_whole_packets_to_the_client_port_are_taken() {
        let good = answer(b"hello");
        assert_eq!(unwrap(&good), Some((Ipv4Addr::new(10, 0, 0, 1), &b"hello"[..])));
        let padded = [&good[..], &[0; 18]].concat();
        assert_eq!(unwrap(&padded).map(|(_, payload)| payload), Some(&b"hello"[..]));
        for (at, byte) in
            [(0, 0x65), (0, 0x44), (9, 6), (6, 0x20), (7, 1), (21, 68), (23, 67), (25, 4), (24, 1)]
        {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(unwrap(&bad), None, "byte {at}");
        }
        assert_eq!(unwrap(&good[..good.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = unwrap(&bytes);
        }
    }
}
