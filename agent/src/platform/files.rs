//! A mounted file system, as the rooms see it that change files in it.

use std::io;

/// Who may do what with a file; what is not given stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub mode: Option<u32>,
    /// Of the last folder on the way, if it had to be made.
    pub folder_mode: Option<u32>,
    pub owner: Option<u32>,
    pub group: Option<u32>,
}

/// Paths are below the root of the file system; no link in it leads out of it.
pub trait Files {
    /// Whether there is a folder of this name; a link inside the tree to one counts.
    fn is_folder(&self, path: &str) -> bool;

    /// Writes a file to stable storage, whatever stood in it before; makes the folders on its way.
    ///
    /// # Errors
    /// The kernel's; anything but a regular file in this place.
    fn put(&self, path: &str, bytes: &[u8], access: &Access) -> io::Result<()>;

    /// Removes a file or a link; one that is not there is no error.
    ///
    /// # Errors
    /// The kernel's: a folder is not removed.
    fn remove(&self, path: &str) -> io::Result<()>;
}
