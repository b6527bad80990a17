//! What only process 1 does to the system: mounts, console, host name, children, the end.

use super::tree::Tree;
use crate::platform::files::Files;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One file system to mount.
#[derive(Clone, Copy, Debug)]
pub struct Mount {
    pub kind: &'static str,
    pub on: &'static str,
    pub options: &'static str,
    /// Whether programs on it may run and device nodes work.
    pub trusted: bool,
}

/// Mounts, making the folder if need be. One that is mounted already is no error.
///
/// # Errors
/// As mkdir(2) and mount(2).
pub fn mount_one(what: &Mount) -> io::Result<()> {
    fs::create_dir_all(what.on)?;
    let flags = if what.trusted {
        MsFlags::MS_NOSUID
    } else {
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
    };
    match mount(Some(what.kind), what.on, Some(what.kind), flags, Some(what.options)) {
        Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mounts a partition read-only on a folder of its own, has `look` read it, and unmounts it, whatever `look` returned.
///
/// # Errors
/// As mount(2) and umount2(2), or what `look` returned.
pub fn with_mounted(
    device: &Path,
    kind: &str,
    on: &Path,
    look: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    folder(on, 0o700)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(device), on, Some(kind), flags, None::<&str>)?;
    let looked = look(on);
    // Lazily if it is busy: a mount that stays would keep the disk from being written again.
    let gone = umount2(on, MntFlags::empty()).or_else(|_| umount2(on, MntFlags::MNT_DETACH));
    looked.and_then(|()| Ok(gone?))
}

/// The file systems that an installed system's partitions may have; ext4's driver knows ext2 and ext3, too.
const SYSTEMS: [&str; 4] = ["ext4", "xfs", "btrfs", "vfat"];

/// Mounts a partition on a folder of its own, has `change` work on it, flushes and unmounts it.
///
/// # Errors
/// As mount(2), syncfs(2) and umount2(2), or what `change` returned.
pub fn with_changeable(
    device: &Path,
    on: &Path,
    change: &mut dyn FnMut(&dyn Files) -> io::Result<()>,
) -> io::Result<()> {
    folder(on, 0o700)?;
    mount_any(device, on)?;
    let changed = Tree::open(on).and_then(|tree| {
        change(&tree)?;
        tree.flush()
    });
    let gone = umount2(on, MntFlags::empty()).or_else(|_| umount2(on, MntFlags::MNT_DETACH));
    changed.and_then(|()| Ok(gone?))
}

fn mount_any(device: &Path, on: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let (mut other, mut missing) = (Vec::new(), Vec::new());
    for kind in SYSTEMS {
        match mount(Some(device), on, Some(kind), flags, None::<&str>) {
            Err(Errno::EINVAL) => other.push(kind),
            Err(Errno::ENODEV) => missing.push(kind),
            mounted => return Ok(mounted?),
        }
    }
    let missing = if missing.is_empty() { "none".to_owned() } else { missing.join(", ") };
    let tried = other.join(", ");
    Err(io::Error::other(format!("it is none of {tried}; drivers that this ramdisk lacks: {missing}")))
}

/// Makes a folder with this mode, whatever the umask says.
///
/// # Errors
/// As mkdir(2) and chmod(2).
pub fn folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes `/dev/console` standard input, output and error; children inherit it.
///
/// # Errors
/// As open(2): a machine may have no console at all.
pub fn take_console() -> io::Result<()> {
    let console = OpenOptions::new().read(true).write(true).open("/dev/console")?;
    nix::unistd::dup2_stdin(&console)?;
    nix::unistd::dup2_stdout(&console)?;
    nix::unistd::dup2_stderr(&console)?;
    Ok(())
}

/// # Errors
/// As sethostname(2).
pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(nix::unistd::sethostname(OsStr::new(name))?)
}

/// What woke process 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Timeout,
    ChildEnded,
    Reboot,
    PowerOff,
}

/// The signals of process 1, as a descriptor to wait on.
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// From here on: ctrl-alt-del and SIGTERM (busybox `reboot`) ask for a reboot, SIGUSR1 (`halt`) and SIGUSR2 (`poweroff`) for
    /// power off. [`start`] gives children an empty signal mask again.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub fn take() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2] {
            set.add(signal);
        }
        set.thread_block()?;
        // The kernel then sends SIGINT for ctrl-alt-del in place of rebooting without a sync.
        let _ = set_cad_enabled(false);
        Ok(Signals {
            descriptor: SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
        })
    }

    /// Waits for a signal, at most `time`.
    pub fn wait(&self, time: Duration) -> Wake {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)], timeout);
        let Ok(Some(info)) = self.descriptor.read_signal() else { return Wake::Timeout };
        match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
            Some(Signal::SIGCHLD) => Wake::ChildEnded,
            Some(Signal::SIGINT | Signal::SIGTERM) => Wake::Reboot,
            Some(Signal::SIGUSR1 | Signal::SIGUSR2) => Wake::PowerOff,
            _ => Wake::Timeout,
        }
    }
}

/// A child that is gone, in words: `ended with code 1`, `was killed by SIGSEGV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub pid: u32,
    pub how: String,
}

/// Takes the next dead child off the kernel's list, orphans included; `None` when there is none now.
pub fn reap() -> Option<Ended> {
    loop {
        let (pid, how) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, format!("ended with code {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("was killed by {signal}")),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => continue,
        };
        return Some(Ended { pid: u32::try_from(pid.as_raw()).unwrap_or(0), how });
    }
}

/// Starts a program with an empty environment, nothing to read, and our console to write to. Nobody waits for it here.
///
/// # Errors
/// As fork(2) and execve(2).
pub fn start(program: &Path, arguments: &[&str]) -> io::Result<u32> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null());
    // What [`Signals::take`] blocks here would stay blocked there: an SSH server that never hears of a shell's end.
    let unblock = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    #[allow(unsafe_code)]
    let child = unsafe { command.pre_exec(unblock) }.spawn()?;
    Ok(child.id())
}

/// Kills a child and takes it off the kernel's list. One that is gone already is no error.
///
/// # Errors
/// As kill(2) and waitpid(2).
pub fn stop(pid: u32) -> io::Result<()> {
    // 0 and below would mean whole groups of processes.
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw) else { return Ok(()) };
    let gone = |error: nix::errno::Errno| match error {
        nix::errno::Errno::ESRCH | nix::errno::Errno::ECHILD => Ok(()),
        error => Err(io::Error::from(error)),
    };
    nix::sys::signal::kill(pid, Signal::SIGKILL).or_else(gone)?;
    waitpid(pid, None).map(drop).or_else(gone)
}

/// Most memory this process ever had resident, in bytes; none if the kernel does not say.
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Writes all caches to the disks and ends the machine. Returns only when the kernel refused.
pub fn end(how: RebootMode) -> io::Error {
    nix::unistd::sync();
    match reboot(how) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_our_peak_memory() {
        assert!(peak_memory().unwrap() > 1 << 20);
    }

    #[test]
    fn a_child_does_not_inherit_blocked_signals() {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.thread_block().unwrap();
        let out = tempfile::NamedTempFile::new().unwrap();
        let script = format!("grep SigBlk /proc/self/status > {}", out.path().display());
        let child = start(Path::new("/bin/sh"), &["-c", &script]).unwrap();
        waitpid(Pid::from_raw(child.try_into().unwrap()), None).unwrap();
        set.thread_unblock().unwrap();
        assert_eq!(fs::read_to_string(out.path()).unwrap().trim(), "SigBlk:\t0000000000000000");
    }
}
