//! The table bytes that a plan stands on: remembered by digest, and compared with what passes in the hashed stream.

use super::ImageError;
use super::buffers::Chunk;
use ferric_common::units::ByteCount;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Memory for proofs, in bytes: 131,000 of 32 bytes. Tables that lie side by side have one between them.
pub const PROOFS: usize = 4 << 20;

/// A part of the file that the plan stands on. 160 bits of SHA-256: enough to tell two tables apart, and small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    start: u64,
    length: u32,
    digest: [u8; 20],
}

impl Proof {
    fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }
}

fn short(digest: impl AsRef<[u8]>) -> [u8; 20] {
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// All proofs of an image.
#[derive(Default)]
pub struct Proofs {
    list: Vec<Proof>,
    sealed: bool,
    next: usize,
    active: Vec<(Proof, Sha256)>,
}

impl Proofs {
    /// Notes bytes that the plan stands on; once sealed, compares them with what was noted.
    ///
    /// # Errors
    /// [`ImageError::MapTooLarge`]; [`ImageError::Changed`].
    pub fn see(&mut self, range: Range<u64>, bytes: &[u8], name: &str) -> Result<(), ImageError> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let proof = Proof { start: range.start, length, digest: short(Sha256::digest(bytes)) };
        if self.sealed {
            let known = self.list.binary_search_by_key(&proof.start, |p| p.start);
            let same = known.ok().and_then(|at| self.list.get(at)) == Some(&proof);
            return if same { Ok(()) } else { Err(changed(name, proof.start)) };
        }
        if (self.list.len() + 1) * size_of::<Proof>() > PROOFS {
            return Err(ImageError::MapTooLarge(ByteCount(PROOFS as u64)));
        }
        self.list.push(proof);
        Ok(())
    }

    /// All are noted; the stream may begin.
    pub fn seal(&mut self) {
        self.list.sort_by_key(|p| (p.start, p.length));
        self.sealed = true;
    }

    /// Compares what passes in the next chunk of the stream.
    ///
    /// # Errors
    /// [`ImageError::Changed`].
    pub fn pass(&mut self, chunk: &Chunk, name: &str) -> Result<(), ImageError> {
        while let Some(proof) = self.list.get(self.next).filter(|p| p.start < chunk.end()) {
            self.active.push((*proof, Sha256::new()));
            self.next += 1;
        }
        let mut remaining = Vec::new();
        for (proof, mut hasher) in self.active.drain(..) {
            let part = chunk.part(proof.start..proof.end());
            hasher.update(chunk.bytes().get(part).unwrap_or_default());
            if proof.end() > chunk.end() {
                remaining.push((proof, hasher));
            } else if short(hasher.finalize()) != proof.digest {
                return Err(changed(name, proof.start));
            }
        }
        self.active = remaining;
        Ok(())
    }
}

fn changed(name: &str, start: u64) -> ImageError {
    let what = format!("the table at byte {start} is not the one read before");
    ImageError::Changed { url: name.to_string(), what }
}
