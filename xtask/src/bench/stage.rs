//! Where a benchmark runs: a network of its own and a memory disk of its own, both gone with the process however it ends.

use anyhow::{Context, Result};
use ferric_tests::Netns;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::{Path, PathBuf};

/// Where a memory disk is mounted, for this process and its children only.
const MEMORY: &str = "/dev/shm";

#[derive(Debug)]
pub struct Stage {
    pub network: Netns,
    /// Folder of the memory disk.
    pub memory: PathBuf,
}

impl Stage {
    /// Moves this thread, and what it starts from now on, there.
    ///
    /// # Errors
    /// No root, or a kernel without namespaces.
    pub fn enter() -> Result<Self> {
        let network = Netns::enter_bare()?;
        unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (needs root)")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("keeping mounts to this process")?;
        mount(Some("ferric-bench"), MEMORY, Some("tmpfs"), MsFlags::empty(), Some("size=100%"))
            .context("mounting a memory disk")?;
        Ok(Self { network, memory: Path::new(MEMORY).to_owned() })
    }
}

/// Bytes of memory that are free or can be freed.
pub fn memory_available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    available(&text).context("/proc/meminfo says nothing of MemAvailable")
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal:  9 kB\nMemAvailable:   17057 kB\n"), Some(17057 << 10));
        assert_eq!(available("MemTotal:  9 kB\n"), None);
    }
}
