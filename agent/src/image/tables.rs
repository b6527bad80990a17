//! Reads the tables of a qcow2 image before its data: by ranges, or in passes over the stream where the server has none.

use super::map::Map;
use super::proofs::Proofs;
use super::{ImageError, Source};
use ferric_common::formats::qcow2::{Header, Planner, Step};
use ferric_common::units::ByteCount;
use std::ops::Range;

/// Passes over an image whose server has no ranges, tables included.
const PASSES: u32 = 16;
/// Bytes read at once on the way to a table.
const STEP: usize = 256 << 10;

/// Walks all tables of the image and fills the map.
///
/// # Errors
/// Those of the image's structure, of the server, and of a map that does not fit.
pub fn walk(
    header: &Header,
    length: u64,
    source: &mut Source,
    map: &mut Map,
    proofs: &mut Proofs,
) -> Result<(), ImageError> {
    let mut reader = TableReader { source, at: 0, passes: 1 };
    let mut planner = Planner::new(header, length);
    while let Step::Need(range) = planner.step() {
        let bytes = reader.read(range.clone())?;
        proofs.see(range, &bytes, reader.source.name())?;
        let mut overfull = false;
        planner.supply(&bytes, &mut |extent| {
            overfull = map.add(extent).is_err();
            !overfull
        })?;
        if overfull {
            return Err(ImageError::MapTooLarge(ByteCount(super::map::PIECES as u64)));
        }
    }
    map.end();
    Ok(())
}

/// Reads one part of the file, by range or by reading up to it. The stream must be rewound afterwards.
///
/// # Errors
/// Those of the server.
pub fn read(source: &mut Source, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
    TableReader { source, at: 0, passes: 1 }.read(range)
}

struct TableReader<'a> {
    source: &'a mut Source,
    at: u64,
    passes: u32,
}

impl TableReader<'_> {
    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        if self.source.has_ranges() {
            return self.source.fetch(range);
        }
        let known = self.source.start();
        if let Some(bytes) = known.get(range.start as usize..range.end as usize) {
            return Ok(bytes.to_vec());
        }
        if range.start < self.at {
            self.passes += 1;
            if self.passes >= PASSES {
                return Err(ImageError::Order(PASSES));
            }
            self.source.rewind();
            self.at = 0;
        }
        let mut scratch = vec![0u8; STEP];
        while self.at < range.start {
            let step = (range.start - self.at).min(scratch.len() as u64) as usize;
            self.exactly(scratch.get_mut(..step).unwrap_or_default())?;
        }
        let mut bytes = vec![0u8; (range.end - range.start) as usize];
        self.exactly(&mut bytes)?;
        Ok(bytes)
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), ImageError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(buffer.get_mut(filled..).unwrap_or_default())? {
                0 => {
                    let (url, expected) = (self.source.name().to_string(), self.source.length().unwrap_or(0));
                    let (got, expected) = (self.at.into(), expected.into());
                    return Err(ImageError::Truncated { url, got, expected });
                }
                count => {
                    filled += count;
                    self.at += count as u64;
                }
            }
        }
        Ok(())
    }
}
