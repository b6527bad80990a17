//! What is to be written where, before anything is written.
//!
//! For qcow2 the tables are read first (by ranges, or in passes over the stream where the server has none), checked, and
//! turned into pieces in file order. Each table byte used is remembered by digest and must pass again in the stream.

use super::buffers::CHUNK;
use super::{ImageError, ImageFormat, ImageRequest, ProgressCell, Source, formats};
use crate::disk::layout::{self, LayoutError};
use crate::platform::block::BlockDevice;
use ferric_common::formats::qcow2::{Compression, Extent, ExtentKind, Header, Planner, Step};
use ferric_common::ids::DigestAlgorithm;
use ferric_common::units::{ByteCount, MIB};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Memory for the map of an image, in bytes: pieces of 24 bytes, gaps of 16, proofs of 48.
pub const MAP_BUDGET: usize = 16 << 20;
/// A disk has two ends of a MiB each.
const SMALLEST_DISK: u64 = 2 * MIB;
/// Passes over an image whose server has no ranges, tables included.
const PASSES: u32 = 16;

/// A piece of the file and where it lands. `stored` is 0 for plain bytes, else the bytes that hold the compressed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub host: u64,
    pub guest: u64,
    pub length: u32,
    pub stored: u32,
}

impl Piece {
    /// The bytes of the file that this piece needs.
    pub fn file(&self) -> Range<u64> {
        let bytes = if self.stored == 0 { self.length } else { self.stored };
        self.host..self.host + u64::from(bytes)
    }
}

/// A part of the file that the plan stands on.
#[derive(Clone, Debug)]
pub struct Proof {
    pub range: Range<u64>,
    pub digest: [u8; 32],
}

pub enum Content {
    /// Every byte of the file is the byte of the disk.
    Raw,
    Qcow2 {
        /// In file order.
        pieces: Vec<Piece>,
        /// Guest ranges that read as zeros.
        gaps: Vec<(u64, u64)>,
        /// In file order.
        proofs: Vec<Proof>,
        compression: Compression,
        cluster: u64,
    },
}

pub struct Plan {
    /// Bytes of the disk that the image defines.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub length: u64,
    pub content: Content,
}

impl Plan {
    /// One line for the console.
    pub fn describe(&self, disk: &str) -> String {
        let what = match &self.content {
            Content::Raw => "raw".to_string(),
            Content::Qcow2 { pieces, .. } => format!("qcow2, {} pieces", pieces.len()),
        };
        format!("{what}, {} to fetch, {} on {disk}", ByteCount(self.length), ByteCount(self.virtual_size))
    }
}

/// Looks at the image and checks all that can be checked before the disk is touched.
///
/// # Errors
/// Everything that refuses an image: format, structure, size, partition table, a weak digest.
pub fn make(
    image: &ImageRequest,
    source: &mut Source,
    disk: &dyn BlockDevice,
    progress: &ProgressCell,
) -> Result<Plan, ImageError> {
    if image.digest.algorithm == DigestAlgorithm::Md5 {
        return Err(ImageError::WeakDigest);
    }
    if disk.size().0 < SMALLEST_DISK {
        return Err(LayoutError::DiskSize(disk.size()).into());
    }
    formats::check(image.format, source.start())?;
    let length = source.length().ok_or_else(|| ImageError::Url {
        url: source.name().to_string(),
        why: "the server does not say how long it is (no Content-Length)".into(),
    })?;
    let too_large = |needed: u64| ImageError::TooLarge {
        needed: ByteCount(needed),
        disk: disk.name().to_string(),
        size: disk.size(),
    };
    match image.format {
        ImageFormat::Raw => {
            if length > disk.size().0 {
                return Err(too_large(length));
            }
            if image.require_partition_table {
                layout::check_table(source.start(), disk.size(), disk.sector_size())?;
            }
            Ok(Plan { virtual_size: length, length, content: Content::Raw })
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
            progress.note("reading the image's tables");
            let content = read_tables(&header, length, source)?;
            Ok(Plan { virtual_size, length, content })
        }
    }
}

fn read_tables(header: &Header, length: u64, source: &mut Source) -> Result<Content, ImageError> {
    let head = source.start().len().min(CHUNK).min(header.cluster_size() as usize);
    let mut proofs = vec![prove(0..head as u64, source.start().get(..head).unwrap_or_default())];
    let mut map = Map { virtual_size: header.virtual_size().0, ..Map::default() };
    let mut reader = TableReader { source, at: 0, passes: 1 };
    let mut planner = Planner::new(header, length);
    while let Step::Need(range) = planner.step() {
        let bytes = reader.read(range.clone())?;
        proofs.push(prove(range, &bytes));
        planner.supply(&bytes, &mut |extent| map.add(extent))?;
        if map.is_full() || map.bytes() + proofs.len() * size_of::<Proof>() > MAP_BUDGET {
            return Err(ImageError::MapTooLarge(ByteCount(MAP_BUDGET as u64)));
        }
    }
    source.rewind();
    proofs.sort_by_key(|p| (p.range.start, p.range.end));
    let (pieces, gaps) = map.finish();
    let (compression, cluster) = (header.compression(), header.cluster_size());
    Ok(Content::Qcow2 { pieces, gaps, proofs, compression, cluster })
}

fn prove(range: Range<u64>, bytes: &[u8]) -> Proof {
    Proof { range, digest: Sha256::digest(bytes).into() }
}

/// Reads tables by range, or by passes over the stream where the server has no ranges.
struct TableReader<'a> {
    source: &'a mut Source,
    at: u64,
    passes: u32,
}

impl TableReader<'_> {
    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        if self.source.has_ranges() {
            return self.source.fetch(range);
        }
        let known = self.source.start();
        if let Some(bytes) = known.get(range.start as usize..range.end as usize) {
            return Ok(bytes.to_vec());
        }
        if range.start < self.at {
            self.passes += 1;
            if self.passes >= PASSES {
                return Err(ImageError::Order(PASSES));
            }
            self.source.rewind();
            self.at = 0;
        }
        let mut scratch = vec![0u8; 256 << 10];
        while self.at < range.start {
            let step = (range.start - self.at).min(scratch.len() as u64) as usize;
            self.exactly(scratch.get_mut(..step).unwrap_or_default())?;
        }
        let mut bytes = vec![0u8; (range.end - range.start) as usize];
        self.exactly(&mut bytes)?;
        Ok(bytes)
    }
    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), ImageError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(buffer.get_mut(filled..).unwrap_or_default())? {
                0 => {
                    let (url, expected) = (self.source.name().to_string(), self.source.length().unwrap_or(0));
                    return Err(ImageError::Truncated {
                        url,
                        got: self.at.into(),
                        expected: expected.into(),
                    });
                }
                count => {
                    filled += count;
                    self.at += count as u64;
                }
            }
        }
        Ok(())
    }
}

/// Collects extents (in guest order) into pieces and gaps.
#[derive(Default)]
struct Map {
    virtual_size: u64,
    pieces: Vec<Piece>,
    gaps: Vec<(u64, u64)>,
    /// Guest byte up to which everything is known.
    reached: u64,
}

impl Map {
    fn add(&mut self, extent: Extent) -> bool {
        if extent.guest > self.reached {
            self.gaps.push((self.reached, extent.guest - self.reached));
        }
        self.reached = self.reached.max(extent.guest + extent.length);
        let stored = match extent.kind {
            ExtentKind::Plain => 0,
            ExtentKind::Compressed { stored } => stored,
        };
        let length = extent.length.min(u64::from(u32::MAX)) as u32;
        self.pieces.push(Piece { host: extent.host, guest: extent.guest, length, stored });
        !self.is_full()
    }
    fn is_full(&self) -> bool {
        self.bytes() > MAP_BUDGET
    }
    fn bytes(&self) -> usize {
        self.pieces.len() * size_of::<Piece>() + self.gaps.len() * 16
    }
    fn finish(mut self) -> (Vec<Piece>, Vec<(u64, u64)>) {
        if self.reached < self.virtual_size {
            self.gaps.push((self.reached, self.virtual_size - self.reached));
        }
        self.pieces.sort_unstable_by_key(|p| (p.host, p.guest));
        (self.pieces, self.gaps)
    }
}
