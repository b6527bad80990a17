//! `cargo xtask bench parts`: runs the program `ferric-parts`, which is built as the agent is, and makes the table.

use super::disk::{Disk, Pace};
use super::images::{self, MIB, Made, Picture};
use super::machine;
use super::options::Options;
use super::roofline::Rates;
use super::server::{self, Server};
use super::stage::Stage;
use super::table::markdown;
use anyhow::{Context, Result};
use ferric_tests::artifacts;
use ferric_tests::process::call;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Room for what is written in one run.
const DISK: u64 = 1024 * MIB;
/// `ferric-parts` receives a file this often and asks for its length once.
const RECEIVED: f64 = 5.0;

/// Streams by the names that `ferric-parts` has for them.
const STREAMS: [(&str, Picture); 3] =
    [("gzip", Picture::RawGz), ("zstd", Picture::RawZst), ("xz", Picture::RawXz)];

/// What measuring the parts needs, made before the network is left.
pub struct Ready {
    program: PathBuf,
    clusters: Made,
    streams: Vec<(&'static str, Made)>,
    received: Made,
}

/// Builds the program and makes its images; of the streams only those that are wanted, as xz takes its time.
pub fn prepare(is_wanted: impl Fn(Picture) -> bool) -> Result<Ready> {
    let streams = STREAMS.into_iter().filter(|(_, picture)| is_wanted(*picture));
    Ok(Ready {
        program: artifacts::static_release("ferric-parts")?,
        clusters: images::obtain(Picture::Raw)?,
        streams: streams
            .map(|(kind, picture)| Ok((kind, images::obtain(picture)?)))
            .collect::<Result<_>>()?,
        received: images::obtain(Picture::Plain)?,
    })
}

/// Measures all parts.
pub fn measure(ready: &Ready, server: &Server, memory: &Path) -> Result<Rates> {
    let program = ready.program.display().to_string();
    let mut rates = Rates::default();
    eprintln!("measuring the parts");
    rates.add(&call(&program, &["hashes"])?)?;
    rates.add(&call(&program, &["clusters", &ready.clusters.path.display().to_string()])?)?;
    for (kind, image) in &ready.streams {
        images::read_through(&image.path)?;
        let (path, bytes) = (image.path.display().to_string(), image.virtual_bytes.to_string());
        rates.add(&call(&program, &["stream", kind, &path, &bytes])?)?;
    }
    let folder = tempfile::tempdir_in(memory)?;
    let disk = Disk::new(folder.path(), DISK, Pace::Free)?;
    rates.add(&call(&program, &["disk", disk.device()])?)?;
    let name = Picture::Plain.name();
    images::read_through(&ready.received.path)?;
    let before = server.cpu()?;
    rates.add(&call(&program, &["receive", &server.url(name)])?)?;
    let gib = ready.received.bytes as f64 / (1024 * MIB) as f64;
    rates.server = (server.cpu()? - before) / RECEIVED / gib;
    Ok(rates)
}

pub fn run(options: &Options) -> Result<()> {
    let ready = prepare(|_| true)?;
    let nginx = server::program()?;
    let machine = machine::describe()?;
    let stage = Stage::enter()?;
    let server = Server::start(&nginx, &images::folder()?)?;
    let rates = measure(&ready, &server, &stage.memory)?;
    println!("{}\n", machine.join("\n"));
    print!("{}", table(&rates));
    if let Some(path) = &options.json {
        let text = json!({"machine": machine, "parts": as_json(&rates)}).to_string();
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The parts in Markdown.
pub fn table(rates: &Rates) -> String {
    let mut lines = vec![["part", "MiB/s", "CPU s per GiB"].map(str::to_owned).to_vec()];
    for (name, rate, cpu) in &rates.parts {
        lines.push(vec![name.clone(), format!("{rate:.0}"), format!("{cpu:.3}")]);
    }
    lines.push(vec!["nginx, sending that".to_owned(), "–".to_owned(), format!("{:.3}", rates.server)]);
    markdown(&lines, &[0])
}

pub fn as_json(rates: &Rates) -> serde_json::Value {
    let parts = rates
        .parts
        .iter()
        .map(|(name, rate, cpu)| json!({"part": name, "mib_per_s": rate, "cpu_s_per_gib": cpu}));
    json!({"parts": parts.collect::<Vec<_>>(), "server_cpu_s_per_gib": rates.server})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_the_server_stand_in_the_table() {
        let mut rates = Rates { server: 0.25, ..Rates::default() };
        rates.add("sha256\t1460.44\t0.7012\n").unwrap();
        let text = table(&rates);
        assert!(text.contains("| sha256              |  1460 |         0.701 |"), "{text}");
        assert!(text.contains("| nginx, sending that |     – |         0.250 |"), "{text}");
    }
}
