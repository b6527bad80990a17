//! A ramdisk with the real ironic-python-agent, as diskimage-builder's Debian one is made: a minimal Debian 12 with
//! systemd, all of the kernel's modules, the agent from PyPI, packed with gzip.
//!
//! Kept in `target/bench-agent` by its recipe, which is the text of this file, and the kernel's version.

use anyhow::{Context, Result};
use ferric_initramfs::{Manifest, build};
use ferric_tests::artifacts::{cache_folder, target};
use ferric_tests::process::call;
use flate2::read::MultiGzDecoder;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Runs on Debian 12's Python 3.11.
pub const VERSION: &str = "13.0.0";

/// What the agent starts as programs, and what brings it up.
const PACKAGES: &str = "systemd-sysv,udev,dbus,kmod,python3,qemu-utils,parted,gdisk,fdisk,util-linux,dosfstools,\
e2fsprogs,genisoimage,mdadm,nvme-cli,hdparm,smartmontools,efibootmgr,iproute2,lshw,dmidecode,pciutils,usbutils,lsscsi,\
ipmitool,open-iscsi,psmisc,procps,chrony,openssh-server,ca-certificates,curl";
/// Where Debian's Python looks for what its packages did not bring.
const LIBRARIES: &str = "usr/local/lib/python3.11/dist-packages";
const NETWORK: &str = "[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n";
const UNIT: &str = "[Unit]\nDescription=Ironic Python Agent\nWants=network-online.target\nAfter=network-online.target\n\n\
[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/python3.11/dist-packages/bin/ironic-python-agent \
--config-dir /etc/ironic-python-agent.d\nRestart=always\nStandardOutput=journal+console\nStandardError=journal+console\n\n\
[Install]\nWantedBy=multi-user.target\n";

/// The packed archive; its kernel is ours.
#[derive(Clone, Debug)]
pub struct PythonRamdisk {
    pub path: PathBuf,
    pub bytes: u64,
    /// Size of the archive before compression.
    pub unpacked_bytes: u64,
}

/// Builds it unless that was done before (some minutes).
pub fn obtain() -> Result<PythonRamdisk> {
    let kernel = build::kernel(&Manifest::builtin()?, &cache_folder()?)?;
    let folder = target()?.join("bench-agent");
    let (path, stamp) = (folder.join("python.img"), folder.join("recipe"));
    let recipe = format!("{}\n{}", include_str!("python_ramdisk.rs"), kernel.version);
    if !fs::read_to_string(&stamp).is_ok_and(|old| old == recipe) {
        eprintln!("making the ramdisk of ironic-python-agent {VERSION} (some minutes, once)");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        fs::remove_file(&stamp).ok();
        let work = tempfile::Builder::new().prefix("python-").tempdir_in(&folder)?;
        let root = work.path().join("root");
        fill(&root, work.path(), &kernel.modules)?;
        call("chroot", &[&words(&root), "depmod", &kernel.version])?;
        let newc = ["--format", "newc", "-czf", &words(&path), "-C", &words(&root), "."];
        call("bsdtar", &newc).context("packing the ramdisk")?;
        fs::write(&stamp, recipe)?;
    }
    let packed = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
    let bytes = packed.metadata()?.len();
    let unpacked_bytes = std::io::copy(&mut MultiGzDecoder::new(packed), &mut std::io::sink())?;
    Ok(PythonRamdisk { path, bytes, unpacked_bytes })
}

fn fill(root: &Path, work: &Path, modules: &Path) -> Result<()> {
    let at = words(root);
    let include = format!("--include={PACKAGES}");
    let mut arguments = vec!["--quiet", "--mode=root", "--variant=minbase", "--components=main", &include];
    // Nobody reads them there.
    arguments.extend([
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
    ]);
    // The lists of apt are thrown away by mmdebstrap itself.
    arguments.extend(["bookworm", &at]);
    call("mmdebstrap", &arguments).context("making the Debian of the Python agent's ramdisk")?;
    let environment = words(&work.join("pip"));
    call("/usr/bin/python3", &["-m", "venv", &environment])?;
    let (wanted, libraries) = (format!("ironic-python-agent=={VERSION}"), words(&root.join(LIBRARIES)));
    let pip = words(&work.join("pip/bin/pip"));
    call(&pip, &["install", "--quiet", "--target", &libraries, &wanted])?;
    let all = root.join("usr/lib/modules");
    fs::create_dir_all(&all)?;
    call("cp", &["-a", &words(modules), &words(&all)])?;
    fs::create_dir_all(root.join("etc/ironic-python-agent.d"))?;
    fs::write(root.join("etc/systemd/network/all.network"), NETWORK)?;
    fs::write(root.join("etc/systemd/system/ironic-python-agent.service"), UNIT)?;
    std::os::unix::fs::symlink("/lib/systemd/systemd", root.join("init"))?;
    let units = ["systemd-networkd.service", "ironic-python-agent.service"];
    call("chroot", &[&[at.as_str(), "systemctl", "enable"][..], &units].concat()).map(drop)
}

fn words(path: &Path) -> String {
    path.display().to_string()
}
