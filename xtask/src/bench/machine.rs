//! What the figures were measured on.

use anyhow::{Context, Result};
use ferric_tests::process::call;
use std::fs;

/// The machine and the programs whose versions matter, one fact a line. Taken before anything is measured.
pub fn describe() -> Result<Vec<String>> {
    let cpu = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(vec![
        format!("processor: {} × {}", std::thread::available_parallelism()?, model(&cpu)),
        format!("extensions: {}", extensions(&cpu)),
        format!("memory: {}", memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or("?").trim()),
        format!("kernel: Linux {}", kernel.trim()),
        format!("load before: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        first_line("qemu-img", &["--version"]),
        first_line("curl", &["--version"]).split(' ').take(2).collect::<Vec<_>>().join(" "),
        format!(
            "python3-requests {}",
            first_line("/usr/bin/python3", &["-c", "import requests; print(requests.__version__)"])
        ),
    ])
}

/// Seconds of processor that all cores together were busy since the machine started.
pub fn busy() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = busy_ticks(&stat).context("/proc/stat does not say how long the processors were busy")?;
    // USER_HZ, which is 100 on every Linux of this processor.
    Ok(ticks as f64 / 100.0)
}

/// The first line of `/proc/stat` without idle, waiting and what guests used, which is counted as the user's already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (user, nice, system, _idle, _waiting) = (next()?, next()?, next()?, next()?, next()?);
    let (interrupts, soft) = (next()?, next()?);
    Some(user + nice + system + interrupts + soft)
}

fn model(cpuinfo: &str) -> &str {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    line.map_or("an unknown processor", |(_, name)| name)
}

/// Those that hashing and decompression gain from.
fn extensions(cpuinfo: &str) -> String {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
    let found: Vec<&str> = ["sha_ni", "bmi2", "avx2", "avx512f", "sha512"].into_iter().filter(has).collect();
    if found.is_empty() { "none".to_owned() } else { found.join(" ") }
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    match call(program, arguments) {
        Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
        Err(error) => format!("{program}: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_with_what_counts() {
        let text = "model name\t: AMD EPYC 7B13\nflags\t\t: fpu avx2 sha_ni avx\n";
        assert_eq!(model(text), "AMD EPYC 7B13");
        assert_eq!(extensions(text), "sha_ni avx2");
        assert_eq!(extensions(""), "none");
    }

    #[test]
    fn time_that_was_idle_or_stolen_is_not_busy() {
        let text = "cpu  100 20 30 4000 500 6 7 80 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(text), Some(163));
        assert_eq!(busy_ticks("cpu  100 20"), None);
        assert!(busy().unwrap() > 0.0);
    }
}
