//! Addresses by DHCP to busybox, and the answer to who looks for an IPv6 router.

use super::*;

#[test]
fn dhcp_serves_a_real_client() {
    in_namespace(|| async {
        let world = World::start();
        let all =
            ["-O", "bootfile", "-O", "tftp", "-O", "serverid", "-O", "dns", "-O", "router", "-O", "ntpsrv"];
        let told = udhcpc(&world, &all).await.expect("an enrolled machine gets a lease");
        for line in [
            "subnet=255.255.255.0",
            "router=10.77.0.254",
            "dns=10.77.0.2",
            "ntpsrv=10.77.0.3",
            "serverid=10.77.0.1",
            "lease=3600",
        ] {
            assert!(told.lines().any(|l| l == line), "{line} in\n{told}");
        }
        let ip = told.lines().find(|l| l.starts_with("ip=10.77.0.")).unwrap().to_owned();
        world.saw(&format!("{KNOWN} - DHCP answered {} to an operating system", &ip[3..])).await;

        // Again as a boot ROM, which gets the same address and its boot file; with and without the broadcast flag.
        let bios = [&all[..], &["-V", "PXEClient:Arch:00000", "-x", "0x5d:0000"]].concat();
        let told = udhcpc(&world, &bios).await.unwrap();
        for line in [ip.as_str(), "boot_file=undionly.kpxe", "siaddr=10.77.0.1", "tftp=10.77.0.1"] {
            assert!(told.lines().any(|l| l == line), "{line} in\n{told}");
        }
        let uefi = [&all[..], &["-B", "-V", "PXEClient:Arch:00007", "-x", "0x5d:0007"]].concat();
        let told = udhcpc(&world, &uefi).await.unwrap();
        assert!(told.contains("boot_file=snponly.efi"), "{told}");
        let stored = std::fs::read_to_string(world.folder.path().join("leases.json")).unwrap();
        assert!(stored.contains(&ip[3..]) && stored.contains(KNOWN), "{stored}");

        // TFTP and HTTP know the machine by the address that it was given.
        must("ip", &["addr", "add", &format!("{}/24", &ip[3..]), "dev", "cli"]);
        curl(&["--interface", &ip[3..], "tftp://10.77.0.1/undionly.kpxe", "-o", "/dev/null"]).await;
        world.saw(&format!("{KNOWN} - fetched undionly.kpxe")).await;
    });
}

#[test]
fn dhcp_leaves_strangers_alone_and_survives_a_restart() {
    in_namespace(|| async {
        let world = World::start();
        let ip = |told: String| told.lines().find(|l| l.starts_with("ip=")).unwrap().to_owned();
        let before = ip(udhcpc(&world, &[]).await.unwrap());
        must("ip", &["link", "set", "cli", "down"]);
        must("ip", &["link", "set", "cli", "address", STRANGER]);
        must("ip", &["link", "set", "cli", "up"]);
        assert_eq!(udhcpc(&world, &["-t", "1"]).await, None, "a machine that is not enrolled");

        let World { folder, directory, _services: services } = world;
        services.shutdown().await;
        let boot = World::boot(folder.path());
        let open = DhcpConfig { discovery: true, ..World::dhcp() };
        let services = spawn(boot, Some(open), folder.path(), directory.clone()).unwrap();
        let world = World { folder, directory, _services: services };
        // The stranger asks for the machine's own address first, and must not get it.
        let stranger = ip(udhcpc(&world, &["-r", &before[3..]]).await.expect("discovery is on"));
        assert_ne!(stranger, before);
        must("ip", &["link", "set", "cli", "down"]);
        must("ip", &["link", "set", "cli", "address", KNOWN]);
        must("ip", &["link", "set", "cli", "up"]);
        assert_eq!(ip(udhcpc(&world, &[]).await.unwrap()), before);
    });
}

#[test]
fn a_broken_store_makes_nobody_a_stranger_where_strangers_are_served() {
    in_namespace(|| async {
        let world = World::start_with(DhcpConfig { discovery: true, ..World::dhcp() });
        world.directory.broken.store(true, Ordering::SeqCst);
        assert_eq!(udhcpc(&world, &["-t", "1"]).await, None);
        world.directory.broken.store(false, Ordering::SeqCst);
        assert!(udhcpc(&world, &[]).await.is_some());
    });
}

#[test]
fn an_interface_that_is_made_anew_is_served_again() {
    in_namespace(|| async {
        let world = World::start();
        assert!(udhcpc(&world, &[]).await.is_some());
        must("ip", &["link", "del", "srv"]);
        must("ip", &["link", "add", "srv", "type", "veth", "peer", "name", "cli"]);
        must("ip", &["link", "set", "cli", "address", KNOWN]);
        for link in ["srv", "cli"] {
            must("ip", &["link", "set", link, "up"]);
        }
        // Its address comes later than the interface, as with most tools.
        assert_eq!(udhcpc(&world, &["-t", "3", "-T", "1"]).await, None);
        must("ip", &["addr", "add", "10.77.0.1/24", "dev", "srv"]);
        assert!(udhcpc(&world, &["-t", "20", "-T", "1"]).await.is_some());
    });
}

#[test]
fn a_machine_hears_at_once_that_there_is_no_ipv6_router() {
    use socket2::{Domain, Protocol, Socket, Type};
    in_namespace(|| async {
        let _world = World::start();
        blocking(|| {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
            socket.bind_device(Some(b"cli")).unwrap();
            socket.set_multicast_hops_v6(255).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let socket: UdpSocket = socket.into();
            let index = nix::net::if_::if_nametoindex("cli").unwrap();
            let routers = std::net::SocketAddrV6::new("ff02::2".parse().unwrap(), 0, 0, index);
            // Asks until there is an answer: the kernel needs a moment for its link-local address.
            let answered = |mac: &str, tries: u32| {
                let mac: MacAddress = mac.parse().unwrap();
                let question = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1], &mac.0[..]].concat();
                (0..tries).any(|_| {
                    let _ = socket.send_to(&question, routers);
                    let mut buffer = [0u8; 256];
                    let end = Instant::now() + Duration::from_millis(200);
                    while Instant::now() < end {
                        if let Ok((16, _)) = socket.recv_from(&mut buffer)
                            && buffer[0] == 134
                        {
                            assert_eq!(buffer[4..16], [0; 12], "it offers nothing");
                            return true;
                        }
                    }
                    false
                })
            };
            assert!(answered(KNOWN, 50));
            // Of 50 questions more than one may be answered, some late: until nothing comes any more.
            while socket.recv_from(&mut [0u8; 256]).is_ok() {}
            assert!(!answered(STRANGER, 3));
        })
        .await;
    });
}
