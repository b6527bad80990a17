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

pub struct Stride(AtomicU64);

impl Default for Stride {
    fn default() -> Stride {
        Stride(AtomicU64::new(FIRST))
    }
}

impl Stride {
    /// Bytes of the next call at most; a power of two.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// A call of `length` bytes took so long.
    pub fn took(&self, length: u64, time: Duration) {
        let now = self.bytes();
        if time > LATE {
            self.0.store((now / 2).max(SHORTEST), Ordering::Relaxed);
        } else if time < SOON && length == now {
            self.0.store((now * 2).min(LONGEST), Ordering::Relaxed);
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
}
