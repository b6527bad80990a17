//! Bytes for images: the same on every machine for a seed, and never such that one place can be mistaken for another.

/// Marsaglia's xorshift; a failing case is named by its seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Neighbouring seeds begin alike; after a few steps they do not.
        for _ in 0..8 {
            rng.next();
        }
        rng
    }

    #[allow(clippy::should_implement_trait)] // endless: an Option would only be unwrapped
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The upper bits are the better ones.
        (self.next() >> 11) % limit.max(1)
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

/// A disk as disks are: random pieces, pieces that compress, and holes, in units of 64 KiB or less.
pub fn disk(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = vec![0; size];
    for piece in bytes.chunks_mut((64 << 10).min(size.div_ceil(16).max(512))) {
        let filling = match rng.below(4) {
            0 => continue,
            1 => rng.bytes(piece.len()),
            2 => vec![rng.next() as u8 | 1; piece.len()],
            _ => text(rng.next(), piece.len()),
        };
        piece.copy_from_slice(&filling);
    }
    bytes
}

/// Bytes that compress to about half.
pub fn text(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let words: Vec<Vec<u8>> = (0..16).map(|_| rng.bytes(7)).collect();
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        bytes.extend_from_slice(&words[rng.below(16) as usize]);
        bytes.extend_from_slice(&rng.next().to_le_bytes()[..2]);
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_and_another_seed_others() {
        assert_eq!(disk(1, 100_000), disk(1, 100_000));
        assert_ne!(disk(1, 100_000), disk(2, 100_000));
        assert_eq!((disk(3, 77).len(), text(3, 1001).len()), (77, 1001));
    }
}
