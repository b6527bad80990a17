//! Images: valid ones of every kind that may be met, and broken or malicious ones, each with what must become of it.
//!
//! Valid images are made by qemu-img and qemu-io (`by_qemu`), by a small writer of our own where those cannot make them
//! (`by_hand`, `qcow2`), and by gzip, xz, zstd and bzip2 (`packed`). Who reads them beside us: `readers`.

pub mod by_hand;
pub mod by_qemu;
pub mod content;
pub mod hostile;
pub mod packed;
pub mod qcow2;
pub mod readers;
pub mod tables;

use crate::process::run;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Qcow2,
    Raw,
    Gz,
    Xz,
    Zst,
    Bz2,
}

impl Kind {
    pub fn ending(self) -> &'static str {
        match self {
            Kind::Qcow2 => "qcow2",
            Kind::Raw => "raw",
            Kind::Gz => "raw.gz",
            Kind::Xz => "raw.xz",
            Kind::Zst => "raw.zst",
            Kind::Bz2 => "raw.bz2",
        }
    }

    /// What an operator says it is who leaves the compression to the name's ending.
    pub fn plain_format(self) -> &'static str {
        if self == Kind::Qcow2 { "qcow2" } else { "raw" }
    }

    /// What an operator says it is who names the compression.
    pub fn format(self) -> &'static str {
        self.ending()
    }
}

/// Writes `image` into a folder, and gives what a disk made from it holds, if the maker knows.
type Make = Box<dyn Fn(&Path) -> Result<Option<Vec<u8>>> + Send + Sync>;

/// A valid image.
pub struct Valid {
    /// A sentence.
    pub name: String,
    pub kind: Kind,
    /// Whether it brings a partition table, which is to be checked.
    pub has_table: bool,
    make: Make,
}

impl Valid {
    fn qcow2(name: &str, make: impl Fn(&Path) -> Result<Option<Vec<u8>>> + Send + Sync + 'static) -> Valid {
        Valid { name: name.to_owned(), kind: Kind::Qcow2, has_table: false, make: Box::new(make) }
    }

    /// Makes the file `image` in the folder, and gives the disk's content, if its maker knows it.
    pub fn make(&self, folder: &Path) -> Result<Option<Vec<u8>>> {
        (self.make)(folder)
    }
}

/// Every valid image.
pub fn valid() -> Vec<Valid> {
    [by_qemu::all(), by_hand::all(), packed::all()].into_iter().flatten().collect()
}

/// Runs `qemu-img` or `qemu-io` in a folder.
pub fn qemu(program: &str, words: &[&str], folder: &Path) -> Result<String> {
    run(Command::new(program).args(words).current_dir(folder))
}
