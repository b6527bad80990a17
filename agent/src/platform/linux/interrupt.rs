//! SIGINT and SIGTERM, by which people end a program, as something to wait for.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::AsFd;

/// The signals, held back.
pub struct Interrupts {
    set: SigSet,
    descriptor: SignalFd,
}

impl Interrupts {
    /// From here on the signals end nothing by themselves, in this thread and in those that it starts. One that was ignored
    /// before (`nohup`, a shell's `&`) still is.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub fn hold() -> io::Result<Interrupts> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut set = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM]
            .into_iter()
            .filter(|s| !is_ignored(&status, *s))
            .for_each(|s| set.add(s));
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Interrupts { set, descriptor })
    }

    /// Waits for a signal; none once the other end of the pipe `until` is closed.
    pub fn wait(&self, until: &io::PipeReader) -> Option<Signal> {
        loop {
            if let Ok(Some(info)) = self.descriptor.read_signal() {
                return i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            }
            let wanted = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
            let mut both = [wanted(self.descriptor.as_fd()), wanted(until.as_fd())];
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) if both[0].any() == Some(true) => {}
                Ok(_) => return None,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Ends the process as the signal would have.
    pub fn die(&self, signal: Signal) -> ! {
        let _ = self.set.thread_unblock();
        let _ = raise(signal);
        // The shells' number for it, should the signal not end us.
        std::process::exit(128 + signal as i32)
    }
}

/// Whether `/proc/self/status` has the signal among those that are ignored.
fn is_ignored(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal as i32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_kernels_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000004002\nSigIgn:\t0000000000004000\n";
        assert!(is_ignored(status, Signal::SIGTERM));
        assert!(!is_ignored(status, Signal::SIGINT));
        assert!(!is_ignored("", Signal::SIGINT));
    }
}
