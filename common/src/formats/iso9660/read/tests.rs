//! Images whose places, lengths and names are wrong on purpose.

use super::*;
use crate::formats::iso9660::{File, build};
use crate::units::MIB;
use alloc::vec;

const MOST: ByteCount = ByteCount(MIB);

fn image() -> Vec<u8> {
    let files = [("d/e/file", &b"content"[..]), ("top", b"more")];
    build("config-2", "p", &files.map(|(path, bytes)| File { path, bytes }), 0).unwrap()
}

fn refused(change: impl FnOnce(&mut [u8])) -> String {
    let mut image = image();
    change(&mut image);
    read(&image, MOST).unwrap_err().to_string()
}

/// Where the record of a name begins, in Rock Ridge's directories.
fn record_of(image: &[u8], name: &str) -> usize {
    let field = [b"NM", &[name.len() as u8 + 5, 1, 0][..], name.as_bytes()].concat();
    let at = image.windows(field.len()).position(|window| window == field).unwrap();
    let is_record = |start: &usize| image[*start] as usize > at - start && image[start + 32] > 0;
    (at - 60..at).find(|start| is_record(start) && image[start + 28..start + 32] == [1, 0, 0, 1]).unwrap()
}

#[test]
fn places_and_lengths_outside_are_refused() {
    assert_eq!(read(&[], MOST), Err(ReadError::NoVolume));
    assert_eq!(read(&vec![0; 64 << 10], MOST), Err(ReadError::NoVolume));
    assert_eq!(
        refused(|i| i[16 * SECTOR + 158..][..4].fill(0xff)),
        "the root directory lies outside of the image"
    );
    let top = record_of(&image(), "top");
    assert_eq!(refused(|i| i[top + 2..][..4].fill(0xff)), "the file top lies outside of the image");
    assert_eq!(refused(|i| i[top + 10..][..4].fill(0x7f)), "the file top lies outside of the image");
    let d = record_of(&image(), "d");
    assert!(refused(|i| i[d + 10..][..4].fill(0x7f)).starts_with("a directory in sector "));
    assert_eq!(refused(|i| i[top] = 20), format!("the directory record at byte {top} is cut off"));
    assert_eq!(refused(|i| i[top + 32] = 250), format!("the directory record at byte {top} is cut off"));
    // Every cut of the image is understood or refused, and never more than it was.
    let whole = image();
    for end in (0..whole.len()).step_by(7) {
        assert!(read(&whole[..end], MOST).is_err() || end > whole.len() - SECTOR);
    }
}

#[test]
fn circles_and_overlaps_end() {
    let whole = image();
    let (d, top) = (record_of(&whole, "d"), record_of(&whole, "top"));
    let root = whole[16 * SECTOR + 158..][..12].to_vec();
    assert_eq!(
        refused(|i| i[d + 2..][..12].copy_from_slice(&root)),
        "it has more than 16 levels of directories"
    );
    // A file that is the whole image, and one more.
    let all = (whole.len() as u32).to_le_bytes();
    assert_eq!(
        read(&whole, ByteCount(10)).unwrap_err().to_string(),
        format!("its files hold more than {}", ByteCount(10))
    );
    let mut large = whole.clone();
    large[top + 2..][..4].fill(0);
    large[top + 10..][..4].copy_from_slice(&all);
    assert_eq!(
        read(&large, ByteCount(whole.len() as u64)),
        Err(ReadError::TooLarge(ByteCount(whole.len() as u64)))
    );
    // Directories of dots alone are looked at once, too.
    let mut dots = vec![0; 24 << 20];
    dots[..whole.len()].copy_from_slice(&whole);
    let dot = [&[34][..], &[0; 24], &[2, 0, 0, 1, 0, 0, 1, 1, 0]].concat();
    for sector in dots[64 * SECTOR..].chunks_exact_mut(SECTOR) {
        sector[..60 * 34].copy_from_slice(&dot.repeat(60));
    }
    dots[d + 2..][..4].copy_from_slice(&64_u32.to_le_bytes());
    dots[d + 10..][..4].copy_from_slice(&(20_u32 << 20).to_le_bytes());
    assert_eq!(read(&dots, MOST).unwrap_err().to_string(), "it has more than 65536 directory records");
}

#[test]
fn links_devices_and_pieces_are_named_and_refused() {
    let whole = image();
    let top = record_of(&whole, "top");
    let end = top + whole[top] as usize;
    let at = |field: &[u8]| top + whole[top..end].windows(2).position(|window| window == field).unwrap();
    let (px, tf) = (at(b"PX"), at(b"TF"));
    let kind = |what: &str| format!("top is {what}, which a config drive does not have");
    assert_eq!(refused(|i| i[px + 5] = 0xa1), kind("a device, pipe, socket or link"));
    assert_eq!(refused(|i| i[tf..tf + 2].copy_from_slice(b"SL")), kind("a link"));
    assert_eq!(refused(|i| i[tf..tf + 2].copy_from_slice(b"CL")), kind("a directory that was moved up"));
    assert_eq!(refused(|i| i[top + 25] = 0x80), kind("a file in several parts"));
    assert_eq!(refused(|i| i[top + 26] = 1), kind("a file in several parts"));
    // Names that go on somewhere else: outside, and in a circle.
    let goes_on = |i: &mut [u8], sector: u32, length: u32| {
        i[tf..tf + 4].copy_from_slice(b"CE\x1a\x01");
        i[tf + 4..][..4].copy_from_slice(&sector.to_le_bytes());
        i[tf + 12..][..4].fill(0);
        i[tf + 20..][..4].copy_from_slice(&length.to_le_bytes());
    };
    assert_eq!(refused(|i| goes_on(i, 1 << 20, 9)), "a record's continuation lies outside of the image");
    let circle = |i: &mut [u8]| {
        goes_on(i, 1, 28);
        let field = i[tf..tf + 26].to_vec();
        i[SECTOR..SECTOR + 26].copy_from_slice(&field);
    };
    assert_eq!(refused(circle), "it has more than 16 continuations of a record");
}
