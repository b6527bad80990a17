//! How much of a disk is zeroed by one call.
//!
//! A disk works on one such call at a time, and writes of data must come between; but each call costs a journey to the
//! disk. So the length follows the time that it takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const FIRST: u64 = 8 << 20;
const SHORTEST: u64 = 1 << 20;
const LONGEST: u64 = 1 << 30;
/// A call that is done so soon may be twice as long.
const SOON: Duration = Duration::from_micros(500);
/// One that takes so long is to be half as long.
const LATE: Duration = Duration::from_millis(8);

pub struct Stride {
    bytes: AtomicU64,
    /// Nanoseconds that a MiB took of late; 0 before the first call.
    mib: AtomicU64,
}

impl Default for Stride {
    fn default() -> Stride {
        Stride { bytes: AtomicU64::new(FIRST), mib: AtomicU64::new(0) }
    }
}

impl Stride {
    /// Bytes of the next call at most; a power of two.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// How long so many bytes will take, as far as the last calls tell; `None` before the first.
    pub fn time_for(&self, bytes: u64) -> Option<Duration> {
        let mib = self.mib.load(Ordering::Relaxed);
        (mib > 0).then(|| Duration::from_nanos(mib.saturating_mul(bytes >> 20)))
    }
    /// A call of `length` bytes took so long.
    pub fn took(&self, length: u64, time: Duration) {
        let of_mib = (time.as_nanos() as u64).saturating_mul(SHORTEST) / length.max(1);
        let known = self.mib.load(Ordering::Relaxed);
        let mean = if known == 0 { of_mib } else { known - known / 4 + of_mib / 4 };
        self.mib.store(mean.max(1), Ordering::Relaxed);
        let now = self.bytes();
        if time > LATE {
            self.bytes.store((now / 2).max(SHORTEST), Ordering::Relaxed);
        } else if time < SOON && length == now {
            self.bytes.store((now * 2).min(LONGEST), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_calls_are_short_and_shrinks_when_one_is_long() {
        let (stride, short, long) = (Stride::default(), Duration::from_micros(90), Duration::from_millis(90));
        stride.took(FIRST / 2, short);
        assert_eq!(stride.bytes(), FIRST, "a part of a stride says nothing");
        stride.took(FIRST, short);
        assert_eq!(stride.bytes(), FIRST * 2);
        stride.took(FIRST * 2, Duration::from_millis(2));
        assert_eq!(stride.bytes(), FIRST * 2);
        (0..20).for_each(|_| stride.took(stride.bytes(), short));
        assert_eq!(stride.bytes(), LONGEST);
        (0..20).for_each(|_| stride.took(1, long));
        assert_eq!(stride.bytes(), SHORTEST);
    }

    #[test]
    fn what_is_to_come_takes_as_long_as_the_last_calls() {
        let stride = Stride::default();
        assert_eq!(stride.time_for(FIRST), None);
        stride.took(FIRST, Duration::from_millis(8));
        assert_eq!(stride.time_for(100 << 20), Some(Duration::from_millis(100)));
        (0..30).for_each(|_| stride.took(FIRST, Duration::from_millis(16)));
        let time = stride.time_for(100 << 20).unwrap();
        assert!(time > Duration::from_millis(190) && time <= Duration::from_millis(200), "{time:?}");
    }
}
