//! Power cuts: every state the machine could wake up in after a cut within a write, as far as the log of the disk tells. The
//! judge is that of the tests with machines.

use super::server::{Answer, Server};
use super::*;
use crate::platform::fake::block::LogEntry;
use ferric_tests::powercut::{self, Entry, Rule};

const DISK: usize = 24 << 20;

fn entry(entry: &LogEntry) -> Entry<'_> {
    match entry {
        LogEntry::Write { at, bytes } => Entry::Write { at: *at as usize, bytes },
        LogEntry::Zero { at, length } => Entry::Zero { at: *at as usize, length: *length as usize },
        LogEntry::Flush => Entry::Flush,
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
            let (head, end) = (&content[..MIB as usize], &content[disk_size - MIB as usize..]);
            assert!(powercut::boots(head, end, sector));
            if let Some(drive) = &request.config_drive {
                assert!((0..disk_size).step_by(512).any(|at| content[at..].starts_with(drive)));
            }
        }
        let right = (!wrong).then_some(content.as_slice());
        let log = log.iter().map(entry).collect::<Vec<_>>();
        let judged = powercut::judge(&old, &log, Rule { right, sector, samples: 40 }).unwrap();
        println!("{judged:?}");
        assert!(judged.states > 2000 && (judged.bootable > 0) != wrong, "{judged:?}");
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
