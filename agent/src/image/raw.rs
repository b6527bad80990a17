//! Raw bytes of a disk: blocks of zeros are gathered into runs across chunks, all else is written where it is. Pure.

use super::buffers::Chunk;
use super::route::{Batch, Found, Op};
use std::ops::Range;
use std::sync::Arc;

/// A run of zeros from this size on is zeroed, not written.
const ZERO_RUN: usize = 64 << 10;

/// Splits a stream of disk bytes.
#[derive(Default)]
pub struct Splitter {
    /// Zeros up to the end of the last chunk.
    run: Range<u64>,
}

impl Splitter {
    /// Takes the next chunk, whose `offset` is its place on the disk.
    pub fn pass(&mut self, chunk: &Arc<Chunk>, sink: &mut dyn FnMut(Found)) {
        let mut ops = Vec::new();
        let mut data: Option<Range<usize>> = None;
        let mut at = 0;
        let plain = |bytes: Range<usize>| Op::Plain { guest: chunk.offset + bytes.start as u64, bytes };
        for block in chunk.bytes().chunks(ZERO_RUN) {
            let place = chunk.offset + at as u64;
            if is_zero(block) {
                if self.run.is_empty() {
                    self.run = place..place;
                }
                self.run.end = place + block.len() as u64;
                ops.extend(data.take().map(plain));
            } else {
                self.finish(sink);
                data.get_or_insert(at..at).end = at + block.len();
            }
            at += block.len();
        }
        ops.extend(data.map(plain));
        if !ops.is_empty() {
            sink(Found::Batch(Batch { chunk: chunk.clone(), earlier: Vec::new(), ops }));
        }
    }

    /// Hands out the zeros gathered so far.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Found)) {
        let run = std::mem::take(&mut self.run);
        if !run.is_empty() {
            sink(Found::Zeros(run.start, run.end - run.start));
        }
    }
}

/// Looks at 64 bytes at a time. (A comparison of slices is the C library's `memcmp`, and musl's looks at one byte at a time.)
pub fn is_zero(block: &[u8]) -> bool {
    let (groups, rest) = block.as_chunks::<64>();
    let zero = |group: &[u8; 64]| {
        let (words, _) = group.as_chunks::<16>();
        words.iter().fold(0, |all, word| all | u128::from_ne_bytes(*word)) == 0
    };
    groups.iter().all(zero) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::super::buffers::Pool;
    use super::super::queue::Stop;
    use super::*;

    /// `z`: 64 KiB of zeros, `d`: of data; a space begins the next chunk.
    fn split(text: &str) -> String {
        let pool = Pool::new(8, 1 << 20);
        let mut splitter = Splitter::default();
        let (mut at, mut said) = (0, String::new());
        let mut sink = |found: Found| match found {
            Found::Zeros(at, length) => said += &format!("zeros {}+{} ", at >> 16, length >> 16),
            Found::Batch(batch) => {
                for op in batch.ops {
                    let Op::Plain { bytes, guest } = op else { continue };
                    said += &format!("data {}+{} ", guest >> 16, bytes.len() >> 16);
                }
            }
        };
        for part in text.split(' ') {
            let mut buffer = pool.take(&Stop::default()).unwrap();
            for (block, kind) in buffer.bytes_mut().chunks_mut(ZERO_RUN).zip(part.chars()) {
                block.fill(0);
                // One byte of data anywhere makes a block of data.
                block[ZERO_RUN - 1] = u8::from(kind == 'd');
            }
            let length = part.len() * ZERO_RUN;
            splitter.pass(&pool.chunk(buffer, at, length), &mut sink);
            at += length as u64;
        }
        splitter.finish(&mut sink);
        said.trim_end().to_string()
    }

    #[test]
    fn zeros_are_gathered_across_chunks() {
        assert_eq!(split("zz zz"), "zeros 0+4");
        assert_eq!(split("dzz zzd"), "data 0+1 zeros 1+4 data 5+1");
        assert_eq!(split("zdzddz"), "zeros 0+1 zeros 2+1 data 1+1 data 3+2 zeros 5+1");
        assert_eq!(split("ddd d"), "data 0+3 data 3+1");
    }

    #[test]
    fn odd_lengths_are_looked_at_to_their_last_byte() {
        for length in [1, 15, 63, 64, 65, 200] {
            let mut block = vec![0; length];
            assert!(is_zero(&block));
            block[length - 1] = 1;
            assert!(!is_zero(&block), "{length}");
        }
    }
}
