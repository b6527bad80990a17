//! Runs a piece of work several times and prints its median rate.

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use std::time::Instant;

/// Runs of a part that takes no long time.
pub const RUNS: usize = 5;
pub const MIB: usize = 1 << 20;

/// Whose processor time a part takes.
#[derive(Clone, Copy)]
pub enum Whose {
    /// That of this process and its children.
    Ours,
    /// That of the whole machine: a disk's work may be done by threads of the kernel.
    Everybodys,
}

/// Prints the part `name`: the median rate of `runs` runs of `work`, each of which handles `bytes` bytes and comes after a
/// run of `before`, which is not counted; and the processor time of all runs, as that of the machine is counted coarsely.
pub fn part(
    name: &str,
    bytes: usize,
    runs: usize,
    whose: Whose,
    mut before: impl FnMut() -> Result<()>,
    mut work: impl FnMut() -> Result<()>,
) -> Result<()> {
    let (mut walls, mut cpu) = (Vec::new(), 0.0);
    for _ in 0..runs {
        before()?;
        let (start, cpu_before) = (Instant::now(), cpu_seconds(whose)?);
        work().with_context(|| name.to_owned())?;
        walls.push(start.elapsed().as_secs_f64());
        cpu += cpu_seconds(whose)? - cpu_before;
    }
    walls.sort_by(f64::total_cmp);
    let wall = walls.get(runs / 2).copied().context("no runs")?;
    let mib = bytes as f64 / MIB as f64;
    println!("{name}\t{:.1}\t{:.4}", mib / wall.max(1e-9), cpu / runs as f64 * 1024.0 / mib);
    Ok(())
}

/// `part` of work that is quick and needs nothing before it.
pub fn plain(name: &str, bytes: usize, work: impl FnMut() -> Result<()>) -> Result<()> {
    part(name, bytes, RUNS, Whose::Ours, || Ok(()), work)
}

fn cpu_seconds(whose: Whose) -> Result<f64> {
    match whose {
        Whose::Ours => of_process(),
        Whose::Everybodys => of_machine(),
    }
}

/// User and system time of all threads of this process and of the children it has waited for.
fn of_process() -> Result<f64> {
    let of = |who| -> Result<f64> {
        let used = getrusage(who).context("asking for the CPU time used")?;
        Ok((used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6)
    };
    Ok(of(UsageWho::RUSAGE_SELF)? + of(UsageWho::RUSAGE_CHILDREN)?)
}

/// All that is neither idle nor waiting, of all cores, as proc(5) says; it counts in clock ticks.
fn of_machine() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let busy = busy_ticks(&text).context("/proc/stat does not begin as proc(5) says")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the length of a clock tick is not known")?;
    Ok(busy as f64 / per_second as f64)
}

fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks = fields.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let [user, nice, system, _idle, _waiting, irq, softirq, ..] = ticks[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

/// Memory that is aligned as direct I/O wants it.
pub struct Aligned {
    memory: Vec<u8>,
    shift: usize,
    length: usize,
}

impl Aligned {
    const ALIGN: usize = 4096;

    pub fn filled(length: usize, value: u8) -> Aligned {
        let memory = vec![value; length + Self::ALIGN];
        let shift = memory.as_ptr().align_offset(Self::ALIGN).min(Self::ALIGN);
        Aligned { memory, shift, length }
    }

    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.shift..self.shift + self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::busy_ticks;

    #[test]
    fn idle_time_and_that_of_guests_are_not_counted() {
        assert_eq!(
            busy_ticks("cpu  1 20 300 4000 50000 600000 7000000 8 9 9\ncpu0 1 1 1 1 1 1 1 1\n"),
            Some(7_600_321)
        );
        assert_eq!(busy_ticks("cpu0 1 2 3 4 5 6 7\n"), None);
        assert_eq!(busy_ticks("cpu  1 2 x 4 5 6 7\n"), None);
    }
}
