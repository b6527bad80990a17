//! Hashes, by the functions that the agent calls for an image.

use crate::meter::{MIB, plain};
use anyhow::Result;
use sha2::{Digest, Sha256, Sha512};
use std::hint::black_box;

/// Hashed at once, as the pipeline does it.
const CHUNK: usize = MIB;
/// Hashed in one run.
const TOTAL: usize = 256 * MIB;

pub fn measure() -> Result<()> {
    let chunk = vec![0xa5; CHUNK];
    plain("sha256", TOTAL, || {
        let mut hash = Sha256::new();
        (0..TOTAL / CHUNK).for_each(|_| hash.update(black_box(&chunk)));
        black_box(hash.finalize());
        Ok(())
    })?;
    plain("sha512", TOTAL, || {
        let mut hash = Sha512::new();
        (0..TOTAL / CHUNK).for_each(|_| hash.update(black_box(&chunk)));
        black_box(hash.finalize());
        Ok(())
    })
}
