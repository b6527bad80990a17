//! Scripts, kernels, ramdisks and images by HTTP, to curl.

use super::*;

#[test]
fn scripts_are_served() {
    in_namespace(|| async {
        let world = World::start();
        assert!(
            fetch("/boot.ipxe").await.contains("chain --replace --autofree http://10.77.0.1:6180/boot/${net")
        );
        let script = fetch("/boot/52-54-00-00-00-01").await;
        assert!(
            script.contains(&format!("/boot/node/{NODE}/kernel console=ttyS0 BOOTIF=01-52-54-00-00-00-01 "))
        );
        world.saw("52:54:00:00:00:01 node fetched its boot script").await;
        let idle = fetch("/boot/52-54-00-00-00-02").await;
        assert!(idle.contains("echo Ferric boots nothing here: the node is active\n"), "{idle}");
        assert_eq!(status(&["http://10.77.0.1:6180/boot/52-54-00-00-00-99"]).await, "404");
        for what in ["kernel", "ramdisk"] {
            let url = format!("http://10.77.0.1:6180/boot/node/{NODE}/{what}");
            let output = curl(&["--fail", &url]).await;
            let file = if what == "kernel" { "vmlinuz" } else { "initramfs.img" };
            assert!(output.stdout == world.content(file), "{what}");
            world.saw(&format!("- node fetched the {what}")).await;
        }
        let other = format!("http://10.77.0.1:6180/boot/node/{}/kernel", NODE.replace('1', "9"));
        assert_eq!(status(&[&other]).await, "404");
        assert_eq!(status(&["--request", "POST", "http://10.77.0.1:6180/boot.ipxe"]).await, "405");
    });
}

#[test]
fn images_are_served_in_parts() {
    in_namespace(|| async {
        let world = World::start();
        let image = world.content("images/disk.qcow2");
        let url = "http://10.77.0.1:6180/images/disk.qcow2";
        assert!(curl(&["--fail", url]).await.stdout == image);
        world.saw("- - fetched image disk.qcow2").await;
        assert!(curl(&["--range", "100-70000", url]).await.stdout == image[100..=70_000]);
        assert!(curl(&["--range", "-10", url]).await.stdout == image[999_990..]);
        assert_eq!(status(&["--range", "1000000-", url]).await, "416");
        let head = String::from_utf8(curl(&["--head", url]).await.stdout).unwrap().to_lowercase();
        for line in ["content-length: 1000000\r\n", "accept-ranges: bytes\r\n", "last-modified: "] {
            assert!(head.contains(line), "{line:?} in {head}");
        }
        let line = |name: &str| {
            let start = head.find(name).unwrap() + name.len();
            head[start..].split("\r\n").next().unwrap().to_owned()
        };
        let tag = line("etag: ");
        assert_eq!(status(&["--header", &format!("If-None-Match: {tag}"), url]).await, "304");
        let if_range = |tag: &str| format!("If-Range: {tag}");
        assert_eq!(status(&["--range", "0-9", "--header", &if_range(&tag), url]).await, "206");
        assert_eq!(status(&["--range", "0-9", "--header", &if_range("\"other\""), url]).await, "200");
        // A download that continues sees that the file was replaced.
        std::fs::write(world.folder.path().join("images/disk.qcow2"), b"new").unwrap();
        assert_eq!(status(&["--range", "0-1", "--header", &if_range(&tag), url]).await, "200");
    });
}

#[test]
fn nothing_outside_the_tables_is_served() {
    in_namespace(|| async {
        let _world = World::start();
        for path in [
            "/",
            "/images",
            "/images/",
            "/images/../secret",
            "/images/..%2fsecret",
            "/images/%2e%2e/secret",
            "/ipxe/../secret",
            "/ipxe/ipxe.lkrn",
            "/boot/node/../kernel",
            "/secret",
            "//secret",
        ] {
            assert_eq!(status(&[&format!("http://10.77.0.1:6180{path}")]).await, "404", "{path}");
        }
        for path in ["../secret", "//etc/passwd", "vmlinuz", "ipxe/undionly.kpxe"] {
            let output = curl(&["--path-as-is", &format!("tftp://10.77.0.1/{path}")]).await;
            assert!(!output.status.success() && output.stdout.is_empty(), "{path}: {output:?}");
        }
        let huge = format!("X-Long: {}", "x".repeat(40_000));
        assert_eq!(status(&["--header", &huge, "http://10.77.0.1:6180/boot.ipxe"]).await, "431");
    });
}

#[test]
fn a_broken_store_sends_no_machine_away() {
    in_namespace(|| async {
        let world = World::start();
        world.directory.broken.store(true, Ordering::SeqCst);
        for mac in ["01", "02", "99"] {
            let script = fetch(&format!("/boot/52-54-00-00-00-{mac}")).await;
            assert!(
                script.contains("echo Ferric cannot say now what this machine boots: the disk is full\n")
            );
            assert!(
                script
                    .contains("\nchain --replace --autofree http://10.77.0.1:6180/boot.ipxe || goto again\n"),
                "{script}"
            );
        }
        let kernel = format!("http://10.77.0.1:6180/boot/node/{NODE}/kernel");
        assert_eq!(status(&[&kernel]).await, "503", "not the 404 of a node that has nothing to boot");
        assert_eq!(udhcpc(&world, &["-t", "1"]).await, None, "silence, and no refusal");
        assert!(!world.folder.path().join("leases.json").exists(), "nobody was taken for a stranger");
        world.directory.broken.store(false, Ordering::SeqCst);
        assert_eq!(status(&[&kernel]).await, "200");
        assert!(udhcpc(&world, &[]).await.is_some(), "the same machine, asking again");
    });
}

#[test]
fn a_client_that_takes_nothing_loses_its_place() {
    use crate::boot::serve::http::serve;
    use crate::stall::Stallable;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = World::files();
        let directory = Directory::new(folder.path());
        let boot = World::boot(folder.path());
        let context = Arc::new(Context { boot, directory, leases: None, discovery: false });
        let (mut client, server) = tokio::io::duplex(4096);
        let stream = Stallable::new(server, Duration::from_millis(100));
        let served = tokio::spawn(serve(stream, "10.0.0.1:9".parse().unwrap(), context));
        client.write_all(b"GET /images/disk.qcow2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        // From here on it reads no more, and does not hang up.
        tokio::time::timeout(Duration::from_secs(30), served).await.expect("the connection ends").unwrap();
    });
}
