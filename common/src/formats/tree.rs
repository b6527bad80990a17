//! What small file systems hold: files and directories, as the readers give them and the writers take them.

use alloc::borrow::Cow;
use alloc::string::String;

/// A file (`bytes` is set) or a directory. The first of a list is the root, which has no name; a parent stands before its
/// children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: String,
    /// Place of its directory in the list.
    pub parent: usize,
    /// Part of the image where the file lies in one piece.
    pub bytes: Option<Cow<'a, [u8]>>,
    /// Year, month, day, hour, minute, second as recorded, wherever that was.
    pub modified: [u16; 6],
}

impl Entry<'_> {
    /// The root of a list.
    pub fn root() -> Self {
        Entry { name: String::new(), parent: 0, bytes: None, modified: [0; 6] }
    }
}
