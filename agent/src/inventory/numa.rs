//! Which memory, processors and network interfaces are near each other, from /sys/devices/system/node.

use super::{names, number, text};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    pub ram: Vec<Ram>,
    pub cpus: Vec<Core>,
    pub nics: Vec<Nic>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ram {
    pub numa_node: u32,
    pub size_kb: u64,
}

/// A core; its number counts within the node, those of its threads in the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Core {
    pub cpu: i64,
    pub numa_node: u32,
    pub thread_siblings: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nic {
    pub name: String,
    pub numa_node: i64,
}

/// `None` on a kernel without NUMA support.
///
/// # Errors
/// In words: what of a node cannot be read.
pub fn read(sys: &Path) -> Result<Option<Topology>, String> {
    let folder = sys.join("devices/system/node");
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut found = Topology { nics: nics(&sys.join("class/net")), ..Topology::default() };
    for (name, node) in numbered(&folder, "node") {
        let place = folder.join(&name);
        let size_kb = text(&place.join("meminfo")).and_then(|info| total_kb(&info));
        let size_kb =
            size_kb.ok_or_else(|| format!("{} names no MemTotal in kB", place.join("meminfo").display()))?;
        found.ram.push(Ram { numa_node: node, size_kb });
        let mut cores: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (cpu, thread) in numbered(&place, "cpu") {
            // A processor that is switched off has no topology.
            if let Some(core) = number(&place.join(cpu).join("topology/core_id")) {
                cores.entry(core).or_default().push(thread);
            }
        }
        let core = |(cpu, thread_siblings)| Core { cpu, numa_node: node, thread_siblings };
        found.cpus.extend(cores.into_iter().map(core));
    }
    found.ram.sort_by_key(|ram| ram.numa_node);
    Ok(Some(found))
}

/// `Node 0 MemTotal:       1560000 kB`.
fn total_kb(info: &str) -> Option<u64> {
    let (_, value) = info.lines().find(|line| line.contains("MemTotal:"))?.split_once(':')?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn nics(folder: &Path) -> Vec<Nic> {
    let nic =
        |name: String| Some(Nic { numa_node: number(&folder.join(&name).join("device/numa_node"))?, name });
    names(folder).into_iter().filter_map(nic).collect()
}

/// Folders named `prefix` and a number, by number.
fn numbered(folder: &Path, prefix: &str) -> Vec<(String, u32)> {
    let mut found: Vec<(String, u32)> = names(folder)
        .into_iter()
        .filter_map(|name| Some((name.clone(), name.strip_prefix(prefix)?.parse().ok()?)))
        .collect();
    found.sort_by_key(|(_, number)| *number);
    found
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::*;

    #[test]
    fn threads_of_a_core_stand_together_and_by_node() {
        let tree = Tree::new();
        for (node, cpu, core) in [(0, 0, 0), (0, 2, 1), (0, 10, 0), (1, 1, 0)] {
            tree.file(
                &format!("devices/system/node/node{node}/cpu{cpu}/topology/core_id"),
                format!("{core}\n"),
            );
        }
        for node in [0, 1] {
            tree.file(
                &format!("devices/system/node/node{node}/meminfo"),
                format!("Node {node} MemTotal:       {}000 kB\nNode {node} MemFree: 1 kB\n", node + 1),
            );
            tree.file(&format!("devices/system/node/node{node}/cpumap"), "3\n");
        }
        tree.file("class/net/eno1/device/numa_node", "1\n").folder("class/net/lo");
        let found = read(tree.root()).unwrap().unwrap();
        let core =
            |cpu, numa_node, threads: &[u32]| Core { cpu, numa_node, thread_siblings: threads.to_vec() };
        assert_eq!(found.cpus, [core(0, 0, &[0, 10]), core(1, 0, &[2]), core(0, 1, &[1])]);
        assert_eq!(found.ram, [Ram { numa_node: 0, size_kb: 1000 }, Ram { numa_node: 1, size_kb: 2000 }]);
        assert_eq!(found.nics, [Nic { name: "eno1".into(), numa_node: 1 }]);
    }

    #[test]
    fn no_numa_is_nothing_and_a_node_without_memory_is_an_error() {
        let tree = Tree::new();
        assert_eq!(read(tree.root()), Ok(None));
        tree.file("devices/system/node/node0/meminfo", "Node 0 MemFree: 1 kB\n");
        assert!(read(tree.root()).unwrap_err().ends_with("meminfo names no MemTotal in kB"));
    }
}
