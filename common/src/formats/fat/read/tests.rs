//! File systems of mkfs.vfat, filled by mtools, and images that are wrong on purpose.

use super::*;
use crate::formats::fat::tests::{Folder, files, found, listed, tool, wanted};
use crate::formats::fat::{CLUSTER, build};
use crate::units::{MIB, SectorSize};
use alloc::vec;
use std::path::Path;

const MOST: ByteCount = ByteCount(64 * MIB);

/// A file system with what a config drive has.
fn made(folder: &Path, options: &[&str], kib: u64) -> Vec<u8> {
    let path = folder.join("image");
    let _ = std::fs::remove_file(&path);
    let image = path.to_str().unwrap();
    let size = kib.to_string();
    tool("mkfs.vfat", &[&["-C", "-n", "CONFIG-2"], options, &[image, &size]].concat());
    for (name, bytes) in files() {
        let mut above = String::new();
        for part in name.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            above = format!("{above}/{part}");
            // One that is there already is no failure of ours.
            let _ = std::process::Command::new("mmd")
                .args(["-D", "s", "-i", image, &format!("::{above}")])
                .output();
        }
        put_file(folder, image, name, &bytes);
    }
    std::fs::read(path).unwrap()
}

fn put_file(folder: &Path, image: &str, name: &str, bytes: &[u8]) {
    let file = folder.join("file");
    std::fs::write(&file, bytes).unwrap();
    tool("mcopy", &["-D", "o", "-i", image, file.to_str().unwrap(), &format!("::/{name}")]);
}

#[test]
fn what_mkfs_and_mtools_wrote_is_read_and_comes_out_for_other_sectors() {
    for (name, options, kib, sector) in [
        ("twelve", &["-F", "12"][..], 4096, 512),
        ("sixteen", &["-F", "16", "-s", "2"], 16 << 10, 512),
        ("thirty-two", &["-F", "32", "-s", "1"], 40 << 10, 512),
        ("one-fat", &["-F", "16", "-f", "1"], 16 << 10, 512),
        ("larger", &["-F", "16", "-S", "2048"], 40 << 10, 2048),
        ("by-itself", &[], 64 << 10, 512),
    ] {
        let folder = Folder::new(&format!("read-{name}"));
        let image = made(&folder.0, options, kib);
        assert_eq!(sector_size(&image), Some(sector), "{name}");
        let entries = read(&image, MOST).unwrap();
        assert_eq!(listed(&entries), wanted(), "{name}");
        assert!(entries.iter().all(|e| e.bytes.is_none() || e.modified[0] > 2020), "{name}");
        if name == "thirty-two" {
            // With fewer clusters than the specification asks for it is still one of 32 bits, as Linux reads it.
            let mut fewer = image.clone();
            fewer[32..36].copy_from_slice(&(20_u32 << 11).to_le_bytes());
            assert_eq!(listed(&read(&fewer, MOST).unwrap()), wanted());
        }
        let other = build("CONFIG-2", 1, SectorSize(4096), &entries).unwrap();
        assert_eq!((sector_size(&other), found(&folder.0, &other)), (Some(4096), wanted()), "{name}");
        assert_eq!(listed(&read(&other, MOST).unwrap()), wanted(), "{name}");
    }
}

#[test]
fn a_file_in_pieces_and_a_directory_of_many_clusters_are_read_whole() {
    let folder = Folder::new("read-pieces");
    let image = folder.0.join("image");
    let image = image.to_str().unwrap();
    tool("mkfs.vfat", &["-C", "-F", "12", "-s", "1", image, "512"]);
    // No room is left but where the first and the third were.
    let sized = |letter: u8, length: usize| vec![letter; length];
    for (name, length) in [("a", 100 << 10), ("b", 100 << 10), ("c", 100 << 10), ("d", 100 << 10)] {
        put_file(&folder.0, image, name, &sized(name.as_bytes()[0], length));
    }
    tool("mdel", &["-i", image, "::/a", "::/c"]);
    let pieces: Vec<u8> = (0..45_000_u32).flat_map(u32::to_le_bytes).collect();
    put_file(&folder.0, image, "pieces", &pieces);
    tool("mdel", &["-i", image, "::/b"]);
    tool("mmd", &["-i", image, "::/many"]);
    for number in 0..40 {
        put_file(&folder.0, image, &format!("many/{number:0>60}"), b"x");
    }
    let bytes = std::fs::read(image).unwrap();
    let entries = read(&bytes, MOST).unwrap();
    let of = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().bytes.clone().unwrap();
    assert!(matches!(of("pieces"), Cow::Owned(_)), "the test did not make pieces");
    assert_eq!(of("pieces"), pieces);
    assert!(matches!(of("d"), Cow::Borrowed(_)));
    assert_eq!(entries.iter().filter(|entry| entries[entry.parent].name == "many").count(), 40);
}

#[test]
fn a_file_system_that_holds_nothing_is_one() {
    let folder = Folder::new("read-nothing");
    let empty = build("CONFIG-2", 1, SectorSize(512), &[Entry::root()]).unwrap();
    let path = folder.0.join("fat");
    std::fs::write(&path, &empty).unwrap();
    tool("fsck.vfat", &["-n", path.to_str().unwrap()]);
    assert_eq!(read(&empty, MOST).unwrap(), [Entry::root()]);
}

#[test]
fn names_are_shown_as_linux_shows_them() {
    let mut records = vec![0; 12 * RECORD];
    let mut at = 0;
    let mut put = |short: &[u8; 11], attribute: u8, case: u8| {
        records[at..at + 11].copy_from_slice(short);
        (records[at + 11], records[at + 12]) = (attribute, case);
        at += RECORD;
    };
    put(b"CONFIG-2   ", 0x08, 0);
    put(b".          ", 0x10, 0);
    put(b"..         ", 0x10, 0);
    put(b"META    JSN", 0x20, 0);
    put(b"META    JSN", 0x20, 0x18);
    put(b"UPPER   JSN", 0x20, 0x10);
    put(b"\xe5ONE    JSN", 0x20, 0);
    put(b"NONE       ", 0x10, 0);
    let names: Vec<String> = directory(&records).into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["META.JSN", "meta.jsn", "UPPER.jsn", "NONE"]);
    // A long name counts only before its own record, and only whole.
    let long = crate::formats::fat::long_name("network_data.json", b"NETWOR~1JSN");
    let mut record = [0_u8; RECORD];
    record[..11].copy_from_slice(b"NETWOR~1JSN");
    let name = |records: &[&[u8]]| directory(&records.concat()).remove(0).name;
    assert_eq!(name(&[&long, &record]), "network_data.json");
    assert_eq!(name(&[&long[RECORD..], &record]), "NETWOR~1.JSN");
    assert_eq!(name(&[&long[..RECORD], &record]), "NETWOR~1.JSN");
    record[0] = b'X';
    assert_eq!(name(&[&long, &record]), "XETWOR~1.JSN");
}

fn small() -> Vec<u8> {
    let file = |name: &str, parent, bytes: &'static [u8]| Entry {
        name: name.to_string(),
        parent,
        bytes: Some(bytes.into()),
        modified: [0; 6],
    };
    let folder = Entry { name: "d".to_string(), ..Entry::root() };
    let long: &[u8] = &[7; 3 * CLUSTER];
    build("L", 1, SectorSize(512), &[Entry::root(), folder, file("f", 1, long), file("g", 0, b"g")]).unwrap()
}

/// Where the record of a short name stands.
fn record_of(image: &[u8], name: &[u8]) -> usize {
    (0..image.len()).step_by(RECORD).find(|at| image[*at..].starts_with(name)).unwrap()
}

fn refused(change: impl FnOnce(&mut [u8])) -> String {
    let mut image = small();
    change(&mut image);
    read(&image, MOST).unwrap_err().to_string()
}

#[test]
fn places_and_chains_that_are_wrong_are_refused() {
    let whole = small();
    assert_eq!(read(&[], MOST), Err(ReadError::NoVolume));
    for (at, value) in [(510, 0), (12, 3), (13, 3), (13, 0), (14, 0), (16, 9), (19, 1)] {
        assert_eq!(refused(|i| i[at] = value), "no FAT file system begins here", "byte {at}");
    }
    let (d, f, g) = (record_of(&whole, b"D~0"), record_of(&whole, b"F~0"), record_of(&whole, b"G~1"));
    assert_eq!(refused(|i| i[g + 27] = 0x7f), "file g lies outside of the image");
    assert_eq!(refused(|i| i[g + 31] = 0x7f), format!("its files hold more than {MOST}"));
    assert_eq!(refused(|i| i[f + 30] = 0x7f), "file f lies outside of the image");
    let chain = |what| {
        format!("the chain of clusters of {what} ends early or leads to one that is free, bad or not there")
    };
    assert_eq!(refused(|i| i[f + 29] = 0x31), chain("file f"));
    assert_eq!(refused(|i| i[d + 27] = 0x7f), chain("directory d"));
    // The first FAT: the directory's cluster is free; or follows itself.
    let cluster = usize::from(whole[d + 26]);
    let entry = |image: &mut [u8], value: [u8; 2]| {
        let at = 512 + cluster + cluster / 2;
        let shift = 4 * (cluster % 2);
        let pair = u16::from_le_bytes([image[at], image[at + 1]]);
        let value = (u16::from_le_bytes(value) << shift) | (pair & !(0xfff << shift));
        image[at..at + 2].copy_from_slice(&value.to_le_bytes());
    };
    assert_eq!(refused(|i| entry(i, [0, 0])), chain("directory d"));
    assert_eq!(refused(|i| entry(i, [whole[d + 26], 0])), "it has more than 16 MiB of directories");
    // The upper half of a first cluster is one with 32 bits alone.
    let mut other = whole.clone();
    other[f + 20] = 0x7f;
    assert_eq!(read(&other, MOST), read(&whole, MOST));
    // Cut off anywhere, it is refused, or what is missing is behind the last byte of the last file.
    for end in (0..whole.len()).step_by(13) {
        assert!(read(&whole[..end], MOST).is_err() || end > whole.len() - CLUSTER);
    }
}

#[test]
fn a_directory_that_holds_itself_ends() {
    let whole = small();
    let (d, g) = (record_of(&whole, b"D~0"), record_of(&whole, b"G~1"));
    let own = whole[d + 26];
    // The file in it becomes a directory: itself.
    assert_eq!(
        refused(|i| {
            let f = record_of(i, b"F~0");
            (i[f + 11], i[f + 26]) = (0x10, own);
            i[g] = 0xe5;
        }),
        "it has more than 16 levels of directories"
    );
}
