//! Files of a length that the server does not say, or that is another one.

use super::*;

/// In chunks, as servers send what they make while they send it.
fn unmeasured() -> Answer {
    Answer { chunked: true, ..Answer::no_ranges() }
}

#[test]
fn a_raw_image_needs_no_length() {
    let image = image();
    let cut = |end| Answer { end, ..unmeasured() };
    for (script, resumes) in [
        (vec![], 0),
        (vec![cut(End::Close(3 << 20)), cut(End::Reset(5 << 20))], 2),
        (vec![cut(End::Close(100 << 10))], 0),
    ] {
        let server = Server::new(&image, script, unmeasured());
        for verify in [Verify::Sample, Verify::All] {
            let mut request = ask(&server.url(), ImageFormat::Raw, &image);
            request.verify = verify;
            let (disk, progress) = (Arc::new(MemDisk::new(12 << 20)), ProgressCell::default());
            let device: Arc<dyn BlockDevice> = disk.clone();
            let result =
                write_patiently(&request, &device, no_trust(), &progress, &CancelFlag::default(), &hasty());
            let report = result.unwrap_or_else(|e| panic!("{}", e.for_operator()));
            assert_eq!(left(&disk.content(), &image), Left::Complete);
            assert_eq!((report.received.0, report.virtual_size.0), (SIZE as u64, SIZE as u64));
            let told = progress.latest();
            assert_eq!((told.bytes_done, told.bytes_total), (SIZE as u64, None));
            if verify == Verify::Sample {
                assert_eq!(report.resumes, resumes);
            }
        }
    }
}

#[test]
fn an_answer_up_to_the_end_of_the_connection_is_an_image_too() {
    let image = image();
    let whole = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &image].concat();
    for (bytes, expected) in [(&whole[..], Left::Complete), (&whole[..5 << 20], Left::Blank)] {
        let raw: &'static [u8] = bytes.to_vec().leak();
        let (text, left) = serve(vec![], Answer { raw: Some(raw), ..Answer::default() });
        assert_eq!(left, expected, "{text}");
        assert!(left == Left::Complete || text.starts_with("the image's digest is"), "{text}");
    }
}

#[test]
fn an_image_of_unknown_length_may_turn_out_too_long_or_another() {
    let image = image();
    for (disk, answer, expected) in [
        (
            6 << 20,
            unmeasured(),
            "the image needs 7.0 MiB (7340032 bytes), the disk /dev/mem0 has only 6.0 MiB",
        ),
        (12 << 20, Answer { flip: Some(5_000_000), ..unmeasured() }, "the image's digest is "),
    ] {
        let server = Server::new(&image, [], answer);
        let (result, disk) = write(&ask(&server.url(), ImageFormat::Raw, &image), MemDisk::new(disk));
        assert!(words(&result).starts_with(expected), "{}", words(&result));
        assert_eq!(left(&disk.content(), &image), Left::Blank);
    }
}

#[test]
fn a_qcow2_needs_a_length() {
    let file = qcow2(&image(), &["-c"]);
    let server = Server::new(&file, [], unmeasured());
    let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), MemDisk::new(12 << 20));
    assert_eq!(
        words(&result),
        format!(
            "'{URL}' is not a usable image URL: the server does not say how long it is (no Content-Length), and where the \
             tables of a qcow2 lead cannot be checked without that"
        )
    );
    assert_eq!(left(&disk.content(), b"never"), Left::Untouched);
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let (text, left) = later(Answer { chunked: true, extra: 5, ..Answer::default() });
    assert_eq!(text, format!("{URL} delivers more than the 8.0 MiB (8388608 bytes) it announced{BLANK}"));
    assert_eq!(left, Left::Blank);
    // Behind a Content-Length they are no part of the body.
    assert_eq!(later(Answer { extra: 5, ..Answer::default() }).1, Left::Complete);
}
