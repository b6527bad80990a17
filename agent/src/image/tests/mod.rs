//! Tests of the pipeline: what every one of them needs, and the plainest of them.
//!
//! qemu-img makes the images and is the judge of their content; disks are in memory, servers on the loopback.

mod chaos;
mod corpus;
mod drive;
pub mod endings;
mod faults;
mod hostile;
mod https;
mod packed;
mod places;
mod power_cut;
mod progress;
pub mod proxy;
pub mod secure;
pub mod server;

use super::*;
use crate::platform::fake::block::{LogEntry, MemDisk};
use ferric_common::formats::gpt;
use ferric_common::ids::DigestAlgorithm;
use ferric_common::units::{MIB, SectorSize};
use server::{Answer, Server};
use sha2::{Digest as _, Sha256};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marsaglia's xorshift: the same cases on every machine; a failing one is named by its seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest { algorithm: DigestAlgorithm::Sha256, bytes: Sha256::digest(bytes).to_vec() }
}

pub(super) fn no_trust() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// Everything a thousand times shorter than in the field.
fn hasty() -> Patience {
    Patience {
        timeouts: Timeouts {
            connect: Duration::from_millis(2000),
            silence: Duration::from_millis(400),
            slow_rate: 64 << 10,
            slow_time: Duration::from_millis(1000),
            whole: Some(Duration::from_secs(30)),
            tries: 3,
            pause: Duration::from_millis(1),
        },
        attempts: 2,
        pause: Duration::from_millis(1),
    }
}

/// A request for an image whose right bytes are `file`; any table or none.
fn ask(url: &str, format: ImageFormat, file: &[u8]) -> WriteRequest {
    WriteRequest {
        image: ImageRequest {
            id: "test".into(),
            urls: vec![url.into()],
            format: Some(format),
            permitted: Vec::new(),
            digest: digest(file),
            authorization: None,
            proxies: Proxies::default(),
            require_partition_table: false,
        },
        config_drive: None,
        rebuild_drive: false,
        verify: Verify::Sample,
    }
}

fn write(request: &WriteRequest, disk: MemDisk) -> (Result<WriteReport, ImageError>, Arc<MemDisk>) {
    write_with(request, disk, &hasty(), &CancelFlag::default())
}

fn write_with(
    request: &WriteRequest,
    disk: MemDisk,
    patience: &Patience,
    cancel: &CancelFlag,
) -> (Result<WriteReport, ImageError>, Arc<MemDisk>) {
    write_trusting(request, disk, no_trust(), patience, cancel)
}

fn write_trusting(
    request: &WriteRequest,
    disk: MemDisk,
    trust: Arc<rustls::ClientConfig>,
    patience: &Patience,
    cancel: &CancelFlag,
) -> (Result<WriteReport, ImageError>, Arc<MemDisk>) {
    let disk = Arc::new(disk);
    let device: Arc<dyn BlockDevice> = disk.clone();
    let result = write_patiently(request, &device, trust, &ProgressCell::default(), cancel, patience);
    (result, disk)
}

/// The error as the operator reads it, with the server's port left out.
fn words(result: &Result<WriteReport, ImageError>) -> String {
    match result {
        Ok(_) => "complete".into(),
        Err(error) => {
            let text = error.for_operator();
            match text.find("127.0.0.1:") {
                Some(at) => {
                    let rest = &text[at + 10..];
                    let port = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    text.replace(&text[at..at + 10 + port], "SERVER")
                }
                None => text,
            }
        }
    }
}

/// What a disk may be after a write, whatever happened.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Untouched,
    Blank,
    Complete,
    Wrong,
}

fn left(disk: &[u8], image: &[u8]) -> Left {
    let end = disk.len().min(MIB as usize);
    let zero = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    if disk.starts_with(image) {
        Left::Complete
    } else if zero(&disk[..end]) && zero(&disk[disk.len() - end..]) {
        Left::Blank
    } else if disk.iter().all(|b| *b == 0xa5) {
        Left::Untouched
    } else {
        Left::Wrong
    }
}

/// Old operating systems do not compress: random data with holes, the same for a seed.
fn disk_bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = vec![0u8; size];
    for piece in bytes.chunks_mut(64 << 10) {
        match rng.below(4) {
            0 => {}
            1 => piece.fill(rng.next() as u8),
            _ => {
                let fresh = rng.bytes(piece.len());
                piece.copy_from_slice(&fresh);
            }
        }
    }
    bytes
}

/// A whole-disk image with a GPT, its backup, and one partition over most of it.
fn gpt_image(seed: u64, size: usize, sector: usize) -> Vec<u8> {
    let mut disk = disk_bytes(seed, size);
    disk[..MIB as usize].fill(0);
    disk[size - MIB as usize..].fill(0);
    let (sectors, array_sectors) = ((size / sector) as u64, 16384 / sector as u64);
    let mut array = vec![0u8; 16384];
    array[..16].copy_from_slice(&gpt::LINUX_DATA);
    array[16..32].fill(7);
    let (first, last) = (MIB / sector as u64, sectors - MIB / sector as u64 - 1);
    array[32..40].copy_from_slice(&first.to_le_bytes());
    array[40..48].copy_from_slice(&last.to_le_bytes());
    let header = |own: u64, other: u64, table: u64| {
        let mut h = vec![0u8; 92];
        h[..8].copy_from_slice(b"EFI PART");
        h[8..12].copy_from_slice(&0x10000u32.to_le_bytes());
        h[12..16].copy_from_slice(&92u32.to_le_bytes());
        h[24..32].copy_from_slice(&own.to_le_bytes());
        h[32..40].copy_from_slice(&other.to_le_bytes());
        h[40..48].copy_from_slice(&(2 + array_sectors).to_le_bytes());
        h[48..56].copy_from_slice(&(sectors - array_sectors - 2).to_le_bytes());
        h[56..72].fill(9);
        h[72..80].copy_from_slice(&table.to_le_bytes());
        h[80..84].copy_from_slice(&128u32.to_le_bytes());
        h[84..88].copy_from_slice(&128u32.to_le_bytes());
        h[88..92].copy_from_slice(&gpt::crc32(&array).to_le_bytes());
        let crc = gpt::crc32(&h);
        h[16..20].copy_from_slice(&crc.to_le_bytes());
        h
    };
    let mut put = |lba: u64, bytes: &[u8]| {
        let at = lba as usize * sector;
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(1, &header(1, sectors - 1, 2));
    put(2, &array);
    put(sectors - 1 - array_sectors, &array);
    put(sectors - 1, &header(sectors - 1, 1, sectors - 1 - array_sectors));
    disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0]);
    disk[458..462].copy_from_slice(&(sectors as u32 - 1).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A whole-disk image with an MBR and one partition.
fn mbr_image(seed: u64, size: usize) -> Vec<u8> {
    let mut disk = disk_bytes(seed, size);
    disk[440..512].fill(0);
    disk[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 255, 255, 255, 0, 8, 0, 0, 0, 32, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Runs a program of QEMU; its standard output and whether it succeeded.
fn qemu(program: &str, arguments: &[&str], folder: &Path) -> (bool, String) {
    let out = Command::new(program).args(arguments).current_dir(folder).output();
    let out = out.unwrap_or_else(|e| panic!("{program} (Debian package qemu-utils): {e}"));
    let text = [out.stdout, out.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    (out.status.success(), text)
}

#[track_caller]
fn qemu_ok(program: &str, arguments: &[&str], folder: &Path) {
    let (ok, text) = qemu(program, arguments, folder);
    assert!(ok, "{program} {arguments:?}: {text}");
}

/// `raw` as a qcow2 file; `options` are words for `qemu-img convert`.
#[track_caller]
fn qcow2(raw: &[u8], options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("raw"), raw).unwrap();
    let arguments = [&["convert", "-f", "raw", "-O", "qcow2"], options, &["raw", "out"]].concat();
    qemu_ok("qemu-img", &arguments, folder.path());
    std::fs::read(folder.path().join("out")).unwrap()
}

#[test]
fn a_raw_image_is_on_the_disk_and_the_report_adds_up() {
    let image = gpt_image(1, 8 << 20, 512);
    let server = Server::honest(&image);
    let mut request = ask(&server.url(), ImageFormat::Raw, &image);
    request.image.require_partition_table = true;
    let (result, disk) = write(&request, MemDisk::new(8 << 20));
    let report = result.unwrap();
    assert_eq!(left(&disk.content(), &image), Left::Complete);
    assert_eq!(report.received, ByteCount(8 << 20));
    // The backup table is written as part of the image's last MiB and once more at its place.
    assert!((8 << 20..(8 << 20) + (32 << 10)).contains(&(report.written.0 + report.zeroed.0)), "{report}");
    assert_eq!(server.sent(), 8 << 20, "nothing is fetched twice");
}

#[test]
fn a_compressed_image_is_on_the_disk_and_the_rest_of_it_is_left_alone() {
    let image = gpt_image(2, 8 << 20, 512);
    let file = qcow2(&image, &["-c"]);
    let server = Server::new(&file, [], Answer::no_ranges());
    let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), MemDisk::new(16 << 20));
    result.unwrap();
    let content = disk.content();
    // The backup table moves to the real end; the image's own old one stays where it was.
    assert!(content[MIB as usize..8 << 20] == image[MIB as usize..]);
    assert!(content[8 << 20..15 << 20].iter().all(|b| *b == 0xa5));
    assert!(content[(16 << 20) - 512..].starts_with(b"EFI PART"));
}

/// Every cluster compressed on its own and shuffled in the file by out-of-order writers: more pieces than a test's map holds.
#[test]
fn an_image_with_more_pieces_than_fit_the_map_is_written_window_by_window() {
    let image = Rng::new(51).bytes(12 << 20);
    let mut holes = image.clone();
    holes.chunks_mut(4096).step_by(3).for_each(|cluster| cluster.fill(0));
    for raw in [&image, &holes] {
        // Random bytes do not shrink, but every second byte of them does.
        let raw = raw.iter().enumerate().map(|(n, b)| if n % 2 == 0 { *b } else { 0 }).collect::<Vec<_>>();
        let file = qcow2(&raw, &["-c", "-W", "-o", "cluster_size=4k"]);
        let server = Server::honest(&file);
        for verify in [Verify::Sample, Verify::All] {
            let mut request = ask(&server.url(), ImageFormat::Qcow2, &file);
            request.verify = verify;
            let (result, disk) = write(&request, MemDisk::new(12 << 20));
            let report = result.unwrap_or_else(|e| panic!("{}", e.for_operator()));
            assert_eq!(left(&disk.content(), &raw), Left::Complete);
            assert_eq!(report.verified.0 >= 12 << 20, verify == Verify::All);
        }
    }
}

#[test]
fn a_server_without_ranges_sends_a_converted_image_once() {
    let raw = disk_bytes(52, 24 << 20);
    for options in [&[][..], &["-c"], &["-c", "-o", "cluster_size=2M"], &["-o", "cluster_size=64k", "-W"]] {
        let file = qcow2(&raw, options);
        let server = Server::new(&file, [], Answer::no_ranges());
        let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), MemDisk::new(24 << 20));
        assert_eq!(words(&result), "complete", "{options:?}");
        assert_eq!(left(&disk.content(), &raw), Left::Complete);
        assert_eq!(server.sent(), file.len() as u64, "{options:?}");
    }
}

/// Whether a zeroing of the disk's middle meets what was written or zeroed there before.
fn zeroed_after(log: &[LogEntry], size: u64) -> Option<Range<u64>> {
    let mut before: Vec<Range<u64>> = Vec::new();
    for entry in log {
        let (range, zero) = match entry {
            LogEntry::Write { at, bytes } => (*at..*at + bytes.len() as u64, false),
            LogEntry::Zero { at, length } => (*at..*at + *length, true),
            LogEntry::Flush => continue,
        };
        if range.start < MIB || range.end > size - MIB {
            continue;
        }
        if zero && before.iter().any(|b| b.start < range.end && range.start < b.end) {
            return Some(range);
        }
        before.push(range);
    }
    None
}

#[test]
fn without_ranges_the_disk_is_zeroed_ahead_but_never_twice_and_never_over_data() {
    const SIZE: u64 = 96 << 20;
    let folder = tempfile::tempdir().unwrap();
    let options = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=64k,preallocation=off", "img", "96M"];
    for places in [[1, 5, 20, 33, 34, 70], [70, 34, 33, 20, 5, 1], [33, 94, 2, 50, 51, 60]] {
        qemu_ok("qemu-img", &options, folder.path());
        for (nth, place) in places.iter().enumerate() {
            let write = format!("write -P {} {place}M 192k", nth + 1);
            qemu_ok("qemu-io", &["-f", "qcow2", "-c", &write, "img"], folder.path());
        }
        qemu_ok("qemu-img", &["convert", "-O", "raw", "img", "raw"], folder.path());
        let file = std::fs::read(folder.path().join("img")).unwrap();
        let raw = std::fs::read(folder.path().join("raw")).unwrap();
        let server = Server::new(&file, [], Answer::no_ranges());
        let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), MemDisk::new(SIZE));
        assert_eq!(words(&result), "complete", "{places:?}");
        assert!(disk.content() == raw, "{places:?}");
        assert_eq!(zeroed_after(&disk.log(), SIZE), None, "{places:?}");
    }
}

#[test]
fn without_ranges_the_rest_behind_the_last_whole_mib_is_zeroed_too() {
    for kib in [1600, 2100, 2500, 9_999, 20_000] {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("{kib}k");
        qemu_ok("qemu-img", &["create", "-q", "-f", "qcow2", "img", &size], folder.path());
        qemu_ok("qemu-io", &["-f", "qcow2", "-c", "write -P 7 0 64k", "img"], folder.path());
        let file = std::fs::read(folder.path().join("img")).unwrap();
        let server = Server::new(&file, [], Answer::no_ranges());
        let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), MemDisk::new(24 << 20));
        assert_eq!(words(&result), "complete", "{kib}");
        let content = disk.content();
        assert!(content[64 << 10..kib << 10].iter().all(|byte| *byte == 0), "{kib}");
    }
}

#[test]
fn tables_behind_their_data_cost_a_server_without_ranges_one_more_pass() {
    let folder = tempfile::tempdir().unwrap();
    let raw = disk_bytes(53, 8 << 20);
    std::fs::write(folder.path().join("raw"), &raw).unwrap();
    let words_of = &["convert", "-O", "qcow2", "-o", "cluster_size=512", "raw", "img"];
    qemu_ok("qemu-img", words_of, folder.path());
    // Growing moves the L1 table to the end of the file.
    qemu_ok("qemu-img", &["resize", "-q", "-f", "qcow2", "img", "64M"], folder.path());
    let file = std::fs::read(folder.path().join("img")).unwrap();
    assert!(u64::from_be_bytes(file[40..48].try_into().unwrap()) > 4 << 20);
    let server = Server::new(&file, [], Answer::no_ranges());
    let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), MemDisk::new(64 << 20));
    assert_eq!(words(&result), "complete");
    assert!(disk.content().starts_with(&raw) && disk.content()[8 << 20..].iter().all(|b| *b == 0));
    assert!(server.sent() <= 2 * file.len() as u64 + (2 << 20), "{} of {}", server.sent(), file.len());
}

/// The same file with its L2 tables moved behind all data, each on its own, where some writers put them.
fn tables_last(mut file: Vec<u8>) -> Vec<u8> {
    let number = |file: &[u8], at: usize| u64::from_be_bytes(file[at..at + 8].try_into().unwrap());
    let cluster = 1 << file[23];
    let (l1, entries) = (number(&file, 40) as usize, (number(&file, 32) & 0xffff_ffff) as usize);
    for at in (0..entries).map(|nth| l1 + nth * 8) {
        let entry = number(&file, at);
        let place = (entry & 0x00ff_ffff_ffff_fe00) as usize;
        if place != 0 {
            let table = file[place..place + cluster].to_vec();
            file.resize(file.len().next_multiple_of(cluster) + cluster, 0);
            let moved = file.len() as u64 | entry & 1 << 63;
            file[at..at + 8].copy_from_slice(&moved.to_be_bytes());
            file.extend(table);
        }
    }
    file
}

/// A test's map holds 300 gaps: for the rest of them the tables are read again when the data has passed.
#[test]
fn more_gaps_than_fit_the_map_are_zeroed_with_and_without_ranges() {
    let mut raw = Rng::new(59).bytes(8 << 20);
    raw.chunks_mut(4096).step_by(2).for_each(|cluster| cluster.fill(0));
    let file = tables_last(qcow2(&raw, &["-o", "cluster_size=4k"]));
    for answer in [Answer::default(), Answer::no_ranges()] {
        let ranges = answer.ranges;
        let server = Server::new(&file, [], answer);
        let request = ask(&server.url(), ImageFormat::Qcow2, &file);
        let (result, disk) = write(&request, MemDisk::new(8 << 20));
        assert_eq!(words(&result), "complete", "ranges: {ranges}");
        assert_eq!(left(&disk.content(), &raw), Left::Complete, "ranges: {ranges}");
    }
}

#[test]
fn reading_everything_back_finds_a_lost_write() {
    let image = Rng::new(54).bytes(16 << 20);
    let server = Server::honest(&image);
    let lost =
        || MemDisk::new(16 << 20).with_fault(crate::platform::fake::block::Fault::Lost((7 << 20) + 300_000));
    let mut request = ask(&server.url(), ImageFormat::Raw, &image);
    request.verify = Verify::All;
    let (result, disk) = write(&request, lost());
    assert!(words(&result).contains("gives back other bytes"), "{}", words(&result));
    assert_eq!(left(&disk.content(), &image), Left::Blank);
}

#[test]
fn a_discard_is_believed_as_far_as_it_can_be_read_back() {
    use crate::platform::fake::block::Discard;
    let mut image = vec![0; 16 << 20];
    let data = Rng::new(55).bytes(64 << 10);
    [1 << 20, 6 << 20, 12 << 20].iter().for_each(|at| image[*at..at + data.len()].copy_from_slice(&data));
    let file = qcow2(&image, &[]);
    let server = Server::honest(&file);
    for (discard, by_disk) in [(Discard::Zeros, true), (Discard::Keeps, false), (Discard::Unsupported, false)]
    {
        let disk = MemDisk::new(16 << 20).without_offload().with_discard(discard);
        let (result, disk) = write(&ask(&server.url(), ImageFormat::Qcow2, &file), disk);
        let report = result.unwrap();
        assert_eq!(left(&disk.content(), &image), Left::Complete, "{discard:?}");
        assert_eq!(report.zeroed.0 > 10 << 20, by_disk, "{discard:?}: {report}");
        assert_eq!(report.zeros_written.0 > 10 << 20, !by_disk, "{discard:?}: {report}");
    }
}

#[test]
fn a_config_drive_without_room_is_refused_before_the_first_write() {
    let image = gpt_image(56, 8 << 20, 512);
    let zlib = qcow2(&image, &["-c"]);
    let plain = qcow2(&image, &[]);
    for (file, format) in [
        (&image, ImageFormat::Raw),
        (&plain, ImageFormat::Qcow2),
        (&zlib, ImageFormat::Qcow2),
        (&zstd::bulk::compress(&image, 1).unwrap(), ImageFormat::Packed(Packing::Zst)),
    ] {
        let server = Server::honest(file);
        let mut request = ask(&server.url(), format, file);
        request.config_drive = Some(Rng::new(5).bytes(4 << 20));
        let (result, disk) = write(&request, MemDisk::new(9 << 20));
        assert!(words(&result).starts_with("the partition table: "), "{format}: {}", words(&result));
        assert_eq!(left(&disk.content(), &image), Left::Untouched, "{format}: {}", words(&result));
        let (result, _) = write(&request, MemDisk::new(24 << 20));
        assert_eq!(words(&result), "complete", "{format}");
    }
}

/// Marks the partition of [`gpt_image`] as a config drive's, and says how many bytes of it there are.
fn label_partition(image: &mut [u8], label: &[u8]) -> usize {
    let at = MIB as usize + 32_768;
    image[at..at + 6].copy_from_slice(b"\x01CD001");
    image[at + 40..at + 72].fill(b' ');
    image[at + 40..at + 40 + label.len()].copy_from_slice(label);
    image.len() - 2 * MIB as usize
}

#[test]
fn a_partition_labelled_config_2_takes_the_config_drive() {
    for (label, sector, reused) in [
        (&b"config-2"[..], 512, true),
        (b"CONFIG-2", 512, true),
        (b"config-2", 4096, true),
        (b"config-3", 512, false),
    ] {
        let mut image = gpt_image(57, 8 << 20, sector);
        label_partition(&mut image, label);
        let server = Server::honest(&image);
        let mut request = ask(&server.url(), ImageFormat::Raw, &image);
        let drive = Rng::new(6).bytes(700_001);
        request.config_drive = Some(drive.clone());
        let (result, disk) = write(&request, MemDisk::new(96 << 20).with_sector(sector as u32));
        let what = format!("{} in sectors of {sector}", String::from_utf8_lossy(label));
        assert_eq!(words(&result), "complete", "{what}");
        let content = disk.content();
        let place = MIB as usize;
        assert_eq!(content[place..place + drive.len()] == drive, reused, "{what}");
        let end = place + drive.len().next_multiple_of(sector);
        assert!(content[end..7 << 20] == image[end..7 << 20], "{what}: more than the drive was written");
        let table = gpt::Gpt::parse(&content, SectorSize(sector as u32)).unwrap();
        assert_eq!(table.partitions().count(), if reused { 1 } else { 2 }, "{what}");
    }
}

#[test]
fn a_labelled_partition_that_is_too_small_is_refused_and_nothing_boots() {
    let mut image = gpt_image(58, 8 << 20, 512);
    let room = label_partition(&mut image, b"config-2");
    let server = Server::honest(&image);
    let mut request = ask(&server.url(), ImageFormat::Raw, &image);
    request.config_drive = Some(Rng::new(6).bytes(room + 1));
    let (result, disk) = write(&request, MemDisk::new(96 << 20));
    assert!(words(&result).contains("labelled config-2 that the image brings has"), "{}", words(&result));
    assert_eq!(left(&disk.content(), &image), Left::Blank);
}
