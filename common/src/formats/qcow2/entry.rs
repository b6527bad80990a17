//! One L2 entry: where the content of one cluster of the disk is. Checks the entry's own bits; whether the place is inside
//! the file and free of tables is the planner's question.

use super::Qcow2Error;

/// The bits that hold a host offset in L1 and standard L2 entries.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The bits of an L1 entry that must be 0. Bit 63 (refcount is exactly one) is a hint for writers.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// The bits of a standard L2 entry that must be 0 whatever the version; bit 0 is the zero flag of version 3.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
const ZERO: u64 = 1;
const COMPRESSED: u64 = 1 << 62;

/// What an L2 entry says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// The whole cluster reads as zeros.
    Zeros,
    /// The whole cluster lies at `host` as it is.
    Plain { host: u64 },
    /// The subclusters whose bit is set lie at their place in the cluster at `host`; the others read as zeros.
    Subclusters { host: u64, allocated: u32 },
    /// A compressed stream at `host`, at most `stored` bytes.
    Compressed { host: u64, stored: u64 },
}

/// The offset of the L2 table that an L1 entry names; 0: none. `guest` is the first disk byte the entry stands for.
pub(super) fn l1(entry: u64, guest: u64) -> Result<u64, Qcow2Error> {
    let bits = entry & L1_RESERVED;
    if bits != 0 {
        return Err(Qcow2Error::Reserved { table: "L1", entry, guest, bits });
    }
    Ok(entry & OFFSET)
}

/// Decodes the L2 entry for disk byte `guest`. `bitmap` is the second half of an extended entry; without it, bit 0 of
/// `entry` is the zero flag, if `zero_flag` (version 3).
pub(super) fn l2(
    entry: u64,
    bitmap: Option<u64>,
    guest: u64,
    cluster_bits: u32,
    zero_flag: bool,
) -> Result<Mapping, Qcow2Error> {
    if entry & COMPRESSED != 0 {
        return compressed(entry, bitmap, guest, cluster_bits);
    }
    let zero_is_reserved = bitmap.is_some() || !zero_flag;
    let bits = entry & (L2_RESERVED | if zero_is_reserved { ZERO } else { 0 });
    if bits != 0 {
        return Err(Qcow2Error::Reserved { table: "L2", entry, guest, bits });
    }
    let host = entry & OFFSET;
    if let Some(bitmap) = bitmap {
        return subclusters(host, bitmap, guest);
    }
    if entry & ZERO != 0 || host == 0 {
        return Ok(Mapping::Zeros);
    }
    Ok(Mapping::Plain { host })
}

/// A compressed cluster: the low bits are the byte offset, the ones above count 512-byte sectors after the first.
/// How many of each depends on the cluster size. Bit 63 is only a hint for writers.
fn compressed(entry: u64, bitmap: Option<u64>, guest: u64, cluster_bits: u32) -> Result<Mapping, Qcow2Error> {
    if let Some(bits) = bitmap
        && bits != 0
    {
        return Err(Qcow2Error::Reserved { table: "L2", entry, guest, bits });
    }
    // cluster_bits is 9..=21, so the offset has 49 to 61 bits.
    let offset_bits = 70_u32.saturating_sub(cluster_bits);
    let offset_mask = (1_u64 << (offset_bits & 63)) - 1;
    let sector_mask = (1_u64 << (cluster_bits.saturating_sub(8) & 63)) - 1;
    let host = entry & offset_mask;
    let sectors = ((entry >> (offset_bits & 63)) & sector_mask) + 1;
    Ok(Mapping::Compressed { host, stored: sectors * 512 - (host & 511) })
}

/// An extended entry: the low half of the map says which of 32 subclusters are allocated, the high half which are zeros.
fn subclusters(host: u64, bitmap: u64, guest: u64) -> Result<Mapping, Qcow2Error> {
    let allocated = (bitmap & 0xffff_ffff) as u32;
    let zero = (bitmap >> 32) as u32;
    if allocated & zero != 0 {
        return Err(Qcow2Error::SubclusterBoth { guest, bitmap });
    }
    match (host, allocated) {
        (_, 0) => Ok(Mapping::Zeros),
        (0, _) => Err(Qcow2Error::SubclusterHomeless { guest, bitmap }),
        (host, u32::MAX) => Ok(Mapping::Plain { host }),
        (host, allocated) => Ok(Mapping::Subclusters { host, allocated }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_where_a_cluster_is() {
        let bit63 = 1 << 63;
        for (entry, bitmap, bits, expected) in [
            (0, None, 16, Mapping::Zeros),
            (bit63, None, 16, Mapping::Zeros),
            (bit63 | 0x50000, None, 16, Mapping::Plain { host: 0x50000 }),
            (0x50000 | ZERO, None, 16, Mapping::Zeros),
            (COMPRESSED | 0x50123, None, 16, Mapping::Compressed { host: 0x50123, stored: 512 - 0x123 }),
            (COMPRESSED | 2 << 54 | 0x50000, None, 16, Mapping::Compressed { host: 0x50000, stored: 1536 }),
            (COMPRESSED | 1 << 61 | 0x400, None, 9, Mapping::Compressed { host: 0x400, stored: 1024 }),
            (
                COMPRESSED | 0x1fff << 49 | 0x200000,
                None,
                21,
                Mapping::Compressed { host: 0x200000, stored: 4 << 20 },
            ),
            (0x50000, Some(0), 16, Mapping::Zeros),
            (0, Some(0xffff_ffff << 32), 16, Mapping::Zeros),
            (0x50000, Some(0xffff_ffff), 16, Mapping::Plain { host: 0x50000 }),
            (0x50000, Some(1 << 32 | 6), 16, Mapping::Subclusters { host: 0x50000, allocated: 6 }),
        ] {
            assert_eq!(l2(entry, bitmap, 0, bits, true), Ok(expected), "{entry:x} {bitmap:x?}");
        }
    }
}
