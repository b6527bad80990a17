//! The few requests to the kernel that only exist as ioctl(2).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

mod raw {
    // linux/fs.h: #define BLKRRPART _IO(0x12,95)
    nix::ioctl_none!(blkrrpart, 0x12, 95);
    // linux/rtc.h: #define RTC_SET_TIME _IOW('p', 0x0a, struct rtc_time)
    nix::ioctl_write_ptr!(rtc_set_time, b'p', 0x0a, super::RtcTime);
    // linux/fs.h: #define FS_IOC_GETFLAGS _IOR('f', 1, long), FS_IOC_SETFLAGS _IOW('f', 2, long); both take an int.
    nix::ioctl_read!(fs_get_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(fs_set_flags, b'f', 2, libc::c_long);
}

/// linux/fs.h, FS_IMMUTABLE_FL.
const IMMUTABLE: libc::c_long = 0x10;

/// `struct rtc_time` of linux/rtc.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RtcTime {
    second: i32,
    minute: i32,
    hour: i32,
    day: i32,
    /// From 0.
    month: i32,
    /// Since 1900.
    year: i32,
    week_day: i32,
    year_day: i32,
    is_dst: i32,
}

/// Asks the kernel to read a disk's partition table again. Disks that cannot have partitions are no error.
///
/// # Errors
/// As ioctl(2) BLKRRPART; `EBUSY` while a partition is in use.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call and the request takes no argument.
    match unsafe { raw::blkrrpart(disk.as_raw_fd()) } {
        Ok(_) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOTTY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes away the flag that forbids changing a file. File systems without such flags are no error.
///
/// # Errors
/// As ioctl(2) FS_IOC_GETFLAGS and FS_IOC_SETFLAGS.
pub fn set_mutable(file: &File) -> io::Result<()> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptor is open for the whole call and `flags` is large enough for what the kernel writes, an int.
    match unsafe { raw::fs_get_flags(file.as_raw_fd(), &mut flags) } {
        Ok(_) => {}
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::ENOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if flags & IMMUTABLE == 0 {
        return Ok(());
    }
    flags &= !IMMUTABLE;
    // SAFETY: the descriptor is open for the whole call and `flags` is only read.
    unsafe { raw::fs_set_flags(file.as_raw_fd(), &flags) }?;
    Ok(())
}

/// Writes a time to the battery clock, in UTC.
///
/// # Errors
/// No such clock, or one that refuses. Callers say so and go on.
pub fn set_hardware_clock(device: &Path, time: SystemTime) -> io::Result<()> {
    let rtc = File::open(device)?;
    let seconds = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    let value = broken_down(seconds);
    // SAFETY: the descriptor is open for the whole call, and `value` is laid out as the kernel's struct and only read.
    unsafe { raw::rtc_set_time(rtc.as_raw_fd(), &value) }?;
    Ok(())
}

/// Seconds since 1970 as a date of the Gregorian calendar (days-to-civil, era by era of 400 years).
fn broken_down(seconds: u64) -> RtcTime {
    let days = seconds / 86_400;
    let shifted = days + 719_468; // days since 0000-03-01: the leap day comes last in a year that starts in March
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let int = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
    RtcTime {
        second: int(seconds % 60),
        minute: int(seconds / 60 % 60),
        hour: int(seconds / 3600 % 24),
        day: int(day),
        month: int(month - 1),
        year: int(year).saturating_sub(1900),
        week_day: int((days + 4) % 7),
        year_day: 0,
        is_dst: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_battery_clock_gets_the_right_date() {
        for (seconds, date) in [
            (0, (1970, 1, 1, 0, 0, 0, 4)),
            (951_782_399, (2000, 2, 28, 23, 59, 59, 1)),
            (951_782_400, (2000, 2, 29, 0, 0, 0, 2)),
            (1_709_164_800, (2024, 2, 29, 0, 0, 0, 4)),
            (1_735_689_599, (2024, 12, 31, 23, 59, 59, 2)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0, 1)),
        ] {
            let t = broken_down(seconds);
            let found = (t.year + 1900, t.month + 1, t.day, t.hour, t.minute, t.second, t.week_day);
            assert_eq!(found, date, "{seconds}");
        }
    }

    #[test]
    fn a_file_that_can_be_changed_stays_so() {
        set_mutable(&tempfile::tempfile().unwrap()).unwrap();
    }

    #[test]
    fn a_file_has_no_partitions_to_reread() {
        assert!(reread_partitions(&tempfile::tempfile().unwrap()).is_ok());
    }
}
