//! The qcow2 header: everything that can be refused before the first write to the disk.
//!
//! Works on the first bytes of the file and its length; reads no table. Version 2 has no feature bits (its header ends at
//! byte 72, header extensions follow); version 3 adds them and its own length.

use super::{Qcow2Error, be32, be64};
use crate::units::ByteCount;

const MAGIC: u32 = 0x5146_49fb;
/// Bytes of a version 2 header, and the fewest of a version 3 header.
const V2_LENGTH: u32 = 72;
const V3_LENGTH: u32 = 104;
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
/// QEMU's own limits: entries of an L1 table (32 MiB), bytes of a refcount table, snapshots.
const L1_ENTRIES: u32 = 4 << 20;
const REFCOUNT_TABLE: u64 = 8 << 20;
const SNAPSHOTS: u32 = 65_536;
/// The smallest cluster that is cut into 32 subclusters.
const EXTENDED_CLUSTER: u64 = 16 << 10;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate (RFC 1951), without zlib's header and checksum.
    Zlib,
    /// One zstd frame (RFC 8878).
    Zstd,
}

/// A header that was found good: the image stands alone, and its L1 table is big enough and inside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    version: u32,
    virtual_size: u64,
    pub(super) cluster_bits: u32,
    pub(super) l1_offset: u64,
    /// Entries of the L1 table that the disk needs; a longer table's rest is ignored.
    pub(super) l1_needed: u64,
    /// Bytes of the L1 table as the header gives it.
    pub(super) l1_length: u64,
    pub(super) refcount_offset: u64,
    pub(super) refcount_length: u64,
    /// Internal snapshots, and where their table is.
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) extended_l2: bool,
    dirty: bool,
    compression: Compression,
}

impl Header {
    /// Whether `start` begins with qcow2's magic.
    pub fn is_qcow2(start: &[u8]) -> bool {
        be32(start, 0) == Some(MAGIC)
    }

    /// Parses the header from `start`, the first bytes of a file of `file_length` bytes: at least 104 (or the whole
    /// file), better the whole first cluster, since header extensions are checked as far as they were given.
    ///
    /// # Errors
    /// Every reason to refuse the image that the header alone shows; see [`Qcow2Error`].
    pub fn parse(start: &[u8], file_length: u64) -> Result<Header, Qcow2Error> {
        let short =
            |needed: u32| Qcow2Error::HeaderShort { given: start.len() as u64, needed: needed.into() };
        let u32_at = |at: usize| be32(start, at).ok_or_else(|| short(V2_LENGTH));
        let u64_at = |at: usize| be64(start, at).ok_or_else(|| short(V2_LENGTH));

        let found = u32_at(0)?;
        if found != MAGIC {
            return Err(Qcow2Error::Magic { found });
        }
        let version = u32_at(4)?;
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version { found: version });
        }
        let cluster_bits = u32_at(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::ClusterBits { found: cluster_bits });
        }
        let cluster = 1_u64 << cluster_bits;
        if start.len() < V2_LENGTH as usize {
            return Err(short(V2_LENGTH));
        }
        let features = if version == 2 { Features::V2 } else { Features::parse(start, cluster)? };
        features.check(cluster)?;

        let (offset, length) = (u64_at(8)?, u32_at(16)?);
        if offset != 0 || length != 0 {
            return Err(Qcow2Error::BackingFile { offset, length });
        }
        let method = u32_at(32)?;
        if method != 0 {
            return Err(Qcow2Error::Encrypted { method });
        }
        let virtual_size = u64_at(24)?;
        if virtual_size == 0 {
            return Err(Qcow2Error::EmptyDisk);
        }

        let refcount_clusters = u32_at(56)?;
        let refcount_length = u64::from(refcount_clusters) << cluster_bits;
        if !(1..=REFCOUNT_TABLE).contains(&refcount_length) {
            return Err(Qcow2Error::RefcountTableSize { clusters: refcount_clusters, cluster });
        }
        let refcount_offset = u64_at(48)?;
        // Only its start must be inside the file: it is never read, and a writer may leave its tail unwritten.
        place("refcount table", refcount_offset, 1, cluster, file_length)?;
        let snapshots = u32_at(60)?;
        if snapshots > SNAPSHOTS {
            return Err(Qcow2Error::Snapshots { found: snapshots });
        }
        let snapshots_offset = u64_at(64)?;
        if snapshots > 0 {
            place("snapshot table", snapshots_offset, 1, cluster, file_length)?;
        }

        let extended_l2 = features.incompatible & EXTENDED_L2 != 0;
        let entries = u32_at(36)?;
        let needed = virtual_size.div_ceil(cluster).div_ceil(cluster / if extended_l2 { 16 } else { 8 });
        if entries > L1_ENTRIES {
            return Err(Qcow2Error::L1Large { entries });
        }
        if u64::from(entries) < needed {
            return Err(Qcow2Error::L1Small { entries, needed, size: virtual_size });
        }
        let (l1_offset, l1_length) = (u64_at(40)?, u64::from(entries) * 8);
        place("L1 table", l1_offset, l1_length, cluster, file_length)?;
        if l1_offset < refcount_offset.saturating_add(refcount_length)
            && refcount_offset < l1_offset.saturating_add(l1_length)
        {
            return Err(Qcow2Error::TableOnTable {
                table: "L1 table",
                offset: l1_offset,
                other: "refcount table",
            });
        }
        check_extensions(start, features.header_length, cluster)?;

        Ok(Header {
            version,
            virtual_size,
            cluster_bits,
            l1_offset,
            l1_needed: needed,
            l1_length,
            refcount_offset,
            refcount_length,
            snapshots,
            snapshots_offset,
            extended_l2,
            dirty: features.incompatible & DIRTY != 0,
            compression: if features.compression == 1 { Compression::Zstd } else { Compression::Zlib },
        })
    }

    /// The size of the disk that the image holds.
    pub fn virtual_size(&self) -> ByteCount {
        ByteCount(self.virtual_size)
    }

    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub fn cluster_size(&self) -> u64 {
        1 << (self.cluster_bits & 63)
    }

    /// How the image's compressed clusters, if it has any, are compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The part of the L1 table that the disk needs, in bytes of the file.
    pub fn l1(&self) -> core::ops::Range<u64> {
        // No overflow: the table lies inside the file.
        self.l1_offset..self.l1_offset + self.l1_needed * 8
    }

    /// L2 tables that the disk may have.
    pub fn tables(&self) -> u64 {
        self.l1_needed
    }

    /// Refuses a table that lies on one whose place the header gives.
    pub(super) fn on_table(&self, table: &'static str, offset: u64, length: u64) -> Result<(), Qcow2Error> {
        match self.table_at(offset, length) {
            Some(other) => Err(Qcow2Error::TableOnTable { table, offset, other }),
            None => Ok(()),
        }
    }

    /// The table whose place the header gives and that the bytes lie on, if any.
    pub(super) fn table_at(&self, offset: u64, length: u64) -> Option<&'static str> {
        [
            ("header", 0, self.cluster_size()),
            ("L1 table", self.l1_offset, self.l1_length),
            ("refcount table", self.refcount_offset, self.refcount_length),
        ]
        .into_iter()
        .find(|&(_, start, size)| {
            offset < start.saturating_add(size) && start < offset.saturating_add(length)
        })
        .map(|(name, ..)| name)
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether the image was not closed cleanly. Its content is readable all the same, only refcounts may be stale: worth
    /// a warning.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }
}

/// What version 3 adds to the header.
struct Features {
    incompatible: u64,
    refcount_order: u32,
    header_length: u32,
    compression: u8,
}

impl Features {
    const V2: Features =
        Features { incompatible: 0, refcount_order: 4, header_length: V2_LENGTH, compression: 0 };

    fn parse(start: &[u8], cluster: u64) -> Result<Features, Qcow2Error> {
        let short =
            |needed: u32| Qcow2Error::HeaderShort { given: start.len() as u64, needed: needed.into() };
        let header_length = be32(start, 100).ok_or_else(|| short(V3_LENGTH))?;
        if header_length < V3_LENGTH || u64::from(header_length) > cluster || !header_length.is_multiple_of(8)
        {
            return Err(Qcow2Error::HeaderLength { found: header_length, cluster });
        }
        // The type is part of the header only if the header is long enough to hold it.
        let compression = if header_length > V3_LENGTH {
            *start.get(V3_LENGTH as usize).ok_or_else(|| short(header_length))?
        } else {
            0
        };
        Ok(Features {
            incompatible: be64(start, 72).ok_or_else(|| short(V3_LENGTH))?,
            refcount_order: be32(start, 96).ok_or_else(|| short(V3_LENGTH))?,
            header_length,
            compression,
        })
    }

    fn check(&self, cluster: u64) -> Result<(), Qcow2Error> {
        let bits = self.incompatible;
        let unknown = bits & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2);
        if unknown != 0 {
            return Err(Qcow2Error::UnknownFeatures { bits: unknown });
        }
        if bits & CORRUPT != 0 {
            return Err(Qcow2Error::MarkedCorrupt);
        }
        if bits & DATA_FILE != 0 {
            return Err(Qcow2Error::DataFile);
        }
        if self.compression > 1 {
            return Err(Qcow2Error::CompressionType { found: self.compression });
        }
        let bit = bits & COMPRESSION != 0;
        if bit != (self.compression != 0) {
            return Err(Qcow2Error::CompressionBit { found: self.compression, bit });
        }
        if bits & EXTENDED_L2 != 0 && cluster < EXTENDED_CLUSTER {
            return Err(Qcow2Error::ExtendedClusters { cluster });
        }
        if self.refcount_order > 6 {
            return Err(Qcow2Error::RefcountOrder { found: self.refcount_order });
        }
        Ok(())
    }
}

/// Refuses a table that is not cluster-aligned, lies on the header, or leaves the file.
pub(super) fn place(
    table: &'static str,
    offset: u64,
    length: u64,
    cluster: u64,
    file_length: u64,
) -> Result<(), Qcow2Error> {
    if !offset.is_multiple_of(cluster) {
        return Err(Qcow2Error::TableUnaligned { table, offset, cluster });
    }
    if offset < cluster {
        return Err(Qcow2Error::TableOnTable { table, offset, other: "header" });
    }
    if offset.checked_add(length).is_none_or(|end| end > file_length) {
        return Err(Qcow2Error::TableOutside { table, offset, length, file_length });
    }
    Ok(())
}

/// Walks the header extensions as far as they were given. All are skipped: none changes how the content is read once the
/// feature bits are known, but one that leaves the first cluster shows a damaged header.
fn check_extensions(start: &[u8], from: u32, cluster: u64) -> Result<(), Qcow2Error> {
    let mut at = u64::from(from);
    while at + 8 <= cluster {
        let here = usize::try_from(at).unwrap_or(usize::MAX);
        let (Some(kind), Some(length)) = (be32(start, here), be32(start, here.saturating_add(4))) else {
            return Ok(());
        };
        if kind == 0 {
            return Ok(());
        }
        let next = at + 8 + u64::from(length).next_multiple_of(8);
        if next > cluster {
            return Err(Qcow2Error::Extension { at, length, cluster });
        }
        at = next;
    }
    Ok(())
}
