//! Bytes that no compressor of a drive and no former tenant could have made: xoshiro256++ (Blackman and Vigna), seeded
//! from the kernel. For overwriting, not for keys.

/// A stream of noise.
#[derive(Clone, Debug)]
pub struct Noise([u64; 4]);

impl Noise {
    /// Spreads the seed by splitmix64, as the authors advise.
    pub fn new(seed: u64) -> Noise {
        let mut state = seed;
        Noise([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for place in words {
            *place = self.word().to_le_bytes();
        }
        for (place, byte) in rest.iter_mut().zip(self.word().to_le_bytes()) {
            *place = byte;
        }
    }
}

/// A seed that differs from run to run; fixed if the kernel gives none, which weakens the proof and not the erase.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0x6665_7272_6963_2121,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First numbers of the authors' reference code (xoshiro256plusplus.c) for the state 1, 2, 3, 4.
    #[test]
    fn the_stream_is_that_of_the_reference() {
        let mut noise = Noise([1, 2, 3, 4]);
        assert_eq!(
            [noise.word(), noise.word(), noise.word(), noise.word()],
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]
        );
    }

    #[test]
    fn seeds_give_different_streams_and_every_byte_is_filled() {
        assert_ne!(Noise::new(1).word(), Noise::new(2).word());
        let mut bytes = [0; 1021];
        Noise::new(3).fill(&mut bytes);
        assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
        assert_ne!(seed(), seed());
    }
}
