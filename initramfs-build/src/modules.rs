//! Which kernel modules go along: the named ones and all they depend on, with the tables by which they are found.
//!
//! `modules.dep`, `modules.alias` and `modules.softdep` are made here for the chosen set only, in depmod's form, so
//! that the agent's coldplug and busybox's `modprobe` (called by the kernel itself for `fs-ext4` and the like) read
//! them as they would read the distribution's.

use crate::elf;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One module of the unpacked kernel package.
#[derive(Debug)]
pub struct Module {
    /// Path below the kernel's module folder: `kernel/fs/ext4/ext4.ko`.
    pub path: String,
    pub depends: Vec<String>,
    /// `softdep=pre:` names; may be aliases such as `crypto-crc32c`.
    pub before: Vec<String>,
    pub aliases: Vec<String>,
    /// Firmware files it may ask for.
    pub firmware: Vec<String>,
}

/// All modules of one kernel, by name (with `_`, as the kernel says it).
#[derive(Debug, Default)]
pub struct Catalogue {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
}

impl Catalogue {
    /// Reads every `.ko` below `root` (the folder `lib/modules/VERSION`).
    pub fn read(root: &Path) -> Result<Self> {
        let mut catalogue = Self::default();
        let builtin = root.join("modules.builtin");
        let text = fs::read_to_string(&builtin).with_context(|| format!("reading {}", builtin.display()))?;
        catalogue.builtin = text.lines().filter_map(module_name).collect();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "ko") {
                    catalogue.add(root, &path)?;
                }
            }
        }
        Ok(catalogue)
    }

    fn add(&mut self, root: &Path, path: &PathBuf) -> Result<()> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let info = elf::modinfo(&bytes).with_context(|| format!("reading {}", path.display()))?;
        let values = |key: &'static str| info.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str());
        let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let name = module_name(&relative).context("a module without a name")?;
        let module = Module {
            path: relative,
            depends: values("depends")
                .flat_map(|v| v.split(','))
                .filter(|v| !v.is_empty())
                .map(kernel_name)
                .collect(),
            before: values("softdep").flat_map(soft_before).collect(),
            aliases: values("alias").map(str::to_owned).collect(),
            firmware: values("firmware").map(str::to_owned).collect(),
        };
        self.modules.insert(name, module);
        Ok(())
    }

    /// The named modules and everything below them. A name may be built into the kernel; then nothing is needed.
    ///
    /// # Errors
    /// A name that the kernel does not have: the manifest is wrong or the kernel has changed.
    pub fn closure<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> Result<Chosen<'a>> {
        let mut chosen = BTreeMap::new();
        let mut wanted: Vec<(String, Option<String>)> =
            names.into_iter().map(|name| (kernel_name(name), None)).collect();
        while let Some((name, by)) = wanted.pop() {
            if chosen.contains_key(&name) || self.builtin.contains(&name) {
                continue;
            }
            let Some((name, module)) = self.modules.get_key_value(&name) else {
                match by {
                    None => bail!("the kernel has no module '{name}'"),
                    Some(by) => bail!("module '{by}' depends on '{name}', which the kernel does not have"),
                }
            };
            wanted.extend(module.depends.iter().map(|d| (d.clone(), Some(name.clone()))));
            // Soft ones are wishes: those that exist under their own name or an alias come along.
            for soft in &module.before {
                wanted.extend(self.named(soft).map(|found| (found.to_owned(), Some(name.clone()))));
            }
            chosen.insert(name.clone(), module);
        }
        Ok(Chosen { modules: chosen })
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let canonical = kernel_name(name);
        self.modules
            .iter()
            .filter(move |(module, found)| **module == canonical || found.aliases.iter().any(|a| a == name))
            .map(|(module, _)| module.as_str())
    }
}

/// The set that goes into the ramdisk.
#[derive(Debug)]
pub struct Chosen<'a> {
    modules: BTreeMap<String, &'a Module>,
}

impl Chosen<'_> {
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.modules.values().map(|module| module.path.as_str())
    }

    pub fn firmware(&self) -> BTreeSet<&str> {
        self.modules.values().flat_map(|module| module.firmware.iter().map(String::as_str)).collect()
    }

    /// `modules.dep`: each module with all below it, the nearest first, so that loading goes from the line's end.
    pub fn dep_table(&self) -> String {
        let mut lines: Vec<String> = self
            .modules
            .iter()
            .map(|(name, module)| {
                let mut below = Vec::new();
                self.load_order(name, &mut below);
                let below: Vec<&str> = below
                    .iter()
                    .rev()
                    .skip(1)
                    .filter_map(|n| Some(self.modules.get(n)?.path.as_str()))
                    .collect();
                format!("{}: {}", module.path, below.join(" ")).trim_end().to_owned() + "\n"
            })
            .collect();
        lines.sort();
        lines.concat()
    }

    /// Appends `name` after all it needs.
    fn load_order(&self, name: &str, order: &mut Vec<String>) {
        if order.iter().any(|n| n == name) {
            return;
        }
        for below in self.modules.get(name).into_iter().flat_map(|module| &module.depends) {
            self.load_order(below, order);
        }
        if self.modules.contains_key(name) {
            order.push(name.to_owned());
        }
    }

    pub fn alias_table(&self) -> String {
        let mut lines: Vec<String> = self
            .modules
            .iter()
            .flat_map(|(name, module)| {
                module.aliases.iter().map(move |alias| format!("alias {alias} {name}\n"))
            })
            .collect();
        lines.sort();
        lines.concat()
    }

    pub fn softdep_table(&self) -> String {
        self.modules
            .iter()
            .filter(|(_, module)| !module.before.is_empty())
            .map(|(name, module)| format!("softdep {name} pre: {}\n", module.before.join(" ")))
            .collect()
    }
}

/// `kernel/fs/ext4/ext4.ko` → `ext4`; dashes become underscores as in the kernel.
fn module_name(path: &str) -> Option<String> {
    Some(kernel_name(path.rsplit('/').next()?.strip_suffix(".ko")?))
}

fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The names after `pre:` in a softdep line.
fn soft_before(line: &str) -> Vec<String> {
    line.split_whitespace()
        .skip_while(|word| *word != "pre:")
        .skip(1)
        .take_while(|word| *word != "post:")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let module = |path: &str, depends: &[&str], before: &[&str], aliases: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
            (
                module_name(path).unwrap(),
                Module {
                    path: path.into(),
                    depends: owned(depends),
                    before: owned(before),
                    aliases: owned(aliases),
                    firmware: vec![],
                },
            )
        };
        Catalogue {
            modules: [
                module("kernel/fs/ext4/ext4.ko", &["jbd2", "mbcache"], &["crypto-crc32c"], &["fs-ext4"]),
                module("kernel/fs/jbd2/jbd2.ko", &[], &[], &[]),
                module("kernel/fs/mbcache.ko", &[], &[], &[]),
                module("kernel/crypto/crc32c_generic.ko", &[], &[], &["crypto-crc32c"]),
                module("kernel/drivers/virtio/virtio-pci.ko", &["virtio"], &[], &["pci:v00001AF4d*"]),
                module("kernel/drivers/virtio/virtio.ko", &["virtio_ring"], &[], &[]),
                module("kernel/drivers/virtio/virtio_ring.ko", &[], &[], &[]),
            ]
            .into(),
            builtin: ["unix".to_string()].into(),
        }
    }

    #[test]
    fn a_module_brings_what_it_needs_and_what_it_wishes_for() {
        let catalogue = catalogue();
        let chosen = catalogue.closure(["ext4", "unix"]).unwrap();
        let paths: Vec<_> = chosen.paths().collect();
        assert_eq!(
            paths,
            [
                "kernel/crypto/crc32c_generic.ko",
                "kernel/fs/ext4/ext4.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/mbcache.ko"
            ]
        );
        assert_eq!(chosen.alias_table(), "alias crypto-crc32c crc32c_generic\nalias fs-ext4 ext4\n");
        assert_eq!(chosen.softdep_table(), "softdep ext4 pre: crypto-crc32c\n");
    }

    #[test]
    fn dependencies_stand_in_depmods_order_and_dashes_are_underscores() {
        let catalogue = catalogue();
        let chosen = catalogue.closure(["virtio-pci"]).unwrap();
        assert!(chosen.dep_table().contains(
            "kernel/drivers/virtio/virtio-pci.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n"
        ));
        assert!(chosen.alias_table().contains("alias pci:v00001AF4d* virtio_pci\n"));
    }

    #[test]
    fn an_unknown_module_is_named() {
        let error = catalogue().closure(["nosuch"]).unwrap_err().to_string();
        assert_eq!(error, "the kernel has no module 'nosuch'");
    }
}
