//! Builds the ramdisk, byte for byte reproducible.
