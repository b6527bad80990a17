//! Archives as the kernel unpacks them at boot (`newc` cpio), written so that equal content gives equal bytes.
//!
//! Entries are sorted by name, owned by root, dated 1970 and numbered in order. The kernel wants every folder before
//! its content; sorting gives that. Compression and where the content comes from are left to the caller.
//!
//! Source: the Linux kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec::Vec};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder with these permission bits.
    Folder(u32),
    /// A regular file: permission bits and content.
    File(u32, Vec<u8>),
    /// A symbolic link to this target.
    Link(String),
    /// A character device: permission bits, major and minor number.
    Device(u32, u32, u32),
}

/// Why an entry was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    #[error(
        "'{0}' cannot be a name in the archive: names are relative and have no '..', no empty part, no NUL"
    )]
    Name(String),
    #[error("'{0}' is added a second time with other content")]
    Twice(String),
    #[error("'{0}' is larger than the archive's format can say (4 GiB)")]
    TooLarge(String),
}

/// An archive being put together.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Node>,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one entry; the folders above it appear by themselves (0755). The same entry twice is no error.
    ///
    /// # Errors
    /// A name that is not plain, or that is taken by other content.
    pub fn add(&mut self, name: &str, node: Node) -> Result<(), CpioError> {
        if name.bytes().any(|b| b == 0) || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(CpioError::Name(name.to_owned()));
        }
        for (at, _) in name.match_indices('/') {
            let parent = name.get(..at).unwrap_or_default();
            match self.entries.get(parent) {
                None => drop(self.entries.insert(parent.to_owned(), Node::Folder(0o755))),
                Some(Node::Folder(_)) => {}
                Some(_) => return Err(CpioError::Twice(parent.to_owned())),
            }
        }
        match self.entries.get(name) {
            Some(present) if *present == node => Ok(()),
            // A folder that appeared by itself takes the bits it is now given.
            Some(Node::Folder(_)) if matches!(node, Node::Folder(_)) => {
                self.entries.insert(name.to_owned(), node);
                Ok(())
            }
            Some(_) => Err(CpioError::Twice(name.to_owned())),
            None => {
                self.entries.insert(name.to_owned(), node);
                Ok(())
            }
        }
    }

    /// Names and content, in the order they are written.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// A file past 4 GiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CpioError> {
        let mut out = Vec::new();
        for (index, (name, node)) in self.entries.iter().enumerate() {
            let (mode, links, device, content): (u32, u32, (u32, u32), &[u8]) = match node {
                Node::Folder(bits) => (0o040_000 | bits, 2, (0, 0), &[]),
                Node::File(bits, content) => (0o100_000 | bits, 1, (0, 0), content),
                Node::Link(target) => (0o120_777, 1, (0, 0), target.as_bytes()),
                Node::Device(bits, major, minor) => (0o020_000 | bits, 1, (*major, *minor), &[]),
            };
            let inode = u32::try_from(index + 1).map_err(|_| CpioError::TooLarge(name.clone()))?;
            entry(&mut out, inode, name, mode, links, device, content)?;
        }
        entry(&mut out, 0, TRAILER, 0, 1, (0, 0), &[])?;
        // A block of 512 keeps a second archive that is appended where readers look for it.
        out.resize(out.len().next_multiple_of(512), 0);
        Ok(out)
    }
}

fn entry(
    out: &mut Vec<u8>,
    inode: u32,
    name: &str,
    mode: u32,
    links: u32,
    (major, minor): (u32, u32),
    content: &[u8],
) -> Result<(), CpioError> {
    let size = u32::try_from(content.len()).map_err(|_| CpioError::TooLarge(name.to_owned()))?;
    let name_size = u32::try_from(name.len() + 1).map_err(|_| CpioError::Name(name.to_owned()))?;
    // inode mode uid gid links mtime size devmajor devminor rdevmajor rdevminor namesize check
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
    out.extend_from_slice(MAGIC.as_bytes());
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec};

    fn field(bytes: &[u8], at: usize, index: usize) -> u32 {
        let start = at + 6 + index * 8;
        u32::from_str_radix(core::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
    }

    /// Reads the archive back by the format's rules: name, mode, content.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, size, name_size) =
                (field(bytes, at, 1), field(bytes, at, 6) as usize, field(bytes, at, 11) as usize);
            let name = core::str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1]).unwrap().to_string();
            let content = (at + 110 + name_size).next_multiple_of(4);
            if name == TRAILER {
                return found;
            }
            found.push((name, mode, bytes[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
    }

    #[test]
    fn entries_come_back_sorted_with_their_folders() {
        let mut archive = Archive::new();
        archive.add("usr/bin/a", Node::File(0o755, vec![1, 2, 3, 4, 5])).unwrap();
        archive.add("init", Node::Link("usr/bin/a".into())).unwrap();
        archive.add("dev/null", Node::Device(0o666, 1, 3)).unwrap();
        let bytes = archive.to_bytes().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let names: Vec<_> = read(&bytes).into_iter().map(|(n, m, c)| (n, m, c.len())).collect();
        assert_eq!(
            names,
            [
                ("dev".to_string(), 0o040755, 0),
                ("dev/null".to_string(), 0o020666, 0),
                ("init".to_string(), 0o120777, 9),
                ("usr".to_string(), 0o040755, 0),
                ("usr/bin".to_string(), 0o040755, 0),
                ("usr/bin/a".to_string(), 0o100755, 5),
            ]
        );
    }

    #[test]
    fn the_order_of_adding_changes_no_byte() {
        let (mut a, mut b) = (Archive::new(), Archive::new());
        for name in ["x/1", "x/2", "y"] {
            a.add(name, Node::File(0o644, name.as_bytes().to_vec())).unwrap();
        }
        for name in ["y", "x/2", "x/1"] {
            b.add(name, Node::File(0o644, name.as_bytes().to_vec())).unwrap();
        }
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap());
    }

    #[test]
    fn names_that_leave_the_archive_and_clashes_are_refused() {
        let mut archive = Archive::new();
        for name in ["", "/etc", "a//b", "../a", "a/./b", "a\0b"] {
            assert!(matches!(archive.add(name, Node::Folder(0o755)), Err(CpioError::Name(_))), "{name:?}");
        }
        archive.add("a", Node::File(0o644, vec![1])).unwrap();
        archive.add("a", Node::File(0o644, vec![1])).unwrap();
        assert_eq!(archive.add("a", Node::File(0o644, vec![2])), Err(CpioError::Twice("a".into())));
        assert_eq!(archive.add("a/b", Node::Link("c".into())), Err(CpioError::Twice("a".into())));
    }
}
