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
}
