//! What an operator sees while a server is slow, silent and back again.

use super::server::{Answer, End, Server};
use super::*;
use ferric_common::events::Progress;

/// Looks at the progress of a write until it has ended; what was seen, and the last of it.
fn seen(request: &WriteRequest, size: u64, patience: &Patience) -> (String, Vec<Progress>) {
    let disk: Arc<dyn BlockDevice> = Arc::new(MemDisk::new(size));
    let (cell, cancel) = (ProgressCell::default(), CancelFlag::default());
    let mut all: Vec<Progress> = Vec::new();
    let result = std::thread::scope(|scope| {
        let write = scope.spawn(|| write_patiently(request, &disk, no_trust(), &cell, &cancel, patience));
        while !write.is_finished() {
            all.extend(Some(cell.latest()).filter(|now| all.last() != Some(now)));
            std::thread::sleep(Duration::from_millis(1));
        }
        write.join().unwrap()
    });
    all.push(cell.latest());
    (words(&result), all)
}

#[test]
fn a_transfer_that_stands_still_is_seen_to_and_why() {
    const CAME: u64 = (4 << 20) + (300 << 10);
    let image = Rng::new(91).bytes(8 << 20);
    // The first MiB is asked for alone. What breaks after more than a MiB came is taken up again at once.
    let script = [Answer::default(), Answer::end(End::Stall(CAME - MIB)), Answer::end(End::Stall(0))];
    let server = Server::new(&image, script, Answer::default());
    let mut patience = hasty();
    // The second pause is twice as long: longer than the time over which the rate is taken.
    patience.timeouts.pause = Duration::from_secs(2);
    // A server that only has no processor for a moment is not silent.
    patience.timeouts.silence = Duration::from_secs(3);
    patience.timeouts.slow_time = Duration::from_secs(30);
    let (said, all) = seen(&ask(&server.url(), ImageFormat::Raw, &image), 8 << 20, &patience);
    assert_eq!(said, "complete");
    let broke = |next: &str| {
        let (url, cause) = (server.url(), "no byte for 3s");
        format!("the transfer from {url} broke at byte {CAME} ({cause}), trying again {next} of 3)")
    };
    assert!(all.iter().any(|now| now.note == broke("at once (2")), "{all:#?}");
    let still = Progress {
        stage: "writing".into(),
        bytes_done: CAME,
        bytes_total: Some(8 << 20),
        // The first MiB is held back, the last one has not come whole.
        bytes_written: 3 << 20,
        rate: 0,
        note: broke("in 4 s (3"),
        seconds: 0,
    };
    let is_still = |now: &&Progress| Progress { seconds: 0, ..(*now).clone() } == still;
    let since = all.iter().find(is_still).map(|now| now.seconds);
    assert!(since.is_some_and(|seconds| seconds >= 3), "{all:#?}");
    let moves = |now: &&Progress| now.bytes_done <= CAME && now.bytes_done > 0 && now.rate > 0;
    assert!(all.iter().any(|now| moves(&now)), "{all:#?}");
    // When bytes come again nothing is awaited any more.
    assert!(all.iter().filter(|now| now.bytes_done > CAME).all(|now| now.note.is_empty()), "{all:#?}");
    let last = all.last().unwrap();
    assert_eq!((last.bytes_done, last.bytes_written), (8 << 20, 6 << 20));
}
