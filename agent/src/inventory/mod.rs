//! What the machine is made of, read from the kernel's file systems (proc, sys) and from nowhere else.
//!
//! Every reader takes its root folder, so that a test can show it a machine of files. Field sources and the rules for null follow
//! ironic-python-agent, without udev, lsblk, lshw or dmidecode.

pub mod bmc;
pub mod cpu;
pub mod disks;
pub mod dmi;
pub mod ident;
pub mod memory;
pub mod nics;
pub mod numa;
pub mod pci;
pub mod smbios;
pub mod usb;
pub mod vendor;

use crate::platform::linux::machine::LinuxMachine;
use crate::platform::machine::Machine;
use ferric_common::ids::MacAddress;
use ferric_common::wire::inventory::{Boot, Inventory};
use nics::Addresses;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bytes read of one attribute. The longest, a CPU's flags, have some thousand.
const ATTRIBUTE: usize = 1 << 20;

/// Where to read.
#[derive(Clone, Debug)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { sys: "/sys".into(), proc: "/proc".into() }
    }
}

/// What only system calls tell.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// By interface name.
    pub permanent_macs: BTreeMap<String, MacAddress>,
    pub addresses: BTreeMap<String, Addresses>,
    pub hostname: String,
    /// Kernel parameters that a boot medium added; they beat the command line's.
    pub parameters: String,
    /// As uname(2) has it: `x86_64`.
    pub architecture: String,
}

/// Everything but the disks' extra names, which are [`disks::list`]'s.
pub fn read(roots: &Roots, live: &Live) -> Inventory {
    let command_line = text(&roots.proc.join("cmdline")).unwrap_or_default();
    let parameters = format!("{command_line} {}", live.parameters);
    Inventory {
        interfaces: nics::list(&roots.sys, live),
        cpu: cpu::read(&roots.sys, &roots.proc, &live.architecture),
        disks: disks::list(&roots.sys).into_iter().map(|facts| facts.disk).collect(),
        memory: memory::read(&roots.sys, &roots.proc),
        bmc_address: None,
        bmc_v6address: None,
        bmc_mac: None,
        system_vendor: vendor::read(&roots.sys),
        boot: boot(&roots.sys, &parameters),
        hostname: live.hostname.clone(),
    }
}

/// Writes the inventory of this machine to standard output.
pub fn print() -> ExitCode {
    use std::io::Write;
    let machine = LinuxMachine::new(Vec::new());
    let bmc = machine.bmc();
    let inventory = Inventory {
        bmc_address: bmc.address,
        bmc_v6address: bmc.v6address,
        bmc_mac: bmc.mac,
        ..machine.inventory()
    };
    let Ok(mut json) = serde_json::to_vec_pretty(&inventory) else { return ExitCode::FAILURE };
    json.push(b'\n');
    match std::io::stdout().write_all(&json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn boot(sys: &Path, parameters: &str) -> Boot {
    let mode = if sys.join("firmware/efi").is_dir() { "uefi" } else { "bios" };
    let bootif = parameters.split_whitespace().filter_map(|word| word.strip_prefix("BOOTIF=")).next_back();
    Boot { current_boot_mode: mode.to_owned(), pxe_interface: bootif.map(str::to_owned) }
}

/// An attribute's text, trimmed; `None` when it is missing, unreadable or empty.
fn text(path: &Path) -> Option<String> {
    let bytes = bytes(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn bytes(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut out = Vec::new();
    fs::File::open(path).ok()?.take(ATTRIBUTE as u64).read_to_end(&mut out).ok()?;
    Some(out)
}

fn number<N: std::str::FromStr>(path: &Path) -> Option<N> {
    text(path)?.parse().ok()
}

/// The base name of what a link points at.
fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// Names in a folder, sorted; empty when there is none.
fn names(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<String> =
        all.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A machine of files, for the readers' tests.
#[cfg(test)]
pub(crate) mod golden {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    pub struct Tree {
        folder: tempfile::TempDir,
    }

    impl Tree {
        pub fn new() -> Tree {
            Tree { folder: tempfile::tempdir().unwrap() }
        }
        pub fn root(&self) -> &Path {
            self.folder.path()
        }
        pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Tree {
            let path = self.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            self
        }
        pub fn folder(&self, path: &str) -> &Tree {
            fs::create_dir_all(self.root().join(path)).unwrap();
            self
        }
        /// A link to another place of the tree, relative as the kernel makes them.
        pub fn link(&self, path: &str, to: &str) -> &Tree {
            let from = self.root().join(path);
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            fs::create_dir_all(self.root().join(to)).unwrap();
            let up: PathBuf = Path::new(path).parent().unwrap().components().map(|_| "..").collect();
            symlink(up.join(to), from).unwrap();
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::golden::Tree;
    use super::*;

    #[test]
    fn the_boot_mode_and_nic_are_as_the_firmware_left_them() {
        let tree = Tree::new();
        assert_eq!(boot(tree.root(), "quiet").current_boot_mode, "bios");
        tree.folder("firmware/efi");
        let found = boot(tree.root(), "BOOTIF=01-aa-bb-cc-dd-ee-ff");
        assert_eq!(
            (found.current_boot_mode.as_str(), found.pxe_interface.as_deref()),
            ("uefi", Some("01-aa-bb-cc-dd-ee-ff"))
        );
    }

    #[test]
    fn the_nic_that_a_boot_medium_names_beats_the_command_lines() {
        let tree = Tree::new();
        let roots = Roots { sys: tree.root().join("sys"), proc: tree.root().join("proc") };
        tree.file("proc/cmdline", "quiet BOOTIF=01-aa-bb-cc-dd-ee-ff\n");
        let nic = |parameters: &str| {
            let live = Live { parameters: parameters.to_owned(), ..Live::default() };
            read(&roots, &live).boot.pxe_interface
        };
        assert_eq!(nic("").as_deref(), Some("01-aa-bb-cc-dd-ee-ff"));
        assert_eq!(
            nic("ipa-debug=1\nBOOTIF=01-11-22-33-44-55-66\n").as_deref(),
            Some("01-11-22-33-44-55-66")
        );
    }

    #[test]
    fn an_empty_machine_has_an_inventory_of_nothing() {
        let tree = Tree::new();
        let roots = Roots { sys: tree.root().into(), proc: tree.root().into() };
        let found = read(&roots, &Live::default());
        assert_eq!((found.interfaces.len(), found.disks.len(), found.memory.total), (0, 0, None));
        assert_eq!(found.cpu.count, 0);
    }
}
