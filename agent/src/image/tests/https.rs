//! Images over TLS and through proxies: whom the reader believes, and what it tells to whom.

use super::proxy::{Proxy, Told};
use super::secure::{Authority, Front};
use super::server::{Answer, End, Server};
use super::*;

const SIZE: usize = 6 << 20;

fn fetch(
    request: &WriteRequest,
    trust: Arc<rustls::ClientConfig>,
) -> (Result<WriteReport, ImageError>, Arc<MemDisk>) {
    write_trusting(request, MemDisk::new(8 << 20), trust, &hasty(), &CancelFlag::default())
}

#[test]
fn an_image_comes_over_tls_whole_with_ranges_and_without() {
    let authority = Authority::new();
    let raw = mbr_image(71, SIZE);
    for (file, format) in [(raw.clone(), ImageFormat::Raw), (qcow2(&raw, &["-c"]), ImageFormat::Qcow2)] {
        for then in [Answer::default(), Answer::no_ranges(), Answer { chunked: true, ..Answer::default() }] {
            let server = Server::new(&file, [], then);
            let front = Front::of(&server, &authority);
            let (result, disk) = fetch(&ask(&front.url(), format, &file), authority.client.clone());
            assert_eq!(words(&result), "complete", "{format}");
            assert_eq!(left(&disk.content(), &raw), Left::Complete);
        }
    }
}

#[test]
fn a_tls_connection_that_is_cut_is_taken_up_where_it_broke() {
    let authority = Authority::new();
    let raw = mbr_image(72, SIZE);
    let cut = || Answer::end(End::Close(2 << 20));
    let server = Server::new(&raw, [Answer::default(), cut(), cut()], Answer::default());
    let front = Front::of(&server, &authority);
    let (result, disk) = fetch(&ask(&front.url(), ImageFormat::Raw, &raw), authority.client.clone());
    assert_eq!(result.unwrap().resumes, 2);
    assert_eq!(left(&disk.content(), &raw), Left::Complete);
    assert!(server.sent() <= SIZE as u64 + (1 << 20), "{} bytes were sent", server.sent());
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_before_the_first_write() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    let raw = mbr_image(73, SIZE);
    let server = Server::honest(&raw);
    let front = Front::of(&server, &theirs);
    for trust in [ours.client.clone(), no_trust()] {
        let (result, disk) = fetch(&ask(&front.url(), ImageFormat::Raw, &raw), trust);
        assert!(words(&result).contains("invalid peer certificate"), "{}", words(&result));
        assert_eq!(left(&disk.content(), &raw), Left::Untouched);
    }
    assert_eq!(server.seen().len(), 0, "nothing was asked of a server that was not believed");
}

#[test]
fn a_server_that_speaks_no_tls_is_an_error_in_words() {
    let raw = mbr_image(74, SIZE);
    let server = Server::new(&raw, [], Answer::default());
    let url = server.url().replace("http://", "https://");
    let (result, disk) = fetch(&ask(&url, ImageFormat::Raw, &raw), no_trust());
    assert!(
        words(&result).starts_with("fetching https://SERVER/disk.img failed at byte 0"),
        "{}",
        words(&result)
    );
    assert_eq!(left(&disk.content(), &raw), Left::Untouched);
}

#[test]
fn tls_never_leads_to_plain_http() {
    let authority = Authority::new();
    let raw = mbr_image(75, SIZE);
    let plain = Server::honest(&raw);
    let server = Server::new(&raw, [], Answer::redirect(plain.url()));
    let front = Front::of(&server, &authority);
    let (result, disk) = fetch(&ask(&front.url(), ImageFormat::Raw, &raw), authority.client.clone());
    assert!(words(&result).contains("it redirects from https to http"), "{}", words(&result));
    assert_eq!(left(&disk.content(), &raw), Left::Untouched);
    assert_eq!(plain.seen().len(), 0);
}

#[test]
fn a_proxy_learns_the_address_without_its_password() {
    let raw = mbr_image(76, SIZE);
    let proxy = Server::honest(&raw);
    let mut request = ask("http://somebody:of-secrets@images.test/disk.img", ImageFormat::Raw, &raw);
    let through = proxy.url().replacen("://", "://u:p@", 1);
    request.image.proxies = Proxies::read(&[("http".to_owned(), through)].into(), "").unwrap();
    let (result, disk) = fetch(&request, no_trust());
    assert_eq!(words(&result), "complete");
    assert_eq!(left(&disk.content(), &raw), Left::Complete);
    for seen in proxy.seen() {
        assert_eq!(seen.headers["authorization"], "Basic c29tZWJvZHk6b2Ytc2VjcmV0cw==");
        assert_eq!(seen.headers["proxy-authorization"], "Basic dTpw");
        assert_eq!(
            (seen.path.as_str(), seen.headers["host"].as_str()),
            ("http://images.test/disk.img", "images.test")
        );
    }
}

#[test]
fn tls_goes_through_a_proxy_by_a_tunnel() {
    let authority = Authority::new();
    let raw = mbr_image(77, SIZE);
    let server = Server::honest(&raw);
    let front = Front::of(&server, &authority);
    let address = front.url().split('/').nth(2).unwrap().to_string();
    for (told, expected) in [
        (Told::Carry, "complete"),
        (Told::Say("HTTP/1.1 403 Forbidden\r\n\r\n"), "the proxy refused a tunnel to"),
        (Told::Say("no answer at all\r\n\r\n"), "the answer is no HTTP"),
        (Told::Say("HTTP/1.1 200 Yes\r\n\r\nand more"), "the proxy sent data into the tunnel to"),
        (Told::Say(""), "the connection was closed instead of an answer"),
    ] {
        let proxy = Proxy::new([], told);
        let mut request = ask(&front.url(), ImageFormat::Raw, &raw);
        request.image.proxies = proxy.proxies();
        let (result, disk) = fetch(&request, authority.client.clone());
        assert!(words(&result).contains(expected), "{}", words(&result));
        let end = if result.is_ok() { Left::Complete } else { Left::Untouched };
        assert_eq!(left(&disk.content(), &raw), end);
        assert_eq!(proxy.lines()[0], format!("CONNECT {address} HTTP/1.1"));
    }
}
