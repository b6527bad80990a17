//! What a person would look at first when a machine fails, as files of one archive: the kernel's and the agent's words, and
//! how disks, links, mounts, boot entries and processes stand. No program is started for it, and no secret goes in.

use super::efivars::{self, EfiVars};
use super::{STATE_DIR, addresses, kmsg};
use crate::inventory::Roots;
use crate::logging;
use crate::platform::efi::EfiVariables;
use crate::platform::machine::LogFile;
use ferric_common::wire::inventory::{Disk, Inventory};
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of one member.
const LOG_MEMBER: u64 = 4 << 20;
/// Processes listed at most.
const PROCESSES: usize = 4096;
/// Files of /proc that go in as they are.
const PROC: &[&str] = &[
    "self/mounts",
    "modules",
    "partitions",
    "mdstat",
    "meminfo",
    "cpuinfo",
    "interrupts",
    "iomem",
    "net/route",
    "net/ipv6_route",
    "net/dev",
    "swaps",
    "uptime",
    "version",
];
/// Collects them; what cannot be read is left out.
pub fn collect(roots: &Roots, inventory: &Inventory, ramdisk: bool) -> Vec<LogFile> {
    let kernel: String =
        kmsg::read().iter().map(|line| format!("[{:>12.6}] {}\n", line.seconds, line.text)).collect();
    let agent: Vec<u8> = logging::files().iter().flat_map(|path| member(path)).collect();
    let state = |name: &str| member(&Path::new(STATE_DIR).join(name));
    let cmdline = fs::read_to_string(roots.proc.join("cmdline")).unwrap_or_default();
    let efi = if ramdisk { efi_entries(&EfiVars::at(Path::new(efivars::MOUNT.on))) } else { String::new() };
    let mut logs: Vec<LogFile> = [
        ("dmesg", kernel.into_bytes()),
        ("agent.log", agent),
        ("cmdline", without_secrets(&cmdline).into_bytes()),
        ("timeline", state("timeline")),
        ("network.json", state("network.json")),
        ("inventory.json", serde_json::to_vec_pretty(inventory).unwrap_or_default()),
        ("ip_addr", links(roots).into_bytes()),
        ("lsblk", block_devices(&roots.sys, &inventory.disks).into_bytes()),
        ("efibootmgr", efi.into_bytes()),
        ("df", file_systems(roots).into_bytes()),
        ("ps", processes(&roots.proc).into_bytes()),
    ]
    .into_iter()
    .map(|(name, bytes)| LogFile { name: name.to_owned(), bytes })
    .collect();
    for file in PROC {
        let name = file.rsplit('/').next().unwrap_or(file).to_owned();
        logs.push(LogFile { name, bytes: member(&roots.proc.join(file)) });
    }
    logs.retain(|log| !log.bytes.is_empty());
    logs
}

/// The last [`LOG_MEMBER`] bytes of a file; nothing when it cannot be read.
fn member(path: &Path) -> Vec<u8> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let length = file.metadata().map(|found| found.len()).unwrap_or(0);
    if length > LOG_MEMBER {
        drop(file.seek(SeekFrom::Start(length - LOG_MEMBER)));
    }
    let mut bytes = Vec::new();
    drop(file.take(LOG_MEMBER).read_to_end(&mut bytes));
    bytes
}

/// A kernel command line for others' eyes, a word a line.
fn without_secrets(cmdline: &str) -> String {
    cmdline.split_whitespace().map(|word| kmsg::masked(word) + "\n").collect()
}

fn attribute(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn sorted(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|all| all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Every link with its state, then its addresses.
fn links(roots: &Roots) -> String {
    let folder = roots.sys.join("class/net");
    let addresses = addresses::all();
    let mut out = String::new();
    for name in sorted(&folder) {
        let of = |file: &str| attribute(&folder.join(&name).join(file));
        // The driver of the device behind it, where there is one.
        let driver = fs::read_link(folder.join(&name).join("device/driver"))
            .ok()
            .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "{name}: {} mac {} mtu {} carrier {} speed {} driver {driver}",
            of("operstate"),
            of("address"),
            of("mtu"),
            of("carrier"),
            of("speed"),
        );
        for (_, address) in addresses.iter().filter(|(link, _)| *link == name) {
            let _ = writeln!(out, "    {address}");
        }
    }
    out
}

/// Every block device, partitions below their disks; model and serial as the inventory has them.
fn block_devices(sys: &Path, disks: &[Disk]) -> String {
    let folder = sys.join("block");
    let mut out = "NAME SIZE RO ROTA LOG-SEC PHY-SEC MODEL SERIAL HOLDERS\n".to_owned();
    for disk in sorted(&folder) {
        let place = folder.join(&disk);
        let known = disks.iter().find(|known| known.name.strip_prefix("/dev/") == Some(&disk));
        out.push_str(&block_device(&place, &disk, known));
        for part in sorted(&place).into_iter().filter(|part| place.join(part).join("partition").exists()) {
            let _ = write!(out, "  {}", block_device(&place.join(&part), &part, None));
        }
    }
    out
}

fn block_device(place: &Path, name: &str, known: Option<&Disk>) -> String {
    let of = |file: &str| {
        let text = attribute(&place.join(file));
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let text = |value: Option<&String>| value.map_or_else(|| "-".to_owned(), String::clone);
    let size = of("size").parse::<u64>().unwrap_or(0).saturating_mul(512);
    let holders = sorted(&place.join("holders")).join(",");
    format!(
        "{name} {size} {} {} {} {} {} {} {holders}\n",
        of("ro"),
        of("queue/rotational"),
        of("queue/logical_block_size"),
        of("queue/physical_block_size"),
        text(known.and_then(|disk| disk.model.as_ref())),
        text(known.and_then(|disk| disk.serial.as_ref())),
    )
}

/// The order of boot entries, and each entry's name.
fn efi_entries(variables: &dyn EfiVariables) -> String {
    let mut names = variables.names().unwrap_or_default();
    names.sort();
    let mut out = String::new();
    for name in names.iter().filter(|name| name.starts_with("Boot")) {
        let Ok(Some(bytes)) = variables.read(name) else { continue };
        let text = match name.as_str() {
            "BootOrder" | "BootCurrent" | "BootNext" => {
                words(&bytes).map(|w| format!("{w:04X}")).collect::<Vec<_>>().join(",")
            }
            _ if name.len() == 8 => entry_name(&bytes),
            _ => continue,
        };
        let _ = writeln!(out, "{name}: {text}");
    }
    out
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_le_bytes(*pair.first_chunk()?)))
}

/// EFI_LOAD_OPTION: four bytes of attributes, two of the path's length, then the name up to a zero.
fn entry_name(bytes: &[u8]) -> String {
    let active = bytes.first().is_some_and(|attributes| attributes & 1 != 0);
    let name: Vec<u16> = words(bytes.get(6..).unwrap_or_default()).take_while(|unit| *unit != 0).collect();
    format!("{}{}", if active { "* " } else { "" }, String::from_utf16_lossy(&name))
}

/// Room on what is mounted.
fn file_systems(roots: &Roots) -> String {
    let mounts = fs::read_to_string(roots.proc.join("self/mounts")).unwrap_or_default();
    let mut out = String::new();
    for on in mounts.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        let Ok(found) = nix::sys::statvfs::statvfs(on) else { continue };
        let kib = |blocks: u64| blocks.saturating_mul(found.fragment_size()) >> 10;
        if found.blocks() > 0 {
            let _ =
                writeln!(out, "{on} {} KiB, {} KiB free", kib(found.blocks()), kib(found.blocks_available()));
        }
    }
    out
}

/// Number, state, memory and name of each process; not the arguments, which may hold what is not ours to send.
fn processes(proc: &Path) -> String {
    let mut out = String::new();
    for number in
        sorted(proc).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).take(PROCESSES)
    {
        let status = fs::read_to_string(proc.join(&number).join("status")).unwrap_or_default();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("-").to_owned()
        };
        let _ = writeln!(out, "{number} {} {} {}", field("State:"), field("VmRSS:"), field("Name:"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::efi::MemVariables;

    #[test]
    fn the_command_line_goes_in_without_its_secrets() {
        let shown = without_secrets(
            "quiet ipa-agent-token=s3cret ipa-api-url=http://u:pw@h/ ferric-x-secret=x BOOTIF=01-aa\n",
        );
        assert_eq!(
            shown,
            "quiet\nipa-agent-token=******\nipa-api-url=******\nferric-x-secret=******\nBOOTIF=01-aa\n"
        );
    }

    #[test]
    fn disks_are_listed_with_their_partitions() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("block/sda/size", "2048\n");
        put("block/sda/ro", "0\n");
        put("block/sda/sda1/size", "1024\n");
        put("block/sda/sda1/partition", "1\n");
        put("block/sda/sda1/holders/md0/x", "");
        let disk = Disk { name: "/dev/sda".into(), serial: Some("S-1".into()), ..Disk::default() };
        let lines = block_devices(folder.path(), &[disk]);
        assert_eq!(
            lines.lines().skip(1).collect::<Vec<_>>(),
            ["sda 1048576 0 - - - - S-1 ", "  sda1 524288 - - - - - - md0"]
        );
    }

    #[test]
    fn boot_entries_are_named() {
        let name =
            |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let efi = MemVariables::default();
        efi.write("BootOrder", &[3, 0, 0, 0]).unwrap();
        efi.write("Boot0003", &[&[1, 0, 0, 0, 4, 0][..], &name("debian"), &[1, 2, 3, 4]].concat()).unwrap();
        efi.write("BootOptionSupport", &[0]).unwrap();
        assert_eq!(efi_entries(&efi), "Boot0003: * debian\nBootOrder: 0003,0000\n");
    }
}
