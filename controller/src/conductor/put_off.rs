//! Work that is put off, or a look that fails, again and again for one reason: which of the times are worth a line in the log. Pure: time comes in as
//! a value.

use std::time::{Duration, Instant};

/// Pause before the second line about one reason; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What was said of the work on one node.
#[derive(Default)]
pub struct PutOff {
    /// The reason without its digits: times and counts in it change, and mean nothing new.
    reason: String,
    pause: Duration,
    next: Option<Instant>,
    untold: u64,
}

impl PutOff {
    /// Whether to say it: the number of times that were not told since the last line.
    pub fn news(&mut self, reason: &str, now: Instant) -> Option<u64> {
        let reason: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.next.is_some() && self.reason == reason {
            if self.next.is_some_and(|at| now < at) {
                self.untold = self.untold.saturating_add(1);
                return None;
            }
            self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        } else {
            *self = PutOff { reason, pause: FIRST_PAUSE, ..PutOff::default() };
        }
        self.next = Some(now + self.pause);
        Some(std::mem::take(&mut self.untold))
    }
    /// The work goes on; whether it had been put off.
    pub fn over(&mut self) -> bool {
        std::mem::take(self).next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_and_then_seldom() {
        let (mut put_off, start) = (PutOff::default(), Instant::now());
        let mut said = Vec::new();
        // Every 2 s for 5 hours, as the worker looks.
        for second in (0..18_000).step_by(2) {
            let reason = format!("the BMC gave no answer in {second} s");
            if let Some(untold) = put_off.news(&reason, start + Duration::from_secs(second)) {
                said.push((second, untold));
            }
        }
        let times: Vec<u64> = said.iter().map(|(second, _)| *second).collect();
        assert_eq!(times, [0, 60, 180, 420, 900, 1860, 3780, 7380, 10_980, 14_580]);
        assert_eq!(said[1], (60, 29), "so often in between");
    }

    #[test]
    fn another_reason_is_news_and_so_is_the_same_one_after_success() {
        let (mut put_off, now) = (PutOff::default(), Instant::now());
        assert!(!put_off.over());
        for (reason, news) in [("a", true), ("a", false), ("b", true), ("b", false), ("a", true)] {
            assert_eq!(put_off.news(reason, now).is_some(), news, "{reason}");
        }
        assert!(put_off.over() && !put_off.over());
        assert_eq!(put_off.news("a", now), Some(0));
    }
}
