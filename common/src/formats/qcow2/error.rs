//! Why a qcow2 image is refused, in words for whoever has to repair or rebuild it.
//!
//! Places in the file are printed in hex, as `qemu-img check` and `qemu-img map` print them; places on the disk
//! ("disk byte") in decimal.

/// Why an image cannot be read. Every variant means that the image is refused; none goes away by trying again, save that
/// a file that was cut short may be whole when fetched anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    #[error(
        "the qcow2 header is cut short: {given} bytes, expected at least {needed}; fetch the image again"
    )]
    HeaderShort { given: u64, needed: u64 },
    #[error(
        "the image is not qcow2: it starts with 0x{found:08x}, expected 0x514649fb; check the declared disk format"
    )]
    Magic { found: u32 },
    #[error(
        "qcow2 version {found} is not supported, expected 2 or 3; convert the image with qemu-img convert"
    )]
    Version { found: u32 },
    #[error("the qcow2 header gives clusters of 2^{found} bytes, expected 2^9 to 2^21")]
    ClusterBits { found: u32 },
    #[error(
        "the qcow2 header gives its own length as {found} bytes, expected 104 to {cluster} and a multiple of 8"
    )]
    HeaderLength { found: u32, cluster: u64 },
    #[error(
        "the qcow2 header extension at 0x{at:x} is {length} bytes long and leaves the first cluster of {cluster} bytes"
    )]
    Extension { at: u64, length: u32, cluster: u64 },
    #[error("the qcow2 header gives a disk of 0 bytes; there is nothing to write")]
    EmptyDisk,
    #[error(
        "the image names a backing file (name at 0x{offset:x}, {length} bytes long); flatten it with qemu-img convert"
    )]
    BackingFile { offset: u64, length: u32 },
    #[error("the image is encrypted (method {method}), expected method 0; decrypt it with qemu-img convert")]
    Encrypted { method: u32 },
    #[error("the image is marked corrupt; repair it with qemu-img check -r all, or build it again")]
    MarkedCorrupt,
    #[error("the image keeps its data in an external data file; put it into one file with qemu-img convert")]
    DataFile,
    #[error(
        "the image needs features that are not supported: incompatible bits 0x{bits:x}, known are 0, 3 and 4"
    )]
    UnknownFeatures { bits: u64 },
    #[error("the image's compression type is {found}, expected 0 (zlib) or 1 (zstd)")]
    CompressionType { found: u8 },
    #[error("the image's compression type is {found} and its compression bit is {}, expected the bit exactly when the type is not 0", if *.bit { "set" } else { "clear" })]
    CompressionBit { found: u8, bit: bool },
    #[error("the image has extended L2 entries with clusters of {cluster} bytes, expected 16384 or more")]
    ExtendedClusters { cluster: u64 },
    #[error("the qcow2 header gives refcounts of 2^{found} bits, expected at most 2^6")]
    RefcountOrder { found: u32 },
    #[error("the refcount table is {clusters} clusters of {cluster} bytes, expected 1 cluster to 8 MiB")]
    RefcountTableSize { clusters: u32, cluster: u64 },
    #[error("the image has {found} snapshots, expected at most 65536")]
    Snapshots { found: u32 },
    #[error("snapshot {number} of the image has {found} bytes of extra data, expected at most 1024")]
    SnapshotExtra { number: u32, found: u32 },
    #[error(
        "the snapshot table is longer than {most} bytes at its entry {number}; delete snapshots with qemu-img snapshot -d"
    )]
    SnapshotTable { most: u64, number: u32 },
    #[error("the L1 table has {entries} entries, but a disk of {size} bytes needs {needed}")]
    L1Small { entries: u32, needed: u64, size: u64 },
    #[error("the L1 table has {entries} entries, expected at most 4194304 (32 MiB)")]
    L1Large { entries: u32 },
    #[error("the {table} is at 0x{offset:x}, expected a multiple of the cluster size {cluster}")]
    TableUnaligned { table: &'static str, offset: u64, cluster: u64 },
    #[error(
        "the {table} at 0x{offset:x} ({length} bytes) is not inside the file of {file_length} bytes; the image is cut short or damaged"
    )]
    TableOutside { table: &'static str, offset: u64, length: u64, file_length: u64 },
    #[error("the {table} at 0x{offset:x} lies on the {other}; the image is damaged")]
    TableOnTable { table: &'static str, offset: u64, other: &'static str },
    #[error("the L2 table at 0x{offset:x} is used a second time for disk byte {guest}; the image is damaged")]
    SharedL2 { offset: u64, guest: u64 },
    #[error(
        "the {table} entry 0x{entry:016x} for disk byte {guest} has reserved bits 0x{bits:x} set, expected none"
    )]
    Reserved { table: &'static str, entry: u64, guest: u64, bits: u64 },
    #[error(
        "the data for disk byte {guest} is at 0x{offset:x} of the file, expected a multiple of the cluster size {cluster}"
    )]
    DataUnaligned { guest: u64, offset: u64, cluster: u64 },
    #[error(
        "the data for disk byte {guest} is at 0x{offset:x} ({length} bytes), not inside the file of {file_length} bytes; the image is cut short or damaged"
    )]
    DataOutside { guest: u64, offset: u64, length: u64, file_length: u64 },
    #[error("the data for disk byte {guest} is at 0x{offset:x}, on the {other}; the image is damaged")]
    DataOnTable { guest: u64, offset: u64, other: &'static str },
    #[error(
        "the subcluster map 0x{bitmap:016x} for disk byte {guest} says both allocated and zero for the same subcluster"
    )]
    SubclusterBoth { guest: u64, bitmap: u64 },
    #[error(
        "the subcluster map 0x{bitmap:016x} for disk byte {guest} says allocated, but the entry names no data cluster"
    )]
    SubclusterHomeless { guest: u64, bitmap: u64 },
    #[error("reading the image's tables: {given} bytes were handed over, {wanted} were asked for")]
    Supply { given: u64, wanted: u64 },
}
