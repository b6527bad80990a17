//! Virtual media: what a BMC shows the machine beside or in place of the network boot. With `boot_method=vmedia` the kernel
//! parameters of `parameters.txt`, the config files and `network_data.json` are taken from it before anything else.
//!
//! The network's process takes them, [`take`]; the agent's waits for that, [`command_line`]. A medium is mounted read-only and only as
//! long as it is read: a mounted one would keep a config drive from being written anew. Which devices may be one is [`find`]'s.
//! Source of the rules: ironic-python-agent 13.0.0, `utils.py`.

pub mod find;
pub mod label;

use crate::config::kernel;
use crate::logging;
use crate::platform::linux::process::with_mounted;
use crate::platform::linux::{STATE_DIR, clock};
use find::{Candidate, Role};
use label::Volume;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// BMCs take long to show their media; a machine without one must still get on.
const LONGEST: Duration = Duration::from_secs(60);
/// How long no further device must appear once a medium was found.
const CALM: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);
/// Folders that are copied to the same place in the ramdisk.
const FOLDERS: [&str; 2] = ["etc/ironic-python-agent", "etc/ironic-python-agent.d"];
const NETWORK_DATA: &str = "openstack/latest/network_data.json";
/// Files of one folder, and bytes of one file.
const FILES: usize = 64;
const BYTES: u64 = 1 << 20;

/// The command line with what the boot medium adds; waits for the network's process to have read it.
pub fn command_line(command_line: &str) -> String {
    let began = clock::since_boot();
    while is_asked_for(command_line) && !Path::new(STATE_DIR).join("media").exists() {
        if clock::since_boot().saturating_sub(began) > LONGEST.saturating_mul(2) {
            logging::say("boot medium: it is still not read; going on without it");
            break;
        }
        std::thread::sleep(PAUSE);
    }
    merged(command_line, &added())
}

/// Reads the boot medium if the command line says that there is one. Whatever goes wrong is said, and the machine goes on.
pub fn take(command_line: &str) -> String {
    let done = Path::new(STATE_DIR).join("media");
    if is_asked_for(command_line) && !done.exists() {
        let wanted = kernel::parameters(command_line);
        let media = search(wanted.get("ir_pub_id").map(String::as_str));
        if media.is_empty() {
            logging::say(
                "boot medium: boot_method=vmedia is set, but no optical drive, floppy or small USB disk holds a volume \
                 named ir-vfd-dev, config-2 or VMEDIA_BOOT_ISO; check what the BMC has inserted",
            );
        }
        for (candidate, volume, role) in media {
            let device = Path::new("/dev").join(&candidate.name);
            let on = Path::new(STATE_DIR).join("medium");
            let read = with_mounted(&device, volume.kind, &on, |folder| copy(folder, Path::new("/"), role));
            let (name, label) = (&candidate.name, &volume.label);
            match read {
                Ok(()) => logging::say(&format!("boot medium: {name} ('{label}') was read")),
                Err(error) => {
                    logging::say(&format!("boot medium: reading {name} ('{label}') failed: {error}"))
                }
            }
        }
        if let Err(error) = fs::write(&done, "") {
            logging::say(&format!("boot medium: writing {} failed: {error}", done.display()));
        }
    }
    merged(command_line, &added())
}

/// What the boot medium added to the command line, once it was read.
pub fn added() -> String {
    fs::read_to_string(parameters()).unwrap_or_default()
}

fn parameters() -> PathBuf {
    Path::new(STATE_DIR).join("parameters.txt")
}

fn is_asked_for(command_line: &str) -> bool {
    kernel::parameters(command_line).get("boot_method").is_some_and(|method| method == "vmedia")
}

/// The later one of two wins, so the medium beats the command line.
fn merged(command_line: &str, more: &str) -> String {
    if more.is_empty() { command_line.to_owned() } else { format!("{command_line} {more}") }
}

/// Waits for media to appear.
fn search(publisher: Option<&str>) -> Vec<(Candidate, Volume, Role)> {
    let began = clock::since_boot();
    let mut seen = Vec::new();
    let mut since = began;
    loop {
        let now = clock::since_boot();
        let devices = find::candidates(Path::new("/sys"));
        if devices != seen {
            (seen, since) = (devices, now);
        }
        let late = now.saturating_sub(began) > LONGEST;
        if late || !seen.is_empty() && now.saturating_sub(since) >= CALM {
            let media: Vec<_> = seen.iter().filter_map(|device| known(device, publisher)).collect();
            if late || !media.is_empty() {
                return media;
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn known(candidate: &Candidate, publisher: Option<&str>) -> Option<(Candidate, Volume, Role)> {
    let mut head = Vec::new();
    let device = fs::File::open(Path::new("/dev").join(&candidate.name)).ok()?;
    device.take(label::HEAD as u64).read_to_end(&mut head).ok()?;
    let volume = label::read(&head)?;
    let role = find::role(candidate, &volume, publisher)?;
    Some((candidate.clone(), volume, role))
}

/// Takes what is wanted from a medium mounted at `from` into the ramdisk at `to`.
fn copy(from: &Path, to: &Path, role: Role) -> io::Result<()> {
    let state = to.join(STATE_DIR.trim_start_matches('/'));
    if role == Role::Parameters {
        return match read_file(&from.join("parameters.txt")) {
            Ok(bytes) => write_private(&state.join("parameters.txt"), &bytes),
            Err(error) => Err(said(error, "parameters.txt")),
        };
    }
    for folder in FOLDERS {
        copy_folder(&from.join(folder), &to.join(folder))?;
    }
    match read_file(&from.join(NETWORK_DATA)) {
        Ok(bytes) => write_private(&state.join("network_data.json"), &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(said(error, NETWORK_DATA)),
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    if paths.len() > FILES {
        return Err(io::Error::other(format!("{} has more than {FILES} files", from.display())));
    }
    fs::create_dir_all(to)?;
    for path in paths {
        // Regular files only: a link may lead anywhere.
        if fs::symlink_metadata(&path)?.is_file()
            && let Some(name) = path.file_name()
        {
            let shown = path.display().to_string();
            let bytes = read_file(&path).map_err(|error| said(error, &shown))?;
            write_private(&to.join(name), &bytes).map_err(|error| said(error, &shown))?;
        }
    }
    Ok(())
}

fn said(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES {
        return Err(io::Error::other(format!("it has more than {BYTES} bytes")));
    }
    Ok(bytes)
}

/// These may hold tokens and keys.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str, text: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn ramdisk() -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        fs::create_dir_all(to.path().join("run/ferric")).unwrap();
        to
    }

    #[test]
    fn config_files_and_the_network_are_copied_and_links_are_not() {
        let (from, to) = (tempfile::tempdir().unwrap(), ramdisk());
        file(from.path(), "etc/ironic-python-agent/ironic.crt", b"PEM");
        file(from.path(), "etc/ironic-python-agent.d/tls.conf", b"[DEFAULT]\ncafile=x\n");
        file(from.path(), "etc/passwd", b"not this");
        file(from.path(), NETWORK_DATA, b"{}");
        std::os::unix::fs::symlink("/etc/shadow", from.path().join("etc/ironic-python-agent.d/a.conf"))
            .unwrap();
        copy(from.path(), to.path(), Role::Config).unwrap();
        let read = |path: &str| fs::read_to_string(to.path().join(path)).ok();
        assert_eq!(read("etc/ironic-python-agent/ironic.crt").as_deref(), Some("PEM"));
        assert_eq!(read("etc/ironic-python-agent.d/tls.conf").as_deref(), Some("[DEFAULT]\ncafile=x\n"));
        assert_eq!(read("run/ferric/network_data.json").as_deref(), Some("{}"));
        assert_eq!((read("etc/ironic-python-agent.d/a.conf"), read("etc/passwd")), (None, None));
    }

    #[test]
    fn parameters_are_taken_and_what_is_too_large_is_refused() {
        let (from, to) = (tempfile::tempdir().unwrap(), ramdisk());
        let missing = copy(from.path(), to.path(), Role::Parameters).unwrap_err();
        assert!(missing.to_string().starts_with("parameters.txt: "), "{missing}");
        file(from.path(), "parameters.txt", b"ipa-api-url=http://a\nipa-debug=1\n");
        copy(from.path(), to.path(), Role::Parameters).unwrap();
        let more = fs::read_to_string(to.path().join("run/ferric/parameters.txt")).unwrap();
        let all = kernel::parameters(&merged("ipa-api-url=http://b x=1", &more));
        assert_eq!(all.get("ipa-api-url").map(String::as_str), Some("http://a"));
        assert_eq!(all.len(), 3);
        file(from.path(), NETWORK_DATA, &vec![b' '; BYTES as usize + 1]);
        let refused = copy(from.path(), to.path(), Role::Config).unwrap_err();
        assert_eq!(refused.to_string(), format!("{NETWORK_DATA}: it has more than {BYTES} bytes"));
    }

    #[test]
    fn without_the_parameter_no_medium_is_looked_for() {
        assert!(is_asked_for("boot_method=x boot_method=vmedia"));
        for not in ["", "boot_method=", "boot_method=vmedia boot_method=pxe", "x_boot_method=vmedia"] {
            assert!(!is_asked_for(not), "{not}");
            assert_eq!(take(not), not);
        }
    }
}
