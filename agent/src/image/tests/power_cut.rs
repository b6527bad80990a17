//! Power cuts: every state the machine could wake up in after a cut within a write, as far as the log of the disk tells.
//!
//! What was written before a flush is on the disk; of what came after it any part may be, each write whole, torn at
//! sectors, or not at all.

use super::server::{Answer, Server};
use super::*;
use crate::platform::fake::block::LogEntry;
use ferric_common::formats::gpt::crc32;

const DISK: usize = 24 << 20;
/// Bytes at each end in which tables stand.
const TABLE: usize = 64 << 10;
const SECTOR: usize = 512;

/// A write that may be on the disk: where, and its bytes in sectors of which some may be missing.
struct Pending<'a> {
    at: usize,
    length: usize,
    /// `None`: zeros.
    bytes: Option<&'a [u8]>,
}

impl Pending<'_> {
    /// Puts what lies in `window` (which begins at `from`) into it; `lands` says which sectors of the write are there.
    fn apply(&self, window: &mut [u8], from: usize, lands: &dyn Fn(usize) -> bool) {
        let start = self.at.max(from);
        let end = (self.at + self.length).min(from + window.len());
        let mut at = start;
        while at < end {
            let next = (at / SECTOR * SECTOR + SECTOR).min(end);
            if lands((at - self.at) / SECTOR) {
                let place = &mut window[at - from..next - from];
                match self.bytes {
                    Some(bytes) => place.copy_from_slice(&bytes[at - self.at..next - self.at]),
                    None => place.fill(0),
                }
            }
            at = next;
        }
    }
}

fn pending(entry: &LogEntry) -> Option<Pending<'_>> {
    match entry {
        LogEntry::Write { at, bytes } => {
            Some(Pending { at: *at as usize, length: bytes.len(), bytes: Some(bytes) })
        }
        LogEntry::Zero { at, length } => {
            Some(Pending { at: *at as usize, length: *length as usize, bytes: None })
        }
        LogEntry::Flush => None,
    }
}

/// Whether some firmware would find something to boot here: a boot sector, or either GPT.
fn boots(head: &[u8], end: &[u8], sector: usize) -> bool {
    head[510..512] == [0x55, 0xaa]
        || gpt::Gpt::parse(head, ferric_common::units::SectorSize(sector as u32)).is_ok()
        || backup_is_valid(end, sector)
}

fn backup_is_valid(end: &[u8], sector: usize) -> bool {
    let header = &end[end.len() - sector..];
    if !header.starts_with(b"EFI PART") {
        return false;
    }
    let mut copy = header[..92].to_vec();
    copy[16..20].fill(0);
    let array = &end[end.len() - sector - 16384..end.len() - sector];
    crc32(&copy).to_le_bytes() == header[16..20] && crc32(array).to_le_bytes() == header[88..92]
}

/// How much of each pending write is on the disk.
enum Subset {
    Exact(u64),
    Torn(u64),
}

struct Trial<'a> {
    log: &'a [LogEntry],
    /// The disk when all went well; `None`: it must never boot.
    right: Option<&'a [u8]>,
    sector: usize,
    states: usize,
}

impl Trial<'_> {
    fn run(&mut self, old: &[u8]) {
        let mut base = old.to_vec();
        let mut open: Vec<Pending> = Vec::new();
        let mut flushed = false;
        for (position, entry) in self.log.iter().enumerate() {
            match pending(entry) {
                Some(write) => open.push(write),
                None => {
                    for write in open.drain(..) {
                        write.apply(&mut base, 0, &|_| true);
                    }
                    flushed = true;
                }
            }
            let few = open.len() <= 6;
            let count = if few { 1u64 << open.len() } else { 48 };
            for n in 0..count {
                let bits = if few { n } else { Rng::new(n + position as u64 * 1000).next() };
                self.judge(&base, &open, &Subset::Exact(bits), flushed.then_some(position));
            }
            for n in 0..24 {
                let seed = n + position as u64 * 1000 + 500;
                self.judge(&base, &open, &Subset::Torn(seed), flushed.then_some(position));
            }
        }
    }

    /// Before the first flush (`position` is `None`) only the ends of the old system are on their way to be blank.
    fn judge(&mut self, base: &[u8], open: &[Pending], subset: &Subset, position: Option<usize>) {
        let window = |from: usize, length: usize| {
            let mut bytes = base[from..from + length].to_vec();
            for (nth, write) in open.iter().enumerate() {
                match subset {
                    Subset::Exact(bits) => write.apply(&mut bytes, from, &|_| bits >> (nth % 64) & 1 == 1),
                    Subset::Torn(seed) => write.apply(&mut bytes, from, &|sector| {
                        Rng::new(seed + (nth * 100_000 + sector) as u64).next() >> 17 & 1 == 1
                    }),
                }
            }
            bytes
        };
        self.states += 1;
        let Some(position) = position else {
            assert!(open.iter().all(|w| w.bytes.is_some_and(|b| b.iter().all(|b| *b == 0))));
            return;
        };
        let (head, end) = (window(0, TABLE), window(base.len() - TABLE, TABLE));
        if !boots(&head, &end, self.sector) {
            return;
        }
        let right = self.right.unwrap_or_else(|| panic!("write {position}: boots what was refused"));
        let now = window(0, base.len());
        let held = MIB as usize;
        assert!(now[held..] == right[held..], "write {position}: boots an unfinished disk");
        if head[510..512] == [0x55, 0xaa] {
            assert!(now == right, "write {position}: a boot sector before the rest of the head");
        }
    }
}

/// The log of a write over an old bootable system, judged at every point.
fn cut_everywhere(
    image: &[u8],
    file: &[u8],
    format: ImageFormat,
    drive: Option<usize>,
    disk_size: usize,
    sector: usize,
) {
    let old = gpt_image(99, disk_size, sector);
    for wrong in [false, true] {
        let flip = wrong.then_some(file.len() as u64 - 1);
        let server = Server::new(file, [], Answer { flip, ..Answer::default() });
        let mut request = ask(&server.url(), format, file);
        request.image.require_partition_table = true;
        request.config_drive = drive.map(|size| Rng::new(5).bytes(size));
        let disk = MemDisk::new(disk_size as u64).with_sector(sector as u32).holding(&old);
        let (result, disk) = write(&request, disk);
        let (content, log) = (disk.content(), disk.log());
        assert_eq!(result.is_err(), wrong, "{}", words(&result));
        if !wrong {
            assert!(
                content[MIB as usize..image.len() - MIB as usize]
                    == image[MIB as usize..][..image.len() - (2 << 20)]
            );
            assert!(boots(&content[..TABLE], &content[disk_size - TABLE..], sector));
            if let Some(drive) = &request.config_drive {
                assert!((0..disk_size).step_by(512).any(|at| content[at..].starts_with(drive)));
            }
        }
        let right = (!wrong).then_some(content.as_slice());
        let mut trial = Trial { log: &log, right, sector, states: 0 };
        trial.run(&old);
        println!("{} states of {} log entries", trial.states, log.len());
        assert!(trial.states > 300);
    }
}

#[test]
fn a_raw_gpt_image_with_a_config_drive_boots_whole_or_not_at_all() {
    for sector in [512, 4096] {
        let image = gpt_image(21, 12 << 20, sector);
        cut_everywhere(&image, &image, ImageFormat::Raw, Some(300_000), DISK, sector);
    }
}

#[test]
fn a_qcow2_gpt_image_with_a_config_drive_boots_whole_or_not_at_all() {
    let image = gpt_image(22, 12 << 20, 512);
    let file = qcow2(&image, &["-c"]);
    cut_everywhere(&image, &file, ImageFormat::Qcow2, Some(2_000_000), DISK, 512);
}

#[test]
fn an_image_as_big_as_the_disk_boots_whole_or_not_at_all() {
    let image = gpt_image(23, 12 << 20, 512);
    cut_everywhere(&image, &image, ImageFormat::Raw, None, 12 << 20, 512);
}

#[test]
fn an_mbr_image_with_a_config_drive_boots_whole_or_not_at_all() {
    let image = mbr_image(24, 12 << 20);
    cut_everywhere(&image, &image, ImageFormat::Raw, Some(70_000), DISK, 512);
}
