//! `ferric-initramfs PROFILE AGENT CACHE OUT`: the builder alone. `cargo xtask ramdisk` calls the same code and builds
//! the agent first.

use anyhow::{Result, bail};
use ferric_initramfs::{Manifest, build};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [profile, agent, cache, out] = arguments.as_slice() else {
        bail!("usage: ferric-initramfs server|vm AGENT CACHE OUT");
    };
    let manifest = Manifest::builtin()?;
    let built =
        build::build(&manifest, profile.parse()?, Path::new(agent), Path::new(cache), Path::new(out))?;
    println!("{built:#?}");
    build::check_budget(&manifest, &built)
}
