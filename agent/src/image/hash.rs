//! The digest of the image as received.

use super::ImageError;
use ferric_common::ids::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

pub enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// # Errors
    /// [`ImageError::WeakDigest`].
    pub fn new(algorithm: DigestAlgorithm) -> Result<Hasher, ImageError> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Hasher::Sha256(Sha256::new())),
            DigestAlgorithm::Sha512 => Ok(Hasher::Sha512(Sha512::new())),
            DigestAlgorithm::Md5 => Err(ImageError::WeakDigest),
        }
    }
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => {
                Digest { algorithm: DigestAlgorithm::Sha256, bytes: hasher.finalize().to_vec() }
            }
            Hasher::Sha512(hasher) => {
                Digest { algorithm: DigestAlgorithm::Sha512, bytes: hasher.finalize().to_vec() }
            }
        }
    }
}
