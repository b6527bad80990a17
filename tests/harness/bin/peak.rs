//! Runs a program and says how it ended and how much memory it took at most.
//!
//! `ferric-peak SECONDS PROGRAM ARGUMENTS…`; the last line of standard output is `ended code=N signal=N peak_kib=N`. A
//! process of its own, because Linux counts the memory of whoever starts a program as part of that program's peak: a
//! starter must be smaller than what it measures.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u32 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut command = Command::new(arguments.next().unwrap_or_default());
    let before = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // Survives exec: a program that hangs ends by SIGALRM.
        nix::unistd::alarm::set(seconds);
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    let child = unsafe { command.args(arguments).pre_exec(before) }.spawn()?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to live values of the right types; an all-zero rusage is a valid one.
    let (waited, usage) = unsafe {
        (libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr()), usage.assume_init())
    };
    if waited < 0 {
        return Err(io::Error::last_os_error());
    }
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
    let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
    println!("ended code={code} signal={signal} peak_kib={}", usage.ru_maxrss);
    Ok(())
}
