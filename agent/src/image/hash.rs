//! The digest of the image as received.

use ferric_common::ids::{Digest, DigestAlgorithm};
use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512};

pub enum Hasher {
    /// Proves nothing against an attacker; whoever asks for it has allowed it.
    Md5(Md5),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn new(algorithm: DigestAlgorithm) -> Hasher {
        match algorithm {
            DigestAlgorithm::Md5 => Hasher::Md5(Md5::new()),
            DigestAlgorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            DigestAlgorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Md5(hasher) => {
                Digest { algorithm: DigestAlgorithm::Md5, bytes: hasher.finalize().to_vec() }
            }
            Hasher::Sha256(hasher) => {
                Digest { algorithm: DigestAlgorithm::Sha256, bytes: hasher.finalize().to_vec() }
            }
            Hasher::Sha512(hasher) => {
                Digest { algorithm: DigestAlgorithm::Sha512, bytes: hasher.finalize().to_vec() }
            }
        }
    }
}
