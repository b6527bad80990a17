//! Puts the ramdisk together: packages and agent in, `vmlinuz` and `initramfs.img` out.

use crate::elf;
use crate::manifest::{File, Manifest, Profile};
use crate::modules::Catalogue;
use crate::packages::{self, Package};
use anyhow::{Context, Result, bail};
use ferric_common::formats::cpio::{Archive, Node};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where shared libraries lie in Debian's packages for x86-64.
const LIBRARY_FOLDERS: [&str; 4] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"];
/// zstd's best level short of the one that takes several times as long for a hundredth less.
const COMPRESSION: i32 = 19;
/// 2^26 bytes: the whole archive, so that everything repeated in it is stored once. The kernel's limit is 2^27.
const WINDOW: u32 = 26;

/// What a build has made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Built {
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    pub kernel_version: String,
    pub kernel_bytes: u64,
    pub ramdisk_bytes: u64,
    /// Size of the archive before compression: what it takes of the machine's memory.
    pub unpacked_bytes: u64,
    pub agent_bytes: u64,
    pub modules: usize,
}

/// Builds one profile into `out`, with `agent` (a static program) as process 1.
///
/// # Errors
/// A package that cannot be had, a manifest that names what is not there, an agent that is not static.
pub fn build(manifest: &Manifest, profile: Profile, agent: &Path, cache: &Path, out: &Path) -> Result<Built> {
    let kernel = kernel(manifest, cache)?;
    let names: Vec<&str> = manifest.packages.names.iter().map(String::as_str).collect();
    let packages = packages::obtain(cache, &names)?;
    let agent_bytes = fs::read(agent).with_context(|| format!("reading the agent {}", agent.display()))?;
    if elf::interpreter(&agent_bytes).context("reading the agent")?.is_some() {
        bail!(
            "the agent {} is not a static program: build it for x86_64-unknown-linux-musl",
            agent.display()
        );
    }

    let mut archive = Archive::new();
    for folder in &manifest.folders {
        for path in &folder.paths {
            archive.add(path, Node::Folder(folder.mode))?;
        }
    }
    for device in &manifest.devices {
        archive.add(&device.path, Node::Device(device.mode, device.major, device.minor))?;
    }
    for file in &manifest.files {
        let node = content(file, &agent_bytes, &packages).with_context(|| format!("adding {}", file.path))?;
        if let Node::File(_, bytes) = &node
            && file.from.is_some()
        {
            add_libraries(&mut archive, bytes, &packages).with_context(|| format!("adding {}", file.path))?;
        }
        archive.add(&file.path, node)?;
    }
    add_applets(&mut archive, &packages)?;
    let modules = add_modules(&mut archive, &kernel, manifest, profile)?;

    let plain = archive.to_bytes()?;
    let packed = compress(&plain)?;
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let built = Built {
        kernel: out.join("vmlinuz"),
        ramdisk: out.join("initramfs.img"),
        kernel_version: kernel.version,
        kernel_bytes: fs::metadata(&kernel.image)?.len(),
        ramdisk_bytes: u64::try_from(packed.len())?,
        unpacked_bytes: u64::try_from(plain.len())?,
        agent_bytes: u64::try_from(agent_bytes.len())?,
        modules,
    };
    let image = fs::read(&kernel.image).with_context(|| format!("reading {}", kernel.image.display()))?;
    put(&built.kernel, &image)?;
    put(&built.ramdisk, &packed)?;
    put(&out.join("contents.txt"), contents(&archive, &kernel.package, &packages).as_bytes())?;
    put(&out.join("built.toml"), toml::to_string(&built)?.as_bytes())?;
    Ok(built)
}

/// What an earlier build left in `out`.
pub fn existing(out: &Path) -> Result<Built> {
    let built: Built = toml::from_str(&fs::read_to_string(out.join("built.toml"))?)?;
    for (path, bytes) in [(&built.kernel, built.kernel_bytes), (&built.ramdisk, built.ramdisk_bytes)] {
        if fs::metadata(path)?.len() != bytes {
            bail!("{} is not as it was built", path.display());
        }
    }
    Ok(built)
}

/// Builds the second archive, `firmware.img`: what the profile's drivers may ask for, from the manifest's packages as far
/// as apt offers them (most are in Debian's non-free-firmware), else from this machine's `/lib/firmware`. `None` if
/// neither has anything.
pub fn firmware(manifest: &Manifest, profile: Profile, cache: &Path, out: &Path) -> Result<Option<PathBuf>> {
    let kernel = kernel(manifest, cache)?;
    let catalogue = Catalogue::read(&kernel.modules)?;
    let chosen = catalogue.closure(manifest.modules(profile))?;
    let offered: Vec<&str> = manifest
        .firmware
        .packages
        .iter()
        .map(String::as_str)
        .filter(|name| packages::is_offered(name))
        .collect();
    let mut roots = Vec::new();
    if !offered.is_empty() {
        roots = packages::obtain(cache, &offered)?.into_iter().map(|package| package.root).collect();
    }
    roots.push(PathBuf::from("/"));
    let mut archive = Archive::new();
    for name in chosen.firmware() {
        let places = ["lib/firmware", "usr/lib/firmware"];
        let found =
            roots.iter().flat_map(|root| places.map(|p| root.join(p).join(name))).find(|p| p.is_file());
        if let Some(path) = found {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            archive.add(&format!("usr/lib/firmware/{name}"), Node::File(0o644, bytes))?;
        }
    }
    if archive.entries().next().is_none() {
        return Ok(None);
    }
    let path = out.join("firmware.img");
    put(&path, &compress(&archive.to_bytes()?)?)?;
    Ok(Some(path))
}

/// Holds a build against the manifest's budget.
///
/// # Errors
/// What is too large, by how much.
pub fn check_budget(manifest: &Manifest, built: &Built) -> Result<()> {
    let budget = manifest.budget;
    let together = built.kernel_bytes + built.ramdisk_bytes;
    for (what, size, limit) in [
        ("kernel and ramdisk", together, budget.kernel_and_ramdisk),
        ("the agent", built.agent_bytes, budget.agent),
    ] {
        if size > limit {
            bail!("{what}: {size} bytes, {} more than the budget of {limit} bytes", size - limit);
        }
    }
    Ok(())
}

/// Debian's kernel, unpacked.
#[derive(Debug)]
pub struct Kernel {
    package: Package,
    pub version: String,
    pub image: PathBuf,
    /// `…/lib/modules/VERSION`
    pub modules: PathBuf,
}

/// The folders with the content of packages, in order.
pub fn unpack(cache: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    Ok(packages::obtain(cache, names)?.into_iter().map(|package| package.root).collect())
}

/// File names (with versions) of all packages a ramdisk would be made of now.
pub fn packages_of(manifest: &Manifest) -> Result<Vec<String>> {
    let kernel = packages::dependency(&manifest.kernel.package, "linux-image-")?;
    let names: Vec<&str> =
        manifest.packages.names.iter().map(String::as_str).chain([kernel.as_str()]).collect();
    packages::files(&names)
}

/// Fetches and unpacks the newest kernel of the suite.
pub fn kernel(manifest: &Manifest, cache: &Path) -> Result<Kernel> {
    let name = packages::dependency(&manifest.kernel.package, "linux-image-")?;
    let package =
        packages::obtain(cache, &[&name])?.into_iter().next().context("apt gave no kernel package")?;
    let folder = package.root.join("lib/modules");
    let version = fs::read_dir(&folder)
        .with_context(|| format!("listing {}", folder.display()))?
        .next()
        .context("the kernel package has no modules")??
        .file_name()
        .to_string_lossy()
        .into_owned();
    Ok(Kernel {
        image: package.root.join("boot").join(format!("vmlinuz-{version}")),
        modules: folder.join(&version),
        version,
        package,
    })
}

fn content(file: &File, agent: &[u8], packages: &[Package]) -> Result<Node> {
    let mode = file.mode.unwrap_or(0o644);
    Ok(match (&file.from, &file.text, &file.link) {
        (Some(from), _, _) => Node::File(mode, from_packages(packages, from)?),
        (_, Some(text), _) => Node::File(mode, text.trim_start_matches('\n').as_bytes().to_vec()),
        (_, _, Some(target)) => Node::Link(target.clone()),
        _ if file.agent => Node::File(mode, agent.to_vec()),
        _ => bail!("the manifest does not say what it is"),
    })
}

fn from_packages(packages: &[Package], path: &str) -> Result<Vec<u8>> {
    let found = packages.iter().map(|p| p.root.join(path)).find(|p| p.is_file());
    let found = found.with_context(|| format!("no package of the manifest holds {path}"))?;
    fs::read(&found).with_context(|| format!("reading {}", found.display()))
}

/// The loader and every shared library that `program` and its libraries name.
fn add_libraries(archive: &mut Archive, program: &[u8], packages: &[Package]) -> Result<()> {
    if let Some(loader) = elf::interpreter(program)? {
        let name = loader.rsplit('/').next().unwrap_or_default().to_owned();
        archive.add(&format!("usr/lib64/{name}"), Node::File(0o755, library(packages, &name)?))?;
    }
    let mut wanted = elf::needed(program)?;
    let mut done: Vec<String> = Vec::new();
    while let Some(name) = wanted.pop() {
        // The loader is named by libc too; it has its place already.
        if name.starts_with("ld-linux") || done.contains(&name) {
            continue;
        }
        let bytes = library(packages, &name)?;
        wanted.extend(elf::needed(&bytes)?);
        archive.add(&format!("usr/lib/x86_64-linux-gnu/{name}"), Node::File(0o644, bytes))?;
        done.push(name);
    }
    Ok(())
}

fn library(packages: &[Package], name: &str) -> Result<Vec<u8>> {
    let places = LIBRARY_FOLDERS.map(|folder| format!("{folder}/{name}"));
    places
        .iter()
        .find_map(|path| from_packages(packages, path).ok())
        .with_context(|| format!("no package of the manifest holds the library {name}: add its package"))
}

/// A link to busybox for each of its applets that is no program of its own.
fn add_applets(archive: &mut Archive, packages: &[Package]) -> Result<()> {
    let program = packages.iter().map(|p| p.root.join("bin/busybox")).find(|p| p.is_file());
    let mut list = Command::new(program.context("no package of the manifest holds bin/busybox")?);
    list.arg("--list-full");
    for path in packages::run(list)?.lines() {
        let path = match path.split_once('/') {
            // bin and sbin are links into usr.
            Some(("bin" | "sbin", _)) => format!("usr/{path}"),
            Some(("usr", _)) => path.to_owned(),
            // linuxrc and the like
            _ => continue,
        };
        if archive.entries().all(|(name, _)| name != path) {
            archive.add(&path, Node::Link("/usr/bin/busybox".to_owned()))?;
        }
    }
    Ok(())
}

fn add_modules(
    archive: &mut Archive,
    kernel: &Kernel,
    manifest: &Manifest,
    profile: Profile,
) -> Result<usize> {
    let catalogue = Catalogue::read(&kernel.modules)?;
    let chosen = catalogue.closure(manifest.modules(profile))?;
    let folder = format!("usr/lib/modules/{}", kernel.version);
    let mut count = 0;
    for path in chosen.paths() {
        // As Debian signed them: a stripped module would not load where the firmware locks the kernel down.
        let bytes = fs::read(kernel.modules.join(path)).with_context(|| format!("reading module {path}"))?;
        archive.add(&format!("{folder}/{path}"), Node::File(0o644, bytes))?;
        count += 1;
    }
    let builtin = fs::read(kernel.modules.join("modules.builtin")).context("reading modules.builtin")?;
    for (name, bytes) in [
        ("modules.dep", chosen.dep_table().into_bytes()),
        ("modules.alias", chosen.alias_table().into_bytes()),
        ("modules.softdep", chosen.softdep_table().into_bytes()),
        ("modules.builtin", builtin),
    ] {
        archive.add(&format!("{folder}/{name}"), Node::File(0o644, bytes))?;
    }
    Ok(count)
}

/// zstd with a fixed level, window and one thread: the same bytes on every machine.
pub fn compress(plain: &[u8]) -> Result<Vec<u8>> {
    use zstd::zstd_safe::CParameter;
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION)?;
    compressor.set_parameter(CParameter::WindowLog(WINDOW))?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.compress(plain).context("compressing the archive")
}

/// Writes aside and renames, so that a reader never sees half a file.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let aside = path.with_extension("part");
    fs::write(&aside, bytes).with_context(|| format!("writing {}", aside.display()))?;
    fs::rename(&aside, path).with_context(|| format!("moving {} to its place", path.display()))
}

/// What is inside and where it came from, for people and for comparing two builds.
fn contents(archive: &Archive, kernel: &Package, packages: &[Package]) -> String {
    let mut text: String =
        std::iter::once(kernel).chain(packages).map(|p| format!("package {}\n", p.file)).collect();
    for (name, node) in archive.entries() {
        text.push_str(&match node {
            Node::Folder(mode) => format!("{mode:04o} folder {name}\n"),
            Node::File(mode, bytes) => format!("{mode:04o} {:>9} {name}\n", bytes.len()),
            Node::Link(target) => format!("link {name} -> {target}\n"),
            Node::Device(mode, major, minor) => format!("{mode:04o} device {major}:{minor} {name}\n"),
        });
    }
    text
}
