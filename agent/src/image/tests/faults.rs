//! Faults of server and disk: whatever goes wrong, the disk is untouched, blank at both ends, or complete and right, and
//! the operator reads why.

mod disk;
mod length;
mod urls;

use super::server::{Answer, End, Server};
use super::*;
use crate::platform::fake::block::Fault;

const SIZE: usize = 8 << 20;
const BLANK: &str = "; /dev/mem0 has been blanked at both ends and will not boot";

fn image() -> Vec<u8> {
    mbr_image(11, SIZE)
}

/// Writes a raw image from a server with this script and gives the words of the end and what is on the disk.
fn serve(script: Vec<Answer>, then: Answer) -> (String, Left) {
    serve_patiently(script, then, 1)
}

fn serve_patiently(script: Vec<Answer>, then: Answer, attempts: u32) -> (String, Left) {
    let image = image();
    let server = Server::new(&image, script, then);
    let (request, disk) = (ask(&server.url(), ImageFormat::Raw, &image), MemDisk::new(12 << 20));
    let patience = Patience { attempts, ..hasty() };
    let (result, disk) = write_with(&request, disk, &patience, &CancelFlag::default());
    (words(&result), left(&disk.content(), &image))
}

#[track_caller]
fn ends(answer: Answer, expected: &str, on_disk: Left) {
    let (text, left) = serve(vec![], answer);
    assert_eq!(text, expected);
    assert_eq!(left, on_disk);
}

fn begins(answer: Answer, expected: &str, on_disk: Left) {
    let (text, left) = serve(vec![], answer);
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(left, on_disk);
}

/// The first MiB comes whole, the rest as `answer` says.
fn later(answer: Answer) -> (String, Left) {
    serve(vec![Answer::default()], answer)
}

const URL: &str = "http://SERVER/disk.img";

#[test]
fn a_truncated_download_says_how_much_came() {
    let text = format!(
        "{URL} ended after 5.0 MiB (5242880 bytes), it should have 8.0 MiB (8388608 bytes): the download is truncated{BLANK}"
    );
    let answer = Answer { end: End::Close(5 << 20), ..Answer::no_ranges() };
    ends(answer, &text, Left::Blank);
    let (text, left) = serve(vec![], Answer::end(End::Close(1000)));
    assert_eq!(
        text,
        format!(
            "{URL} ended after 1000 bytes, it should have 8.0 MiB (8388608 bytes): the download is truncated"
        )
    );
    assert_eq!(left, Left::Untouched);
}

#[test]
fn a_file_that_is_shorter_than_it_was_is_noticed() {
    let short = Arc::new(image()[..3 << 20].to_vec());
    let (text, left) = later(Answer { content: Some(short), ..Answer::default() });
    assert_eq!(
        text,
        format!(
            "{URL} changed while it was being read (its length is now 3145728); what was read so far cannot be used{BLANK}"
        )
    );
    assert_eq!(left, Left::Blank);
}

#[test]
fn a_reset_names_the_byte_and_the_tries() {
    begins(
        Answer { end: End::Reset(5 << 20), ..Answer::no_ranges() },
        &format!("fetching {URL} failed at byte "),
        Left::Blank,
    );
    let (text, left) = serve(vec![], Answer::end(End::Reset(0)));
    assert!(text.starts_with(&format!("fetching {URL} failed at byte 0 after 3 tries: ")), "{text}");
    assert!(text.contains("reset") || text.contains("closed"), "{text}");
    assert_eq!(left, Left::Untouched);
}

#[test]
fn a_silent_server_is_given_up() {
    let (text, left) = later(Answer::end(End::Stall(100 << 10)));
    assert!(text.contains("no byte for 400ms"), "{text}");
    assert_eq!(left, Left::Blank);
}

#[test]
fn a_trickle_is_given_up() {
    let slow = || Answer::end(End::Trickle(100));
    for (script, end) in [(vec![Answer::default()], Left::Blank), (vec![], Left::Untouched)] {
        let (text, left) = serve(script, slow());
        assert!(text.contains("bytes a second over"), "{text}");
        assert_eq!(left, end);
    }
}

#[test]
fn a_limit_on_the_whole_ends_it_for_good() {
    let image = image();
    let steady = Answer { end: End::Trickle(64 << 10), ..Answer::no_ranges() };
    for (then, tries) in [(steady, 5), (Answer::end(End::Reset(0)), 1000)] {
        let server = Server::new(&image, [Answer::default()], then);
        let mut patience = Patience { attempts: tries, ..hasty() };
        patience.timeouts.whole = Some(Duration::from_millis(500));
        patience.timeouts.tries = tries;
        let request = ask(&server.url(), ImageFormat::Raw, &image);
        let (result, disk) =
            write_with(&request, MemDisk::new(SIZE as u64), &patience, &CancelFlag::default());
        let text = words(&result);
        let expected = "was not over within the 500ms that image_download_max_duration gives; at byte ";
        assert!(text.starts_with(&format!("fetching {URL} {expected}")), "{text}");
        assert_eq!(result.unwrap_err().class(), error::Class::DownloadTimeout);
        assert_eq!(left(&disk.content(), &image), Left::Blank);
    }
}

#[test]
fn a_flipped_bit_is_a_wrong_digest() {
    let image = image();
    let mut wrong = image.clone();
    wrong[5_000_000] ^= 4;
    ends(
        Answer { flip: Some(5_000_000), ..Answer::default() },
        &format!(
            "the image's digest is {} (8.0 MiB (8388608 bytes) received), expected {}: it is not the image that was \
             asked for, or it was damaged on its way{BLANK}",
            digest(&wrong),
            digest(&image)
        ),
        Left::Blank,
    );
}

#[test]
fn refusals_say_what_to_check() {
    for (status, hint) in [
        (404, "404 Not Found: the image is not there; check image_source"),
        (410, "410 Gone: the image is not there; check image_source"),
        (401, "401 Unauthorized: the server wants other credentials"),
        (403, "403 Forbidden: the server wants other credentials"),
        (400, "400 Bad Request"),
    ] {
        ends(Answer::status(status), &format!("{URL} answered {hint}"), Left::Untouched);
    }
    ends(
        Answer::status(500),
        &format!(
            "fetching {URL} failed at byte 0 after 3 tries: the server answered 500 Internal Server Error"
        ),
        Left::Untouched,
    );
}

#[test]
fn a_server_that_was_busy_is_asked_again() {
    let busy = vec![Answer::status(503), Answer::status(503)];
    assert_eq!(serve(busy, Answer::default()), ("complete".into(), Left::Complete));
    let busy = vec![Answer::default(), Answer::status(503), Answer::status(429)];
    assert_eq!(serve(busy, Answer::default()), ("complete".into(), Left::Complete));
}

#[test]
fn a_refusal_in_mid_transfer_leaves_the_disk_blank() {
    let cut = vec![Answer::default(), Answer::end(End::Close(2 << 20))];
    let (text, left) = serve(cut, Answer::status(404));
    assert_eq!(
        text,
        format!("{URL} answered 404 Not Found: the image is not there; check image_source{BLANK}")
    );
    assert_eq!(left, Left::Blank);
}

#[test]
fn a_changed_file_is_never_glued() {
    let other = Arc::new(mbr_image(12, SIZE));
    let changed = Answer { etag: Some("\"two\""), content: Some(other.clone()), ..Answer::default() };
    let cut = vec![Answer::default(), Answer::end(End::Close(2 << 20))];
    let (text, left) = serve_patiently(cut, changed.clone(), 2);
    // The second attempt reads the new file whole, which is not what was asked for.
    assert!(text.starts_with(&format!("the image's digest is {}", digest(&other))), "{text}");
    assert_eq!(left, Left::Blank);
    // Changed once, then as it should be: the second attempt is good.
    let script = vec![Answer::default(), Answer::end(End::Close(2 << 20)), changed];
    assert_eq!(serve_patiently(script, Answer::default(), 2), ("complete".into(), Left::Complete));
    // The same change without any validator: the digest says it.
    let bare = |answer: Answer| Answer { etag: None, ..answer };
    let script = vec![bare(Answer::default()), bare(Answer::end(End::Close(2 << 20)))];
    let (text, left) = serve(script, bare(Answer { content: Some(other), ..Answer::default() }));
    assert!(text.starts_with("the image's digest is "), "{text}");
    assert_eq!(left, Left::Blank);
}

#[test]
fn lying_ranges_are_not_believed() {
    for shift in [(1, 0), (4096, 0), (-512, 0)] {
        let (text, left) = later(Answer { shift, ..Answer::default() });
        assert!(text.contains("the server answered with another range than was asked for"), "{text}");
        assert_eq!(left, Left::Blank, "{shift:?}");
    }
    let (text, left) = later(Answer { shift: (0, 4096), ..Answer::default() });
    assert!(text.contains("its length is now 8392704"), "{text}");
    assert_eq!(left, Left::Blank);
}

#[test]
fn ranges_that_are_ignored_later_are_skipped_over() {
    assert_eq!(later(Answer::no_ranges()), ("complete".into(), Left::Complete));
}

/// The bytes that are skipped take many times the time in which the rate is looked at.
#[test]
fn skipping_what_is_known_is_no_slow_transfer() {
    let image = image();
    let cut = Answer { end: End::Close(3 << 20), ..Answer::no_ranges() };
    let steady = Answer { end: End::Trickle(64 << 10), ..Answer::no_ranges() };
    let server = Server::new(&image, [cut, steady], Answer::status(503));
    let mut patience = Patience { attempts: 1, ..hasty() };
    patience.timeouts.slow_time = Duration::from_millis(100);
    patience.timeouts.slow_rate = 1;
    patience.timeouts.silence = Duration::from_secs(10);
    let request = ask(&server.url(), ImageFormat::Raw, &image);
    let (result, disk) = write_with(&request, MemDisk::new(SIZE as u64), &patience, &CancelFlag::default());
    assert_eq!(words(&result), "complete");
    assert_eq!(left(&disk.content(), &image), Left::Complete);
}

/// RFC 9110, 15.3.7: a 206 to a request with If-Range need not repeat what the client has already.
#[test]
fn a_part_without_a_date_is_of_the_same_file() {
    const DATE: Option<&str> = Some("Mon, 02 Nov 2026 10:00:00 GMT");
    const LATER: Option<&str> = Some("Tue, 03 Nov 2026 10:00:00 GMT");
    let (tag, other) = (Answer::default().etag, Some("\"two\""));
    let both = |etag, modified, held| Answer { etag, modified, held, ..Answer::default() };
    for (first, then, good) in [
        (both(None, DATE, DATE), both(None, None, DATE), true),
        (both(None, DATE, DATE), both(None, DATE, DATE), true),
        (both(None, DATE, DATE), both(tag, None, DATE), true),
        (both(tag, DATE, tag), both(None, DATE, tag), true),
        (both(tag, DATE, tag), both(None, None, tag), true),
        (both(None, DATE, DATE), both(None, LATER, DATE), false),
        (both(tag, DATE, tag), both(other, DATE, tag), false),
        // All of the file once more is the answer about a file that changed, or of a server that knows no parts: that must say.
        (both(None, DATE, DATE), Answer { ranges: false, ..both(None, None, None) }, false),
    ] {
        let cut = Answer { end: End::Close(2 << 20), ..then.clone() };
        let script = if good { vec![first.clone(), cut] } else { vec![first.clone()] };
        let (text, left) = serve(script, then.clone());
        assert_eq!(text == "complete", good, "{first:?} {then:?}: {text}");
        assert_eq!(left == Left::Complete, good, "{text}");
        assert!(good || text.contains("its ETag or date is another"), "{text}");
    }
}

#[test]
fn no_http_at_all_is_an_error_in_words() {
    for raw in [
        &b""[..],
        b"\0\0\0\0\0\0",
        b"HTTP/1.1 200 OK\r\nbroken",
        b"HTTP/1.1 206\r\nContent-Length: -5\r\n\r\n",
    ] {
        let (text, left) = serve(vec![], Answer { raw: Some(raw), ..Answer::default() });
        assert!(text.starts_with(&format!("fetching {URL} failed at byte 0 after 3 tries: ")), "{text}");
        assert_eq!(left, Left::Untouched);
    }
}

#[test]
fn redirects_are_followed_five_times() {
    let hop = || Answer::redirect("/elsewhere");
    assert_eq!(serve(vec![hop(); 5], Answer::default()).0, "complete");
    let text = format!("'{URL}' is not a usable image URL: more than 5 redirects");
    ends(hop(), &text, Left::Untouched);
    for (to, why) in [
        ("ftp://127.0.0.1/x", "it redirects to something that is not http"),
        ("file:///etc/passwd", "it redirects to something that is not http"),
        ("http://[", "it redirects to something unusable"),
    ] {
        begins(Answer::redirect(to), &format!("'{URL}' is not a usable image URL: {why}"), Left::Untouched);
    }
}

#[test]
fn the_authorization_stays_with_its_host() {
    let image = image();
    let there = Server::honest(&image);
    let here = Server::new(&image, [], Answer::redirect(there.other_host()));
    let mut request = ask(&here.url(), ImageFormat::Raw, &image);
    request.image.authorization = Some(HeaderValue::from_static("Bearer of-secrets"));
    write(&request, MemDisk::new(SIZE as u64)).0.unwrap();
    assert!(here.seen().iter().all(|r| r.headers["authorization"] == "Bearer of-secrets"));
    assert!(there.seen().iter().all(|r| !r.headers.contains_key("authorization")));
    assert!(there.seen().iter().skip(1).all(|r| r.path == "/disk.img" && r.headers.contains_key("range")));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        unpoisoned(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn ten_cut_connections_cost_little() {
    let image = disk_bytes(3, 48 << 20);
    let cut = |n: u64| match n % 2 {
        0 => Answer::end(End::Close(4 << 20)),
        _ => Answer::end(End::Reset(4 << 20)),
    };
    let server =
        Server::new(&image, std::iter::once(Answer::default()).chain((0..10).map(cut)), Answer::default());
    let (result, disk) = write(&ask(&server.url(), ImageFormat::Raw, &image), MemDisk::new(48 << 20));
    let report = result.unwrap();
    assert_eq!(report.resumes, 10);
    assert_eq!(left(&disk.content(), &image), Left::Complete);
    let extra = server.sent() - image.len() as u64;
    assert!(extra <= 20 << 20, "{extra} bytes were sent twice");
    assert!(server.seen().iter().skip(2).all(|r| r.headers["if-range"] == "\"one\""));
}

#[test]
fn what_cannot_fit_or_is_something_else_never_touches_the_disk() {
    let image = image();
    let packed = qcow2(&image, &["-c"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base"), &image).unwrap();
    let words_of = &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top"];
    qemu_ok("qemu-img", words_of, folder.path());
    let backed = std::fs::read(folder.path().join("top")).unwrap();
    for (file, format, size, expected) in [
        (
            &packed,
            ImageFormat::Qcow2,
            (8 << 20) - 512,
            "the image needs 8.0 MiB (8388608 bytes), the disk /dev/mem0 has only 7.9 MiB (8388096 bytes)",
        ),
        (
            &image,
            ImageFormat::Raw,
            4 << 20,
            "the image needs 8.0 MiB (8388608 bytes), the disk /dev/mem0 has only 4.0 MiB (4194304 bytes)",
        ),
        (
            &packed,
            ImageFormat::Raw,
            8 << 20,
            "the image is declared raw, but its content is qcow2; set image_disk_format (--format) to qcow2",
        ),
        (
            &image,
            ImageFormat::Qcow2,
            8 << 20,
            "the image is declared qcow2, but its content is no qcow2; set image_disk_format (--format) to raw if it \
             is a raw disk image",
        ),
        (
            &backed,
            ImageFormat::Qcow2,
            8 << 20,
            "the image's qcow2 structure: the image names a backing file (name at 0x210, 4 bytes long); flatten it with \
             qemu-img convert",
        ),
        (&Vec::new(), ImageFormat::Raw, 8 << 20, "the image is empty"),
        (
            &image,
            ImageFormat::Raw,
            1 << 20,
            "the partition table: a disk of 1.0 MiB (1048576 bytes) cannot hold this",
        ),
    ] {
        let server = Server::honest(file);
        let (result, disk) = write(&ask(&server.url(), format, file), MemDisk::new(size));
        assert_eq!(words(&result), expected);
        assert_eq!(left(&disk.content(), b"never"), Left::Untouched, "{expected}");
    }
}

/// Before the first write wherever the start of the image is known by then.
#[test]
fn an_image_without_a_table_is_not_left_on_the_disk() {
    let other = Rng::new(4).bytes(4 << 20);
    // Compressible, unlike its head.
    let mut empty = other.clone();
    empty.iter_mut().step_by(2).for_each(|byte| *byte = 0);
    empty[..MIB as usize].fill(0);
    let mut unsigned = empty.clone();
    unsigned[..512].copy_from_slice(&other[..512]);
    unsigned[510] = 0;
    let expected = "the partition table: the image has no partition table: a whole-disk image needs a GPT or an MBR \
                    with at least one entry";
    for bare in [&empty, &unsigned] {
        let qcow2 = |options: &[&str]| (qcow2(bare, options), ImageFormat::Qcow2);
        for (file, format) in [
            (bare.clone(), ImageFormat::Raw),
            (super::packed::gz(bare), ImageFormat::Packed(Packing::Gz)),
            qcow2(&[]),
            qcow2(&["-c"]),
            qcow2(&["-o", "cluster_size=512"]),
            qcow2(&["-c", "-o", "cluster_size=2k"]),
            qcow2(&["-o", "extended_l2=on,cluster_size=16k"]),
        ] {
            for answer in [Answer::default(), Answer::no_ranges()] {
                let late = format == ImageFormat::Qcow2 && !answer.ranges;
                let server = Server::new(&file, [], answer);
                let mut request = ask(&server.url(), format, &file);
                request.image.require_partition_table = true;
                let (result, disk) = write(&request, MemDisk::new(8 << 20));
                let (after, end) = if late { (BLANK, Left::Blank) } else { ("", Left::Untouched) };
                assert_eq!(words(&result), format!("{expected}{after}"), "{format}");
                assert_eq!(left(&disk.content(), b"never"), end, "{format}");
            }
        }
    }
}

#[test]
fn a_table_that_one_cluster_does_not_hold_is_no_missing_table() {
    let image = gpt_image(13, SIZE, 512);
    for options in
        [&["-o", "cluster_size=512"][..], &["-c", "-o", "cluster_size=1k"], &["-o", "cluster_size=2k"]]
    {
        let file = qcow2(&image, options);
        let server = Server::honest(&file);
        let mut request = ask(&server.url(), ImageFormat::Qcow2, &file);
        request.image.require_partition_table = true;
        let (result, disk) = write(&request, MemDisk::new(SIZE as u64));
        assert_eq!(words(&result), "complete", "{options:?}");
        assert_eq!(left(&disk.content(), &image), Left::Complete, "{options:?}");
    }
}

/// Whether it may be used at all is for those to say who ask for the write.
#[test]
fn an_image_is_held_to_its_md5_too() {
    use md5::{Digest as _, Md5};
    let image = image();
    let server = Server::honest(&image);
    let mut request = ask(&server.url(), ImageFormat::Raw, &image);
    for (right, end) in [(false, Left::Blank), (true, Left::Complete)] {
        let mut bytes = Md5::digest(&image).to_vec();
        bytes[0] ^= u8::from(!right);
        request.image.digest = Digest { algorithm: DigestAlgorithm::Md5, bytes };
        let (result, disk) = write(&request, MemDisk::new(SIZE as u64));
        assert_eq!(result.is_ok(), right, "{result:?}");
        assert_eq!(left(&disk.content(), &image), end);
    }
}

#[test]
fn a_cancelled_write_ends_soon_and_blank() {
    let image = image();
    let server = Server::new(&image, [Answer::default()], Answer::end(End::Stall(3 << 20)));
    let mut patience = hasty();
    patience.timeouts.silence = Duration::from_secs(30);
    let cancel = CancelFlag::default();
    let request = ask(&server.url(), ImageFormat::Raw, &image);
    let started = std::time::Instant::now();
    let (result, disk) = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The server has sent all that it will.
            while server.sent() < 4 << 20 && started.elapsed() < Duration::from_secs(8) {
                std::thread::sleep(Duration::from_millis(5));
            }
            cancel.cancel();
        });
        write_with(&request, MemDisk::new(SIZE as u64), &patience, &cancel)
    });
    assert_eq!(words(&result), format!("stopped by request{BLANK}"));
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(left(&disk.content(), &image), Left::Blank);
}
