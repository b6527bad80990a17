//! What this machine allows at best: for each resource the time that an image needs of it, by the rates of the parts.

use super::cases::Line;
use super::disk::{self, Pace};
use super::images::{MIB, Picture};
use super::server::gigabit_payload;
use super::table::Row;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// What the parts gave: MiB a second and CPU seconds a GiB, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    pub parts: Vec<(String, f64, f64)>,
    /// CPU seconds of the server for a GiB, which is on the same machine.
    pub server: f64,
}

impl Rates {
    /// Reads lines of `ferric-parts`.
    pub fn add(&mut self, printed: &str) -> Result<()> {
        for line in printed.lines() {
            let part = || {
                let mut fields = line.split('\t');
                let name = fields.next()?.to_owned();
                Some((name, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
            };
            self.parts.push(part().with_context(|| format!("ferric-parts said '{line}'"))?);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<(f64, f64)> {
        self.parts.iter().find(|(part, ..)| part == name).map(|(_, rate, cpu)| (*rate, *cpu))
    }

    /// The best of the parts whose name starts so.
    fn best(&self, start: &str) -> Option<(f64, f64)> {
        let of_kind = self.parts.iter().filter(|(name, ..)| name.starts_with(start));
        of_kind.map(|(_, rate, cpu)| (*rate, *cpu)).max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// Seconds that an image needs of each resource, if nothing else took time.
#[derive(Clone, Debug, PartialEq)]
pub struct Floors(pub BTreeMap<&'static str, f64>);

impl Floors {
    /// The resource that is needed longest.
    pub fn highest(&self) -> (&'static str, f64) {
        self.0
            .iter()
            .map(|(name, seconds)| (*name, *seconds))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or(("", 0.0))
    }
}

/// One step of a write: how many bytes pass, how fast they can, what a GiB of them takes of the processor.
struct Step {
    resource: &'static str,
    mib: f64,
    rate: f64,
    cpu: f64,
}

/// Each resource's floor for the row's image with this hash (`sha256`, `sha512`), on so many cores.
pub fn floors(row: &Row, hash: &str, rates: &Rates, cores: usize) -> Floors {
    let mut floors = BTreeMap::new();
    let mut cpu = 0.0;
    for step in steps(row, hash, rates) {
        *floors.entry(step.resource).or_insert(0.0) += step.mib / step.rate.max(1e-9);
        cpu += step.mib / 1024.0 * step.cpu;
    }
    cpu += row.image.bytes as f64 / (MIB * 1024) as f64 * rates.server;
    floors.insert("processor", cpu / cores as f64);
    Floors(floors)
}

fn steps(row: &Row, hash: &str, rates: &Rates) -> Vec<Step> {
    let (case, image) = (&row.case, &row.image);
    let file = image.bytes as f64 / MIB as f64;
    let data = image.data_bytes as f64 / MIB as f64;
    let all = image.virtual_bytes as f64 / MIB as f64;
    let mut steps = Vec::new();
    let mut step = |resource, mib, found: Option<(f64, f64)>| {
        if let Some((rate, cpu)) = found {
            steps.push(Step { resource, mib, rate, cpu });
        }
    };
    let received = rates.find("receive over HTTP");
    step(
        "network",
        file,
        match case.line {
            Line::Loopback => received,
            Line::Gigabit => received.map(|(_, cpu)| (gigabit_payload() / MIB as f64, cpu)),
        },
    );
    step("hash", file, rates.find(hash));
    match image.picture {
        Picture::Zlib | Picture::Empty100gZlib | Picture::Shuffled => {
            step("decompression", data, rates.find("inflate 64 KiB, all cores"));
        }
        Picture::Zstd => step("decompression", data, rates.find("zstd 64 KiB, all cores")),
        // A stream carries the zeros too.
        Picture::RawGz => step("decompression", all, rates.find("gzip stream")),
        Picture::RawZst => step("decompression", all, rates.find("zstd stream")),
        Picture::RawXz => step("decompression", all, rates.find("xz stream (program xz), all cores")),
        _ => {}
    }
    let scattered = matches!(image.picture, Picture::Scatter | Picture::Shuffled);
    let written = rates.best(if scattered { "write 64 KiB scattered" } else { "write " });
    match case.pace {
        Pace::Free => {
            step("disk", data, written);
            // Only where old data lies is there anything to do.
            let filled = disk::memory_for(image.virtual_bytes, case.pace).unwrap_or(0) as f64 / MIB as f64;
            let zeros = (all - data).min(filled);
            // All of the measured seconds are one kernel thread's.
            let alone = row.zeroing.map(|seconds| (zeros / seconds, seconds * 1024.0 / zeros));
            step("disk", zeros, alone.or_else(|| rates.find("zeroed by the disk")));
        }
        Pace::Held(rate) => step("disk", data, written.map(|(_, cpu)| (rate as f64 / MIB as f64, cpu))),
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::cases::{CASES, Who};
    use super::super::images::Made;
    use super::*;

    fn rates() -> Rates {
        let mut rates = Rates { server: 0.25, ..Rates::default() };
        let lines = [
            "receive over HTTP\t1000\t0.5",
            "sha256\t500\t2",
            "inflate 64 KiB, one core\t100\t9",
            "inflate 64 KiB, all cores\t400\t5",
            "write 1 MiB, 1 at once\t1500\t0.1",
            "write 4 MiB, 1 at once\t2000\t0.1",
            "write 64 KiB scattered, 16 at once\t800\t1",
            "zeroed by the disk\t8000\t0.05",
        ];
        rates.add(&lines.join("\n")).unwrap();
        rates
    }

    fn floors_of(name: &str, picture: Picture) -> Floors {
        floors(&row(name, picture), "sha256", &rates(), 2)
    }

    fn row(name: &str, picture: Picture) -> Row {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let image = Made {
            picture,
            path: "x".into(),
            bytes: 1000 * MIB,
            virtual_bytes: 10_000 * MIB,
            data_bytes: 2000 * MIB,
            sha256: String::new(),
            sha512: String::new(),
        };
        Row { case: *case, who: Who::Ours, image, runs: vec![], left_out: None, note: None, zeroing: None }
    }

    fn near(floors: &Floors, name: &str, seconds: f64) {
        let found = floors.0.get(name).copied().unwrap_or(f64::NAN);
        assert!((found - seconds).abs() < 0.01, "{name}: {found}, not {seconds}");
    }

    #[test]
    fn each_resource_has_its_time() {
        let floors = floors_of("zlib", Picture::Zlib);
        near(&floors, "network", 1.0);
        near(&floors, "hash", 2.0);
        near(&floors, "decompression", 5.0);
        near(&floors, "disk", 1.0 + 1.0);
        // (0.5 + 2 + 0.25) for the file, (5 + 0.1) for the data, 0.05 for zeros; on two cores.
        near(&floors, "processor", (2.75 * 1000.0 + 5.1 * 2000.0 + 0.05 * 8000.0) / 1024.0 / 2.0);
        assert_eq!(floors.highest().0, "processor");
    }

    #[test]
    fn a_slow_line_and_a_slow_disk_have_their_own_rates() {
        near(&floors_of("zlib-1Gb/s", Picture::Zlib), "network", 1000.0 / 118.02);
        near(&floors_of("zlib-500MiB/s-disk", Picture::Zlib), "disk", 4.0);
        near(&floors_of("scatter", Picture::Scatter), "disk", 2000.0 / 800.0 + 1.0);
        assert_eq!(floors_of("plain", Picture::Plain).0.get("decompression"), None);
    }

    #[test]
    fn a_disk_whose_zeroing_was_measured_needs_no_rate_for_it() {
        let mut row = row("empty100g", Picture::Empty100g);
        let usual = floors(&row, "sha256", &rates(), 2);
        row.zeroing = Some(3.0);
        let measured = floors(&row, "sha256", &rates(), 2);
        near(&measured, "disk", 1.0 + 3.0);
        let processor = |floors: &Floors| floors.0.get("processor").copied().unwrap();
        // Three seconds of one thread, in place of 0.05 for each GiB of old data.
        let zeros = (10_000.0 - 2000.0) / 1024.0 * 0.05;
        assert!((processor(&measured) - processor(&usual) - (3.0 - zeros) / 2.0).abs() < 0.01);
    }

    #[test]
    fn a_line_that_is_no_part_is_an_error() {
        assert!(Rates::default().add("sha256\tfast\t2").is_err());
    }
}
