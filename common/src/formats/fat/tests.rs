//! Config drives of genisoimage and of our own in, what fsck.vfat and mtools say of the file system out.

use super::*;
use crate::formats::iso9660::{self, read::read};
use crate::units::MIB;
use std::borrow::ToOwned;
use std::path::{Path, PathBuf};
use std::process::Command;

const MOST: ByteCount = ByteCount(64 * MIB);

/// A folder of this test's own that is gone at its end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ferric-fat-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn tool(program: &str, args: &[&str]) -> Vec<u8> {
    let path = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
    let out = Command::new(program).args(args).env("PATH", path).env("TZ", "UTC").output();
    let out =
        out.unwrap_or_else(|e| panic!("{program} (Debian packages dosfstools, genisoimage, mtools): {e}"));
    let text = [&out.stdout[..], &out.stderr].map(|t| String::from_utf8_lossy(t).into_owned()).concat();
    assert!(out.status.success(), "{program} {args:?}: {text}");
    out.stdout
}

/// What a config drive has, with names that want long records and a file of many clusters.
pub(super) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let long: Vec<u8> = (0..9000_u32).flat_map(|n| n.to_le_bytes()).collect();
    vec![
        ("ec2/2009-04-04/meta-data.json", b"{}".to_vec()),
        ("openstack/2012-08-10/user_data", long.clone()),
        ("openstack/content/0000", vec![7; CLUSTER]),
        ("openstack/latest/a-name-of-sixty-four-characters-0123456789-0123456789-012.tar.gz", b"x".to_vec()),
        ("openstack/latest/meta_data.json", b"{\"uuid\": 1}".to_vec()),
        ("openstack/latest/network_data.json", Vec::new()),
        ("openstack/latest/user_data", long),
    ]
}

fn genisoimage(folder: &Path, options: &[&str]) -> Vec<u8> {
    let (tree, iso) = (folder.join("tree"), folder.join("iso"));
    for (path, bytes) in files() {
        let file = tree.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let last = ["-quiet", "-V", "config-2", "-o", iso.to_str().unwrap(), tree.to_str().unwrap()];
    tool("genisoimage", &[options, &last].concat());
    std::fs::read(iso).unwrap()
}

/// Paths and contents, in order.
pub(super) fn listed(entries: &[Entry<'_>]) -> Vec<(String, Vec<u8>)> {
    let path = |entry: &Entry<'_>| {
        let mut path = entry.name.clone();
        let mut above = entry.parent;
        while above != 0 {
            path = format!("{}/{path}", entries[above].name);
            above = entries[above].parent;
        }
        path
    };
    let files = entries.iter().filter_map(|entry| Some((path(entry), entry.bytes.as_deref()?.to_vec())));
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

pub(super) fn wanted() -> Vec<(String, Vec<u8>)> {
    files().into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect()
}

/// What the tools find on it: paths and contents, after a check.
pub(super) fn found(folder: &Path, image: &[u8]) -> Vec<(String, Vec<u8>)> {
    let path = folder.join("fat");
    std::fs::write(&path, image).unwrap();
    let path = path.to_str().unwrap();
    let checked = String::from_utf8(tool("fsck.vfat", &["-n", "-v", path])).unwrap();
    assert!(!checked.contains("Differences") && !checked.to_lowercase().contains("error"), "{checked}");
    let names = String::from_utf8(tool("mdir", &["-/", "-b", "-i", path, "::"])).unwrap();
    let names = names.lines().filter(|name| !name.ends_with('/'));
    let mut files: Vec<_> = names
        .map(|name| (name.trim_start_matches("::/").to_owned(), tool("mtype", &["-i", path, name])))
        .collect();
    files.sort();
    files
}

#[test]
fn what_genisoimage_wrote_is_read_by_long_names_and_comes_out_of_fat() {
    for (name, options) in [
        ("both", &["-J", "-r", "-joliet-long"][..]),
        ("rock", &["-r"]),
        ("joliet", &["-J", "-joliet-long"]),
        // As Ironic calls it.
        ("ironic", &["-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-joliet-long", "-r"]),
    ] {
        let folder = Folder::new(name);
        let iso = genisoimage(&folder.0, options);
        let entries = read(&iso, MOST).unwrap();
        assert_eq!(listed(&entries), wanted(), "{name}");
        for sector in [512, 4096] {
            let image = build("CONFIG-2", 0x1234_abcd, SectorSize(sector), &entries).unwrap();
            assert_eq!(found(&folder.0, &image), wanted(), "{name}, sectors of {sector}");
            let volume = crate::formats::volume::read(&image).unwrap();
            assert_eq!((volume.kind, volume.label.as_str()), ("vfat", "CONFIG-2"));
            let path = folder.0.join("fat");
            let said = tool("blkid", &["-p", "-o", "export", path.to_str().unwrap()]);
            let said = String::from_utf8(said).unwrap();
            for line in ["LABEL=CONFIG-2", "UUID=1234-ABCD", "TYPE=vfat", &format!("BLOCK_SIZE={sector}")] {
                assert!(said.lines().any(|said| said == line), "{line}: {said}");
            }
        }
    }
}

#[test]
fn our_own_drives_and_plain_names_are_read() {
    let files = files();
    let given: Vec<_> = files.iter().map(|(path, bytes)| iso9660::File { path, bytes }).collect();
    let iso = iso9660::build("config-2", "ferric", &given, 1_700_000_001).unwrap();
    let entries = read(&iso, MOST).unwrap();
    assert_eq!(listed(&entries), wanted());
    assert!(entries[1..].iter().all(|entry| entry.modified == [2023, 11, 14, 22, 13, 21]));
    let folder = Folder::new("plain");
    let mut names = listed(&read(&genisoimage(&folder.0, &["-l"]), MOST).unwrap());
    names.retain(|(path, _)| path == "openstack/latest/meta_data.json");
    assert_eq!(names.len(), 1);
}

#[test]
fn many_clusters_make_a_fat_of_16_bits_and_dates_are_kept() {
    let folder = Folder::new("large");
    let bytes: Vec<u8> = (0..18 * MIB / 8).flat_map(u64::to_le_bytes).collect();
    let files =
        [iso9660::File { path: "d/large", bytes: &bytes }, iso9660::File { path: "d/none", bytes: b"" }];
    let iso = iso9660::build("config-2", "ferric", &files, 1_700_000_001).unwrap();
    let image = build("CONFIG-2", 1, SectorSize(4096), &read(&iso, MOST).unwrap()).unwrap();
    assert_eq!(image[54..62], *b"FAT16   ");
    assert_eq!(found(&folder.0, &image), [("d/large".to_owned(), bytes), ("d/none".to_owned(), Vec::new())]);
    let path = folder.0.join("fat");
    let said = String::from_utf8(tool("mdir", &["-i", path.to_str().unwrap(), "::/d"])).unwrap();
    assert!(said.contains("2023-11-14  22:13"), "{said}");
}

#[test]
fn many_files_fill_directories_of_several_clusters() {
    let folder = Folder::new("many");
    let names: Vec<String> = (0..600).map(|n| format!("d/{n}-of-many-files-with-a-long-name")).collect();
    let files: Vec<_> = names.iter().map(|path| iso9660::File { path, bytes: path.as_bytes() }).collect();
    let iso = iso9660::build("l", "p", &files, 0).unwrap();
    let image = build("CONFIG-2", 1, SectorSize(4096), &read(&iso, MOST).unwrap()).unwrap();
    let mut wanted: Vec<_> = names.iter().map(|name| (name.clone(), name.as_bytes().to_vec())).collect();
    wanted.sort();
    assert_eq!(found(&folder.0, &image), wanted);
}

#[test]
fn what_fat_cannot_hold_is_refused() {
    let entry =
        |name: &str, parent| Entry { name: name.into(), parent, bytes: Some(b"".into()), modified: [0; 6] };
    let root = || Entry { bytes: None, ..entry("", 0) };
    let refused = |names: &[&str]| {
        let entries: Vec<_> = [root()].into_iter().chain(names.iter().map(|name| entry(name, 0))).collect();
        build("L", 0, SectorSize(4096), &entries).unwrap_err().to_string()
    };
    let long = "x".repeat(256);
    for name in ["", "a:b", "a\\b", "a/b", "a\u{1b}", "a.", "a ", "..", &long] {
        assert!(refused(&[name]).ends_with("is no name that FAT can hold"), "{name:?}");
    }
    assert_eq!(
        refused(&["Ä", "b", "ä"]),
        "ä is there twice: FAT does not tell capital letters from small ones"
    );
    let two = [root(), Entry { bytes: None, ..entry("a", 0) }, entry("x", 0), entry("X", 1)];
    build("L", 0, SectorSize(4096), &two).unwrap();
    for sector in [0, 256, 2049, 8192] {
        assert_eq!(build("L", 0, SectorSize(sector), &two), Err(FatError::Sector(sector)));
    }
    let bytes = vec![0; CLUSTER * (FAT32 - 1)];
    let many = [
        root(),
        Entry { bytes: Some(bytes.as_slice().into()), ..entry("a", 0) },
        Entry { bytes: Some(b"x".into()), ..entry("b", 0) },
    ];
    assert!(build("L", 0, SectorSize(512), &many).unwrap_err().to_string().contains("more than it can hold"));
    let names: Vec<String> = (0..4000).map(|n| format!("{n:0>250}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(refused(&names).contains("more than 65000 records"));
}
