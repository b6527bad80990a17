//! What a finished write says of itself: how much, how long, and what held it back.

use ferric_common::units::ByteCount;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time spent by kind of work, in nanoseconds, summed over threads.
#[derive(Default)]
pub struct Spent {
    /// Waiting for bytes of the image and taking them.
    pub network: AtomicU64,
    pub hash: AtomicU64,
    pub decode: AtomicU64,
    /// While at least one write or zeroing was under way.
    pub disk: Busy,
    /// The unpacking thread's waits for the network.
    pub starved: AtomicU64,
}

/// How long something was in use, however many used it at once.
#[derive(Default)]
pub struct Busy(Mutex<InUse>);

#[derive(Default)]
struct InUse {
    users: u32,
    since: Option<Instant>,
    total: Duration,
}

impl Busy {
    /// Counts the time of `work`.
    pub fn with<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        state.users += 1;
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        let result = work();
        let mut state = self.state();
        state.users = state.users.saturating_sub(1);
        if state.users == 0
            && let Some(since) = state.since.take()
        {
            state.total += since.elapsed();
        }
        result
    }
    fn total(&self) -> Duration {
        self.state().total
    }
    fn state(&self) -> MutexGuard<'_, InUse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the time that `work` takes.
pub fn spent<T>(counter: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    counter.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}

impl Spent {
    /// How busy each part was, in percent of the time, decoding spread over `cores`.
    pub fn load(&self, took: Duration, cores: usize) -> Load {
        let whole = (took.as_nanos() as u64).max(1);
        let share = |nanos: u64, by: u64| (nanos.saturating_mul(100) / whole / by.max(1)).min(100) as u32;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Load {
            network: share(get(&self.network), 1),
            hash: share(get(&self.hash), 1),
            decompression: share(get(&self.decode), cores as u64),
            disk: share(self.disk.total().as_nanos() as u64, 1),
        }
    }
}

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

/// The roofline: how busy each part was while the body was written, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Seconds of each stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// Looking at the image, reading its tables, blanking both ends.
    pub prepare: Duration,
    /// Receiving, hashing, decoding and writing.
    pub body: Duration,
    /// Flushes, and what was held back.
    pub finish: Duration,
    /// Reading back.
    pub verify: Duration,
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
    pub took: Took,
    pub load: Load,
    /// Times the transfer was taken up again.
    pub resumes: u32,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_part_is_the_limit() {
        let spent = Spent::default();
        spent.network.store(400, Ordering::Relaxed);
        spent.decode.store(1_900, Ordering::Relaxed);
        let load = spent.load(Duration::from_nanos(1000), 2);
        assert_eq!(load, Load { network: 40, hash: 0, decompression: 95, disk: 0 });
        assert_eq!(load.limit(), Limit::Decompression);
        assert_eq!(spent.load(Duration::ZERO, 0).decompression, 100);
    }

    #[test]
    fn two_users_at_once_are_counted_once() {
        let busy = Busy::default();
        let start = Instant::now();
        let inner = busy.with(|| {
            busy.with(std::hint::spin_loop);
            busy.with(|| busy.total())
        });
        assert_eq!(inner, Duration::ZERO, "still in use");
        let total = busy.total();
        assert!(total > Duration::ZERO && total <= start.elapsed());
    }
}
