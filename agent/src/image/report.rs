//! What a finished write says of itself.

use ferric_common::units::ByteCount;
use std::fmt;
use std::time::Duration;

/// What held the write back the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Network,
    Hash,
    Decompression,
    Disk,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Network => "network",
            Limit::Hash => "hash",
            Limit::Decompression => "decompression",
            Limit::Disk => "disk",
        })
    }
}

/// The account of one image write.
#[derive(Clone, Debug)]
pub struct WriteReport {
    /// Bytes of the image file.
    pub received: ByteCount,
    /// Data bytes written, head and tail included.
    pub written: ByteCount,
    /// Bytes zeroed by the disk itself; zero bytes that had to be written.
    pub zeroed: ByteCount,
    pub zeros_written: ByteCount,
    /// Bytes read back and compared.
    pub verified: ByteCount,
    pub virtual_size: ByteCount,
    /// Time to receive, decode and write the body; to flush, finish and read back.
    pub body: Duration,
    pub finish: Duration,
    pub limit: Limit,
    /// Times the transfer was taken up again.
    pub resumes: u32,
}

impl fmt::Display for WriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |b: ByteCount| b.0 >> 20;
        let rate = self.received.0 as f64 / self.body.as_secs_f64().max(0.001) / 1_048_576.0;
        write!(
            f,
            "{} MiB received at {rate:.0} MiB/s, {} MiB written, {} MiB zeroed by the disk, {} MiB of zeros written, \
             {} MiB read back; {:.1} s body + {:.1} s finish; limited by {}; {} resumes",
            mib(self.received),
            mib(self.written),
            mib(self.zeroed),
            mib(self.zeros_written),
            mib(self.verified),
            self.body.as_secs_f64(),
            self.finish.as_secs_f64(),
            self.limit,
            self.resumes
        )
    }
}
