//! Boot files by TFTP, to busybox, curl and a client that loses packets.

use super::*;

#[test]
fn tftp_serves_real_clients() {
    in_namespace(|| async {
        let world = World::start();
        for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi"] {
            let whole = world.content(&format!("ipxe/{name}"));
            for block in ["512", "1428", "8192"] {
                let url = format!("tftp://10.77.0.1/{name}");
                let output = curl(&["--tftp-blksize", block, &url]).await;
                assert!(output.stdout == whole, "{name} by blocks of {block}: {}", output.stdout.len());
            }
            let output = curl(&["--tftp-no-options", &format!("tftp://10.77.0.1/{name}")]).await;
            assert!(output.stdout == whole, "{name} without options");
            let copy = world.folder.path().join("copy");
            let copy = copy.to_str().unwrap();
            let got =
                client("busybox", &["tftp", "-g", "-b", "1468", "-r", name, "-l", copy, "10.77.0.1"]).await;
            assert!(got.status.success() && world.content("copy") == whole, "{name}: {got:?}");
            world.saw(&format!("- - fetched {name}")).await;
        }
        let put = client("curl", &["-sS", "-T", "/etc/hostname", "tftp://10.77.0.1/undionly.kpxe"]).await;
        // curl's "permission problem on TFTP server".
        assert_eq!(put.status.code(), Some(69), "{put:?}");
    });
}

/// A TFTP client that behaves as it is told.
struct Tftp(UdpSocket);

impl Tftp {
    fn ask(name: &str, mode: &str, options: &[(&str, &str)]) -> Tftp {
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let request = Packet::Read { file: name.to_owned(), mode: mode.to_owned(), options };
        socket.send_to(&request.encode(), "10.77.0.1:69").unwrap();
        Tftp(socket)
    }
    fn next(&self) -> Packet {
        let mut buffer = [0u8; 2048];
        let (length, peer) = self.0.recv_from(&mut buffer).unwrap();
        self.0.connect(peer).unwrap();
        Packet::parse(&buffer[..length]).unwrap()
    }
    fn acknowledge(&self, block: u16) {
        self.0.send(&Packet::Ack { block }.encode()).unwrap();
    }
    /// Takes the whole file, losing the packets that `lose` names by their count.
    fn take(&self, block_size: usize, window: u64, lose: &[u64]) -> Vec<u8> {
        let (mut content, mut count, mut block, mut since) = (Vec::new(), 0u64, 0u64, 0u64);
        loop {
            let Packet::Data { block: number, bytes } = self.next() else { continue };
            count += 1;
            if lose.contains(&count) {
                continue;
            }
            if number != (block + 1) as u16 {
                // Out of order: say what was last in order (RFC 7440).
                self.acknowledge(block as u16);
                since = 0;
                continue;
            }
            block += 1;
            since += 1;
            content.extend_from_slice(&bytes);
            if bytes.len() < block_size {
                self.acknowledge(block as u16);
                return content;
            }
            if since == window {
                self.acknowledge(block as u16);
                since = 0;
            }
        }
    }
}

#[test]
fn tftp_windows_losses_and_rollover() {
    in_namespace(|| async {
        let world = World::start();
        let file = world.content("ipxe/ipxe.efi");
        let expected = file.clone();
        blocking(move || {
            let client =
                Tftp::ask("ipxe.efi", "octet", &[("windowsize", "64"), ("blksize", "9000"), ("tsize", "0")]);
            let Packet::OptionAck(answer) = client.next() else { panic!("no option acknowledgement") };
            let answer: Vec<_> = answer.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(answer, [("windowsize", "8"), ("blksize", "1468"), ("tsize", "700001")]);
            client.acknowledge(0);
            assert!(client.take(1468, 8, &[3, 9, 40, 41]) == expected, "with losses in windows of 8");
        })
        .await;
        let expected = file.clone();
        blocking(move || {
            let client = Tftp::ask("ipxe.efi", "octet", &[("windowsize", "8"), ("blksize", "8")]);
            client.next();
            client.acknowledge(0);
            assert!(client.take(8, 8, &[]) == expected, "87,501 blocks: the numbers roll over");
        })
        .await;
        blocking(move || {
            // Acknowledges everything twice: nothing may come twice.
            let client = Tftp::ask("undionly.kpxe", "octet", &[]);
            for expected in 1u16..=20 {
                let Packet::Data { block, .. } = client.next() else { panic!() };
                assert_eq!(block, expected);
                client.acknowledge(block);
                client.acknowledge(block);
            }
            client.0.send(&Packet::Error { code: 0, text: "enough".into() }.encode()).unwrap();
        })
        .await;
    });
}

#[test]
fn tftp_refuses_and_gives_up() {
    in_namespace(|| async {
        let _world = World::start();
        blocking(|| {
            let answer = Tftp::ask("undionly.kpxe", "netascii", &[]).next();
            let text = "mode netascii is not served, only octet".to_owned();
            assert_eq!(answer, Packet::Error { code: 4, text });
            let answer = Tftp::ask("a", "octet", &[]).next();
            let text = "a is not served; there are undionly.kpxe, snponly.efi, ipxe.efi".to_owned();
            assert_eq!(answer, Packet::Error { code: 1, text });
            // A client that never answers gets the first block six times, of one window, and no more.
            let silent = Tftp::ask("undionly.kpxe", "octet", &[]);
            for _ in 0..6 {
                assert!(matches!(silent.next(), Packet::Data { block: 1, .. }));
            }
            silent.0.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
            assert!(silent.0.recv(&mut [0; 600]).is_err(), "five resends");
        })
        .await;
    });
}
