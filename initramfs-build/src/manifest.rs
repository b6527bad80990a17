//! `manifest.toml` as values. Unknown keys are errors: a misspelt one would silently leave something out.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// The manifest that belongs to this version of the program.
pub const BUILTIN: &str = include_str!("../manifest.toml");

/// For which machines a ramdisk is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Everything a rack holds.
    Server,
    /// Virtio only.
    Vm,
}

impl FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "server" => Ok(Self::Server),
            "vm" => Ok(Self::Vm),
            _ => bail!("there is no profile '{name}': it is server or vm"),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Vm => "vm",
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub kernel: Kernel,
    pub packages: Packages,
    pub firmware: Firmware,
    pub budget: Budget,
    #[serde(rename = "file")]
    pub files: Vec<File>,
    #[serde(rename = "folder")]
    pub folders: Vec<Folder>,
    #[serde(rename = "device")]
    pub devices: Vec<Device>,
    pub modules: Modules,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// A package that depends on the kernel to take.
    pub package: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    pub names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    pub packages: Vec<String>,
}

/// Limits in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub kernel_and_ramdisk: u64,
    pub agent: u64,
}

/// One file or link; exactly one of `agent`, `from`, `text` and `link` says what it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    #[serde(default)]
    pub agent: bool,
    pub from: Option<String>,
    pub text: Option<String>,
    pub link: Option<String>,
    pub mode: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    pub paths: Vec<String>,
    pub mode: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub path: String,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modules {
    pub common: Vec<String>,
    pub server: Vec<String>,
    pub vm: Vec<String>,
}

impl Manifest {
    pub fn builtin() -> Result<Self> {
        toml::from_str(BUILTIN).context("reading initramfs-build/manifest.toml")
    }

    pub fn modules(&self, profile: Profile) -> impl Iterator<Item = &str> {
        let own = match profile {
            Profile::Server => &self.modules.server,
            Profile::Vm => &self.modules.vm,
        };
        self.modules.common.iter().chain(own).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_manifest_reads_and_each_file_says_one_thing() {
        let manifest = Manifest::builtin().unwrap();
        for file in &manifest.files {
            let said = [file.agent, file.from.is_some(), file.text.is_some(), file.link.is_some()];
            assert_eq!(said.iter().filter(|s| **s).count(), 1, "{}", file.path);
            assert_eq!(file.mode.is_some(), file.link.is_none(), "mode of {}", file.path);
        }
        assert!(manifest.modules(Profile::Server).count() > manifest.modules(Profile::Vm).count());
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let text = BUILTIN.replace("kernel_and_ramdisk", "kernel_and_ramdsik");
        assert!(toml::from_str::<Manifest>(&text).unwrap_err().to_string().contains("ramdsik"));
    }
}
