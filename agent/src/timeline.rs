//! Where each second of a boot went: marks in seconds since the kernel started, kept in `/run/ferric/timeline` by every
//! process of the agent, and one line that sums them up for the console.
//!
//! The machine's clock jumps when the conductor tells the time, so marks are read from the kernel's boot clock.

use crate::logging;
use crate::platform::linux::{STATE_DIR, clock, kmsg};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What ends each phase, as callers of [`mark`] write it. Any other text counts as a phase of that name.
pub const INIT_STARTED: &str = "process 1 started";
pub const INIT_READY: &str = "mounts done";
pub const MODULES_LOADED: &str = "modules loaded";
pub const LINKS_UP: &str = "links up";
pub const ADDRESS: &str = "address";
pub const INVENTORY: &str = "inventory taken";
pub const LOOKUP: &str = "lookup answered";
pub const HEARTBEAT: &str = "first heartbeat";

const PHASES: &[(&str, &str)] = &[
    (INIT_STARTED, "kernel"),
    (INIT_READY, "init"),
    (MODULES_LOADED, "modules"),
    (LINKS_UP, "link"),
    (ADDRESS, "DHCP"),
    (INVENTORY, "inventory"),
    (LOOKUP, "lookup"),
    (HEARTBEAT, "heartbeat"),
];

/// Longest list that is summed up; more marks come only from something that restarts for ever.
const MARKS: usize = 64;

/// Notes that something is done, now, on the console and for [`summary`]. Only a name's first mark counts there.
pub fn mark(what: &str) {
    mark_at(what, clock::since_boot());
}

/// As [`mark`], for something that was done at `at`, before there was a place to note it.
pub fn mark_at(what: &str, at: Duration) {
    logging::say(what);
    let line = format!("{:.3} {what}\n", at.as_secs_f64());
    // Missing folder: not the ramdisk, nothing to sum up.
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).mode(0o600).open(path()) {
        drop(file.write_all(line.as_bytes()));
    }
}

/// One line, `kernel 1.9 s, unpack 0.4 s, init 0.1 s, modules 0.6 s, …; 4.1 s in all`. Phases overlap in truth (links come
/// up while modules load); here each moment counts once, for the mark that came next, so that the parts sum to the whole.
pub fn summary() -> String {
    render(&fs::read_to_string(path()).unwrap_or_default(), unpacking(&kmsg::read()))
}

fn path() -> PathBuf {
    Path::new(STATE_DIR).join("timeline")
}

fn render(marks: &str, unpack: Option<f64>) -> String {
    let mut seen: Vec<(f64, &str)> = Vec::new();
    for line in marks.lines() {
        let Some((at, what)) = line.split_once(' ') else { continue };
        let Ok(at) = at.parse::<f64>() else { continue };
        if seen.len() < MARKS && seen.iter().all(|(_, known)| *known != what) {
            seen.push((at, what));
        }
    }
    seen.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut parts = Vec::new();
    let mut before = 0.0;
    for (at, what) in &seen {
        let mut took = at - before;
        before = *at;
        if *what == INIT_STARTED
            && let Some(unpack) = unpack.filter(|unpack| *unpack < took)
        {
            took -= unpack;
            parts.push(format!("kernel {took:.1} s, unpack {unpack:.1} s"));
            continue;
        }
        let name = PHASES.iter().find(|(text, _)| text == what).map_or(*what, |(_, name)| name);
        parts.push(format!("{name} {took:.1} s"));
    }
    format!("{}; {before:.1} s in all", parts.join(", "))
}

/// Seconds that the kernel spent unpacking the ramdisk, from its own log. It may overlap with drivers starting.
fn unpacking(log: &[kmsg::Line]) -> Option<f64> {
    let time = |text: &str| log.iter().find(|line| line.text.contains(text)).map(|line| line.seconds);
    let began = time("Trying to unpack rootfs image")?;
    let ended = time("Freeing initrd memory")?;
    (ended >= began).then_some(ended - began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_to_the_whole_and_overlapping_phases_count_once() {
        let marks = "2.300 process 1 started\n2.400 mounts done\n3.100 links up\n3.000 modules loaded\n\
                     3.300 address\nbroken\n9.0 address\n3.400 inventory taken\n3.600 lookup answered\n4.000 odd thing\n";
        assert_eq!(
            render(marks, Some(0.4)),
            "kernel 1.9 s, unpack 0.4 s, init 0.1 s, modules 0.6 s, link 0.1 s, DHCP 0.2 s, inventory 0.1 s, \
             lookup 0.2 s, odd thing 0.4 s; 4.0 s in all"
        );
        assert_eq!(render("1.5 process 1 started\n", None), "kernel 1.5 s; 1.5 s in all");
        assert_eq!(render("", None), "; 0.0 s in all");
    }

    #[test]
    fn unpacking_is_read_from_the_kernels_log() {
        let log = kmsg::parse(
            "5,1,900000,-;Trying to unpack rootfs image as initramfs...\n6,2,1350000,-;Freeing initrd memory: 9000K\n",
        );
        let took = unpacking(&log).unwrap();
        assert!((took - 0.45).abs() < 1e-9, "{took}");
        assert_eq!(unpacking(&log[..1]), None);
    }
}
