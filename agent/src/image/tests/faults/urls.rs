//! Several URLs of one image.

use super::*;

#[test]
fn a_second_url_takes_over() {
    let image = image();
    let bad = Server::new(&image, [Answer::default()], Answer::end(End::Reset(100 << 10)));
    let good = Server::honest(&image);
    for first in
        [bad.url(), Server::new(&image, [], Answer::status(404)).url(), "http://127.0.0.1:9/x".into()]
    {
        let mut request = ask(&first, ImageFormat::Raw, &image);
        request.image.urls.push(good.url());
        let (result, disk) = write(&request, MemDisk::new(SIZE as u64));
        assert_eq!(words(&result), "complete");
        assert_eq!(left(&disk.content(), &image), Left::Complete);
    }
}

/// Writes from two places, and what the agent's log says of it.
fn write_from_two(
    first: &Server,
    second: &Server,
    image: &[u8],
) -> (Result<WriteReport, ImageError>, String) {
    let mut request = ask(&first.url(), ImageFormat::Raw, image);
    request.image.urls.push(second.url());
    let patience = Patience { attempts: 1, ..hasty() };
    let log = Log::default();
    let kept = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || kept.clone()).finish();
    let (result, disk) = tracing::subscriber::with_default(subscriber, || {
        write_with(&request, MemDisk::new(SIZE as u64), &patience, &CancelFlag::default())
    });
    let end = if result.is_ok() { Left::Complete } else { Left::Blank };
    assert_eq!(left(&disk.content(), image), end);
    (result, String::from_utf8(unpoisoned(&log.0).clone()).unwrap())
}

#[test]
fn a_url_that_refuses_does_not_end_what_another_can_finish() {
    let image = image();
    let shorter = Arc::new(image[..3 << 20].to_vec());
    let cut = || [Answer::default(), Answer::end(End::Close(2 << 20)), Answer::end(End::Close(2 << 20))];
    for other in [
        Answer::status(404),
        Answer::redirect("ftp://127.0.0.1/x"),
        Answer { content: Some(shorter.clone()), ..Answer::default() },
        Answer { content: Some(shorter.clone()), ..Answer::no_ranges() },
    ] {
        let (good, bad) =
            (Server::new(&image, cut(), Answer::default()), Server::new(&image, [], other.clone()));
        let (result, _) = write_from_two(&good, &bad, &image);
        assert_eq!(words(&result), "complete", "{other:?}");
        assert_eq!(bad.seen().len(), 1, "it is not asked again: {other:?}");
    }
}

#[test]
fn every_url_has_all_its_tries_whatever_becomes_of_the_others() {
    let image = image();
    let refusing = Server::new(&image, [Answer::status(503), Answer::status(503)], Answer::status(404));
    let (begin, reset) = (Answer::default(), Answer::end(End::Reset(0)));
    // Three tries each: this one is good at its third.
    let script = [begin, Answer::end(End::Close(100 << 10)), reset.clone()];
    let good = Server::new(&image, script, Answer::default());
    assert_eq!(words(&write_from_two(&good, &refusing, &image).0), "complete");
    // When none is left, the last one's word is the end.
    let cut = Server::new(&image, [Answer::default()], reset);
    let refusing = Server::new(&image, [], Answer::status(404));
    let (result, _) = write_from_two(&cut, &refusing, &image);
    assert!(
        words(&result).starts_with(&format!("fetching {URL} failed at byte 1048576 after 4 tries: ")),
        "{result:?}"
    );
}

#[test]
fn a_failure_is_told_of_the_url_that_failed() {
    let image = image();
    let first = Server::new(&image, [Answer::default()], Answer::end(End::Close(2 << 20)));
    let second = Server::honest(&image);
    let (result, log) = write_from_two(&first, &second, &image);
    assert_eq!(words(&result), "complete");
    let told = format!(
        "the transfer from {} broke at byte 3145728 (the connection ended after 3145728 bytes), trying {} ",
        first.url(),
        second.url()
    );
    assert!(log.contains(&told), "{log}");
}
