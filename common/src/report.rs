//! The account of one image write: how much, how long, and what held it back. It is part of the command's result, of what the
//! controller's API shows of a node, and one line for an operator.

use crate::units::ByteCount;
use alloc::string::ToString;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What held a write back the most.
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

/// The roofline: how busy each part was while the body was written, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub network: u32,
    pub hash: u32,
    pub decompression: u32,
    pub disk: u32,
}

impl Load {
    /// The busiest part. The reader counts as waiting for the network only while nothing behind it is as busy.
    pub fn limit(&self) -> Limit {
        let kinds = [
            (self.network, Limit::Network),
            (self.hash, Limit::Hash),
            (self.decompression, Limit::Decompression),
            (self.disk, Limit::Disk),
        ];
        kinds.into_iter().max_by_key(|(share, _)| *share).map_or(Limit::Network, |(_, limit)| limit)
    }
}

/// How long each stage took; seconds on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// Looking at the image, reading its tables, blanking both ends.
    #[serde(with = "seconds")]
    pub prepare: Duration,
    /// Receiving, hashing, decoding and writing.
    #[serde(with = "seconds")]
    pub body: Duration,
    /// Flushes, and what was held back.
    #[serde(with = "seconds")]
    pub finish: Duration,
    /// Reading back.
    #[serde(with = "seconds")]
    pub verify: Duration,
}

/// The account of one image write.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteReport {
    /// Bytes of the image file.
    #[serde(rename = "bytes_received")]
    pub received: ByteCount,
    /// Data bytes written, head and tail included.
    #[serde(rename = "bytes_written")]
    pub written: ByteCount,
    /// Bytes zeroed by the disk itself; zero bytes that had to be written.
    #[serde(rename = "bytes_zeroed")]
    pub zeroed: ByteCount,
    #[serde(rename = "zero_bytes_written")]
    pub zeros_written: ByteCount,
    /// Bytes read back and compared.
    #[serde(rename = "bytes_verified")]
    pub verified: ByteCount,
    pub virtual_size: ByteCount,
    #[serde(rename = "seconds")]
    pub took: Took,
    #[serde(rename = "busy_percent")]
    pub load: Load,
    /// Times the transfer was taken up again.
    pub resumes: u32,
}

impl WriteReport {
    /// As a result or an answer shows it: the figures, what was the limit, and all in one line.
    pub fn shown(&self) -> Value {
        let mut shown = json!(self);
        if let Some(map) = shown.as_object_mut() {
            map.insert("limit".into(), json!(self.load.limit().to_string()));
            map.insert("summary".into(), json!(self.to_string()));
        }
        shown
    }
    /// Reads what [`WriteReport::shown`] made; none of anything else. The words are not taken over, they are made anew.
    pub fn read(shown: &Value) -> Option<WriteReport> {
        WriteReport::deserialize(shown).ok()
    }
}

impl fmt::Display for WriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |b: ByteCount| b.0 >> 20;
        let seconds = |d: Duration| d.as_secs_f64();
        let rate = self.received.0 as f64 / seconds(self.took.body).max(0.001) / 1_048_576.0;
        let Took { prepare, body, finish, verify } = self.took;
        let load = &self.load;
        write!(
            f,
            "{} MiB received at {rate:.0} MiB/s, {} MiB written, {} MiB zeroed by the disk, {} MiB of zeros written, \
             {} MiB read back; {:.2} s prepare + {:.2} s body + {:.2} s finish + {:.2} s verify; limited by {} (busy: \
             network {} %, hash {} %, decompression {} %, disk {} %); {} resumes",
            mib(self.received),
            mib(self.written),
            mib(self.zeroed),
            mib(self.zeros_written),
            mib(self.verified),
            seconds(prepare),
            seconds(body),
            seconds(finish),
            seconds(verify),
            load.limit(),
            load.network,
            load.hash,
            load.decompression,
            load.disk,
            self.resumes
        )
    }
}

/// A duration as a number of seconds, exact to the millisecond.
mod seconds {
    use core::time::Duration;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> WriteReport {
        let mib = |n: u64| ByteCount(n << 20);
        let ms = Duration::from_millis;
        WriteReport {
            received: mib(400),
            written: mib(1234),
            zeroed: mib(6900),
            zeros_written: mib(58),
            verified: mib(66),
            virtual_size: mib(8192),
            took: Took { prepare: ms(50), body: ms(2000), finish: ms(130), verify: ms(70) },
            load: Load { network: 40, hash: 31, decompression: 95, disk: 62 },
            resumes: 2,
        }
    }

    const LINE: &str = "400 MiB received at 200 MiB/s, 1234 MiB written, 6900 MiB zeroed by the disk, 58 MiB of zeros written, \
        66 MiB read back; 0.05 s prepare + 2.00 s body + 0.13 s finish + 0.07 s verify; limited by decompression (busy: network \
        40 %, hash 31 %, decompression 95 %, disk 62 %); 2 resumes";

    #[test]
    fn what_is_shown_has_figures_limit_and_line_and_reads_back() {
        let shown = report().shown();
        assert_eq!(
            shown,
            json!({
                "bytes_received": 400 << 20, "bytes_written": 1234 << 20, "bytes_zeroed": 6_900_u64 << 20,
                "zero_bytes_written": 58 << 20, "bytes_verified": 66 << 20, "virtual_size": 8_192_u64 << 20,
                "seconds": {"prepare": 0.05, "body": 2.0, "finish": 0.13, "verify": 0.07},
                "busy_percent": {"network": 40, "hash": 31, "decompression": 95, "disk": 62},
                "limit": "decompression", "resumes": 2, "summary": LINE,
            })
        );
        assert_eq!(WriteReport::read(&shown), Some(report()));
    }

    #[test]
    fn what_is_no_account_is_none() {
        let mut shown = report().shown();
        shown["seconds"]["body"] = json!(-1);
        let without = json!({"bytes_received": 1});
        for odd in [json!(null), json!("x"), json!([]), without, shown] {
            assert_eq!(WriteReport::read(&odd), None, "{odd}");
        }
    }
}
