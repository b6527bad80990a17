//! When to ask again. Pure: elapsed times and random numbers come in, durations go out.

use ferric_common::backoff::Backoff;
use std::time::Duration;

/// A forced heartbeat still keeps this distance from the one before.
pub const HEARTBEAT_GAP: Duration = Duration::from_secs(5);

/// When the next lookup is due. Counts tries and node locks; the caller measures time.
#[derive(Clone, Debug)]
pub struct LookupSchedule {
    backoff: Backoff,
    give_up_after: Duration,
    tries: u32,
    conflicts: usize,
}

impl LookupSchedule {
    /// `interval` is the shortest pause, `give_up_after` the time for all tries together.
    pub fn new(interval: Duration, give_up_after: Duration) -> LookupSchedule {
        let backoff = Backoff { floor: interval, ceiling: Duration::from_secs(60) };
        LookupSchedule { backoff, give_up_after, tries: 0, conflicts: 0 }
    }

    /// The pause after a failed try, or `None` when the time is used up. `locked` is a 409: somebody works on the node,
    /// which takes longer than a lost packet, so 5 s, 10 s, then 30 s are added.
    pub fn after_failure(&mut self, elapsed: Duration, locked: bool, random: u32) -> Option<Duration> {
        self.tries = self.tries.saturating_add(1);
        let extra = if locked {
            let seconds = [5, 10].get(self.conflicts).copied().unwrap_or(30);
            self.conflicts = self.conflicts.saturating_add(1);
            Duration::from_secs(seconds)
        } else {
            Duration::ZERO
        };
        let pause = self.backoff.pause(self.tries, random).saturating_add(extra);
        (elapsed < self.give_up_after).then_some(pause)
    }

    pub fn tries(&self) -> u32 {
        self.tries
    }
}

/// How long until the next heartbeat, given the last outcome.
///
/// `timeout` is the conductor's `heartbeat_timeout`. After success the interval is 0.3 to 0.6 of it, after an error 5 to
/// 10 s.
pub fn heartbeat_interval(succeeded: bool, timeout: Duration, random: u32) -> Duration {
    let part = f64::from(random) / f64::from(u32::MAX);
    if succeeded { timeout.mul_f64(0.3 + 0.3 * part) } else { HEARTBEAT_GAP.mul_f64(1.0 + part) }
}

/// How long to wait from now: `elapsed` since the last heartbeat, its `interval`, and whether one is forced.
pub fn heartbeat_wait(elapsed: Duration, interval: Duration, forced: bool) -> Duration {
    let due = if forced { interval.min(HEARTBEAT_GAP) } else { interval };
    due.saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut schedule = LookupSchedule::new(S(1), S(600));
        let pauses: Vec<u64> = (0..8)
            .filter_map(|_| schedule.after_failure(S(0), false, u32::MAX).map(|p| p.as_secs()))
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_locked_node_is_given_more_time_each_time() {
        let mut schedule = LookupSchedule::new(S(1), S(600));
        let pauses: Vec<u64> =
            (0..4).filter_map(|_| schedule.after_failure(S(0), true, 0).map(|p| p.as_secs())).collect();
        assert_eq!(pauses, [6, 11, 31, 31]);
    }

    #[test]
    fn the_time_for_all_tries_ends() {
        let mut schedule = LookupSchedule::new(S(1), S(600));
        assert!(schedule.after_failure(S(599), false, 0).is_some());
        assert!(schedule.after_failure(S(600), false, 0).is_none());
    }

    #[test]
    fn heartbeats_come_at_a_third_to_two_thirds_of_the_timeout() {
        assert_eq!(heartbeat_interval(true, S(300), 0), S(90));
        assert_eq!(heartbeat_interval(true, S(300), u32::MAX), S(180));
        assert_eq!(heartbeat_interval(false, S(300), 0), S(5));
        assert_eq!(heartbeat_interval(false, S(300), u32::MAX), S(10));
    }

    #[test]
    fn a_forced_heartbeat_keeps_five_seconds_distance() {
        for (elapsed, interval, forced, wait) in
            [(10, 90, false, 80), (100, 90, false, 0), (1, 90, true, 4), (50, 90, true, 0), (1, 2, true, 1)]
        {
            assert_eq!(heartbeat_wait(S(elapsed), S(interval), forced), S(wait), "{elapsed} {forced}");
        }
    }
}
