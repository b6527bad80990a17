//! The figures of both ramdisks side by side.

use super::deploy::{self, Deployment};
use super::{Contender, MIB, boot};
use crate::bench::table::markdown;
use serde_json::{Value, json};

/// The middle one of all runs, those without an end as the longest; of an even number the later of the two.
fn median(runs: &[Option<f64>]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(|a, b| a.unwrap_or(f64::INFINITY).total_cmp(&b.unwrap_or(f64::INFINITY)));
    sorted.get(sorted.len() / 2).copied().flatten()
}

/// One row: a figure of each, and how many times ours theirs is.
fn row(
    what: &str,
    ours: Option<f64>,
    theirs: Option<f64>,
    show: impl Fn(f64) -> String,
    none: &str,
) -> Vec<String> {
    let told = |value: Option<f64>| value.map_or_else(|| none.to_owned(), &show);
    let ratio = ours.zip(theirs).map_or_else(|| "–".to_owned(), |(a, b)| format!("{:.1}", b / a));
    vec![what.to_owned(), told(ours), told(theirs), ratio]
}

pub fn text(contenders: &[Contender; 2]) -> String {
    let [ours, theirs] = contenders;
    let mut lines = vec![["", &ours.name, &theirs.name, "theirs ÷ ours"].map(str::to_owned).to_vec()];
    let mut add =
        |what: &str, of: &dyn Fn(&Contender) -> Option<f64>, show: fn(f64) -> String, none: &str| {
            lines.push(row(what, of(ours), of(theirs), show, none));
        };
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / MIB);
    add("kernel + ramdisk", &|c| Some((c.kernel_bytes + c.ramdisk_bytes) as f64), mib, "");
    add("ramdisk, unpacked", &|c| Some(c.unpacked_bytes as f64), mib, "");
    let late = format!("did not come within {} s", boot::LOOKUP.as_secs());
    let seconds = |value: f64| format!("{value:.1} s");
    let what = format!("power-on → lookup, median of {}", ours.lookups.len());
    add(&what, &|c| median(&c.lookups), seconds, &late);
    let what = format!("deployment of a qcow2 of 4 GiB, median of {}", ours.deployments.len());
    let all = |c: &Contender, of: fn(&Deployment) -> f64| {
        median(&c.deployments.iter().map(|d| Some(of(d))).collect::<Vec<_>>())
    };
    add(&what, &|c| all(c, |d| d.seconds), seconds, "failed");
    let kib = |kib: f64| format!("{:.0} MiB", kib / 1024.0);
    add("memory in use at most, files included", &|c| all(c, |d| d.used.machine as f64), kib, "failed");
    add("resident memory of the agent at most", &|c| all(c, Deployment::resident), kib, "failed");
    let least = |mib: f64| format!("{mib:.0} MiB");
    add("least memory of the machine", &|c| c.least_memory.map(f64::from), least, "failed");
    markdown(&lines, &[0])
}

pub fn as_json(machine: &[String], contenders: &[Contender]) -> Value {
    let all = contenders.iter().map(|c| {
        let deployments = c
            .deployments
            .iter()
            .map(|d| json!({"s": d.seconds, "machine_kib": d.used.machine, "programs_kib": d.used.programs}));
        json!({
            "name": c.name,
            "kernel_bytes": c.kernel_bytes,
            "ramdisk_bytes": c.ramdisk_bytes,
            "unpacked_bytes": c.unpacked_bytes,
            "power_on_to_lookup_s": c.lookups,
            "deployments": deployments.collect::<Vec<_>>(),
            "least_memory_mib": c.least_memory,
        })
    });
    let memory = json!({"boot": boot::MEMORY, "deployment": deploy::MEMORY});
    json!({"machine": machine, "memory_mib": memory, "contenders": all.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::agent::memory::Used;
    use ferric_tests::ssh::Key;

    fn contender(name: &str, ramdisk_bytes: u64, lookups: &[Option<f64>]) -> Contender {
        Contender {
            name: name.to_owned(),
            kernel: "k".into(),
            ramdisk: "r".into(),
            user: "dev",
            key: Key { private: "p".into(), public: "q".into() },
            login: None,
            programs: &["init"],
            kernel_bytes: 1 << 20,
            ramdisk_bytes,
            unpacked_bytes: 8 << 20,
            lookups: lookups.to_vec(),
            deployments: Vec::new(),
            least_memory: None,
        }
    }

    #[test]
    fn the_table_sets_theirs_beside_ours() {
        let mut ours = contender("a", 1 << 20, &[Some(4.0), Some(9.0), Some(5.0)]);
        let mut theirs = contender("b", 9 << 20, &[Some(50.0), None, Some(40.0)]);
        ours.least_memory = Some(256);
        let programs = [("a".to_owned(), 1024), ("b".to_owned(), 2048)].into();
        theirs.deployments = vec![Deployment { seconds: 7.0, used: Used { machine: 5 << 20, programs } }];
        let text = text(&[ours, theirs]);
        for cells in [
            "| 2.0 MiB | 10.0 MiB | 5.0 |",
            "median of 3 | 5.0 s | 50.0 s | 10.0 |",
            "| failed | 7.0 s | – |",
            "files included | failed | 5120 MiB | – |",
            "at most | failed | 3 MiB | – |",
            "| 256 MiB | failed | – |",
        ] {
            let bare = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(bare.contains(cells), "{text}");
        }
    }

    #[test]
    fn a_lookup_that_does_not_come_has_a_bound_and_no_ratio() {
        let text = text(&[contender("a", 1, &[Some(4.0)]), contender("b", 1, &[None])]);
        assert!(text.contains("| did not come within 600 s |             – |"), "{text}");
    }
}
