//! Disks, from /sys/block, without udev: the same names that udev and lsblk would give, as hints are written from those.

use super::ident::{self, AtaIdentity, Identification};
use super::{bytes, link_name, names, number, text};
use crate::platform::machine::DiskFacts;
use ferric_common::wire::inventory::Disk;
use std::fs;
use std::path::{Path, PathBuf};

/// Sectors of /sys/block/*/size are of this many bytes, whatever the disk's own.
const SECTOR: u64 = 512;
/// Block devices looked at; a server with a storage fabric has some thousand paths.
const DISKS: usize = 16_384;

/// Whole disks that could hold an operating system, in the kernel's order.
pub fn list(sys: &Path) -> Vec<DiskFacts> {
    let folder = sys.join("block");
    let mut found: Vec<(Vec<u32>, DiskFacts)> = names(&folder)
        .iter()
        .take(DISKS)
        .filter(|name| is_candidate(&folder.join(name), name))
        .filter_map(|name| Some((device_number(&folder.join(name)), read(&folder.join(name), name)?)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, facts)| facts).collect()
}

/// Kernel names of a disk's partitions (`sda1`, …), in order.
pub fn partitions(sys: &Path, disk: &str) -> Vec<String> {
    let folder = sys.join("block").join(disk);
    let inside = names(&folder);
    let number_of = |name: &String| number::<u32>(&folder.join(name).join("partition"));
    let mut found: Vec<(u32, String)> =
        inside.into_iter().filter_map(|name| Some((number_of(&name)?, name))).collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// What holds a disk or one of its partitions, or a partition: md, LVM, dm-crypt, bcache. Kernel names.
pub fn holders(sys: &Path, disk: &str) -> Vec<String> {
    let whole = sys.join("block").join(disk);
    let folder = if whole.is_dir() { whole } else { sys.join("class/block").join(disk) };
    let mut found = names(&folder.join("holders"));
    for partition in partitions(sys, disk) {
        found.extend(names(&folder.join(partition).join("holders")));
    }
    found.dedup();
    found
}

/// The device of a kernel name: `/dev/sda`, `/dev/cciss/c0d0`.
pub fn device(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

/// Software RAID arrays, also those that do not run. Kernel names.
pub fn arrays(sys: &Path) -> Vec<String> {
    let folder = sys.join("block");
    names(&folder).into_iter().filter(|name| folder.join(name).join("md").is_dir()).collect()
}

/// What an array or a mapping is made of. Kernel names.
pub fn members(sys: &Path, array: &str) -> Vec<String> {
    names(&sys.join("block").join(array).join("slaves"))
}

fn is_candidate(folder: &Path, name: &str) -> bool {
    let begins = |prefixes: &[&str]| {
        prefixes.iter().any(|p| {
            name.strip_prefix(p).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    };
    // The parts of an eMMC that hold its own firmware, and paths below an NVMe multipath device.
    let part =
        name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb") || name.contains("gp"));
    let hidden = number::<u8>(&folder.join("hidden")) == Some(1);
    let kind = begins(&["sd", "vd", "xvd", "hd", "nvme", "mmcblk", "md", "pmem", "cciss!", "rssd", "dasd"])
        && !part
        || name.starts_with("dm-") && is_multipath(folder);
    // A path of a multipath device is that device.
    let path = names(&folder.join("holders"))
        .iter()
        .any(|holder| folder.parent().is_some_and(|block| is_multipath(&block.join(holder))));
    kind && !hidden && !path && number::<u64>(&folder.join("size")).is_some_and(|size| size > 0)
}

fn is_multipath(folder: &Path) -> bool {
    text(&folder.join("dm/uuid")).is_some_and(|uuid| uuid.starts_with("mpath-"))
}

/// Major and minor: `8:16`.
fn device_number(folder: &Path) -> Vec<u32> {
    let dev = text(&folder.join("dev")).unwrap_or_default();
    dev.split(':').filter_map(|part| part.parse().ok()).collect()
}

fn read(folder: &Path, name: &str) -> Option<DiskFacts> {
    let device = folder.join("device");
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    let names = Names::read(folder, &device, &real, name);
    let sector = |file: &str| number(&folder.join("queue").join(file)).unwrap_or(512);
    let disk = Disk {
        name: self::device(name),
        model: names.model,
        size: number::<u64>(&folder.join("size"))?.checked_mul(SECTOR)?,
        rotational: number::<u8>(&folder.join("queue/rotational")) == Some(1),
        wwn: names.wwns.first().cloned(),
        serial: names.serials.first().cloned(),
        vendor: text(&device.join("vendor")),
        wwn_with_extension: names.with_extension,
        wwn_vendor_extension: names.vendor_extension,
        hctl: super::names(&device.join("scsi_device")).into_iter().next(),
        by_path: by_path(&real, name),
        logical_sectors: sector("logical_block_size"),
        physical_sectors: sector("physical_block_size"),
        tran: transport(&device, &real, name),
    };
    Some(DiskFacts {
        disk,
        serials: names.serials,
        wwns: names.wwns,
        read_only: number::<u8>(&folder.join("ro")) == Some(1),
    })
}

/// All names by which a disk may be known.
#[derive(Default)]
struct Names {
    model: Option<String>,
    /// lsblk's first, then udev's short and long form.
    serials: Vec<String>,
    wwns: Vec<String>,
    with_extension: Option<String>,
    vendor_extension: Option<String>,
}

impl Names {
    fn read(folder: &Path, device: &Path, real: &Path, name: &str) -> Names {
        if name.starts_with("nvme") {
            return Names::of_nvme(folder, device);
        }
        let model = text(&device.join("model"));
        // virtio shows it on the disk, xen and MMC on the device.
        let plain = text(&folder.join("serial")).or_else(|| text(&device.join("serial")));
        let page = |number: &str| bytes(&device.join(format!("vpd_pg{number}"))).unwrap_or_default();
        let unit = ident::unit_serial(&page("80"));
        let identification = ident::identification(&page("83"));
        if let Some(ata) = ident::ata_identity(&page("89")) {
            return Names::of_ata(ata, model, unit, identification);
        }
        if text(&device.join("vendor")).as_deref() == Some("ATA") {
            return Names::of_ata(AtaIdentity::default(), model, unit, identification);
        }
        let usb = above(real, "idVendor").and_then(|device| text(&device.join("serial")));
        let serials = unique([plain, unit, usb, identification.short_serial, identification.long_serial]);
        Names {
            model,
            serials,
            wwns: unique([identification.with_extension.clone(), identification.wwn]),
            with_extension: identification.with_extension,
            vendor_extension: identification.vendor_extension,
        }
    }

    /// The controller has model and serial, the namespace its world-wide name.
    fn of_nvme(folder: &Path, device: &Path) -> Names {
        let model = text(&device.join("model"));
        let serial = text(&device.join("serial"));
        let long = model.as_ref().zip(serial.as_ref()).map(|(m, s)| format!("{}_{s}", m.replace(' ', "_")));
        Names {
            serials: unique([serial, long]),
            wwns: unique([text(&folder.join("wwid")).or_else(|| text(&device.join("wwid")))]),
            model,
            ..Names::default()
        }
    }

    /// A SATA disk has one name, which is both: udev shows it with and without "extension".
    fn of_ata(ata: AtaIdentity, model: Option<String>, unit: Option<String>, page: Identification) -> Names {
        let model = ata.model.or(model);
        let serial = ata.serial.or(unit);
        let wwn = ata.wwn.or(page.wwn);
        let long = model.as_ref().zip(serial.as_ref()).map(|(m, s)| format!("{}_{s}", m.replace(' ', "_")));
        Names {
            model,
            serials: unique([serial, long]),
            wwns: unique([wwn.clone()]),
            with_extension: wwn,
            vendor_extension: None,
        }
    }
}

fn unique<const N: usize>(names: [Option<String>; N]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in names.into_iter().flatten() {
        if !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

/// The nearest folder on the way up that has this file.
fn above(real: &Path, file: &str) -> Option<PathBuf> {
    real.ancestors().find(|folder| folder.join(file).exists()).map(Path::to_path_buf)
}

/// lsblk's TRAN.
fn transport(device: &Path, real: &Path, name: &str) -> Option<String> {
    let way = components(real);
    let has = |test: &dyn Fn(&str) -> bool| way.iter().any(|part| test(part));
    let found = if name.starts_with("nvme") {
        // `pcie`, `tcp`, `rdma`, `fc`: lsblk calls them all so.
        "nvme"
    } else if name.starts_with("vd") {
        "virtio"
    } else if name.starts_with("mmcblk") {
        "mmc"
    } else if above(real, "idVendor").is_some() {
        "usb"
    } else if has(&|part| part.starts_with("session") && digits(part, "session")) {
        "iscsi"
    } else if has(&|part| part.starts_with("rport-")) {
        "fc"
    } else if has(&|part| part.starts_with("end_device-")) {
        "sas"
    } else if has(&|part| digits(part, "ata")) || text(&device.join("vendor")).as_deref() == Some("ATA") {
        "sata"
    } else {
        return None;
    };
    Some(found.to_owned())
}

/// The link that udev's path_id would make below /dev/disk/by-path, for the buses that servers boot from.
fn by_path(real: &Path, name: &str) -> Option<String> {
    let way = components(real);
    let pci = way.iter().rev().find(|part| is_pci(part))?;
    let at = |test: &dyn Fn(&str) -> bool| way.iter().position(|part| test(part));
    let lun = way
        .iter()
        .rev()
        .find(|part| part.split(':').count() == 4 && part.bytes().all(|b| b.is_ascii_digit() || b == b':'));
    let number_of_lun = lun.and_then(|hctl| hctl.rsplit(':').next()).unwrap_or("0");
    let tail = if let Some(namespace) = name.strip_prefix("nvme") {
        format!("-nvme-{}", namespace.split_once('n')?.1)
    } else if name.starts_with("vd") {
        String::new()
    } else if let Some(ata) = at(&|part| digits(part, "ata")) {
        let port = way.get(ata)?;
        let host: PathBuf = way.iter().take(ata + 1).collect();
        let shown = text(&Path::new("/").join(host).join("ata_port").join(port).join("port_no"));
        format!("-ata-{}", shown.as_deref().or(port.strip_prefix("ata"))?)
    } else if let Some(end) = at(&|part| part.starts_with("end_device-")) {
        let end: PathBuf = way.iter().take(end + 1).collect();
        let end = Path::new("/").join(end);
        let address = text(&end.join("sas_device").join(end.file_name()?).join("sas_address"))?;
        format!("-sas-{address}-lun-{number_of_lun}")
    } else if let Some(usb) = above(real, "bInterfaceNumber") {
        let interface = usb.file_name()?.to_string_lossy().into_owned();
        format!("-usb-0:{}-scsi-{}", interface.split_once('-')?.1, relative_hctl(lun?)?)
    } else {
        format!("-scsi-{}", relative_hctl(lun?)?)
    };
    Some(format!("/dev/disk/by-path/pci-{pci}{tail}"))
}

/// The host number depends on the order of probing, so path_id counts from the controller's first: nearly always 0.
fn relative_hctl(hctl: &str) -> Option<String> {
    hctl.split_once(':').map(|(_, rest)| format!("0:{rest}"))
}

fn components(path: &Path) -> Vec<String> {
    path.components().skip(1).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

/// `0000:01:00.0`.
fn is_pci(part: &str) -> bool {
    let Some((address, function)) = part.rsplit_once('.') else { return false };
    function.len() == 1
        && address.split(':').count() == 3
        && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

/// The prefix and then digits only.
fn digits(part: &str, prefix: &str) -> bool {
    part.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Kernel name of a disk given as `/dev/sda`.
pub fn kernel_name(device: &str) -> Option<String> {
    let name = device.strip_prefix("/dev/")?;
    (!name.is_empty() && !name.contains("..")).then(|| name.replace('/', "!"))
}

/// The kernel name of the whole disk that a device number belongs to, itself included.
pub fn disk_of(sys: &Path, major_minor: &str) -> Option<String> {
    let link = sys.join("dev/block").join(major_minor);
    let name = link_name(&link)?;
    if !link.join("partition").exists() {
        return Some(name);
    }
    Some(fs::canonicalize(&link).ok()?.parent()?.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::golden::Tree;
    use super::super::ident::pages;
    use super::*;

    /// A disk at a place of the device tree, with the files every disk has.
    fn disk(tree: &Tree, place: &str, number: &str, sectors: u64) -> String {
        let name = place.rsplit('/').next().unwrap();
        tree.link(&format!("block/{name}"), place)
            .file(&format!("{place}/size"), format!("{sectors}\n"))
            .file(&format!("{place}/dev"), format!("{number}\n"))
            .file(&format!("{place}/queue/logical_block_size"), "512\n")
            .file(&format!("{place}/queue/physical_block_size"), "4096\n")
            .file(&format!("{place}/queue/rotational"), "0\n")
            .file(&format!("{place}/ro"), "0\n");
        let device = place.rsplit_once("/block/").or(place.rsplit_once('/')).unwrap().0.to_owned();
        tree.link(&format!("{place}/device"), &device);
        device
    }

    fn one(tree: &Tree) -> DiskFacts {
        let mut all = list(tree.root());
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn a_sata_disk_is_known_by_its_identify_data() {
        let tree = Tree::new();
        let port = "devices/pci0000:00/0000:00:1f.2/ata3";
        let device = disk(&tree, &format!("{port}/host2/target2:0:0/2:0:0:0/block/sda"), "8:0", 976_773_168);
        tree.file(&format!("{device}/vendor"), "ATA     \n")
            .file(&format!("{device}/model"), "Samsung SSD 870 \n")
            .file(
                &format!("{device}/vpd_pg89"),
                pages::ata("Samsung SSD 870 EVO 500GB", "S62ANJ0R123456", 0x5002_538f_1234_5678),
            )
            .file(&format!("{device}/vpd_pg80"), pages::page(0x80, b"S62ANJ0R123456      "))
            .folder(&format!("{device}/scsi_device/2:0:0:0"))
            .file(&format!("{port}/ata_port/ata3/port_no"), "3\n");
        let facts = one(&tree);
        assert_eq!(
            facts.disk,
            Disk {
                name: "/dev/sda".into(),
                model: Some("Samsung SSD 870 EVO 500GB".into()),
                size: 500_107_862_016,
                rotational: false,
                wwn: Some("0x5002538f12345678".into()),
                serial: Some("S62ANJ0R123456".into()),
                vendor: Some("ATA".into()),
                wwn_with_extension: Some("0x5002538f12345678".into()),
                wwn_vendor_extension: None,
                hctl: Some("2:0:0:0".into()),
                by_path: Some("/dev/disk/by-path/pci-0000:00:1f.2-ata-3".into()),
                logical_sectors: 512,
                physical_sectors: 4096,
                tran: Some("sata".into()),
            }
        );
        assert_eq!(facts.serials, ["S62ANJ0R123456", "Samsung_SSD_870_EVO_500GB_S62ANJ0R123456"]);
    }

    #[test]
    fn a_raid_volume_has_both_serials_and_the_extension() {
        let tree = Tree::new();
        let device =
            disk(&tree, "devices/pci0000:00/0000:18:00.0/host0/target0:2:0/0:2:0:0/block/sdb", "8:16", 2048);
        let naa = [0x60, 5, 8, 0xb1, 0, 0x1c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        tree.file(&format!("{device}/vendor"), "DELL\n")
            .file(&format!("{device}/model"), "PERC H755\n")
            .file(&format!("{device}/vpd_pg80"), pages::page(0x80, b"00a1b2"))
            .file(&format!("{device}/vpd_pg83"), pages::page(0x83, &pages::designator(3, &naa)));
        let facts = one(&tree);
        assert_eq!(
            facts.serials,
            ["00a1b2", "600508b1001c0102030405060708090a", "3600508b1001c0102030405060708090a"]
        );
        assert_eq!(facts.wwns, ["0x600508b1001c0102030405060708090a", "0x600508b1001c0102"]);
        assert_eq!(facts.disk.wwn_vendor_extension.as_deref(), Some("0x030405060708090a"));
        assert_eq!(facts.disk.by_path.as_deref(), Some("/dev/disk/by-path/pci-0000:18:00.0-scsi-0:2:0:0"));
        assert_eq!(facts.disk.tran, None);
    }

    #[test]
    fn nvme_and_virtio_have_their_own_places() {
        let tree = Tree::new();
        let nvme = "devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1";
        let device = disk(&tree, nvme, "259:0", 2048);
        tree.file(&format!("{device}/model"), "INTEL SSDPE2KX010T8   \n")
            .file(&format!("{device}/serial"), "PHLJ1234\n")
            .file(&format!("{nvme}/wwid"), "eui.0025385971b0a5b1\n");
        let virtio = "devices/pci0000:00/0000:00:04.0/virtio1/block/vda";
        let device = disk(&tree, virtio, "254:0", 4096);
        tree.file(&format!("{virtio}/serial"), "BIG\n").file(&format!("{device}/vendor"), "0x1af4\n");
        let all = list(tree.root());
        let [virtio, nvme] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(virtio.disk.serial.as_deref(), Some("BIG"));
        assert_eq!((virtio.disk.vendor.as_deref(), virtio.disk.model.as_deref()), (Some("0x1af4"), None));
        assert_eq!(virtio.disk.by_path.as_deref(), Some("/dev/disk/by-path/pci-0000:00:04.0"));
        assert_eq!(virtio.disk.tran.as_deref(), Some("virtio"));
        assert_eq!(nvme.serials, ["PHLJ1234", "INTEL_SSDPE2KX010T8_PHLJ1234"]);
        assert_eq!(nvme.disk.wwn.as_deref(), Some("eui.0025385971b0a5b1"));
        assert_eq!(nvme.disk.wwn_with_extension, None);
        assert_eq!(nvme.disk.by_path.as_deref(), Some("/dev/disk/by-path/pci-0000:01:00.0-nvme-1"));
    }

    #[test]
    fn usb_and_sas_disks_are_told_by_the_way_they_hang() {
        let tree = Tree::new();
        let usb = "devices/pci0000:00/0000:00:14.0/usb1/1-2";
        disk(&tree, &format!("{usb}/1-2:1.0/host5/target5:0:0/5:0:0:0/block/sdc"), "8:32", 2048);
        tree.file(&format!("{usb}/idVendor"), "0781\n")
            .file(&format!("{usb}/serial"), "4C53\n")
            .file(&format!("{usb}/1-2:1.0/bInterfaceNumber"), "00\n");
        let sas = "devices/pci0000:00/0000:02:00.0/host1/port-1:0/end_device-1:0";
        disk(&tree, &format!("{sas}/target1:0:0/1:0:0:0/block/sdd"), "8:48", 2048);
        tree.file(&format!("{sas}/sas_device/end_device-1:0/sas_address"), "0x5000c500a1b2c3d5\n");
        let all = list(tree.root());
        let [usb, sas] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((usb.disk.serial.as_deref(), usb.disk.tran.as_deref()), (Some("4C53"), Some("usb")));
        assert_eq!(
            usb.disk.by_path.as_deref(),
            Some("/dev/disk/by-path/pci-0000:00:14.0-usb-0:2:1.0-scsi-0:0:0:0")
        );
        assert_eq!(sas.disk.tran.as_deref(), Some("sas"));
        assert_eq!(
            sas.disk.by_path.as_deref(),
            Some("/dev/disk/by-path/pci-0000:02:00.0-sas-0x5000c500a1b2c3d5-lun-0")
        );
    }

    #[test]
    fn only_whole_disks_with_room_are_listed_in_the_kernels_order() {
        let tree = Tree::new();
        let numbers = [
            "8:0", "65:160", "7:0", "11:0", "1:0", "2:0", "253:0", "253:1", "9:127", "179:8", "8:16", "8:32",
            "251:0",
        ];
        let all = [
            "sda",
            "sdaa",
            "loop0",
            "sr0",
            "ram0",
            "fd0",
            "dm-0",
            "dm-1",
            "md127",
            "mmcblk0boot0",
            "sdb",
            "sdc",
            "zram0",
        ];
        for (name, number) in all.iter().zip(numbers) {
            disk(&tree, &format!("devices/virtual/block/{name}"), number, u64::from(*name != "sdb"));
        }
        tree.file("block/dm-0/dm/uuid", "LVM-abc\n")
            .file("block/dm-1/dm/uuid", "mpath-360\n")
            .folder("block/sdc/holders/dm-1");
        tree.file("block/sda/ro", "1\n").folder("block/nvme0c0n1");
        let found = list(tree.root());
        let names: Vec<_> = found.iter().map(|facts| facts.disk.name.as_str()).collect();
        assert_eq!(names, ["/dev/sda", "/dev/md127", "/dev/sdaa", "/dev/dm-1"]);
        assert!(found[0].read_only && !found[1].read_only);
    }

    #[test]
    fn partitions_come_in_number_order_and_holders_of_all() {
        let tree = Tree::new();
        disk(&tree, "devices/x/block/sda", "8:0", 9);
        for (name, number) in [("sda10", "10\n"), ("sda2", "2\n"), ("sda1", "1\n")] {
            tree.file(&format!("block/sda/{name}/partition"), number);
        }
        tree.folder("block/sda/sda2/holders/dm-0").link("dev/block/8:2", "devices/x/block/sda/sda2");
        tree.link("dev/block/8:0", "devices/x/block/sda");
        assert_eq!(partitions(tree.root(), "sda"), ["sda1", "sda2", "sda10"]);
        assert_eq!(holders(tree.root(), "sda"), ["dm-0"]);
        tree.link("class/block/sda2", "block/sda/sda2").link("class/block/sda1", "block/sda/sda1");
        assert_eq!(holders(tree.root(), "sda2"), ["dm-0"]);
        assert!(holders(tree.root(), "sda1").is_empty());
        assert_eq!(disk_of(tree.root(), "8:2").as_deref(), Some("sda"));
        assert_eq!(disk_of(tree.root(), "8:0").as_deref(), Some("sda"));
        assert_eq!(disk_of(tree.root(), "9:9"), None);
    }
}
