//! Compressed raw images: what was packed is on the disk, and what is damaged is not.

use super::server::{Answer, Server};
use super::*;
use std::io::Write;

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let name = "disk.raw\u{e4}";
    let mut encoder = flate2::GzBuilder::new()
        .filename(name)
        .comment("a comment")
        .write(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zst(bytes: &[u8], window: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.window_log(window).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn bz2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two members, frames or streams, one behind the other.
fn twice(bytes: &[u8], pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2 + 17;
    [pack(&bytes[..middle]), pack(&bytes[middle..])].concat()
}

fn kinds(image: &[u8]) -> Vec<(Packing, Vec<u8>)> {
    vec![
        (Packing::Gz, gz(image)),
        (Packing::Gz, twice(image, gz)),
        (Packing::Xz, xz(image, 6)),
        (Packing::Xz, twice(image, |b| xz(b, 0))),
        (Packing::Zst, zst(image, 20)),
        (Packing::Zst, twice(image, |b| zst(b, 23))),
        (Packing::Zst, [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zst(image, 20)].concat()),
        (Packing::Bz2, bz2(image)),
        (Packing::Bz2, twice(image, bz2)),
    ]
}

#[test]
fn what_was_packed_is_on_the_disk() {
    for size in [5 << 20, (3 << 20) + 100] {
        let image = mbr_image(41, 5 << 20)[..size].to_vec();
        for (nth, (packing, file)) in (0..).zip(kinds(&image)) {
            let server = match nth % 3 {
                0 => Server::honest(&file),
                1 => Server::new(&file, [], Answer::no_ranges()),
                _ => Server::new(&file, [], Answer { chunked: true, ..Answer::no_ranges() }),
            };
            let mut request = ask(&server.url(), ImageFormat::Packed(packing), &file);
            request.verify = if nth % 2 == 0 { Verify::All } else { Verify::Sample };
            for disk in [MemDisk::new(5 << 20), MemDisk::new(9 << 20).without_offload()] {
                let (result, disk) = write(&request, disk);
                let report = result.unwrap_or_else(|e| panic!("{packing:?} {nth}: {}", e.for_operator()));
                assert!(disk.content().starts_with(&image), "{packing:?} {nth}");
                assert_eq!(report.virtual_size.0, size as u64);
                assert_eq!(report.received.0, file.len() as u64);
            }
        }
    }
}

#[test]
fn a_table_is_found_in_a_packed_image_before_the_first_write() {
    let table = gpt_image(42, 5 << 20, 512);
    let bare = disk_bytes(43, 5 << 20);
    for (image, expected) in
        [(&table, "complete"), (&bare, "the partition table: the image has no partition table")]
    {
        let file = gz(image);
        let server = Server::honest(&file);
        let mut request = ask(&server.url(), ImageFormat::Packed(Packing::Gz), &file);
        request.image.require_partition_table = true;
        let (result, disk) = write(&request, MemDisk::new(8 << 20));
        assert!(words(&result).starts_with(expected), "{}", words(&result));
        if result.is_err() {
            assert_eq!(left(&disk.content(), image), Left::Untouched);
        }
    }
}

fn refused(packing: Packing, file: &[u8], size: u64, expected: &str, on_disk: Left) {
    let server = Server::honest(file);
    let request = ask(&server.url(), ImageFormat::Packed(packing), file);
    let (result, disk) = write(&request, MemDisk::new(size));
    let text = words(&result);
    assert!(text.contains(expected), "{packing:?}: {text}");
    assert_eq!(left(&disk.content(), b"never"), on_disk, "{packing:?}: {text}");
}

#[test]
fn damage_is_named_and_leaves_the_disk_blank() {
    let image = disk_bytes(44, 4 << 20);
    for (packing, file) in kinds(&image) {
        let cut = &file[..file.len() - 9];
        refused(packing, cut, 8 << 20, "it ends too early", Left::Blank);
        refused(packing, &file, 3 << 20, "the image needs", Left::Blank);
        let behind = [&file[..], b"garbage behind it"].concat();
        refused(packing, &behind, 8 << 20, " stream at byte ", Left::Blank);
    }
    let mut file = gz(&image);
    let crc = file.len() - 8;
    file[crc] ^= 1;
    refused(
        Packing::Gz,
        &file,
        8 << 20,
        "corrupt gzip stream does not have a matching checksum",
        Left::Blank,
    );
    let mut file = zst(&image, 20);
    let end = file.len() - 1;
    file[end] ^= 1;
    refused(Packing::Zst, &file, 8 << 20, "checksum", Left::Blank);
    // A frame of which one byte was announced, with a block of five.
    let file = b"\x28\xb5\x2f\xfd\x20\x01\x29\0\0hello";
    refused(Packing::Zst, file, 8 << 20, "Data corruption detected", Left::Untouched);
    let mut file = gz(&image);
    file[3] |= 0x80;
    refused(Packing::Gz, &file, 8 << 20, "gzip", Left::Untouched);
}

/// Members without end that hold nothing.
#[test]
fn what_unpacks_to_nothing_ends_too() {
    let image = disk_bytes(47, 2 << 20);
    let file = [gz(&image), gz(b"").repeat((8 << 20) / gz(b"").len())].concat();
    let endless = Answer { chunked: true, ..Answer::no_ranges() };
    for (answer, expected) in [(Answer::default(), "complete"), (endless, "the image needs")] {
        let server = Server::new(&file, [], answer);
        let request = ask(&server.url(), ImageFormat::Packed(Packing::Gz), &file);
        let (result, _) = write(&request, MemDisk::new(4 << 20));
        assert!(words(&result).starts_with(expected), "{}", words(&result));
    }
}

#[test]
fn what_needs_too_much_memory_is_refused_before_the_first_write() {
    let image = disk_bytes(45, 4 << 20);
    refused(Packing::Xz, &xz(&image, 9), 8 << 20, "compress the image with xz -8 or less", Left::Untouched);
    let expected = "compress the image with zstd -19 or less, without --long";
    // The window is as large as the content unless the size is not said.
    refused(Packing::Zst, &zst(&image, 27), 8 << 20, expected, Left::Untouched);
}

#[test]
fn a_packed_image_must_hold_a_raw_one() {
    let inner = qcow2(&disk_bytes(46, 2 << 20), &[]);
    refused(Packing::Gz, &gz(&inner), 8 << 20, "declared raw, but its content is qcow2", Left::Untouched);
    refused(Packing::Xz, &xz(&[], 6), 8 << 20, "the image is empty", Left::Blank);
    refused(Packing::Gz, &xz(&inner, 6), 8 << 20, "declared raw.gz, but its content is xz", Left::Untouched);
}
