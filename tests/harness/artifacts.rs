//! The built programs and the ramdisk, as an operator would have them.

use crate::process::run;
use anyhow::{Context, Result};
use ferric_initramfs::{Built, Manifest, Profile, build};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const MUSL: &str = "x86_64-unknown-linux-musl";

/// Everything a machine or an operator needs, by path.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub agent: PathBuf,
    pub controller: PathBuf,
    /// The operator's command line.
    pub ferric: PathBuf,
    /// The helper of the simulated BMC.
    pub chassis: PathBuf,
    pub ramdisk: PathBuf,
    pub kernel: PathBuf,
    pub kernel_version: String,
}

impl Artifacts {
    /// Builds what is not built, prints what takes long, and gives the paths.
    pub fn obtain(profile: Profile) -> Result<Self> {
        let programs = programs()?;
        let built = ramdisk(profile, &target()?.join("ramdisk").join(profile.to_string()))?;
        Ok(Self {
            agent: programs.join("ferric-agent"),
            controller: programs.join("ferric-controller"),
            ferric: programs.join("ferric"),
            chassis: target()?.join("debug/ferric-chassis"),
            ramdisk: built.ramdisk,
            kernel: built.kernel,
            kernel_version: built.kernel_version,
        })
    }
}

/// The root of the sources.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Cargo's folder for what it builds.
pub fn target() -> Result<PathBuf> {
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => workspace().join("target"),
    })
}

/// Where downloads and images are kept: `$FERRIC_CACHE`, else `/var/cache/ferric` so that another clone finds them,
/// else `target/cache`.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("FERRIC_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let shared = PathBuf::from("/var/cache/ferric");
    if fs::create_dir_all(&shared).is_ok() && tempfile::tempfile_in(&shared).is_ok() {
        return Ok(shared);
    }
    let own = target()?.join("cache");
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    Ok(own)
}

/// A fresh folder for one run's logs and disks: `target/runs/NAME`. The last run of that name is removed.
pub fn run_folder(name: &str) -> Result<PathBuf> {
    let folder = target()?.join("runs").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Builds the static agent alone; its path.
pub fn agent() -> Result<PathBuf> {
    static_release("ferric-agent")
}

/// Builds a package as it is released, statically linked; the path of its program, which has the package's name.
pub fn static_release(package: &str) -> Result<PathBuf> {
    cargo(&["build", "--release", "--target", MUSL, "-p", package])?;
    Ok(target()?.join(MUSL).join("release").join(package))
}

/// Builds the program that measures another one's memory; its path.
pub fn peak() -> Result<PathBuf> {
    cargo(&["build", "-p", "ferric-tests", "--bin", "ferric-peak"])?;
    Ok(target()?.join("debug/ferric-peak"))
}

/// Builds the BMC's helper alone.
pub fn chassis() -> Result<()> {
    cargo(&["build", "-p", "ferric-tests", "--bin", "ferric-chassis"])
}

/// Builds the static programs and the BMC's helper; the folder of the former.
pub fn programs() -> Result<PathBuf> {
    cargo(&[
        "build",
        "--release",
        "--target",
        MUSL,
        "-p",
        "ferric-agent",
        "-p",
        "ferric-controller",
        "--bins",
    ])?;
    chassis()?;
    Ok(target()?.join(MUSL).join("release"))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(["--quiet"]).args(arguments).current_dir(workspace()).stdin(Stdio::null());
    // The flags of a surrounding `cargo test` are not meant for this build.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_TARGET_DIR" && text != "CARGO_HOME" {
            command.env_remove(&name);
        }
    }
    let status = command.status().context("starting cargo")?;
    anyhow::ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

/// Builds a ramdisk unless agent, manifest, builder and packages are those of the last time.
pub fn ramdisk(profile: Profile, out: &Path) -> Result<Built> {
    let agent = target()?.join(MUSL).join("release/ferric-agent");
    let manifest = Manifest::builtin()?;
    let stamp = out.join("inputs");
    let key = stamp_of(&manifest, profile, &agent)?;
    if fs::read_to_string(&stamp).is_ok_and(|old| old == key)
        && let Ok(built) = build::existing(out)
    {
        return Ok(built);
    }
    eprintln!("making the ramdisk, profile {profile}");
    fs::remove_file(&stamp).ok();
    let built = build::build(&manifest, profile, &agent, &cache_folder()?, out)?;
    fs::write(&stamp, key)?;
    Ok(built)
}

fn stamp_of(manifest: &Manifest, profile: Profile, agent: &Path) -> Result<String> {
    let agent = fs::read(agent).with_context(|| format!("reading {}", agent.display()))?;
    let mut hash = Sha256::new();
    hash.update(agent);
    hash.update(ferric_initramfs::manifest::BUILTIN);
    // The builder itself: its sources are part of this program.
    hash.update(include_str!("../../initramfs-build/src/build.rs"));
    hash.update(include_str!("../../initramfs-build/src/modules.rs"));
    hash.update(profile.to_string());
    for package in build::packages_of(manifest)? {
        hash.update(package);
    }
    Ok(crate::debian::hex(&hash.finalize()))
}

/// Builds a statically linked program from one C file for guests that hold nothing else.
pub fn static_program(source: &Path, out: &Path) -> Result<()> {
    let mut command = Command::new("musl-gcc");
    command.args(["-static", "-Os", "-o"]).arg(out).arg(source);
    run(&mut command).map(drop)
}
