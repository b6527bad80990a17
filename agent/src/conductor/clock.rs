//! The controller's clock, from the `Date` header of its answers. Pure.
//!
//! A machine whose clock stands at its factory date makes a certificate that nobody accepts. The header is not
//! authenticated over plain HTTP; it is used for large errors only, and all time-outs use the monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A difference up to this is left alone: the certificate begins a day in the past anyway.
pub const TOLERATED: Duration = Duration::from_secs(3600);

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time to set, if `header` is a date and `now` differs from it by more than [`TOLERATED`].
pub fn correction(header: &str, now: SystemTime) -> Option<SystemTime> {
    let theirs = parse_date(header)?;
    let apart = match theirs.duration_since(now) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    (apart > TOLERATED).then_some(theirs)
}

/// Parses `Sun, 22 Nov 2026 23:42:54 GMT` (IMF-fixdate, RFC 9110 section 5.6.7), years 2000 to 2199 only.
fn parse_date(text: &str) -> Option<SystemTime> {
    let mut words = text.split(' ');
    let (_weekday, day, month, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (clock, zone) = (words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    let year = number(year, 2000, 2199)?;
    let month = u64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()?;
    let day = number(day, 1, 31)?;
    let mut parts = clock.split(':');
    let hour = number(parts.next()?, 0, 23)?;
    let minute = number(parts.next()?, 0, 59)?;
    let second = number(parts.next()?, 0, 60)?;
    let days = days_before(year, month).checked_add(day)?.checked_sub(1)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    text.parse().ok().filter(|n| (least..=most).contains(n))
}

/// Days from 1970 to the first of a month (0 = January).
fn days_before(year: u64, month: u64) -> u64 {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let years: u64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: u64 = lengths.iter().take(usize::try_from(month).unwrap_or(0)).sum();
    years + months
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_exactly_or_not_at_all() {
        for (text, seconds) in [
            ("Sun, 22 Nov 2026 23:42:54 GMT", Some(1_795_390_974)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Sat, 01 Jan 2000 00:00:00 GMT", Some(946_684_800)),
            ("Sun, 22 Nov 2026 23:42:54 CET", None),
            ("Sun, 22 Nov 1926 23:42:54 GMT", None),
            ("2026-11-22T23:42:54Z", None),
            ("", None),
        ] {
            let expected = seconds.map(|s| UNIX_EPOCH + Duration::from_secs(s));
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_clock_that_is_more_than_an_hour_off_is_set() {
        let header = "Sun, 22 Nov 2026 23:42:54 GMT";
        let theirs = UNIX_EPOCH + Duration::from_secs(1_795_390_974);
        for (off, corrected) in [(0, false), (3600, false), (3601, true)] {
            let off = Duration::from_secs(off);
            assert_eq!(correction(header, theirs - off).is_some(), corrected, "behind by {off:?}");
            assert_eq!(correction(header, theirs + off).is_some(), corrected, "ahead by {off:?}");
        }
        assert_eq!(correction(header, UNIX_EPOCH), Some(theirs));
    }
}
