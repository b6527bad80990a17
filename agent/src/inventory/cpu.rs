//! CPUs, from /proc/cpuinfo and /sys/devices/system/cpu.

use super::{names, number, text};
use ferric_common::wire::inventory::Cpu;
use std::collections::BTreeSet;
use std::path::Path;

/// The first CPU speaks for all.
pub fn read(sys: &Path, proc: &Path, architecture: &str) -> Cpu {
    let info = text(&proc.join("cpuinfo")).unwrap_or_default();
    let field = |names: &[&str]| {
        info.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            names.contains(&key.trim()).then(|| value.trim().to_owned())
        })
    };
    let folder = sys.join("devices/system/cpu");
    let sockets = sockets(&folder);
    Cpu {
        model_name: field(&["model name", "Model", "cpu model"]).unwrap_or_default(),
        frequency: frequency(&folder, field(&["cpu MHz"])),
        count: count(&info, &folder),
        architecture: architecture.to_owned(),
        flags: field(&["flags", "Features"])
            .map(|flags| flags.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        socket_count: (sockets > 0).then_some(sockets),
    }
}

/// MHz with four decimals, as lscpu prints: the maximum, else the current one, else nothing.
fn frequency(folder: &Path, current: Option<String>) -> String {
    let top: Option<u64> = number(&folder.join("cpu0/cpufreq/cpuinfo_max_freq"));
    let top = top.filter(|khz| *khz > 0).map(|khz| format!("{}.{:04}", khz / 1000, khz % 1000 * 10));
    let current = current.and_then(|mhz| mhz.parse::<f64>().ok()).map(|mhz| format!("{mhz:.4}"));
    top.or(current).unwrap_or_default()
}

/// CPUs online.
fn count(info: &str, folder: &Path) -> u32 {
    let listed =
        info.lines().filter(|line| line.split(':').next().map(str::trim) == Some("processor")).count();
    let found = if listed > 0 { listed } else { cpus(folder).count() };
    u32::try_from(found).unwrap_or(u32::MAX)
}

fn sockets(folder: &Path) -> u32 {
    let packages: BTreeSet<i64> = cpus(folder)
        .filter_map(|cpu| number(&folder.join(cpu).join("topology/physical_package_id")))
        .collect();
    u32::try_from(packages.len()).unwrap_or(u32::MAX)
}

fn cpus(folder: &Path) -> impl Iterator<Item = String> {
    let is_cpu = |name: &String| {
        name.strip_prefix("cpu")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    names(folder).into_iter().filter(is_cpu)
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;

    const INFO: &str = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz\ncpu MHz\t\t: 1995.312\n\
        flags\t\t: fpu vme  sse\npower management:\n\nprocessor\t: 1\nmodel name\t: other\nflags\t\t: none\n";

    #[test]
    fn two_sockets_are_counted_and_the_first_cpu_speaks() {
        let tree = Tree::new();
        tree.file("cpuinfo", INFO)
            .file("devices/system/cpu/cpu0/topology/physical_package_id", "0\n")
            .file("devices/system/cpu/cpu1/topology/physical_package_id", "1\n")
            .folder("devices/system/cpu/cpufreq")
            .file("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3100000\n");
        let cpu = read(tree.root(), tree.root(), "x86_64");
        assert_eq!(
            cpu,
            Cpu {
                model_name: "Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz".into(),
                frequency: "3100.0000".into(),
                count: 2,
                architecture: "x86_64".into(),
                flags: vec!["fpu".into(), "vme".into(), "sse".into()],
                socket_count: Some(2),
            }
        );
    }

    #[test]
    fn without_frequency_scaling_the_current_one_counts() {
        let tree = Tree::new();
        tree.file("cpuinfo", INFO);
        let cpu = read(tree.root(), tree.root(), "x86_64");
        assert_eq!((cpu.frequency.as_str(), cpu.socket_count), ("1995.3120", None));
    }
}
