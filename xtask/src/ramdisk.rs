//! `cargo xtask ramdisk`.

use anyhow::{Context, Result, bail};
use ferric_initramfs::{Manifest, Profile, build};
use ferric_tests::artifacts::{self, cache_folder, target};
use std::path::PathBuf;

pub fn run(words: &[&str]) -> Result<()> {
    let (mut profile, mut out, mut firmware) = (Profile::Server, None, false);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--profile" => profile = rest.next().context("--profile wants server or vm")?.parse()?,
            "--out" => out = Some(PathBuf::from(rest.next().context("--out wants a folder")?)),
            "--firmware" => firmware = true,
            other => bail!("cargo xtask ramdisk does not know '{other}'"),
        }
    }
    let out = match out {
        Some(out) => out,
        None => target()?.join("ramdisk").join(profile.to_string()),
    };
    artifacts::agent()?;
    let built = artifacts::ramdisk(profile, &out)?;
    println!("{}", report(&built));
    let manifest = Manifest::builtin()?;
    if firmware {
        match build::firmware(&manifest, profile, &cache_folder()?, &out)? {
            Some(path) => println!("{}: {} bytes", path.display(), path.metadata()?.len()),
            None => println!("no firmware found, neither in apt's packages nor in /lib/firmware"),
        }
    }
    if profile == Profile::Server { build::check_budget(&manifest, &built) } else { Ok(()) }
}

/// Sizes, for people.
pub fn report(built: &ferric_initramfs::Built) -> String {
    format!(
        "{}: {} bytes (Linux {})\n{}: {} bytes, {} unpacked, {} kernel modules\nkernel and ramdisk {} bytes, agent {} bytes",
        built.kernel.display(),
        built.kernel_bytes,
        built.kernel_version,
        built.ramdisk.display(),
        built.ramdisk_bytes,
        built.unpacked_bytes,
        built.modules,
        built.kernel_bytes + built.ramdisk_bytes,
        built.agent_bytes
    )
}
