//! What kind of image this is and whether it may be written, decided before anything is written.

use super::guide::Guide;
use super::{ImageError, ImageFormat, Packing, ProgressCell, Source, WriteRequest, formats, unpack};
use crate::disk::layout::{self, LayoutError};
use crate::platform::block::BlockDevice;
use ferric_common::formats::qcow2::Header;
use ferric_common::ids::DigestAlgorithm;
use ferric_common::units::{ByteCount, MIB};

/// A disk has two ends of a MiB each.
const SMALLEST_DISK: u64 = 2 * MIB;
/// An image with clusters up to this size and more L2 tables than this is followed even where ranges work: every table would be a
/// request of its own.
const TINY_CLUSTER: u64 = 2048;
const MANY_TABLES: u64 = 2048;

/// How the tables of a qcow2 are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// By ranges where the server has them, else from the stream as it passes.
    AsServed,
    /// Before the data, at the price of reading the image twice.
    First,
}

pub enum Content {
    /// Every byte of the file is the byte of the disk.
    Raw,
    /// The same, once it is unpacked.
    Packed(Packing),
    Qcow2(Box<Guide>),
}

pub struct Plan {
    /// Bytes of the disk that the image defines; for a compressed raw image, which does not say, those that it may.
    pub capacity: u64,
    /// Bytes of the file.
    pub length: u64,
    pub content: Content,
}

impl Plan {
    /// One line for the console.
    pub fn describe(&self, disk: &str) -> String {
        let what = match &self.content {
            Content::Raw => "raw".to_string(),
            Content::Packed(packing) => {
                return format!(
                    "{}, {} to fetch onto {disk}",
                    ImageFormat::Packed(*packing),
                    ByteCount(self.length)
                );
            }
            Content::Qcow2(guide) => guide.describe(),
        };
        format!("{what}, {} to fetch, {} on {disk}", ByteCount(self.length), ByteCount(self.capacity))
    }
}

/// Looks at the image and checks all that can be checked before the disk is touched.
///
/// # Errors
/// Everything that refuses an image: format, structure, size, partition table, a weak digest.
pub fn make(
    request: &WriteRequest,
    source: &mut Source,
    disk: &dyn BlockDevice,
    progress: &ProgressCell,
    tables: Tables,
) -> Result<Plan, ImageError> {
    let image = &request.image;
    let foresee =
        |head: &[u8]| layout::foresee(head, disk.size(), disk.sector_size(), request.config_drive.as_deref());
    if image.digest.algorithm == DigestAlgorithm::Md5 {
        return Err(ImageError::WeakDigest);
    }
    if disk.size().0 < SMALLEST_DISK {
        return Err(LayoutError::DiskSize(disk.size()).into());
    }
    let format = image.format.named(image.urls.first().map_or("", String::as_str));
    formats::check(format, source.start())?;
    let length = source.length().ok_or_else(|| ImageError::Url {
        url: source.name().to_string(),
        why: "the server does not say how long it is (no Content-Length)".into(),
    })?;
    let too_large = |needed: u64| ImageError::TooLarge {
        needed: ByteCount(needed),
        disk: disk.name().to_string(),
        size: disk.size(),
    };
    match format {
        ImageFormat::Raw => {
            if length > disk.size().0 {
                return Err(too_large(length));
            }
            if image.require_partition_table {
                layout::check_table(source.start(), disk.size(), disk.sector_size())?;
            }
            foresee(source.start())?;
            Ok(Plan { capacity: length, length, content: Content::Raw })
        }
        ImageFormat::Packed(packing) => {
            let start = unpack::preview(packing, source.start())?;
            formats::check(ImageFormat::Raw, &start)?;
            // Where the compressed start holds less than the table, the head is looked at when it is whole.
            if image.require_partition_table && start.len() as u64 >= MIB {
                layout::check_table(&start, disk.size(), disk.sector_size())?;
            }
            foresee(&start)?;
            Ok(Plan { capacity: disk.size().0, length, content: Content::Packed(packing) })
        }
        ImageFormat::Qcow2 => {
            let header = Header::parse(source.start(), length)?;
            let virtual_size = header.virtual_size().0;
            if virtual_size > disk.size().0 {
                return Err(too_large(virtual_size));
            }
            if header.is_dirty() {
                tracing::warn!(
                    "image {} was not closed properly (dirty bit); its data is readable",
                    image.id
                );
            }
            let tiny =
                !source.is_local() && header.cluster_size() <= TINY_CLUSTER && header.tables() > MANY_TABLES;
            let guide = if tables == Tables::AsServed && (tiny || !source.has_ranges()) {
                Guide::following(header, length, source)?
            } else {
                progress.note("reading the image's tables");
                Guide::mapped(header, length, source)?
            };
            if let Some(head) = guide.head(source)? {
                foresee(&head)?;
            }
            Ok(Plan { capacity: virtual_size, length, content: Content::Qcow2(Box::new(guide)) })
        }
    }
}
