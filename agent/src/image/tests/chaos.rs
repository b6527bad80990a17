//! Thousands of seeded cases in which server and disk go wrong together: whatever happens, the disk is untouched, blank at
//! both ends, or complete and right (or cannot be blanked, and the operator is told), and the error says what happened.

use super::server::{Answer, End, Server};
use super::*;
use crate::platform::fake::block::{Discard, Fault};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const CASES: u64 = 2400;
const IMAGE: usize = 3 << 20;
const DISK: u64 = 5 << 20;
/// No case may take longer than this, whatever is stalled: a hang shows.
const PATIENCE: Duration = Duration::from_secs(20);

struct Made {
    format: ImageFormat,
    file: Arc<Vec<u8>>,
    other: Arc<Vec<u8>>,
    disk: Vec<u8>,
}

fn packed(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 1).unwrap()
}

fn images() -> Vec<Made> {
    let (raw, other) = (mbr_image(61, IMAGE), mbr_image(62, IMAGE));
    let grown = |raw: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("raw"), raw).unwrap();
        let words = &["convert", "-O", "qcow2", "-o", "cluster_size=512", "raw", "img"];
        qemu_ok("qemu-img", words, folder.path());
        qemu_ok("qemu-img", &["resize", "-q", "-f", "qcow2", "img", "4M"], folder.path());
        std::fs::read(folder.path().join("img")).unwrap()
    };
    let made = |format, make: &dyn Fn(&[u8]) -> Vec<u8>| Made {
        format,
        file: Arc::new(make(&raw)),
        other: Arc::new(make(&other)),
        disk: raw.clone(),
    };
    vec![
        made(ImageFormat::Raw, &<[u8]>::to_vec),
        made(ImageFormat::Packed(Packing::Zst), &packed),
        made(ImageFormat::Qcow2, &|raw| qcow2(raw, &[])),
        made(ImageFormat::Qcow2, &|raw| qcow2(raw, &["-c"])),
        made(ImageFormat::Qcow2, &|raw| qcow2(raw, &["-c", "-o", "compression_type=zstd,cluster_size=4k"])),
        made(ImageFormat::Qcow2, &grown),
    ]
}

/// One answer of a server that means no good.
fn answer(rng: &mut Rng, made: &Made, ranges: bool) -> Answer {
    let size = made.file.len() as u64;
    let base = Answer { ranges, ..Answer::default() };
    match rng.below(16) {
        0 => Answer { end: End::Reset(rng.below(size)), ..base },
        1 => Answer { end: End::Close(rng.below(size)), ..base },
        // A stall costs the test its silence, so it is seldom.
        2 if rng.below(6) == 0 => Answer { end: End::Stall(rng.below(size)), ..base },
        3 => Answer { flip: Some(rng.below(size)), ..base },
        4 => Answer { shift: (rng.below(9000) as i64 - 4000, 0), ..base },
        5 => Answer { shift: (0, rng.below(9000) as i64 - 4000), ..base },
        6 => Answer { etag: Some("\"two\""), content: Some(made.other.clone()), ..base },
        7 => Answer { etag: None, content: Some(made.other.clone()), ..base },
        8 => Answer { ranges: !ranges, ..base },
        9 => Answer::status([500, 502, 503, 429, 404, 403][rng.below(6) as usize]),
        10 => Answer::redirect(["/elsewhere", "ftp://127.0.0.1/x", "/disk.img"][rng.below(3) as usize]),
        11 => {
            Answer { raw: Some([&b""[..], b"HTTP/1.1 2", b"\0\xff\r\n\r\n"][rng.below(3) as usize]), ..base }
        }
        12 => Answer { chunked: true, extra: rng.below(3) as usize * 1000, ..base },
        13 => Answer { content: Some(Arc::new(made.file[..rng.below(size) as usize].to_vec())), ..base },
        14 => Answer { end: End::Close(0), ..base },
        _ => base,
    }
}

fn disk(rng: &mut Rng) -> MemDisk {
    let at = match rng.below(3) {
        0 => rng.below(MIB),
        1 => DISK - 1 - rng.below(MIB),
        _ => rng.below(DISK),
    };
    let disk = MemDisk::new(DISK);
    let disk = match rng.below(4) {
        0 => disk.without_offload(),
        1 => disk.without_offload().with_discard(Discard::Keeps),
        2 => disk.without_offload().with_discard(Discard::Zeros),
        _ => disk,
    };
    match rng.below(10) {
        0 => disk.with_fault(Fault::Write(at)),
        1 => disk.with_fault(Fault::Read(at)),
        2 => disk.with_fault(Fault::Lost(at)),
        3 => disk.with_fault(Fault::Flush(rng.below(8) as usize)),
        _ => disk,
    }
}

/// Runs one case and gives the name of how it ended.
fn run(seed: u64, images: &[Made]) -> &'static str {
    let mut rng = Rng::new(seed + 1);
    let made = &images[rng.below(images.len() as u64) as usize];
    let ranges = rng.below(3) != 0;
    let script = (0..rng.below(6)).map(|_| answer(&mut rng, made, ranges)).collect::<Vec<_>>();
    let then = if rng.below(3) == 0 {
        answer(&mut rng, made, ranges)
    } else {
        Answer { ranges, ..Answer::default() }
    };
    let server = Server::new(&made.file, script.clone(), then.clone());
    let second = Server::honest(&made.file);
    let mut request = ask(&server.url(), made.format, &made.file);
    if rng.below(4) == 0 {
        request.image.urls.push(second.url());
    }
    if rng.below(4) == 0 {
        request.verify = Verify::All;
    }
    let started = Instant::now();
    let (result, disk) = write(&request, disk(&mut rng));
    let text = words(&result);
    let case = || format!("seed {seed}, {:?}, script {script:?}, then {then:?}: {text}", made.format);
    assert!(started.elapsed() < PATIENCE, "too long: {}", case());
    let state = left(&disk.content(), &made.disk);
    match &result {
        Ok(_) => {
            assert_eq!(state, Left::Complete, "{}", case());
            "complete"
        }
        Err(error) => {
            assert!(text.len() > 15 && text.contains(' '), "no sentence: {}", case());
            match error {
                // What cannot be written cannot be blanked either; then the operator is told.
                ImageError::NotBlanked { .. } => {
                    assert!(text.contains("could NOT be blanked"), "{}", case());
                    assert_ne!(state, Left::Complete, "{}", case());
                    "not blanked"
                }
                ImageError::AfterWrite { .. } => {
                    assert_eq!(state, Left::Blank, "{}", case());
                    assert!(text.contains("has been blanked at both ends"), "{}", case());
                    "blank"
                }
                _ => {
                    assert_eq!(state, Left::Untouched, "{}", case());
                    "untouched"
                }
            }
        }
    }
}

#[test]
fn whatever_goes_wrong_no_disk_is_left_wrong() {
    let images = images();
    let (next, ends) = (AtomicU64::new(0), Mutex::new(BTreeMap::<&str, u32>::new()));
    std::thread::scope(|scope| {
        // Most of a case is waiting for somebody who does not answer.
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= CASES {
                        return;
                    }
                    let end = run(seed, &images);
                    *unpoisoned(&ends).entry(end).or_default() += 1;
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    println!("{CASES} cases: {ends:?}");
    for (end, fewest) in [("complete", 600), ("blank", 300), ("untouched", 200), ("not blanked", 20)] {
        assert!(ends.get(end).copied().unwrap_or(0) >= fewest, "{end}: {ends:?}");
    }
}
