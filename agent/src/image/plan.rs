//! What kind of image this is and whether it may be written, decided before anything is written.

use super::guide::Guide;
use super::{ImageError, ImageFormat, Packing, ProgressCell, Source, WriteRequest, formats, unpack};
use crate::disk::layout::{self, LayoutError};
use crate::platform::block::BlockDevice;
use ferric_common::formats::qcow2::Header;
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
    /// Bytes of the disk that the image defines; for a raw image that is compressed or of unknown length, those that it may.
    pub capacity: u64,
    /// Bytes of the file, where the server says so; else its end tells.
    pub length: Option<u64>,
    pub content: Content,
}

impl Plan {
    /// One line for the console.
    pub fn describe(&self, disk: &str) -> String {
        let what = match &self.content {
            Content::Raw => "raw".to_string(),
            Content::Packed(packing) => ImageFormat::Packed(*packing).to_string(),
            Content::Qcow2(guide) => guide.describe(),
        };
        match (self.length, &self.content) {
            (None, _) => format!("{what}, of a length that is not said, to fetch onto {disk}"),
            (Some(length), Content::Packed(_)) => {
                format!("{what}, {} to fetch onto {disk}", ByteCount(length))
            }
            (Some(length), _) => {
                format!("{what}, {} to fetch, {} on {disk}", ByteCount(length), ByteCount(self.capacity))
            }
        }
    }
    /// Bytes of the disk that the image defines, once so many bytes of the file were the last.
    pub fn size_after(&self, received: u64) -> u64 {
        match (self.length, &self.content) {
            (None, Content::Raw) => received,
            _ => self.capacity,
        }
    }
    /// Bytes of the file that are taken where nobody says how many there are: what fills the disk. A stream that does not
    /// shrink its content has an eighth more.
    pub fn most(&self) -> u64 {
        match (self.length, &self.content) {
            (Some(_), _) => u64::MAX,
            (None, Content::Packed(_)) => self.capacity.saturating_add(self.capacity / 8),
            (None, _) => self.capacity,
        }
    }
}

/// Looks at the image and checks all that can be checked before the disk is touched.
///
/// # Errors
/// Everything that refuses an image: format, structure, size, partition table.
pub fn make(
    request: &WriteRequest,
    source: &mut Source,
    disk: &dyn BlockDevice,
    progress: &ProgressCell,
    tables: Tables,
) -> Result<Plan, ImageError> {
    let image = &request.image;
    if disk.size().0 < SMALLEST_DISK {
        return Err(LayoutError::DiskSize(disk.size()).into());
    }
    let name = image.urls.first().map_or("", String::as_str);
    let format = formats::decide(image.format, &image.permitted, name, source.start())?;
    let length = source.length();
    let (capacity, content) = match format {
        ImageFormat::Raw => {
            let capacity = length.unwrap_or(disk.size().0);
            (capacity, raw(request, capacity, source.start(), disk)?)
        }
        ImageFormat::Packed(packing) => (disk.size().0, packed(request, packing, source.start(), disk)?),
        ImageFormat::Qcow2 => {
            let length = length.ok_or_else(|| unmeasured(source))?;
            let header = Header::parse(source.start(), length)?;
            fits(header.virtual_size().0, disk)?;
            if header.is_dirty() {
                tracing::warn!(
                    "image {} was not closed properly (dirty bit); its data is readable",
                    image.id
                );
            }
            let virtual_size = header.virtual_size().0;
            let guide = guide(header, length, source, progress, tables)?;
            if let Some(head) = guide.head(source)? {
                foresee(request, &head, disk)?;
            }
            (virtual_size, Content::Qcow2(Box::new(guide)))
        }
    };
    Ok(Plan { capacity, length, content })
}

fn unmeasured(source: &Source) -> ImageError {
    ImageError::Url {
        url: source.name().to_string(),
        why: "the server does not say how long it is (no Content-Length), and where the tables of a qcow2 lead cannot be \
              checked without that"
            .into(),
    }
}

fn fits(needed: u64, disk: &dyn BlockDevice) -> Result<(), ImageError> {
    if needed <= disk.size().0 {
        return Ok(());
    }
    let (needed, disk, size) = (ByteCount(needed), disk.name().to_string(), disk.size());
    Err(ImageError::TooLarge { needed, disk, size })
}

/// Refuses what would be refused after the body was written, as far as the image's first bytes tell: a table that is missing
/// or does not fit, a config drive without room.
fn foresee(request: &WriteRequest, head: &[u8], disk: &dyn BlockDevice) -> Result<(), ImageError> {
    if request.image.require_partition_table {
        layout::foresee_table(head, disk.size(), disk.sector_size())?;
    }
    Ok(layout::foresee(head, disk.size(), disk.sector_size(), request.config_drive.as_deref())?)
}

fn raw(
    request: &WriteRequest,
    capacity: u64,
    start: &[u8],
    disk: &dyn BlockDevice,
) -> Result<Content, ImageError> {
    fits(capacity, disk)?;
    if request.image.require_partition_table {
        // All of it is at hand, so nothing is left for later.
        layout::check_table(start, disk.size(), disk.sector_size())?;
    }
    layout::foresee(start, disk.size(), disk.sector_size(), request.config_drive.as_deref())?;
    Ok(Content::Raw)
}

fn packed(
    request: &WriteRequest,
    packing: Packing,
    start: &[u8],
    disk: &dyn BlockDevice,
) -> Result<Content, ImageError> {
    let start = unpack::preview(packing, start)?;
    formats::check(ImageFormat::Raw, &start)?;
    // Where the compressed start holds less than the table, the head is looked at when it is whole.
    foresee(request, &start, disk)?;
    Ok(Content::Packed(packing))
}

fn guide(
    header: Header,
    length: u64,
    source: &mut Source,
    progress: &ProgressCell,
    tables: Tables,
) -> Result<Guide, ImageError> {
    let tiny = !source.is_local() && header.cluster_size() <= TINY_CLUSTER && header.tables() > MANY_TABLES;
    if tables == Tables::AsServed && (tiny || !source.has_ranges()) {
        return Guide::following(header, length, source);
    }
    progress.note("reading the image's tables");
    Guide::mapped(header, length, source)
}
