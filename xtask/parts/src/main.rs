//! Measures the parts of the write pipeline one by one, on this machine.
//!
//! A program of its own, because it must be built as the agent is built (release, static, the same crates), while the
//! command that starts it is not. It prints one line for each part: name, MiB a second, CPU seconds a GiB, tab
//! between them. `cargo xtask bench parts` makes the table.

mod codecs;
mod disk;
mod hashes;
mod meter;
mod receive;

use anyhow::{Result, bail};
use std::path::Path;
use std::process::ExitCode;

// As in the agent.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str =
    "usage: ferric-parts hashes | codecs FILE.raw FILE.gz FILE.zst FILE.xz | disk DEVICE | receive URL";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferric-parts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["hashes"] => hashes::measure(),
        ["clusters", raw] => codecs::clusters(Path::new(raw)),
        ["stream", kind, file, bytes] => codecs::stream(kind, Path::new(file), bytes.parse()?),
        ["disk", device] => disk::measure(Path::new(device)),
        ["receive", url] => receive::measure(url),
        _ => bail!("{USAGE}"),
    }
}
