//! Who was busy how long while an image is written; what a finished write says of itself is [`WriteReport`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use ferric_common::report::{Limit, Load, Took, WriteReport};

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
