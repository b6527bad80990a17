//! The kernel's clocks: wall time, which may be years wrong on a machine without a battery, and time since the kernel
//! started, which no one can set.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970 before which no clock can be right: when this program was built (`SOURCE_DATE_EPOCH` of the build,
/// so that two builds of one source stay equal byte for byte), or 2026-11-01.
pub const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => parse(text, 1_793_491_200),
    None => 1_793_491_200,
};

/// Wall time.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Sets the wall time. The battery clock is left alone; see [`super::ioctl::set_hardware_clock`].
///
/// # Errors
/// As clock_settime(2): not root, or before 1970.
pub fn set(time: SystemTime) -> io::Result<()> {
    let since = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(since))?)
}

/// Moves a clock that is before the build of this program to that moment. Answers whether it had to.
///
/// # Errors
/// As [`set`].
pub fn not_before_build() -> io::Result<bool> {
    let built = UNIX_EPOCH + Duration::from_secs(BUILT);
    if now() >= built {
        return Ok(false);
    }
    set(built).map(|()| true)
}

/// Time since the kernel started, sleep included.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

const fn parse(text: &str, otherwise: u64) -> u64 {
    match u64::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_epoch_is_a_number_or_the_default() {
        for (text, seconds) in [("1800000000", 1_800_000_000), ("", 7), ("12x", 7), ("-5", 7)] {
            assert_eq!(parse(text, 7), seconds, "{text}");
        }
    }

    #[test]
    fn the_boot_clock_runs() {
        let first = since_boot();
        assert!(first > Duration::ZERO && since_boot() >= first);
    }
}
