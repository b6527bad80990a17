//! Bounded waits: a condition, a deadline, and words for what was awaited. No test sleeps for any other reason.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is looked at where nothing else is said.
pub const GLANCE: Duration = Duration::from_millis(100);

/// Looks until `condition` gives a value.
///
/// # Errors
/// The first error of the condition itself, or, after `within`, what was awaited and what `state` says then.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
    state: impl FnOnce() -> String,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > within {
            bail!("waited {within:?} for {what}; now: {}", state());
        }
        std::thread::sleep(GLANCE);
    }
}
