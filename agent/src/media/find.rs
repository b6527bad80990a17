//! Which devices may be a boot medium: optical drives, floppies, and small disks on USB, as BMCs show them. Nothing that a former
//! tenant could have written to is asked for its label. Reads sysfs below a root folder.

use super::label::Volume;
use std::fs;
use std::path::Path;

/// Media that a BMC shows as a USB disk are smaller, in bytes.
const LARGEST: u64 = 4 << 30;
/// SCSI peripheral type of optical drives (`/sys/block/*/device/type`).
const ROM: &str = "5";

/// What a medium is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `parameters.txt`: more kernel parameters.
    Parameters,
    /// Config files and network_data.json.
    Config,
}

/// A device that may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub model: String,
}

/// All whole devices that may be a boot medium, by name.
pub fn candidates(sys: &Path) -> Vec<Candidate> {
    let Ok(entries) = fs::read_dir(sys.join("block")) else { return Vec::new() };
    let mut found: Vec<Candidate> =
        entries.flatten().filter_map(|entry| candidate(&entry.path(), entry.file_name().to_str()?)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn candidate(folder: &Path, name: &str) -> Option<Candidate> {
    let text = |file: &str| {
        fs::read_to_string(folder.join(file)).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let bytes = text("size").parse::<u64>().unwrap_or(0).saturating_mul(512);
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let usb = real.components().any(|part| {
        part.as_os_str()
            .to_str()
            .is_some_and(|part| part.strip_prefix("usb").is_some_and(|n| n.parse::<u32>().is_ok()))
    });
    let rom = name.starts_with("sr") && text("device/type") == ROM;
    let floppy = name.strip_prefix("fd").is_some_and(|number| number.parse::<u32>().is_ok());
    let small_usb = name.starts_with("sd") && usb && bytes < LARGEST;
    // The size of an optical drive is not known to the kernel before somebody opens it; one without a medium refuses that.
    (rom || bytes > 0 && (floppy || small_usb))
        .then(|| Candidate { name: name.to_owned(), model: text("device/model") })
}

/// What a volume is for, by its label; `publisher` is what the command line wants of an ISO (`ir_pub_id`).
pub fn role(candidate: &Candidate, volume: &Volume, publisher: Option<&str>) -> Option<Role> {
    if volume.is_called(&["ir-vfd-dev"]) {
        return Some(Role::Parameters);
    }
    let other = publisher.zip(volume.publisher.as_deref()).is_some_and(|(wanted, found)| wanted != found);
    if volume.is_called(&["config-2", "VMEDIA_BOOT_ISO"]) {
        return (!other).then_some(Role::Config);
    }
    candidate.model.to_ascii_lowercase().contains("virtual media").then_some(Role::Parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn device(sys: &Path, name: &str, place: &str, facts: &[(&str, &str)]) {
        let real = sys.join("devices").join(place).join("block").join(name);
        fs::create_dir_all(real.join("device")).unwrap();
        for (file, text) in facts {
            fs::write(real.join(file), format!("{text}\n")).unwrap();
        }
        fs::create_dir_all(sys.join("block")).unwrap();
        symlink(&real, sys.join("block").join(name)).unwrap();
    }

    #[test]
    fn only_optical_drives_floppies_and_small_usb_disks_may_be_media() {
        let sys = tempfile::tempdir().unwrap();
        let large = (LARGEST / 512).to_string();
        for (name, place, size, kind) in [
            ("sr0", "pci0/ata1", "100", "5"),
            ("sr1", "pci0/ata2", "0", "5"),
            ("sdd", "pci0/usb2/2-3", "0", "0"),
            ("sda", "pci0/usb2/2-1", "2880", "0"),
            ("sdb", "pci0/usb2/2-2", large.as_str(), "0"),
            ("sdc", "pci0/ata3", "100", "0"),
            ("vda", "pci0/virtio1", "100", ""),
            ("fd0", "platform/floppy", "2880", ""),
        ] {
            device(sys.path(), name, place, &[("size", size), ("device/type", kind), ("device/model", "M")]);
        }
        let names: Vec<String> = candidates(sys.path()).into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["fd0", "sda", "sr0", "sr1"]);
    }

    #[test]
    fn the_label_says_what_a_medium_is_for() {
        let volume = |label: &str, publisher: Option<&str>| Volume {
            kind: "iso9660",
            label: label.into(),
            uuid: None,
            publisher: publisher.map(str::to_owned),
        };
        let drive = |model: &str| Candidate { name: "sr0".into(), model: model.into() };
        for (model, label, found, wanted, expected) in [
            ("x", "CONFIG-2", None, None, Some(Role::Config)),
            ("x", "vmedia_boot_iso", Some("a"), Some("a"), Some(Role::Config)),
            ("Virtual Media", "config-2", Some("a"), Some("b"), None),
            ("x", "IR-VFD-DEV", None, Some("b"), Some(Role::Parameters)),
            ("AMI Virtual Media", "other", None, None, Some(Role::Parameters)),
            ("x", "Debian 12", None, None, None),
        ] {
            assert_eq!(role(&drive(model), &volume(label, found), wanted), expected, "{model} {label}");
        }
    }
}
