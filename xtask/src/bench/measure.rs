//! Runs programs joined by pipes and says what they took: time until the disk is flushed, processor, memory, writes.

use super::disk::Disk;
use super::{machine, server};
use anyhow::{Context, Result};
use ferric_tests::process::die_with_us;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often memory is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// One program: words and what its environment has besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub words: Vec<String>,
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Program {
    pub fn new(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), environment: Vec::new() }
    }

    fn name(&self) -> String {
        let name = |word: &String| Path::new(word).file_name().map(|n| n.to_string_lossy().into_owned());
        self.words.first().and_then(name).unwrap_or_default()
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Done,
    /// It failed, and what it said last.
    Failed(String),
    /// It was killed after that many seconds.
    Hung(u64),
}

/// One run's figures.
#[derive(Clone, Debug)]
pub struct Run {
    pub outcome: Outcome,
    /// Seconds from the start until the device was flushed.
    pub wall: f64,
    /// Seconds of processor, of all processes and of the flush.
    pub cpu: f64,
    /// Seconds of processor that the whole machine was busy meanwhile: the server, the disk and the network too.
    pub busy: f64,
    /// Most memory resident at one time, summed over the processes, in MiB.
    pub resident: f64,
    /// Most of the image that lay in the memory disk, in MiB.
    pub staged: f64,
    /// Data that the processes wrote to the device, in MiB.
    pub written: f64,
    /// What the network carried to the client, in MiB.
    pub carried: f64,
    /// What the kernel counted as written, zeroing by the disk too, in MiB.
    pub counted: f64,
    /// The last line of the last program's standard output.
    pub said: String,
}

/// Runs the programs, the output of each piped into the next, and flushes the disk. `staging` is the folder in memory
/// that they may use; `limit` is how long they may take.
///
/// # Errors
/// A program that cannot be started. One that fails or hangs is an [`Outcome`].
pub fn run(programs: &[Program], disk: &Disk, staging: &Path, limit: Duration) -> Result<Run> {
    let logs = tempfile::tempdir()?;
    let (counted, carried) = (disk.counted()?, server::carried()?);
    let busy = machine::busy()?;
    let cpu = cpu_seconds(UsageWho::RUSAGE_CHILDREN)?;
    let start = Instant::now();
    let mut children = disk.paced(|| start_all(programs, logs.path()))?;
    let group = children.first().map_or(0, Child::id);
    let ids: Vec<u32> = children.iter().map(Child::id).collect();
    let done = AtomicBool::new(false);
    let (written, watched) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&ids, group, staging, start + limit, &done));
        let written = ids.iter().map(|id| written_by(*id)).sum::<Result<u64>>();
        done.store(true, Ordering::Release);
        watcher.thread().unpark();
        (written, watcher.join())
    });
    let watched = watched.map_err(|_| anyhow::anyhow!("watching the memory panicked"))?;
    let flush = cpu_seconds(UsageWho::RUSAGE_THREAD)?;
    disk.flush()?;
    let wall = start.elapsed().as_secs_f64();
    let busy = machine::busy()? - busy;
    let flush = cpu_seconds(UsageWho::RUSAGE_THREAD)? - flush;
    let mut outcome = Outcome::Done;
    for (nth, child) in children.iter_mut().enumerate() {
        let status = child.wait()?;
        // What fails first in a chain is the cause; the others only lose their pipe.
        if !status.success() && outcome == Outcome::Done {
            let name = programs.get(nth).map(Program::name).unwrap_or_default();
            let said = last_line(&logs.path().join(format!("{nth}.err")));
            outcome = Outcome::Failed(format!("{name} ended with {status}: {said}"));
        }
    }
    if watched.killed {
        outcome = Outcome::Hung(limit.as_secs());
    }
    Ok(Run {
        outcome,
        wall,
        cpu: cpu_seconds(UsageWho::RUSAGE_CHILDREN)? - cpu + flush,
        busy,
        resident: mib(watched.resident),
        staged: mib(watched.staged),
        written: mib(written?),
        carried: mib(server::carried()? - carried),
        counted: disk.counted()? - counted,
        said: last_line(&logs.path().join("out")),
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Starts the programs in one process group.
fn start_all(programs: &[Program], logs: &Path) -> Result<Vec<Child>> {
    let mut children: Vec<Child> = Vec::new();
    for (nth, program) in programs.iter().enumerate() {
        let (name, arguments) = program.words.split_first().context("a program without a name")?;
        let before = children.last_mut().and_then(|child| child.stdout.take());
        let is_last = nth + 1 == programs.len();
        let out = if is_last { File::create(logs.join("out"))?.into() } else { Stdio::piped() };
        let mut command = Command::new(name);
        command
            .args(arguments)
            .envs(program.environment.iter().copied())
            // The last words are wanted, not where in the program they were said.
            .env_remove("RUST_BACKTRACE")
            .stdin(before.map_or_else(Stdio::null, Stdio::from))
            .stdout(out)
            .stderr(File::create(logs.join(format!("{nth}.err")))?)
            .process_group(children.first().map_or(0, |first| first.id().cast_signed()));
        let started = die_with_us(&mut command).spawn().with_context(|| format!("starting {name}"));
        match started {
            Ok(child) => children.push(child),
            Err(error) => {
                kill_group(children.first().map_or(0, Child::id));
                for mut child in children {
                    child.wait().ok();
                }
                return Err(error);
            }
        }
    }
    Ok(children)
}

fn kill_group(leader: u32) {
    if leader > 0 {
        killpg(Pid::from_raw(leader.cast_signed()), Signal::SIGKILL).ok();
    }
}

/// Waits until a process has ended and, before it is forgotten, asks for the bytes that it and the children it waited
/// for gave to disks. (The memory disk is none.)
fn written_by(id: u32) -> Result<u64> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(id.cast_signed())), flags).context("waiting for a process")?;
    let text = fs::read_to_string(format!("/proc/{id}/io")).context("reading what a process wrote")?;
    field(&text, "write_bytes:").context("the kernel does not count what a process wrote")
}

/// The number behind a name in a file of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    resident: u64,
    staged: u64,
    killed: bool,
}

/// Looks at the processes and their children until they are done; kills the group when time is up.
fn watch(ids: &[u32], group: u32, staging: &Path, deadline: Instant, done: &AtomicBool) -> Watched {
    let mut most = Watched::default();
    while !done.load(Ordering::Acquire) {
        let tree = family(ids);
        let (mut now, mut highest) = (0, 0);
        for id in tree {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            now += field(&status, "VmRSS:").unwrap_or(0) << 10;
            // Exact for each process, where the sum may miss a moment.
            highest = highest.max(field(&status, "VmHWM:").unwrap_or(0) << 10);
        }
        most.resident = most.resident.max(now).max(highest);
        most.staged = most.staged.max(size_of_files(staging));
        if Instant::now() > deadline && !most.killed {
            most.killed = true;
            kill_group(group);
        }
        thread::park_timeout(GLANCE);
    }
    most
}

/// The processes and all below them.
fn family(ids: &[u32]) -> Vec<u32> {
    let mut found = ids.to_vec();
    let mut next = 0;
    while let Some(id) = found.get(next).copied() {
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        next += 1;
    }
    found
}

fn size_of_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
}

fn cpu_seconds(who: UsageWho) -> Result<f64> {
    let used = getrusage(who).context("asking for the CPU time used")?;
    Ok((used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6)
}

fn last_line(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "rchar: 5\ncancelled_write_bytes: 9\nwrite_bytes: 7\nVmRSS:\t  12 kB\n";
        assert_eq!(field(text, "write_bytes:"), Some(7));
        assert_eq!(field(text, "VmRSS:"), Some(12));
        assert_eq!(field(text, "VmHWM:"), None);
    }

    #[test]
    fn output_goes_from_program_to_program_and_the_cause_of_a_failure_is_the_first() {
        let logs = tempfile::tempdir().unwrap();
        let programs = [Program::new(&["echo", "one"]), Program::new(&["cat"])];
        for mut child in start_all(&programs, logs.path()).unwrap() {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(last_line(&logs.path().join("out")), "one");
        let programs = [Program::new(&["cat", "/nonexistent"]), Program::new(&["cat"])];
        let mut children = start_all(&programs, logs.path()).unwrap();
        // An ended process can still be asked.
        written_by(children[0].id()).unwrap();
        assert!(!children[0].wait().unwrap().success());
        assert!(children[1].wait().unwrap().success());
        assert!(last_line(&logs.path().join("0.err")).contains("/nonexistent"));
    }

    #[test]
    fn who_takes_too_long_is_killed_with_all_its_children() {
        let logs = tempfile::tempdir().unwrap();
        // env starts nothing of its own; sleep is far longer than any test.
        let mut children = start_all(&[Program::new(&["env", "sleep", "1000"])], logs.path()).unwrap();
        let (id, done) = (children[0].id(), AtomicBool::new(false));
        thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&[id], id, logs.path(), Instant::now(), &done));
            written_by(id).unwrap();
            done.store(true, Ordering::Release);
            assert!(watcher.join().unwrap().killed);
        });
        assert!(!children[0].wait().unwrap().success());
    }
}
