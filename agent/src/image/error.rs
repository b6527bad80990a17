//! What can go wrong between an image server and a disk, in words for the operator.

use super::ImageFormat;
use crate::disk::layout::LayoutError;
use ferric_common::formats::fat::FatError;
use ferric_common::formats::qcow2::Qcow2Error;
use ferric_common::formats::{fat, iso9660};
use ferric_common::ids::Digest;
use ferric_common::units::{ByteCount, DiskOffset, SectorSize};
use std::fmt;
use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("'{url}' is not a usable image URL: {why}")]
    Url { url: String, why: String },
    /// The server said no; asking again would not help.
    #[error("{url} answered {status}{hint}")]
    Refused { url: String, status: String, hint: &'static str },
    #[error("fetching {url} failed at byte {at} after {tries} tries: {cause}")]
    Fetch { url: String, at: u64, tries: u32, cause: String },
    #[error("fetching {url} was not over within the {whole:?} that image_download_max_duration gives; at byte {}", at.0)]
    Overtime { url: String, at: ByteCount, whole: Duration },
    #[error("{url} changed while it was being read ({what}); what was read so far cannot be used")]
    Changed { url: String, what: String },
    #[error("{url} ended after {got}, it should have {expected}: the download is truncated")]
    Truncated { url: String, got: ByteCount, expected: ByteCount },
    #[error("{url} delivers more than the {expected} it announced")]
    TooLong { url: String, expected: ByteCount },
    #[error(
        "the image's digest is {actual} ({received} received), expected {expected}: it is not the image that was asked for, or it was damaged on its way"
    )]
    Digest { expected: Digest, actual: Digest, received: ByteCount },
    #[error("the image is declared {declared}, but its content is {found}{hint}")]
    WrongFormat { declared: ImageFormat, found: &'static str, hint: &'static str },
    #[error("the image's format is not declared, and its content is {found}{hint}")]
    NoFormat { found: &'static str, hint: &'static str },
    /// In ironic-python-agent's words.
    #[error("Security: Detected image format was {found}, but only {permitted} are allowed")]
    NotPermitted { found: String, permitted: String },
    #[error("the image's qcow2 structure: {0}")]
    Qcow2(#[from] Qcow2Error),
    #[error("the image needs {needed}, the disk {disk} has only {size}")]
    TooLarge { needed: ByteCount, disk: String, size: ByteCount },
    #[error("the image is empty")]
    Empty,
    #[error("compressed cluster at byte {host} of the image: {what}")]
    Decode { host: u64, what: String },
    #[error(
        "the server gives no byte ranges and the image's tables lie in an order that needs more than {0} passes; serve it with ranges, or rewrite it with qemu-img convert"
    )]
    Order(u32),
    #[error(
        "the image's tables describe more pieces than fit the memory set aside for them ({0}); rewrite it with qemu-img convert, which puts it in order"
    )]
    MapTooLarge(ByteCount),
    #[error("{action} {disk} at byte {at}")]
    Device {
        action: &'static str,
        disk: String,
        at: u64,
        #[source]
        source: io::Error,
    },
    #[error("flushing {disk} ({when})")]
    Flush {
        disk: String,
        when: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the partition table")]
    Layout(#[from] LayoutError),
    #[error("{why}, and no other could be made")]
    Drive {
        why: Rebuild,
        #[source]
        source: DriveError,
    },
    #[error(
        "{disk} gives back other bytes at {at} than were written: the disk, its cable or its controller is faulty"
    )]
    ReadBack { disk: String, at: DiskOffset },
    #[error("the {packing} stream at byte {at} of what it holds: {what}")]
    Unpack { packing: &'static str, at: u64, what: String },
    /// The tables of a qcow2 come too late in the stream to be followed; they must be read first. Never shown: leads to another
    /// attempt.
    #[error("the image's tables come after their data")]
    TablesLate,
    #[error("stopped by request")]
    Cancelled,
    #[error("{what}")]
    Internal { what: String },
    /// An error after the disk was touched, and what was done about it.
    #[error("{disk} has been blanked at both ends and will not boot")]
    AfterWrite {
        disk: String,
        #[source]
        source: Box<ImageError>,
    },
    #[error("{disk} could NOT be blanked ({blank}); do not boot from it")]
    NotBlanked {
        disk: String,
        blank: String,
        #[source]
        source: Box<ImageError>,
    },
}

/// Why a config drive cannot be made into one that the disk can hold.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error("reading it as ISO 9660")]
    Iso(#[from] iso9660::read::ReadError),
    #[error("reading it as FAT")]
    Fat(#[from] fat::read::ReadError),
    #[error("it is neither ISO 9660 nor FAT")]
    Unknown,
    #[error("writing it as FAT")]
    Build(#[from] FatError),
}

/// Why a config drive does not stay as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// Linux would not mount it from a disk with such sectors.
    Unmountable(SectorSize),
    Wanted,
}

impl fmt::Display for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rebuild::Unmountable(sector) => {
                write!(f, "the config drive cannot be mounted from a disk with sectors of {} bytes", sector.0)
            }
            Rebuild::Wanted => {
                f.write_str("the config drive is to be made anew (option config_drive_rebuild)")
            }
        }
    }
}

/// The class under which a conductor knows an error (ironic-python-agent's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Download,
    DownloadFatal,
    DownloadTimeout,
    Checksum,
    Invalid,
    Write,
    Cancelled,
}

impl ImageError {
    /// Whether the whole write may be tried again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Fetch { .. } | Self::Changed { .. } | Self::Truncated { .. })
    }
    /// The error that caused the end, without what was done about it.
    pub fn cause(&self) -> &ImageError {
        match self {
            Self::AfterWrite { source, .. } | Self::NotBlanked { source, .. } => source.cause(),
            other => other,
        }
    }
    pub fn class(&self) -> Class {
        match self.cause() {
            Self::Fetch { .. } | Self::Changed { .. } | Self::Truncated { .. } | Self::TooLong { .. } => {
                Class::Download
            }
            Self::Url { .. } | Self::Refused { .. } => Class::DownloadFatal,
            Self::Overtime { .. } => Class::DownloadTimeout,
            Self::Digest { .. } => Class::Checksum,
            Self::Device { .. } | Self::Flush { .. } | Self::ReadBack { .. } | Self::Internal { .. } => {
                Class::Write
            }
            Self::Cancelled => Class::Cancelled,
            _ => Class::Invalid,
        }
    }
    pub(super) fn device(action: &'static str, disk: &str, at: u64, source: io::Error) -> ImageError {
        ImageError::Device { action, disk: disk.to_string(), at, source }
    }
    /// The text for an operator: the cause first, then what became of the disk.
    pub fn for_operator(&self) -> String {
        match self {
            Self::AfterWrite { source, .. } | Self::NotBlanked { source, .. } => {
                format!("{}; {self}", source.for_operator())
            }
            other => chain(other),
        }
    }
}

/// An error and all its sources in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
