//! What bytes written in any order add up to, so that all of them can be compared when they are read back in order.
//!
//! Each unit of 512 bytes that is not all zeros adds a digest of its place and content; a sum needs no memory for the
//! image's size, and zeroed ranges add nothing. Kept in as many parts as fit, so that a difference can be placed. Guards
//! against faulty disks, not against enemies: 64 bits of SHA-256 in each part.

use super::raw::is_zero;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a unit: the smallest cluster and sector.
pub const UNIT: usize = 512;
/// Parts of the disk that are told apart at most, and the fewest bytes of each.
const PARTS: u64 = 4096;
const PART: u64 = 16 << 20;

/// A sum over part of a disk. May be added to from several threads.
pub struct Sum {
    parts: Box<[AtomicU64]>,
    /// Bytes of a part.
    part: u64,
}

impl Sum {
    /// For a disk of `size` bytes.
    pub fn over(size: u64) -> Sum {
        let part = size.div_ceil(PARTS).max(PART);
        Sum { parts: (0..=size / part).map(|_| AtomicU64::new(0)).collect(), part }
    }

    /// Adds bytes at their place on the disk. A unit comes whole; what is less than one at the end is left out.
    pub fn add(&self, at: u64, bytes: &[u8]) {
        for (place, unit) in (at..).step_by(UNIT).zip(bytes.as_chunks::<UNIT>().0) {
            if is_zero(unit) {
                continue;
            }
            let digest = Sha256::new().chain_update(place.to_le_bytes()).chain_update(unit).finalize();
            let value = digest.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            if let Some(part) = self.parts.get((place / self.part) as usize) {
                part.fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    /// Where the first part begins that differs. Both sums are over the same size.
    pub fn first_difference(&self, other: &Sum) -> Option<u64> {
        let differs =
            |(a, b): (&AtomicU64, &AtomicU64)| a.load(Ordering::Relaxed) != b.load(Ordering::Relaxed);
        self.parts.iter().zip(&other.parts).position(differs).map(|part| part as u64 * self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_matter_and_every_bit_does() {
        let bytes = (0..64 * UNIT).map(|n| (n / 7) as u8).collect::<Vec<_>>();
        let (one, two) = (Sum::over(1 << 30), Sum::over(1 << 30));
        one.add(32 << 20, &bytes);
        for (nth, part) in bytes.chunks(4 * UNIT).enumerate().rev() {
            two.add((32 << 20) + (nth * 4 * UNIT) as u64, part);
        }
        assert_eq!(one.first_difference(&two), None);
        let mut wrong = bytes.clone();
        wrong[9999] ^= 1;
        let three = Sum::over(1 << 30);
        three.add(32 << 20, &wrong);
        assert_eq!(one.first_difference(&three), Some(32 << 20));
        // The same bytes at another place, and zeros that are not there.
        let moved = Sum::over(1 << 30);
        moved.add((32 << 20) + UNIT as u64, &bytes);
        assert!(one.first_difference(&moved).is_some());
        one.add(0, &[0; 4096]);
        assert_eq!(one.first_difference(&two), None);
    }

    #[test]
    fn a_difference_far_out_is_placed_where_it_is() {
        let size = 3 << 40;
        let (one, two) = (Sum::over(size), Sum::over(size));
        let place = (2 << 40) + (5 << 30);
        one.add(place, &[7; UNIT]);
        let found = one.first_difference(&two).unwrap();
        assert!((found..found + (1 << 30)).contains(&place), "{found}");
        assert!(one.parts.len() as u64 <= PARTS + 1);
    }
}
