//! Proof of an erase: marks that nobody could have guessed are written to samples of the disk before, and looked for
//! afterwards. A drive that reports success and does nothing is found out; so is one that returns old data for what it
//! discarded.

use super::fault::DeviceFault;
use super::noise::Noise;
use crate::disk::aligned;
use crate::platform::block::BlockDevice;
use ferric_common::units::{ByteCount, DiskOffset, MIB};

/// Bytes of a sample.
const SAMPLE: u64 = MIB;
/// Where samples are taken, in hundredths of the disk: ironic-python-agent's places, and the end.
const PLACES: [u64; 11] = [0, 1, 10, 25, 40, 50, 60, 75, 90, 99, 100];
/// Samples at random places beside those.
const RANDOM: u64 = 16;
/// A sample is compared in pieces of this many bytes: the smallest sector.
const PIECE: usize = 512;

/// What must be read at the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Zeros,
    /// Anything but what was written there: after a cryptographic erase that is noise.
    NotTheMarks,
}

/// Why an erase is not proven.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error(transparent)]
    Device(#[from] DeviceFault),
    #[error("{device} still reads back at byte {at} what was there before: it did not erase")]
    Remains { device: String, at: u64 },
    #[error("{device} does not read as zeros at byte {at}")]
    NotZero { device: String, at: u64 },
}

/// The samples of one disk, and the noise they are marked with.
#[derive(Clone, Debug)]
pub struct Marks {
    seed: u64,
    places: Vec<u64>,
    length: u64,
}

impl Marks {
    pub fn new(size: u64, seed: u64) -> Marks {
        let length = size.min(SAMPLE);
        let last = size - length;
        let mut noise = Noise::new(seed);
        let fixed = PLACES.map(|hundredth| (u128::from(last) * u128::from(hundredth) / 100) as u64);
        let mut places: Vec<u64> = fixed
            .into_iter()
            .chain((0..RANDOM).map(|_| noise.word() % (last + 1)))
            .map(|at| if at == last { at } else { at - at % PIECE as u64 })
            .collect();
        places.sort_unstable();
        // Samples that overlap would overwrite each other's marks.
        let mut apart: Vec<u64> = Vec::new();
        for at in places {
            if apart.last().is_none_or(|before| at >= before + length) {
                apart.push(at);
            } else if at == last {
                apart.pop();
                apart.push(at);
            }
        }
        Marks { seed, places: apart, length }
    }

    fn bytes(&self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        Noise::new(self.seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).fill(&mut bytes);
        bytes
    }

    /// Where the samples are.
    pub fn samples(&self) -> impl Iterator<Item = (DiskOffset, ByteCount)> {
        self.places.iter().map(|at| (DiskOffset(*at), ByteCount(self.length)))
    }

    /// Writes the marks and flushes. What was at the samples is lost.
    ///
    /// # Errors
    /// [`ProofError::Device`].
    pub fn write(&self, disk: &dyn BlockDevice) -> Result<(), ProofError> {
        for at in &self.places {
            aligned::write(disk, DiskOffset(*at), &self.bytes(*at)).map_err(DeviceFault::at(
                "marking a sample of",
                disk,
                *at,
            ))?;
        }
        Ok(disk.flush().map_err(DeviceFault::at("flushing the marks of", disk, 0))?)
    }

    /// Reads all samples back.
    ///
    /// # Errors
    /// The first sample that is not as expected, or cannot be read.
    pub fn check(&self, disk: &dyn BlockDevice, expect: Expect) -> Result<(), ProofError> {
        for at in &self.places {
            let found = aligned::read(disk, DiskOffset(*at), ByteCount(self.length))
                .map_err(DeviceFault::at("reading a sample of", disk, *at))?;
            let marks = self.bytes(*at);
            let pieces = found.chunks(PIECE).zip(marks.chunks(PIECE));
            for (place, (found, mark)) in (*at..).step_by(PIECE).zip(pieces) {
                let device = || disk.name().to_owned();
                if found == mark {
                    return Err(ProofError::Remains { device: device(), at: place });
                }
                if expect == Expect::Zeros && found.iter().any(|byte| *byte != 0) {
                    return Err(ProofError::NotZero { device: device(), at: place });
                }
            }
        }
        Ok(())
    }

    /// Whether one of them is read from here: it is the disk that they were written to, as nobody could have guessed it.
    ///
    /// # Errors
    /// None was read, and the first sample that could not be.
    pub fn are_on(&self, disk: &dyn BlockDevice) -> Result<bool, ProofError> {
        let mut unread = None;
        for at in &self.places {
            let found = aligned::read(disk, DiskOffset(*at), ByteCount(self.length));
            match found.map_err(DeviceFault::at("reading a sample of", disk, *at)) {
                Ok(found) if found == self.bytes(*at) => return Ok(true),
                Ok(_) => {}
                Err(fault) => unread = unread.or(Some(fault)),
            }
        }
        unread.map_or(Ok(false), |fault| Err(fault.into()))
    }

    /// The proof in words.
    pub fn words(&self, expect: Expect) -> String {
        let what = match expect {
            Expect::Zeros => "read as zeros",
            Expect::NotTheMarks => "no longer hold what was written there before",
        };
        format!(
            "{} samples, {} MiB in all, {what}",
            self.places.len(),
            (self.places.len() as u64 * self.length).div_ceil(MIB)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::block::{Fault, MemDisk};

    const SIZE: u64 = 64 * MIB;

    fn fill(disk: &MemDisk, byte: u8) {
        disk.write_at(DiskOffset(0), &vec![byte; SIZE as usize]).unwrap();
    }

    #[test]
    fn samples_lie_inside_and_apart_and_reach_both_ends() {
        for size in [512, 4096, MIB, MIB + 512, 3 * MIB, SIZE, SIZE + 512, 18_000_000_000_000] {
            let marks = Marks::new(size, 7);
            let (first, last) = (marks.places[0], *marks.places.last().unwrap());
            assert_eq!(last + marks.length, size);
            assert!(first == 0 || size < 2 * MIB, "{size}");
            assert!(marks.places.windows(2).all(|pair| pair[0] + marks.length <= pair[1]), "{size}");
        }
        assert!(Marks::new(18_000_000_000_000, 7).places.len() > 20);
    }

    #[test]
    fn an_erased_disk_passes_and_the_words_say_how() {
        let (disk, marks) = (MemDisk::new(SIZE), Marks::new(SIZE, 1));
        marks.write(&disk).unwrap();
        assert!(
            marks.are_on(&disk).unwrap()
                && !marks.are_on(&MemDisk::new(SIZE)).unwrap()
                && marks.are_on(&MemDisk::new(SIZE / 2)).is_err()
        );
        fill(&disk, 0);
        assert!(!marks.are_on(&disk).unwrap());
        marks.check(&disk, Expect::Zeros).unwrap();
        marks.check(&disk, Expect::NotTheMarks).unwrap();
        fill(&disk, 0x5a);
        marks.check(&disk, Expect::NotTheMarks).unwrap();
        assert!(matches!(marks.check(&disk, Expect::Zeros), Err(ProofError::NotZero { at: 0, .. })));
        assert!(marks.words(Expect::Zeros).ends_with("read as zeros"));
    }

    #[test]
    fn one_sector_that_stays_is_found() {
        let (disk, marks) = (MemDisk::new(SIZE), Marks::new(SIZE, 2));
        marks.write(&disk).unwrap();
        let before = disk.content();
        fill(&disk, 0);
        let at = marks.places[3] as usize + 1024;
        disk.write_at(DiskOffset(at as u64), &before[at..at + 512]).unwrap();
        for expect in [Expect::Zeros, Expect::NotTheMarks] {
            let error = marks.check(&disk, expect).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("/dev/mem0 still reads back at byte {at} what was there before: it did not erase")
            );
        }
    }

    #[test]
    fn what_cannot_be_marked_or_read_is_told() {
        let marks = Marks::new(SIZE, 3);
        let writes = MemDisk::new(SIZE).with_fault(Fault::Write(0));
        assert_eq!(marks.write(&writes).unwrap_err().to_string(), "marking a sample of /dev/mem0 at byte 0");
        let reads = MemDisk::new(SIZE).with_fault(Fault::Read(SIZE - 1));
        marks.write(&reads).unwrap();
        fill(&reads, 0);
        let error = marks.check(&reads, Expect::Zeros).unwrap_err().to_string();
        assert_eq!(error, format!("reading a sample of /dev/mem0 at byte {}", SIZE - MIB));
    }
}
