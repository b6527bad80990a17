//! Runs a piece of work several times and prints its median rate.

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::time::Instant;

/// Runs of a part that takes no long time.
pub const RUNS: usize = 5;
pub const MIB: usize = 1 << 20;

/// Prints the part `name`: the median of `runs` runs of `work`, each of which handles `bytes` bytes and comes after a
/// run of `before`, which is not counted.
pub fn part(
    name: &str,
    bytes: usize,
    runs: usize,
    mut before: impl FnMut() -> Result<()>,
    mut work: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..runs {
        before()?;
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        work().with_context(|| name.to_owned())?;
        took.push((start.elapsed().as_secs_f64(), cpu_seconds()? - cpu));
    }
    took.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (wall, cpu) = took.get(runs / 2).copied().context("no runs")?;
    let mib = bytes as f64 / MIB as f64;
    println!("{name}\t{:.1}\t{:.4}", mib / wall.max(1e-9), cpu * 1024.0 / mib);
    Ok(())
}

/// `part` of work that is quick and needs nothing before it.
pub fn plain(name: &str, bytes: usize, work: impl FnMut() -> Result<()>) -> Result<()> {
    part(name, bytes, RUNS, || Ok(()), work)
}

/// User and system time of all threads of this process and of the children it has waited for.
fn cpu_seconds() -> Result<f64> {
    let of = |who| -> Result<f64> {
        let used = getrusage(who).context("asking for the CPU time used")?;
        Ok((used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6)
    };
    Ok(of(UsageWho::RUSAGE_SELF)? + of(UsageWho::RUSAGE_CHILDREN)?)
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
