//! Writes ISO 9660 images: small trees of files for config drives; [`read`] reads them.
//!
//! Rock Ridge and Joliet both carry the long lower-case names, since Linux reads the one and other systems the other.
//! Deterministic: the same files and time give the same bytes. What is in the files is the caller's business.
//! Specifications: ECMA-119 (ISO 9660), SUSP 1.12, RRIP 1.09, Joliet 1995; level 2 names.

pub mod read;

use crate::units::ByteCount;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

const SECTOR: usize = 2048;
/// First sector behind the system area and the three volume descriptors.
const FIRST_FREE: usize = 19;
/// Longest name, in characters: Joliet's limit.
const NAME: usize = 64;
/// Longest name of level 2, with the dot and without the version.
const LEVEL_2_NAME: usize = 30;
/// Files and directories in an image. A config drive has ten; the layout below compares each with each.
const ENTRIES: usize = 1000;

/// Why no image was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsoError {
    #[error(
        "volume label or publisher {0:?}: 1 to 16 (label) or 128 (publisher) printable ASCII characters are possible"
    )]
    Label(String),
    #[error("{0:?} is no name for a file: 1 to 64 printable ASCII characters between slashes, not . or ..")]
    Name(String),
    #[error("{0:?} is there twice (in ISO 9660's upper-case names)")]
    Duplicate(String),
    #[error("{0} files are more than an image can hold")]
    TooMany(usize),
    #[error("files of {0} are more than an image can hold")]
    TooLarge(ByteCount),
}

/// A file of the image; directories come from the slashes in `path`.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    pub path: &'a str,
    pub bytes: &'a [u8],
}

/// Builds an image. `time` is in seconds since 1970, UTC, and stands on every file.
///
/// # Errors
/// [`IsoError`]: names or sizes that the format cannot express.
pub fn build(label: &str, publisher: &str, files: &[File<'_>], time: u64) -> Result<Vec<u8>, IsoError> {
    for (text, limit) in [(label, 16), (publisher, 128)] {
        if text.is_empty() || text.len() > limit || !text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
            return Err(IsoError::Label(text.into()));
        }
    }
    let tree = Tree::new(files)?;
    let date = Date::from_unix(time);
    let total: usize = files.iter().map(|f| f.bytes.len().div_ceil(SECTOR) * SECTOR).sum();
    if total > u32::MAX as usize / 2 {
        return Err(IsoError::TooLarge(ByteCount(total as u64)));
    }

    let mut next = FIRST_FREE;
    let primary = Space::lay_out(&tree, Names::Primary, &date, &mut next)?;
    let joliet = Space::lay_out(&tree, Names::Joliet, &date, &mut next)?;
    // Equal files are stored twice: sharing their bytes makes some readers (libarchive) see links instead of files.
    let mut places = Vec::with_capacity(tree.nodes.len());
    for node in &tree.nodes {
        let length = node.bytes.map_or(0, <[u8]>::len);
        places.push((next, length));
        next += length.div_ceil(SECTOR);
    }

    let mut image = vec![0; next * SECTOR];
    for (sector, space) in [(16, &primary), (17, &joliet)] {
        put(&mut image, sector, &space.descriptor(label, publisher, next, &date));
        for (sector, bytes) in space.render(&tree, &places, &date) {
            put(&mut image, sector, &bytes);
        }
    }
    put(&mut image, 18, b"\xffCD001\x01");
    for (node, (sector, _)) in tree.nodes.iter().zip(&places) {
        put(&mut image, *sector, node.bytes.unwrap_or_default());
    }
    Ok(image)
}

/// A file (`bytes` is set) or a directory. The root is the first and its own parent.
struct Node<'a> {
    name: &'a str,
    parent: usize,
    bytes: Option<&'a [u8]>,
}

struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

impl<'a> Tree<'a> {
    fn new(files: &[File<'a>]) -> Result<Tree<'a>, IsoError> {
        let mut tree = Tree { nodes: vec![Node { name: "", parent: 0, bytes: None }] };
        for file in files {
            let (directories, name) = match file.path.rsplit_once('/') {
                Some((directories, name)) => (Some(directories), name),
                None => (None, file.path),
            };
            let mut parent = 0;
            for directory in directories.into_iter().flat_map(|d| d.split('/')) {
                let known = tree.children(parent).find(|(_, n)| n.name == directory);
                parent = match known.map(|(at, node)| (at, node.bytes)) {
                    Some((at, None)) => at,
                    Some((_, Some(_))) => return Err(IsoError::Duplicate(file.path.into())),
                    None => tree.add(Node { name: directory, parent, bytes: None }, file.path)?,
                };
            }
            tree.add(Node { name, parent, bytes: Some(file.bytes) }, file.path)?;
        }
        Ok(tree)
    }

    fn add(&mut self, node: Node<'a>, path: &str) -> Result<usize, IsoError> {
        let printable = node.name.bytes().all(|b| (b'!'..0x7f).contains(&b) && !b"*/:;?\\".contains(&b));
        if node.name.is_empty() || node.name.len() > NAME || [".", ".."].contains(&node.name) || !printable {
            return Err(IsoError::Name(path.into()));
        }
        let identifier = Names::Primary.identifier(&node);
        let clashes =
            |other: &Node<'_>| other.name == node.name || Names::Primary.identifier(other) == identifier;
        if self.children(node.parent).any(|(_, other)| clashes(other)) {
            return Err(IsoError::Duplicate(path.into()));
        }
        if self.nodes.len() >= ENTRIES {
            return Err(IsoError::TooMany(self.nodes.len()));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn children(&self, of: usize) -> impl Iterator<Item = (usize, &Node<'a>)> {
        self.nodes.iter().enumerate().skip(1).filter(move |(_, node)| node.parent == of)
    }

    fn parent(&self, of: usize) -> usize {
        self.nodes.get(of).map_or(0, |node| node.parent)
    }
}

/// Which of the two name spaces of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Primary,
    Joliet,
}

impl Names {
    fn identifier(self, node: &Node<'_>) -> Vec<u8> {
        if self == Names::Joliet {
            return ucs2(node.name);
        }
        let (stem, extension) = match node.bytes.and(node.name.rsplit_once('.')) {
            Some((stem, extension)) if extension.len() < LEVEL_2_NAME => (stem, Some(extension)),
            _ => (node.name, None),
        };
        let plain = |text: &str, limit: usize| {
            text.bytes()
                .take(limit)
                .map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() } else { b'_' })
                .collect::<Vec<u8>>()
        };
        let mut out = plain(stem, LEVEL_2_NAME - extension.map_or(0, str::len));
        if node.bytes.is_some() {
            out.push(b'.');
            out.extend(plain(extension.unwrap_or(""), LEVEL_2_NAME));
            out.extend(b";1");
        }
        out
    }
}

/// One name space: where its path tables and directories are.
struct Space {
    names: Names,
    /// Sectors of the little-endian and the big-endian path table.
    tables: (usize, usize),
    table_bytes: usize,
    /// Directories in the order of the path table: node, sector, bytes.
    directories: Vec<(usize, usize, usize)>,
}

impl Space {
    fn lay_out(tree: &Tree<'_>, names: Names, date: &Date, next: &mut usize) -> Result<Space, IsoError> {
        // By depth, then by parent, then by name: breadth first with sorted children.
        let mut order = vec![0];
        let mut at = 0;
        while let Some(&directory) = order.get(at) {
            let children = sorted(tree, directory, names);
            order.extend(
                children.into_iter().filter(|&c| tree.nodes.get(c).is_some_and(|n| n.bytes.is_none())),
            );
            at += 1;
        }
        let mut space = Space { names, tables: (0, 0), table_bytes: 0, directories: Vec::new() };
        // Sizes do not depend on places, so a first rendering with all places zero tells them.
        space.directories = order.iter().map(|&node| (node, 0, 0)).collect();
        space.table_bytes = space.path_table(tree, u32::to_le_bytes, u16::to_le_bytes).len();
        let table_sectors = space.table_bytes.div_ceil(SECTOR);
        space.tables = (*next, *next + table_sectors);
        *next += 2 * table_sectors;
        let nowhere = vec![(0, 0); tree.nodes.len()];
        let placed = order.iter().map(|&node| {
            let bytes = space.directory(tree, node, &nowhere, date).len();
            let sector = *next;
            *next += bytes / SECTOR;
            (node, sector, bytes)
        });
        space.directories = placed.collect();
        Ok(space)
    }

    fn render(&self, tree: &Tree<'_>, files: &[(usize, usize)], date: &Date) -> Vec<(usize, Vec<u8>)> {
        let mut parts = vec![
            (self.tables.0, self.path_table(tree, u32::to_le_bytes, u16::to_le_bytes)),
            (self.tables.1, self.path_table(tree, u32::to_be_bytes, u16::to_be_bytes)),
        ];
        let directories = self.directories.iter();
        parts.extend(directories.map(|&(node, sector, _)| (sector, self.directory(tree, node, files, date))));
        parts
    }

    fn path_table(&self, tree: &Tree<'_>, long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mut table = Vec::new();
        for &(node, sector, _) in &self.directories {
            let id = match tree.nodes.get(node).filter(|_| node != 0) {
                Some(node) => self.names.identifier(node),
                None => vec![0],
            };
            let parent = tree.parent(node);
            let number = self.directories.iter().position(|d| d.0 == parent).unwrap_or(0) + 1;
            table.extend([id.len() as u8, 0]);
            table.extend(long(sector as u32));
            table.extend(short(number as u16));
            table.extend(&id);
            table.extend(vec![0; id.len() % 2]);
        }
        table
    }

    /// A directory's records as whole sectors; no record crosses from one sector to the next.
    fn directory(&self, tree: &Tree<'_>, node: usize, files: &[(usize, usize)], date: &Date) -> Vec<u8> {
        let mut out = Vec::new();
        let mut push = |record: Vec<u8>| {
            let left = SECTOR - out.len() % SECTOR;
            if record.len() > left {
                out.resize(out.len() + left, 0);
            }
            out.extend(record);
        };
        for (id, of) in [(0u8, node), (1, tree.parent(node))] {
            let mut extra = Vec::new();
            if self.names == Names::Primary {
                if node == 0 && id == 0 {
                    extra.extend(b"SP\x07\x01\xbe\xef\x00");
                }
                extra.extend(posix(tree, of, date));
                if node == 0 && id == 0 {
                    // Says that Rock Ridge is in use. Description and source are left empty: they would not fit here.
                    extra.extend(b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A");
                }
            }
            push(record(&[id], self.place(of), true, date, &extra));
        }
        for child in sorted(tree, node, self.names) {
            let Some(entry) = tree.nodes.get(child) else { continue };
            let mut extra = Vec::new();
            if self.names == Names::Primary {
                extra.extend([b'N', b'M', entry.name.len() as u8 + 5, 1, 0]);
                extra.extend(entry.name.as_bytes());
                extra.extend(posix(tree, child, date));
            }
            let is_directory = entry.bytes.is_none();
            let place =
                if is_directory { self.place(child) } else { files.get(child).copied().unwrap_or_default() };
            push(record(&self.names.identifier(entry), place, is_directory, date, &extra));
        }
        out.resize(out.len().next_multiple_of(SECTOR), 0);
        out
    }

    fn place(&self, node: usize) -> (usize, usize) {
        self.directories.iter().find(|d| d.0 == node).map_or((0, 0), |d| (d.1, d.2))
    }

    fn descriptor(&self, label: &str, publisher: &str, sectors: usize, date: &Date) -> Vec<u8> {
        let joliet = self.names == Names::Joliet;
        let text = |text: &str, length: usize| {
            let mut bytes = if joliet { ucs2(text) } else { text.as_bytes().to_vec() };
            let blank: &[u8] = if joliet { b"\0 " } else { b" " };
            bytes.extend(blank.iter().cycle().take(length.saturating_sub(bytes.len())));
            bytes.truncate(length);
            bytes
        };
        let mut d = vec![if joliet { 2 } else { 1 }];
        d.extend(b"CD001\x01\0");
        d.extend(text("", 32)); // system
        d.extend(text(label, 32));
        d.extend([0; 8]);
        d.extend(both32(sectors));
        let mut escape = [0; 32];
        if joliet {
            escape = *b"%/E\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"; // UCS-2 level 3
        }
        d.extend(escape);
        d.extend(both16(1)); // volumes in the set
        d.extend(both16(1)); // this volume's number
        d.extend(both16(SECTOR as u16));
        d.extend(both32(self.table_bytes));
        d.extend((self.tables.0 as u32).to_le_bytes());
        d.extend([0; 4]);
        d.extend((self.tables.1 as u32).to_be_bytes());
        d.extend([0; 4]);
        d.extend(record(&[0], self.place(0), true, date, &[]));
        d.extend(text("", 128)); // volume set
        d.extend(text(publisher, 128));
        d.extend(text("", 128)); // preparer
        d.extend(text("", 128)); // application
        for _ in 0..3 {
            d.extend(text("", 37)); // copyright, abstract, bibliography
        }
        d.extend(date.long());
        d.extend(date.long());
        for _ in 0..2 {
            d.extend(*b"0000000000000000\0"); // expires and becomes effective: never
        }
        d.extend([1, 0]);
        d.resize(SECTOR, 0);
        d
    }
}

fn sorted(tree: &Tree<'_>, of: usize, names: Names) -> Vec<usize> {
    let mut children: Vec<_> = tree.children(of).map(|(at, node)| (names.identifier(node), at)).collect();
    children.sort();
    children.into_iter().map(|(_, at)| at).collect()
}

fn record(id: &[u8], place: (usize, usize), is_directory: bool, date: &Date, extra: &[u8]) -> Vec<u8> {
    let mut r = vec![0, 0];
    r.extend(both32(place.0));
    r.extend(both32(place.1));
    r.extend(date.short());
    r.extend([if is_directory { 2 } else { 0 }, 0, 0]);
    r.extend(both16(1));
    r.push(id.len() as u8);
    r.extend(id);
    r.extend(vec![0; (r.len()) % 2]);
    r.extend(extra);
    r.extend(vec![0; (r.len()) % 2]);
    // At most 33 + 128 (Joliet) or 33 + 33 + 69 + 36 + 26 (Rock Ridge) bytes.
    let length = r.len() as u8;
    if let Some(first) = r.first_mut() {
        *first = length;
    }
    r
}

/// Rock Ridge: mode, links, owner (PX) and times (TF).
fn posix(tree: &Tree<'_>, node: usize, date: &Date) -> Vec<u8> {
    let is_directory = tree.nodes.get(node).is_none_or(|n| n.bytes.is_none());
    let directories = tree.children(node).filter(|(_, n)| n.bytes.is_none()).count();
    let (mode, links) = if is_directory { (0o040_555, 2 + directories) } else { (0o100_444, 1) };
    let mut out = b"PX\x24\x01".to_vec();
    for value in [mode, links, 0, 0] {
        out.extend(both32(value));
    }
    out.extend(b"TF\x1a\x01\x0e"); // modified, accessed, attributes changed
    for _ in 0..3 {
        out.extend(date.short());
    }
    out
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A number in both byte orders. Values are far below 2^32: see the checks in [`build`].
fn both32(value: usize) -> [u8; 8] {
    let (l, b) = ((value as u32).to_le_bytes(), (value as u32).to_be_bytes());
    [l[0], l[1], l[2], l[3], b[0], b[1], b[2], b[3]]
}

fn both16(value: u16) -> [u8; 4] {
    let (l, b) = (value.to_le_bytes(), value.to_be_bytes());
    [l[0], l[1], b[0], b[1]]
}

fn put(image: &mut [u8], sector: usize, bytes: &[u8]) {
    super::gpt::put(image, sector * SECTOR, bytes);
}

/// A point in time, UTC.
struct Date {
    year: u64,
    rest: [u8; 5],
}

impl Date {
    fn from_unix(seconds: u64) -> Date {
        // A record's year is one byte from 1900, so later times stand still in 2155.
        let seconds = seconds.min(5_869_583_999);
        let (mut days, second) = (seconds / 86_400, seconds % 86_400);
        let is_leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut year = 1970;
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let mut month = 1u8;
        for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let rest =
            [month, days as u8 + 1, (second / 3600) as u8, (second / 60 % 60) as u8, (second % 60) as u8];
        Date { year, rest }
    }

    fn short(&self) -> [u8; 7] {
        let [month, day, hour, minute, second] = self.rest;
        [(self.year - 1900) as u8, month, day, hour, minute, second, 0]
    }

    fn long(&self) -> Vec<u8> {
        let [month, day, hour, minute, second] = self.rest;
        let text = alloc::format!("{:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00\0", self.year);
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;
    use std::format;
    use std::process::Command;
    use std::string::ToString;

    const TIME: u64 = 1_700_000_001; // 2023-11-14 22:13:21

    fn config_drive() -> Vec<u8> {
        let long = vec![b'x'; 5000];
        let files = [
            ("openstack/latest/meta_data.json", &b"{\"uuid\": 1}"[..]),
            ("openstack/latest/user_data", &long),
            ("openstack/latest/network_data.json", b"{}"),
            ("openstack/latest/vendor_data2.json", b""),
            ("openstack/2012-08-10/meta_data.json", b"{\"uuid\": 1}"),
            ("openstack/2012-08-10/user_data", &long),
            ("ec2/latest/a-name-of-sixty-four-characters-0123456789-0123456789-012.tar.gz", b"ec2"),
        ];
        build("config-2", "ironic", &files.map(|(path, bytes)| File { path, bytes }), TIME).unwrap()
    }

    /// A file of this test's own that is gone at its end.
    struct Saved(std::path::PathBuf);

    impl Saved {
        fn new(name: &str, bytes: &[u8]) -> Saved {
            let path = std::env::temp_dir().join(format!("ferric-{}-{name}.iso", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            Saved(path)
        }
    }

    impl Drop for Saved {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn tool(program: &str, args: &[&str]) -> std::string::String {
        let path = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
        let out = Command::new(program).args(args).env("PATH", path).env("TZ", "UTC").output();
        let out =
            out.unwrap_or_else(|e| panic!("{program} (Debian packages util-linux, libarchive-tools): {e}"));
        let text =
            [out.stdout, out.stderr].map(|t| std::string::String::from_utf8_lossy(&t).into_owned()).concat();
        assert!(out.status.success(), "{program} {args:?}: {text}");
        text
    }

    #[test]
    fn other_programs_read_label_names_and_contents() {
        let saved = Saved::new("read", &config_drive());
        let path = saved.0.to_str().unwrap();
        assert_eq!(tool("blkid", &["-p", "-o", "value", "-s", "LABEL", path]), "config-2\n");
        assert_eq!(tool("blkid", &["-p", "-o", "value", "-s", "TYPE", path]), "iso9660\n");
        for options in ["iso9660:joliet,!rockridge", "iso9660:!joliet,rockridge"] {
            let listing = tool("bsdtar", &["--options", options, "-tvf", path]);
            for line in [
                "11 Nov 14  2023 openstack/latest/meta_data.json",
                "5000 Nov 14  2023 openstack/2012-08-10/user_data",
                "0 Nov 14  2023 openstack/latest/vendor_data2.json",
                "ec2/latest/a-name-of-sixty-four-characters-0123456789-0123456789-012.tar.gz",
            ] {
                assert!(listing.contains(line), "{line} in {options}: {listing}");
            }
            let file = tool("bsdtar", &["--options", options, "-xOf", path, "openstack/latest/user_data"]);
            assert_eq!(file, "x".repeat(5000));
        }
        let plain = tool("bsdtar", &["--options", "iso9660:!joliet,!rockridge", "-tf", path]);
        assert!(plain.contains("OPENSTACK/2012_08_10/META_DATA.JSON"), "{plain}");
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let image = config_drive();
        assert_eq!(image, config_drive());
        assert_eq!(image.len() % SECTOR, 0);
        assert!(image.len() < 50 * SECTOR, "{} sectors", image.len() / SECTOR);
    }

    #[test]
    fn many_files_fill_several_sectors_of_a_directory() {
        let paths: Vec<_> = (0..100).map(|i| format!("d/file-{i}")).collect();
        let files: Vec<_> = paths.iter().map(|path| File { path, bytes: path.as_bytes() }).collect();
        let saved = Saved::new("many", &build("l", "p", &files, TIME).unwrap());
        for options in ["iso9660:joliet,!rockridge", "iso9660:!joliet,rockridge"] {
            let listing = tool("bsdtar", &["--options", options, "-tf", saved.0.to_str().unwrap()]);
            assert_eq!(listing.lines().filter(|l| l.starts_with("d/file-")).count(), 100);
        }
    }

    #[test]
    fn what_the_format_cannot_say_is_refused() {
        let refuse = |paths: &[&str]| {
            let files: Vec<_> = paths.iter().map(|path| File { path, bytes: b"" }).collect();
            build("l", "p", &files, 0).map(drop).unwrap_err().to_string()
        };
        let long = "x".repeat(65);
        for path in ["", "a/", "/a", "a//b", "../a", "a/.", "ä", "a b", "a\0", &long] {
            assert!(refuse(&[path]).contains("is no name for a file"), "{path:?}");
        }
        for pair in [["a", "a"], ["a.txt", "A.TXT"], ["a", "a/b"], ["a/b", "a"]] {
            assert!(refuse(&pair).contains("is there twice"), "{pair:?}");
        }
        let many: Vec<_> = (0..1001).map(|i| i.to_string()).collect();
        assert!(
            refuse(&many.iter().map(|s| s.as_str()).collect::<Vec<_>>())
                .contains("more than an image can hold")
        );
        let long_label = "x".repeat(17);
        for label in ["", "ä", &long_label] {
            assert_eq!(build(label, "p", &[], 0).map(drop), Err(IsoError::Label(label.to_owned())));
        }
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, want) in [
            (0, "1970010100000000"),
            (951_782_400, "2000022900000000"),
            (TIME, "2023111422132100"),
            (1_735_689_599, "2024123123595900"),
            (u64::MAX, "2155123123595900"),
        ] {
            assert_eq!(Date::from_unix(seconds).long(), format!("{want}\0").into_bytes());
        }
    }
}
