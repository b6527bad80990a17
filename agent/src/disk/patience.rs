//! How long disks are waited for. Values alone. Pure.

use std::time::Duration;

/// Between two looks, if the settings do not ask for a shorter pause: a disk that has come is not left waiting.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at the least.
pub const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// `disk_wait_attempts` and `disk_wait_delay`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// 0: nothing is waited for.
    pub attempts: u32,
    pub delay: Duration,
}

impl Patience {
    /// From the first look to the last.
    pub fn whole(self) -> Duration {
        self.delay.saturating_mul(self.attempts.saturating_sub(1))
    }

    pub fn pause(self) -> Duration {
        self.delay.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}
