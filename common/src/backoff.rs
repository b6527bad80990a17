//! How long to wait before the next try. Pure: randomness comes in as a number, time goes out as a duration.

use core::time::Duration;

/// A doubling schedule with a ceiling and full jitter, as ironic-python-agent uses for lookup:
/// try `n` (from 1) waits a random time between `floor` and `min(ceiling, 2^(n-1) s)`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub floor: Duration,
    pub ceiling: Duration,
}

impl Backoff {
    /// The pause after failed try `attempt` (counted from 1). `random` is uniform in 0..=u32::MAX.
    pub fn pause(&self, attempt: u32, random: u32) -> Duration {
        let doubled = Duration::from_secs(1u64 << attempt.saturating_sub(1).min(32));
        let top = doubled.min(self.ceiling).max(self.floor);
        let spread = top.saturating_sub(self.floor).as_millis() as u64;
        let part = (u128::from(spread) * u128::from(random) / u128::from(u32::MAX)) as u64;
        self.floor + Duration::from_millis(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const SCHEDULE: Backoff = Backoff { floor: Duration::from_secs(1), ceiling: Duration::from_secs(60) };

    #[test]
    fn a_pause_stays_between_floor_and_the_doubling_ceiling() {
        for (attempt, longest) in [(1, 1), (2, 2), (5, 16), (7, 60), (4_000_000_000, 60)] {
            assert_eq!(SCHEDULE.pause(attempt, 0), Duration::from_secs(1));
            assert_eq!(SCHEDULE.pause(attempt, u32::MAX), Duration::from_secs(longest), "try {attempt}");
        }
    }
}
