//! Runs a program (one that an operator brought along, or mdadm): its own process group, its own mounts, three pipes, one thread.
//!
//! The pipes never block us: a program that does not read, or that leaves a pipe open in a child which outlives it, costs
//! neither a thread nor the command that waits.

use crate::platform::child::{End, Heard, Listen, Programs};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

/// Where programs of the ramdisk, and those that steps call, are found.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long nothing may be heard before the listener is asked again, in milliseconds.
const TICK: u16 = 50;
/// Bytes taken from a pipe at once; what the kernel's pipes hold.
const CHUNK: usize = 64 << 10;

/// The programs of this machine.
pub struct LinuxPrograms;

impl Programs for LinuxPrograms {
    fn run(&self, program: &Path, words: &[&str], input: &[u8], listen: Listen<'_>) -> io::Result<End> {
        let mut running = Running::start(program, words)?;
        let end = running.attend(input, listen);
        // Also when attending failed: nothing of it may go on while the conductor is told that it failed.
        running.kill();
        let status = running.child.wait()?;
        Ok(match end? {
            Attended::Stopped => End::Stopped,
            Attended::Ended => match (status.code(), status.signal()) {
                (Some(code), _) => End::Code(code),
                (None, signal) => End::Signal(signal_name(signal)),
            },
        })
    }
}

fn signal_name(signal: Option<i32>) -> String {
    signal.and_then(|number| Signal::try_from(number).ok()).map_or("a signal".into(), |name| name.to_string())
}

enum Attended {
    Ended,
    Stopped,
}

struct Running {
    child: Child,
    group: Pid,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
}

impl Running {
    fn start(program: &Path, words: &[&str]) -> io::Result<Running> {
        let mut command = Command::new(program);
        command.args(words).env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C");
        // Nobody but the kernel makes device nodes here; mdadm would wait for udev.
        command.env("MDADM_NO_UDEV", "1").current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec the function makes three system calls and allocates nothing.
        #[allow(unsafe_code)]
        let mut child = unsafe { command.pre_exec(apart) }.spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let running = Running { child, group, input, output, errors };
        let pipes = [
            running.input.as_ref().map(AsFd::as_fd),
            running.output.as_ref().map(AsFd::as_fd),
            running.errors.as_ref().map(AsFd::as_fd),
        ];
        for pipe in pipes.into_iter().flatten() {
            if let Err(error) = fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)) {
                running.kill();
                return Err(error.into());
            }
        }
        Ok(running)
    }

    /// Feeds and hears the program until it has ended or is to be stopped.
    fn attend(&mut self, mut input: &[u8], listen: Listen<'_>) -> io::Result<Attended> {
        loop {
            // Asked before the pipes are read: what it wrote before its end is then in them.
            let ended = self.has_ended()?;
            self.feed(&mut input);
            let heard =
                hear(&mut self.output, &mut |bytes| listen(Heard::Output(bytes))).and_then(|output| {
                    Ok((output, hear(&mut self.errors, &mut |bytes| listen(Heard::Errors(bytes)))?))
                })?;
            let stop = heard.0 == Ears::Stop || heard.1 == Ears::Stop || listen(Heard::Tick).is_break();
            if stop {
                return Ok(Attended::Stopped);
            }
            match heard {
                (Ears::More, _) | (_, Ears::More) => {}
                _ if ended => return Ok(Attended::Ended),
                _ => self.wait()?,
            }
        }
    }

    /// Hands over what the pipe takes; a program that does not want to read is not at fault.
    fn feed(&mut self, input: &mut &[u8]) {
        let Some(pipe) = &mut self.input else { return };
        match pipe.write(input) {
            Ok(taken) => *input = input.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => *input = &[],
        }
        if input.is_empty() {
            self.input = None;
        }
    }

    /// Until a pipe has something, at most for a tick.
    fn wait(&self) -> io::Result<()> {
        let input = self.input.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT));
        let output = self.output.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN));
        let errors = self.errors.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN));
        let mut watched: Vec<PollFd<'_>> = [input, output, errors]
            .into_iter()
            .flatten()
            .map(|(pipe, events): (BorrowedFd<'_>, PollFlags)| PollFd::new(pipe, events))
            .collect();
        match poll(&mut watched, PollTimeout::from(TICK)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended; its number stays taken until [`Child::wait`], so that its group can be killed safely.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(self.group), flags)? != WaitStatus::StillAlive)
    }

    fn kill(&self) {
        // A group that is gone is as dead as it should be.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// For the child: signals as they should be, and mounts of its own, which the kernel takes away with its last process. A
/// developer who is not root has no mounts to keep apart.
fn apart() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {
            Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
        }
        Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ears {
    More,
    Quiet,
    Stop,
}

/// Takes one chunk, if there is one; a pipe that is at its end is dropped.
fn hear<P: Read>(pipe: &mut Option<P>, tell: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<Ears> {
    let Some(open) = pipe else { return Ok(Ears::Quiet) };
    let mut chunk = vec![0; CHUNK];
    match open.read(&mut chunk) {
        Ok(0) => *pipe = None,
        Ok(length) => {
            return Ok(match tell(chunk.get(..length).unwrap_or_default()) {
                ControlFlow::Continue(()) => Ears::More,
                ControlFlow::Break(()) => Ears::Stop,
            });
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Ears::More),
        Err(error) => return Err(error),
    }
    Ok(Ears::Quiet)
}
