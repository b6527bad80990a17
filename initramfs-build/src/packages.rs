//! Debian packages: found and fetched by apt, proven by its digest, unpacked by dpkg into a cache, never installed.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package in the cache.
#[derive(Clone, Debug)]
pub struct Package {
    /// File name as apt gives it; holds name, version and architecture.
    pub file: String,
    /// Folder with the unpacked content.
    pub root: PathBuf,
}

/// What apt would download.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    file: String,
    /// `SHA256:…`
    digest: String,
}

/// Fetches (unless cached) and unpacks each package in the version apt prefers now.
///
/// # Errors
/// apt knows no such package, the download failed, or it is not what apt's signed list says.
pub fn obtain(cache: &Path, names: &[&str]) -> Result<Vec<Package>> {
    let debs = cache.join("packages");
    let unpacked = cache.join("unpacked");
    for folder in [&debs, &unpacked] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let offers = offers(names)?;
    let missing: Vec<&str> = names
        .iter()
        .zip(&offers)
        .filter(|(_, offer)| !is_intact(&debs.join(&offer.file), &offer.digest))
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        let mut download = Command::new("apt-get");
        download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(&missing).current_dir(&debs);
        run(download)?;
    }
    offers.into_iter().map(|offer| unpack(&debs, &unpacked, offer)).collect()
}

/// The first dependency of `package` whose name starts with `prefix`: the kernel behind `linux-image-amd64`.
pub fn dependency(package: &str, prefix: &str) -> Result<String> {
    let ask = || run(apt("apt-cache", &["show", "--no-all-versions", package]));
    let shown = match ask() {
        Ok(shown) => shown,
        // A fresh machine has no lists.
        Err(_) => {
            update()?;
            ask()?
        }
    };
    first_dependency(&shown, prefix)
        .with_context(|| format!("package {package} depends on nothing that starts with {prefix}"))
}

/// Whether apt can offer this package at all.
pub fn is_offered(package: &str) -> bool {
    offers(&[package]).is_ok()
}

/// The files apt would give for these packages now.
pub fn files(names: &[&str]) -> Result<Vec<String>> {
    Ok(offers(names)?.into_iter().map(|offer| offer.file).collect())
}

fn first_dependency(shown: &str, prefix: &str) -> Option<String> {
    let line = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    line.split([',', '|'])
        .filter_map(|entry| entry.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

fn update() -> Result<()> {
    eprintln!("reading Debian's package lists (apt-get update)");
    run(apt("apt-get", &["-q", "update"])).map(drop)
}

fn offers(names: &[&str]) -> Result<Vec<Offer>> {
    let ask = || {
        let mut command = apt("apt-get", &["-q", "--print-uris", "download"]);
        command.args(names);
        run(command)
    };
    let printed = match ask() {
        Ok(printed) => printed,
        Err(_) if !has_lists() => {
            update()?;
            ask()?
        }
        Err(error) => return Err(error),
    };
    // apt answers in an order of its own.
    let found: Vec<Offer> = printed.lines().filter_map(offer).collect();
    names
        .iter()
        .map(|name| {
            let start = format!("{name}_");
            let offer = found.iter().find(|offer| offer.file.starts_with(&start));
            offer
                .map(|o| Offer { file: o.file.clone(), digest: o.digest.clone() })
                .with_context(|| format!("apt offers no package {name}"))
        })
        .collect()
}

fn has_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|entries| entries.flatten().any(|e| e.file_name().to_string_lossy().contains("_Packages")))
}

/// One line of `--print-uris`: `'URI' FILE SIZE SHA256:DIGEST`.
fn offer(line: &str) -> Option<Offer> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    let file = words.next()?.to_owned();
    let digest = words.nth(1)?.to_owned();
    (digest.starts_with("SHA256:") && file.ends_with(".deb")).then_some(Offer { file, digest })
}

fn is_intact(path: &Path, digest: &str) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    let mut text = String::from("SHA256:");
    for byte in Sha256::digest(&bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text == digest
}

fn unpack(debs: &Path, unpacked: &Path, offer: Offer) -> Result<Package> {
    let deb = debs.join(&offer.file);
    if !is_intact(&deb, &offer.digest) {
        bail!("{} is not what Debian's package list promises ({})", deb.display(), offer.digest);
    }
    let root = unpacked.join(offer.file.trim_end_matches(".deb"));
    if !root.exists() {
        // Aside first: a folder under its final name is whole.
        let aside = unpacked.join(format!(".{}.{}", offer.file, std::process::id()));
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("-x").arg(&deb).arg(&aside);
        run(dpkg)?;
        if let Err(error) = fs::rename(&aside, &root) {
            fs::remove_dir_all(&aside).ok();
            if !root.exists() {
                return Err(error)
                    .with_context(|| format!("moving the unpacked package to {}", root.display()));
            }
        }
    }
    Ok(Package { file: offer.file, root })
}

fn apt(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs a program to its end; its output, or an error with what it said.
pub fn run(mut command: Command) -> Result<String> {
    let what = format!("{command:?}");
    let output = command.env("LC_ALL", "C").output().with_context(|| format!("starting {what}"))?;
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr).ok();
        bail!("{what} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_lines_are_read() {
        let line = "'http://host/pool/b/busybox_1.35%2bb1_amd64.deb' busybox-static_1%3a1.35+b1_amd64.deb 953144 SHA256:ab12";
        let expected =
            Offer { file: "busybox-static_1%3a1.35+b1_amd64.deb".into(), digest: "SHA256:ab12".into() };
        assert_eq!(offer(line), Some(expected));
        assert_eq!(offer("Get:1 http://host/pool"), None);
        assert_eq!(offer("'http://host/x.deb' x_1_amd64.deb 5 MD5Sum:ab"), None);
    }

    #[test]
    fn the_kernel_is_found_behind_the_metapackage() {
        let shown =
            "Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2), foo | bar\n";
        assert_eq!(first_dependency(shown, "linux-image-").as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(first_dependency(shown, "bar").as_deref(), Some("bar"));
        assert_eq!(first_dependency(shown, "baz"), None);
    }
}
