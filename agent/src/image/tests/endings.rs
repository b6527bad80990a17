//! Whatever ends one thread of the pipeline early, an error, a panic or a cancellation, ends all of them: nothing hangs.

use super::super::ahead::{Ahead, Next};
use super::super::buffers::Pool;
use super::super::pipeline::CHUNKS;
use super::super::queue::{Queue, Stop};
use super::packed::{bz2, gz, xz, zst};
use super::server::{End, Server};
use super::*;
use crate::platform::fake::block::Fault;
use ferric_common::units::DiskOffset;
use std::io;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

const BLANK: &str = "; /dev/mem0 has been blanked at both ends and will not boot";

/// What the work comes to; fails the test where it hangs.
pub fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    told.recv_timeout(Duration::from_secs(60)).expect("it hangs (or panicked)")
}

/// What is done to a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Read,
    /// A write or zeroing.
    Change,
}

/// A disk that has something called before each deed, with its place.
struct Watched {
    disk: MemDisk,
    before: Box<dyn Fn(Deed, u64) + Send + Sync>,
}

impl BlockDevice for Watched {
    fn name(&self) -> &str {
        self.disk.name()
    }
    fn size(&self) -> ByteCount {
        self.disk.size()
    }
    fn sector_size(&self) -> SectorSize {
        self.disk.sector_size()
    }
    fn alignment(&self) -> usize {
        self.disk.alignment()
    }
    fn read_at(&self, at: DiskOffset, buffer: &mut [u8]) -> io::Result<()> {
        (self.before)(Deed::Read, at.0);
        self.disk.read_at(at, buffer)
    }
    fn write_at(&self, at: DiskOffset, bytes: &[u8]) -> io::Result<()> {
        (self.before)(Deed::Change, at.0);
        self.disk.write_at(at, bytes)
    }
    fn zero(&self, at: DiskOffset, length: ByteCount) -> io::Result<()> {
        (self.before)(Deed::Change, at.0);
        self.disk.zero(at, length)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

fn write_watched(
    request: WriteRequest,
    size: u64,
    cancel: CancelFlag,
    before: impl Fn(Deed, u64) + Send + Sync + 'static,
) -> (String, Left) {
    within(move || {
        let disk = Arc::new(Watched { disk: MemDisk::new(size), before: Box::new(before) });
        let device: Arc<dyn BlockDevice> = disk.clone();
        let progress = ProgressCell::default();
        let result = write_patiently(&request, &device, no_trust(), &progress, &cancel, &hasty());
        (words(&result), left(&disk.disk.content(), b"never"))
    })
}

/// More of the file than all buffers together hold comes after what the unpacking thread ends at.
#[test]
fn an_image_that_ends_the_unpacking_early_ends_the_write() {
    let pack = |packing: Packing, bytes: &[u8]| match packing {
        Packing::Gz => gz(bytes),
        Packing::Xz => xz(bytes, 0),
        Packing::Zst => zst(bytes, 20),
        Packing::Bz2 => bz2(bytes),
    };
    let image = Rng::new(71).bytes((CHUNKS + 7) << 20);
    let (first, rest) = image.split_at(3 << 20);
    for packing in [Packing::Gz, Packing::Xz, Packing::Zst, Packing::Bz2] {
        let (first, rest) = (pack(packing, first), pack(packing, rest));
        let mut damaged = first.clone();
        damaged[2 << 20] ^= 0x55;
        for (start, expected) in [(first, "the image needs "), (damaged, " stream at byte ")] {
            let file = [start, rest.clone()].concat();
            let server = Server::honest(&file);
            let request = ask(&server.url(), ImageFormat::Packed(packing), &file);
            let (said, left) = write_watched(request, 8 << 20, CancelFlag::default(), |_, _| ());
            assert!(said.contains(expected) && said.ends_with(BLANK), "{packing:?}: {said}");
            assert_eq!(left, Left::Blank, "{packing:?}: {said}");
        }
    }
}

/// Writers that wait for the disk, and all others for the writers.
#[test]
fn a_cancellation_while_all_wait_for_the_disk_lets_no_further_write_begin() {
    let size = (2 * CHUNKS + 8) << 20;
    let image = Rng::new(72).bytes(size);
    for (format, file) in [(ImageFormat::Raw, image.clone()), (ImageFormat::Packed(Packing::Gz), gz(&image))]
    {
        let server = Server::honest(&file);
        let request = ask(&server.url(), format, &file);
        let cancel = CancelFlag::default();
        let stuck = Arc::new((Mutex::new((0, false)), Condvar::new()));
        let late = Arc::new(AtomicUsize::new(0));
        let body = MIB..size as u64 - MIB;
        let before = {
            let (cancel, stuck, late) = (cancel.clone(), stuck.clone(), late.clone());
            move |_: Deed, at: u64| {
                if !body.contains(&at) {
                    return;
                }
                late.fetch_add(usize::from(cancel.is_set()), Ordering::SeqCst);
                let mut state = unpoisoned(&stuck.0);
                state.0 += 1;
                stuck.1.notify_all();
                while !state.1 {
                    state = stuck.1.wait(state).unwrap();
                }
            }
        };
        let flag = cancel.clone();
        let canceller = std::thread::spawn(move || {
            let mut state = unpoisoned(&stuck.0);
            while state.0 < 8 {
                state = stuck.1.wait(state).unwrap();
            }
            flag.cancel();
            state.1 = true;
            stuck.1.notify_all();
        });
        let (said, left) = write_watched(request, size as u64, cancel, before);
        canceller.join().unwrap();
        assert_eq!((said, left), (format!("stopped by request{BLANK}"), Left::Blank), "{format}");
        assert_eq!(late.load(Ordering::SeqCst), 0, "{format}: writes begun after the cancellation");
    }
}

#[test]
fn a_cancellation_ends_every_wait() {
    let waits: [fn(Stop); 4] = [
        |stop| {
            let pool = Pool::new(1, 4096);
            let taken = pool.take(&Stop::default());
            assert!(pool.take(&stop).is_none() && taken.is_some());
        },
        |stop| {
            let queue = Queue::new(1);
            queue.push(1, &stop);
            queue.push(2, &stop);
        },
        |stop| assert_eq!(Queue::<u8>::new(1).pop(&stop), None),
        |stop| {
            let ahead = Ahead::over(0..MIB);
            let begun = ahead.begin(MIB, None, |_| None);
            assert_eq!(begun, Next::Zero(0..MIB));
            ahead.data(std::iter::once(0..4096), &stop);
        },
    ];
    for wait in waits {
        let cancel = CancelFlag::default();
        let stop = Stop::on(&cancel);
        cancel.cancel();
        within(move || wait(stop));
    }
    let cancel = CancelFlag::default();
    let stop = Stop::on(&cancel);
    assert!(!stop.is_set() && stop.take_error().is_none());
    cancel.cancel();
    stop.fail(ImageError::Empty);
    assert!(matches!(stop.take_error(), Some(ImageError::Cancelled)), "the rest is its consequence");
    assert!(matches!(stop.take_error(), Some(ImageError::Cancelled)));
}

#[test]
fn a_thread_that_panics_ends_the_write_in_words() {
    let size = (CHUNKS + 6) << 20;
    // Every second byte, so that it can be compressed; and one hole.
    let mut image = Rng::new(73).bytes(size);
    image.iter_mut().step_by(2).for_each(|byte| *byte = 0);
    image[8 << 20..12 << 20].fill(0);
    for (format, file, place, thread) in [
        (ImageFormat::Raw, image.clone(), 5 << 20..6 << 20, "writing"),
        (ImageFormat::Raw, image.clone(), 8 << 20..12 << 20, "zeroing"),
        (ImageFormat::Packed(Packing::Gz), gz(&image), 5 << 20..6 << 20, "writing"),
        (ImageFormat::Qcow2, qcow2(&image, &["-c"]), 12 << 20..size as u64 - MIB, "writing"),
    ] {
        let server = Server::honest(&file);
        let request = ask(&server.url(), format, &file);
        let (said, left) = write_watched(request, size as u64, CancelFlag::default(), move |_, at| {
            assert!(!place.contains(&at), "as the test wants it");
        });
        assert_eq!((said, left), (format!("the {thread} thread panicked{BLANK}"), Left::Blank), "{format}");
    }
}

#[test]
fn a_disk_that_fails_ends_the_waiting_for_a_server() {
    let image = Rng::new(75).bytes(8 << 20);
    let server = Server::new(&image, [Answer::default()], Answer::end(End::Stall(4 << 20)));
    let request = ask(&server.url(), ImageFormat::Raw, &image);
    let result = within(move || {
        let fault = Fault::Write(3 << 20);
        let disk: Arc<dyn BlockDevice> = Arc::new(MemDisk::new(16 << 20).with_fault(fault));
        let mut patient = hasty();
        // Longer than this test waits.
        patient.timeouts.silence = Duration::from_secs(600);
        write_patiently(
            &request,
            &disk,
            no_trust(),
            &ProgressCell::default(),
            &CancelFlag::default(),
            &patient,
        )
    });
    assert!(words(&result).starts_with("writing "), "{}", words(&result));
}

#[test]
fn reading_everything_back_can_be_cancelled() {
    let image = Rng::new(74).bytes(8 << 20);
    let server = Server::honest(&image);
    let mut request = ask(&server.url(), ImageFormat::Raw, &image);
    request.verify = Verify::All;
    let (cancel, reads) = (CancelFlag::default(), Arc::new(AtomicUsize::new(0)));
    let (flag, count) = (cancel.clone(), reads.clone());
    let (said, left) = write_watched(request, 8 << 20, cancel, move |deed, at| {
        if deed == Deed::Read && (MIB..7 << 20).contains(&at) {
            flag.cancel();
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert_eq!((said, left), (format!("stopped by request{BLANK}"), Left::Blank));
    assert_eq!(reads.load(Ordering::SeqCst), 1, "of six");
}
