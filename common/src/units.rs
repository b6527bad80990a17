//! Amounts and places in bytes, kept apart by type so that they do not add up by accident.

use core::fmt;
use serde::{Deserialize, Serialize};

/// One mebibyte, in bytes.
pub const MIB: u64 = 1 << 20;
/// One gibibyte, in bytes.
pub const GIB: u64 = 1 << 30;

/// An amount of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// A place on a disk or in a file, in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskOffset(pub u64);

/// The logical sector size of a disk, in bytes: 512 or 4096 on every disk sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SectorSize(pub u32);

impl DiskOffset {
    /// The place `by` bytes further on, or `None` past the end of the number range.
    pub fn checked_add(self, by: ByteCount) -> Option<DiskOffset> {
        self.0.checked_add(by.0).map(DiskOffset)
    }
}

impl From<u64> for ByteCount {
    fn from(bytes: u64) -> ByteCount {
        ByteCount(bytes)
    }
}

impl fmt::Display for DiskOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Prints the largest binary unit with one decimal and, beside it, the exact number: `4.0 GiB (4294967296 bytes)`.
/// Operators compare sizes at night; a rounded number alone has misled many.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let (unit, name) = match n {
            0..1024 => return write!(f, "{n} bytes"),
            1024..MIB => (1024, "KiB"),
            MIB..GIB => (MIB, "MiB"),
            GIB..0x100_0000_0000 => (GIB, "GiB"),
            _ => (1 << 40, "TiB"),
        };
        let tenths = (u128::from(n) * 10 / u128::from(unit)) as u64;
        write!(f, "{}.{} {name} ({n} bytes)", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_size_prints_its_unit_and_the_exact_number() {
        for (bytes, text) in [
            (512, "512 bytes"),
            (4 * GIB, "4.0 GiB (4294967296 bytes)"),
            (1536, "1.5 KiB (1536 bytes)"),
            (10 << 40, "10.0 TiB (10995116277760 bytes)"),
        ] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }
}
