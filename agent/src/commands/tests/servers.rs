//! What commands tell the servers that they ask, and what the proxies on the way.

use super::*;
use crate::image::tests::proxy::{Proxy, Told};
use crate::image::tests::secure::{Authority, Front};
use crate::image::tests::server::{Answer, Server};

fn with_user(url: &str) -> String {
    url.replacen("://", "://u:p@", 1)
}

/// Deploys an image whose digest stands in a file; the image itself is not fetched.
async fn deploy(
    urls: &[String],
    sums: &str,
    proxy: &Proxy,
    more: Value,
    tls: Option<&Authority>,
) -> CommandResult {
    let mut context =
        context(Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)])), ScriptedWriter::new(Act::Succeed));
    if let Some(authority) = tls {
        context.tls = authority.client.clone();
    }
    let lab = Lab::of(context);
    let proxy = with_user(&proxy.url());
    let mut info =
        json!({"id": "disk", "urls": urls, "checksum": sums, "proxies": {"http": proxy, "https": proxy}});
    let args = more.get("configdrive").cloned().unwrap_or_default();
    for (key, value) in more.as_object().unwrap().iter().filter(|(key, _)| *key != "configdrive") {
        info[key] = value.clone();
    }
    lab.write(json!({"image_info": info, "configdrive": args})).await
}

fn sums() -> Vec<u8> {
    format!("{}  disk.img\n", "ab".repeat(32)).into_bytes()
}

fn headers(server: &Server, name: &str) -> Vec<Option<String>> {
    server.seen().iter().map(|seen| seen.headers.get(name).cloned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_beside_an_image_comes_the_way_of_the_image() {
    let (image, list) = (Server::honest(b""), Server::honest(&sums()));
    let basic = Some("Basic dTpw".to_owned());
    for (no_proxy, through) in [("", 1), ("127.0.0.0/8", 0)] {
        let proxy = Proxy::new([], Told::Carry);
        let more = json!({"image_request_authorization": "QmVhcmVyIHg=", "no_proxy": no_proxy});
        let before = list.seen().len();
        let result = deploy(&[image.url()], &list.url(), &proxy, more, None).await;
        assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
        assert_eq!(list.seen().len(), before + 1);
        assert_eq!(proxy.lines().len(), through, "{:?}", proxy.lines());
        assert!(
            proxy.lines().iter().all(|line| line.starts_with("GET http://127.0.0.1:")),
            "{:?}",
            proxy.lines()
        );
    }
    assert_eq!(headers(&list, "authorization"), [None, None], "they are for the image's server");
    assert_eq!(headers(&list, "proxy-authorization"), [basic.clone(), None]);

    // A list on the image's own server has the image's credentials.
    let (proxy, beside) = (Proxy::new([], Told::Carry), Server::honest(&sums()));
    let more = json!({"disk_format": "raw", "image_server_auth_strategy": "http_basic",
                      "image_server_user": "u", "image_server_password": "p"});
    let result = deploy(&[beside.url()], &beside.url(), &proxy, more, None).await;
    assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
    assert_eq!(headers(&beside, "authorization"), [basic]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_beside_an_image_comes_through_a_tunnel_as_well() {
    let authority = Authority::new();
    let list = Server::honest(&sums());
    let front = Front::of(&list, &authority);
    let (urls, sums) = ([front.url()], with_user(&front.url()));
    let proxy = Proxy::new([], Told::Carry);
    let result = deploy(&urls, &sums, &proxy, json!({}), Some(&authority)).await;
    assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
    assert!(proxy.lines().iter().all(|line| line.starts_with("CONNECT 127.0.0.1:")), "{:?}", proxy.lines());
    assert_eq!(proxy.lines().len(), 1);
    assert_eq!(headers(&list, "authorization"), [Some("Basic dTpw".to_owned())], "the address's own user");
    assert_eq!(headers(&list, "proxy-authorization"), [None], "the proxy's password is the proxy's");

    let refusing = Proxy::new([], Told::Say("HTTP/1.1 407 Who are you\r\n\r\n"));
    let result = deploy(&urls, &sums, &refusing, json!({}), Some(&authority)).await;
    let (kind, details) = failed(&result);
    assert_eq!(kind, "ImageDownloadError");
    assert!(details.contains(&format!("the proxy {}/ makes no tunnel to", refusing.url())), "{details}");
    assert!(details.contains("it answered 407") && !details.contains("u:p"), "{details}");
    assert_eq!(refusing.lines().len(), 1, "what a proxy refuses is not asked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_none_of_the_image_is_asked_for_straight_and_as_its_address_says() {
    let (list, drive, file) =
        (Server::honest(&sums()), Server::honest(b"a drive"), Server::honest(b"a file"));
    let hop = Server::new(b"", [], Answer::redirect(drive.other_host()));
    let proxy = Proxy::new([], Told::Carry);
    let more = json!({"disk_format": "raw", "image_request_authorization": "QmVhcmVyIHg=",
                      "configdrive": with_user(&hop.url())});
    let result = deploy(&[list.url()], &list.url(), &proxy, more, None).await;
    assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
    assert_eq!(proxy.lines().len(), 1, "the list alone: {:?}", proxy.lines());
    assert_eq!(headers(&hop, "authorization"), [Some("Basic dTpw".to_owned())]);
    assert_eq!(headers(&drive, "authorization"), [None], "a redirect takes no password along");

    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    let files = json!([{"path": "/etc/a", "content": with_user(&file.url())}]);
    let step = json!({"interface": "deploy", "step": "inject_files", "args": {"files": files}});
    let params = json!({"step": step, "node": {"uuid": "n"}, "ports": []});
    let result = lab.run("deploy.execute_deploy_step", params).await;
    assert_eq!(failed(&result).0, "DeviceNotFound", "it was fetched, there is no place for it");
    assert_eq!(headers(&file, "authorization"), [Some("Basic dTpw".to_owned())]);
}
