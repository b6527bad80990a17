//! Builds the answer to a DHCP message: which options, and which boot file for which client.
//!
//! Pure. Whether there is an address is [`super::leases`]' decision. PXE clients are told apart by option 93 (RFC 4578),
//! iPXE by option 175 or its user class; the table is the one that Ironic hands to its DHCP providers.

use crate::boot::leases::Decision;
use ferric_common::formats::dhcp::{AGENT_VENDOR_CLASS, Message, MessageType, code};
use std::net::Ipv4Addr;

/// What every answer says about this server and its network.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The address of DHCP, TFTP and HTTP.
    pub address: Ipv4Addr,
    /// `http://ADDRESS:PORT`.
    pub http_base: String,
    pub netmask: Ipv4Addr,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    pub lease_seconds: u32,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// iPXE that fetches its script over HTTP.
    Ipxe,
    /// A PC BIOS, or an iPXE without HTTP on one.
    Bios,
    /// UEFI on x86-64, by TFTP.
    Uefi,
    /// UEFI on x86-64, by HTTP.
    UefiHttp,
    /// Ferric's ramdisk.
    Agent,
    /// An operating system, or a machine that no boot file is served for.
    Other,
}

impl Client {
    /// Reads it off a message.
    pub fn of(message: &Message) -> Client {
        if message.ipxe_has_http() {
            return Client::Ipxe;
        }
        let vendor = message.vendor_class().unwrap_or_default();
        if vendor.starts_with(AGENT_VENDOR_CLASS) {
            return Client::Agent;
        }
        let http = vendor.starts_with("HTTPClient");
        if !http && !vendor.starts_with("PXEClient") && !message.is_ipxe() {
            return Client::Other;
        }
        match message.client_arch() {
            Some(16) if http => Client::UefiHttp,
            Some(7 | 9) if !http => Client::Uefi,
            // A ROM of before RFC 4578 says no architecture: it is a BIOS.
            Some(0) | None if !http => Client::Bios,
            _ => Client::Other,
        }
    }

    /// Its word in the log.
    pub fn name(self) -> &'static str {
        match self {
            Client::Ipxe => "iPXE",
            Client::Bios => "BIOS PXE",
            Client::Uefi => "UEFI PXE",
            Client::UefiHttp => "UEFI HTTP boot",
            Client::Agent => "the ramdisk",
            Client::Other => "an operating system",
        }
    }
}

/// The answer to send, if any.
pub fn reply(request: &Message, facts: &ServerFacts, decision: &Decision) -> Option<Message> {
    let mut reply = match decision {
        Decision::Silent(_) => return None,
        Decision::Nak(why) => {
            let mut nak = request.reply(MessageType::Nak);
            nak.set_address(code::SERVER_ID, facts.address);
            nak.set(code::MESSAGE, why.as_bytes());
            // Through a relay a refusal must be broadcast there (RFC 2131, 4.3.2).
            if !nak.giaddr.is_unspecified() {
                nak.flags |= ferric_common::formats::dhcp::FLAG_BROADCAST;
            }
            echo_relay(request, &mut nak);
            return Some(nak);
        }
        Decision::Offer(address) => addressed(request, facts, MessageType::Offer, *address),
        Decision::Ack(address) => addressed(request, facts, MessageType::Ack, *address),
        Decision::Inform => {
            let mut ack = request.reply(MessageType::Ack);
            ack.ciaddr = request.ciaddr;
            ack.set_address(code::SERVER_ID, facts.address);
            ack
        }
    };
    reply.set_address(code::SUBNET_MASK, facts.netmask);
    if let Some(gateway) = facts.gateway {
        reply.set_address(code::ROUTERS, gateway);
    }
    for (option, servers) in [(code::DNS, &facts.dns), (code::NTP, &facts.ntp)] {
        if !servers.is_empty() {
            reply.set_addresses(option, servers);
        }
    }
    boot_options(Client::of(request), request, facts, &mut reply);
    echo_relay(request, &mut reply);
    Some(reply)
}

fn addressed(request: &Message, facts: &ServerFacts, kind: MessageType, address: Ipv4Addr) -> Message {
    let mut reply = request.reply(kind);
    reply.yiaddr = address;
    if kind == MessageType::Ack {
        reply.ciaddr = request.ciaddr;
    }
    reply.set_address(code::SERVER_ID, facts.address);
    let lease = facts.lease_seconds;
    reply.set_u32(code::LEASE_TIME, lease);
    // RFC 2131, 4.4.5: renew at half the lease, ask any server at seven eighths.
    reply.set_u32(code::RENEWAL_TIME, lease / 2);
    reply.set_u32(code::REBIND_TIME, lease.saturating_sub(lease / 8));
    reply
}

fn boot_options(client: Client, request: &Message, facts: &ServerFacts, reply: &mut Message) {
    let file = match client {
        Client::Ipxe => format!("{}/boot.ipxe", facts.http_base),
        Client::Bios => "undionly.kpxe".to_owned(),
        Client::Uefi => "snponly.efi".to_owned(),
        Client::UefiHttp => format!("{}/ipxe/snponly.efi", facts.http_base),
        Client::Agent | Client::Other => return,
    };
    reply.siaddr = facts.address;
    reply.set(code::BOOT_FILE, file.into_bytes());
    match client {
        // UEFI takes an answer for an HTTP boot only when it says so.
        Client::UefiHttp => reply.set(code::VENDOR_CLASS, *b"HTTPClient"),
        // Option 60 is not echoed to PXE ROMs: with it they would look for a boot menu in option 43.
        Client::Bios | Client::Uefi => {
            reply.set(code::TFTP_SERVER, facts.address.to_string().into_bytes());
            reply.set_address(code::TFTP_ADDRESSES, facts.address);
        }
        _ => {}
    }
    if request.is_ipxe() {
        // `no-pxedhcp`: there is no proxy to wait for, which saves seconds a boot.
        reply.set(code::IPXE, [0xb0, 1, 1]);
    }
}

/// RFC 3046: what a relay added comes back to it. As the last option.
fn echo_relay(request: &Message, reply: &mut Message) {
    if let Some(value) = request.option(code::RELAY_AGENT) {
        reply.set(code::RELAY_AGENT, value);
    }
    // RFC 6842: the client id comes back too.
    if let Some(id) = request.client_id() {
        reply.set(code::CLIENT_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferric_common::formats::dhcp::{FLAG_BROADCAST, Op};
    use ferric_common::ids::MacAddress;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);

    fn facts() -> ServerFacts {
        ServerFacts {
            address: [10, 0, 0, 1].into(),
            http_base: "http://10.0.0.1:6180".into(),
            netmask: [255, 255, 255, 0].into(),
            gateway: Some([10, 0, 0, 254].into()),
            dns: vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()],
            ntp: vec![[10, 0, 0, 4].into()],
            lease_seconds: 3600,
        }
    }
    fn asking(options: &[(u8, &[u8])]) -> Message {
        let mut message = Message::request(7, MacAddress([2, 0, 0, 0, 0, 1]), MessageType::Discover);
        for (code, value) in options {
            message.set(*code, *value);
        }
        message
    }
    fn offer(options: &[(u8, &[u8])]) -> Message {
        let reply = reply(&asking(options), &facts(), &Decision::Offer(ADDRESS)).unwrap();
        Message::parse(&reply.encode()).unwrap()
    }

    #[test]
    fn an_offer_describes_the_network() {
        let offer = offer(&[]);
        assert_eq!((offer.op, offer.message_type()), (Op::Reply, Some(MessageType::Offer)));
        assert_eq!((offer.yiaddr, offer.xid), (ADDRESS, 7));
        assert_eq!(offer.server_id(), Some([10, 0, 0, 1].into()));
        let times = (offer.lease_seconds(), offer.renewal_seconds(), offer.rebind_seconds());
        assert_eq!(times, (Some(3600), Some(1800), Some(3150)));
        assert_eq!((offer.prefix_length(), offer.routers()), (Some(24), vec![[10, 0, 0, 254].into()]));
        assert_eq!((offer.dns(), offer.ntp_servers()), (facts().dns, facts().ntp));
        assert_eq!(offer.boot_file(), None, "an operating system gets no boot file");
    }

    #[test]
    fn each_client_gets_its_boot_file() {
        let pxe = b"PXEClient:Arch:00000:UNDI:002001".as_slice();
        let http = b"HTTPClient:Arch:00016:UNDI:003001".as_slice();
        let ipxe = [19, 1, 1].as_slice();
        type Case<'a> = (&'a str, Client, &'a [(u8, &'a [u8])], Option<&'a str>);
        let cases: &[Case] = &[
            ("bios", Client::Bios, &[(60, pxe), (93, &[0, 0])], Some("undionly.kpxe")),
            ("old rom", Client::Bios, &[(60, pxe)], Some("undionly.kpxe")),
            ("uefi", Client::Uefi, &[(60, pxe), (93, &[0, 7])], Some("snponly.efi")),
            ("uefi, byte code", Client::Uefi, &[(60, pxe), (93, &[0, 9])], Some("snponly.efi")),
            ("arm64", Client::Other, &[(60, pxe), (93, &[0, 11])], None),
            (
                "http",
                Client::UefiHttp,
                &[(60, http), (93, &[0, 16])],
                Some("http://10.0.0.1:6180/ipxe/snponly.efi"),
            ),
            (
                "ipxe",
                Client::Ipxe,
                &[(60, pxe), (93, &[0, 0]), (175, ipxe)],
                Some("http://10.0.0.1:6180/boot.ipxe"),
            ),
            ("ipxe by class", Client::Ipxe, &[(77, b"iPXE")], Some("http://10.0.0.1:6180/boot.ipxe")),
            (
                "ipxe without http",
                Client::Bios,
                &[(60, pxe), (93, &[0, 0]), (175, &[24, 1, 1])],
                Some("undionly.kpxe"),
            ),
            ("agent", Client::Agent, &[(60, b"ferric-agent")], None),
            ("linux", Client::Other, &[(60, b"dhcpcd-9")], None),
        ];
        for (name, client, options, file) in cases {
            assert_eq!(Client::of(&asking(options)), *client, "{name}");
            let offer = offer(options);
            assert_eq!(offer.boot_file().as_deref(), *file, "{name}");
            let next = if file.is_some() { Ipv4Addr::new(10, 0, 0, 1) } else { Ipv4Addr::UNSPECIFIED };
            assert_eq!(offer.siaddr, next, "{name}");
            let tftp = matches!(client, Client::Bios | Client::Uefi);
            assert_eq!(offer.tftp_server().is_some(), tftp, "{name}");
            let answered_class = offer.vendor_class();
            assert_eq!(
                answered_class.as_deref(),
                (*client == Client::UefiHttp).then_some("HTTPClient"),
                "{name}"
            );
        }
    }

    #[test]
    fn ipxe_does_not_wait_for_a_proxy() {
        assert_eq!(offer(&[(175, &[19, 1, 1])]).ipxe_option(0xb0), Some([1].as_slice()));
    }

    #[test]
    fn a_refusal_says_why_and_names_no_address() {
        let mut request = asking(&[(82, b"circuit")]);
        request.giaddr = [10, 0, 0, 200].into();
        let nak = reply(&request, &facts(), &Decision::Nak("not yours".into())).unwrap();
        assert_eq!(nak.message_type(), Some(MessageType::Nak));
        assert_eq!(nak.text_option(code::MESSAGE).as_deref(), Some("not yours"));
        assert_eq!((nak.yiaddr, nak.lease_seconds()), (Ipv4Addr::UNSPECIFIED, None));
        assert_eq!(nak.flags, FLAG_BROADCAST);
        assert_eq!(nak.option(82), Some(b"circuit".as_slice()));
    }

    #[test]
    fn an_inform_is_answered_without_a_lease() {
        let mut request = asking(&[(61, b"\x01abc")]);
        request.ciaddr = [10, 0, 0, 77].into();
        let ack = reply(&request, &facts(), &Decision::Inform).unwrap();
        assert_eq!((ack.message_type(), ack.ciaddr), (Some(MessageType::Ack), request.ciaddr));
        assert_eq!((ack.yiaddr, ack.lease_seconds()), (Ipv4Addr::UNSPECIFIED, None));
        assert_eq!(ack.client_id(), Some(b"\x01abc".as_slice()));
    }

    #[test]
    fn silence_is_no_message() {
        assert!(reply(&asking(&[]), &facts(), &Decision::Silent(String::new())).is_none());
    }
}
