//! The disk that is written: a loop device with direct I/O over a file in memory, full of old data before every run, so
//! that what is compared is the work and not somebody's SSD.
//!
//! The slow one stands for a SATA SSD: writes are held to a rate, zeroing ranges is not. The kernel's throttle would
//! count zeroing as writing. So it sits one floor below: a throttled loop device bears a file system, and the disk is a
//! file on that. Zeroing a range only gives the file system its blocks back.

use super::images::{MIB, Made};
use anyhow::{Context, Result, bail, ensure};
use ferric_tests::process::call;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What old data looks like.
const OLD: u8 = 0xa5;
/// Written at once when a disk is filled.
const PIECE: u64 = 4 * MIB;
const GIB: u64 = 1024 * MIB;
/// A disk from this size on is not filled as a whole; memory would not hold it.
pub const TOO_BIG: u64 = 64 * GIB;

/// Bytes a second of the slow disk, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Free,
    Held(u64),
}

/// A disk of the benchmark.
#[derive(Debug)]
pub struct Disk {
    size: u64,
    /// What the loop device stands on.
    file: PathBuf,
    current: Option<Loop>,
    floor: Option<Floor>,
}

impl Disk {
    /// Makes a disk in `folder`, which must be in memory.
    pub fn new(folder: &Path, size: u64, pace: Pace) -> Result<Self> {
        let floor = match pace {
            Pace::Free => None,
            Pace::Held(rate) => Some(Floor::new(folder, size, rate)?),
        };
        let file = floor.as_ref().map_or(folder, |floor| &floor.mount).join("disk");
        File::create(&file)?.set_len(size)?;
        let mut disk = Self { size, file, current: None, floor };
        disk.renew()?;
        Ok(disk)
    }

    /// Path of the block device.
    pub fn device(&self) -> &str {
        self.current.as_ref().map_or("", |current| &current.device)
    }

    /// A new loop device full of old data. (An old device may remember that zeroing was refused once, and blocks that
    /// were read or written through the page cache.)
    pub fn renew(&mut self) -> Result<()> {
        self.current = None;
        let fresh = Loop::attach(&self.file)?;
        match self.floor {
            // Through the page cache of the file system it would be in memory twice.
            Some(_) => fill(&fresh.direct()?, self.size)?,
            None => fill(&File::options().write(true).open(&self.file)?, self.size)?,
        }
        self.current = Some(fresh);
        Ok(())
    }

    /// Flushes what was written through the page cache.
    pub fn flush(&self) -> Result<()> {
        let current = self.current.as_ref().context("no disk")?;
        current.open.sync_all().with_context(|| format!("flushing {}", current.device))
    }

    /// MiB that the kernel counts as written since the device was made; zeroing by the disk is counted too.
    pub fn counted(&self) -> Result<f64> {
        let name = self.device().trim_start_matches("/dev/");
        let text = fs::read_to_string(format!("/sys/block/{name}/stat"))?;
        // The seventh number of Documentation/block/stat.rst: sectors written.
        let count = text.split_whitespace().nth(6).context("the device's statistics are short")?;
        Ok(count.parse::<f64>()? / 2048.0)
    }

    /// Runs `act` so that programs started by it write at the disk's pace.
    pub fn paced<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.floor {
            None => act(),
            Some(floor) => floor.throttle.held(act),
        }
    }

    /// Seconds in which the disk zeroes itself as a whole. Nothing of its old data is left.
    pub fn zeroed_alone(&self) -> Result<f64> {
        zero(&self.current.as_ref().context("no disk")?.direct()?, self.size)
    }

    /// Whether the disk reads as the image says.
    ///
    /// # Errors
    /// It does not, and where.
    pub fn compare(&self, image: &Made) -> Result<()> {
        if image.picture.format() == "raw" {
            return self.compare_raw(image, 0);
        }
        // Not through the page cache, where the disk's own memory is not at hand.
        let (cache, disk) = match self.floor {
            None => ("writeback", self.file.display().to_string()),
            Some(_) => ("none", self.device().to_owned()),
        };
        let path = image.path.display().to_string();
        call("qemu-img", &["compare", "-T", cache, "-f", "qcow2", "-F", "raw", &path, &disk]).map(drop)
    }

    /// The same for a raw image, from a byte on. The disk may be longer.
    pub fn compare_raw(&self, image: &Made, from: u64) -> Result<()> {
        let content = image.path.with_file_name(image.picture.content().name());
        let content = File::open(&content).with_context(|| format!("opening {}", content.display()))?;
        let disk = File::open(&self.file)?;
        let (mut wanted, mut found) = (vec![0; MIB as usize], vec![0; MIB as usize]);
        for at in (from..image.virtual_bytes).step_by(MIB as usize) {
            content.read_exact_at(&mut wanted, at)?;
            disk.read_exact_at(&mut found, at)?;
            ensure!(wanted == found, "the content differs in the MiB from byte {at} on");
        }
        Ok(())
    }

    /// Whether the pace is held, and zeroing not held: in words, the rates.
    ///
    /// # Errors
    /// A kernel or a control group that does not do it.
    pub fn prove_pace(&self) -> Result<String> {
        let floor = self.floor.as_ref().context("a disk that is not held")?;
        let file = self.current.as_ref().context("no disk")?.direct()?;
        let bytes = (GIB / 2).min(self.size);
        let start = Instant::now();
        floor.throttle.held(|| fill(&file, bytes))?;
        let rate = bytes as f64 / start.elapsed().as_secs_f64();
        let zeroed = bytes as f64 / floor.throttle.held(|| zero(&file, bytes))?;
        let (rate, zeroed, wanted) = (rate / MIB as f64, zeroed / MIB as f64, floor.rate as f64 / MIB as f64);
        ensure!(
            (0.9..1.1).contains(&(rate / wanted)),
            "writes go at {rate:.0} MiB/s, they should at {wanted:.0}"
        );
        ensure!(zeroed > 10.0 * wanted, "zeroing goes at {zeroed:.0} MiB/s, as if it were written");
        Ok(format!("writes held to {rate:.0} MiB/s, zeroing by the disk {zeroed:.0} MiB/s"))
    }
}

/// Has the disk zero its first bytes, in one call. Returns the seconds that it took.
fn zero(disk: &File, bytes: u64) -> Result<f64> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let start = Instant::now();
    fallocate(disk, flags, 0, i64::try_from(bytes)?).context("zeroing a range")?;
    disk.sync_all().context("flushing what was zeroed")?;
    Ok(start.elapsed().as_secs_f64())
}

/// Writes old data over the disk; over parts of one that is too big for memory. By two threads, as this takes longer
/// than writing an image.
fn fill(file: &File, size: u64) -> Result<()> {
    let (memory, start) = aligned(PIECE as usize);
    let old = memory.get(start..start + PIECE as usize).unwrap_or_default();
    let pieces = pieces(size);
    let next = AtomicUsize::new(0);
    let some = || -> Result<()> {
        while let Some((at, length)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.write_all_at(old.get(..*length as usize).unwrap_or_default(), *at)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(some);
        some()?;
        other.join().unwrap_or_else(|_| bail!("a thread died"))
    })
    .context("filling the disk with old data")
}

/// The same in pieces.
fn pieces(size: u64) -> Vec<(u64, u64)> {
    let whole = parts(size).into_iter();
    whole
        .flat_map(|(at, length)| {
            let cuts = (0..length).step_by(PIECE as usize);
            cuts.map(move |done| (at + done, (length - done).min(PIECE)))
        })
        .collect()
}

/// Where old data goes: everywhere; on a disk too big for that, the first GiB, the last MiB, and 1 MiB in 2,048 places.
fn parts(size: u64) -> Vec<(u64, u64)> {
    if size < TOO_BIG {
        return vec![(0, size)];
    }
    let places = (0..2048).map(|nth| (size / MIB * nth / 2048 * MIB, MIB));
    places.chain([(0, GIB), (size - MIB, MIB)]).collect()
}

/// Memory of old data and where in it direct I/O may begin.
fn aligned(length: usize) -> (Vec<u8>, usize) {
    const ALIGN: usize = 4096;
    let memory = vec![OLD; length + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
    (memory, start)
}

/// A loop device that the kernel takes away when nobody has it open any more.
#[derive(Debug)]
struct Loop {
    device: String,
    open: File,
}

impl Loop {
    fn attach(file: &Path) -> Result<Self> {
        let path = file.display().to_string();
        // With partition scanning, as some contenders ask the kernel to read the partition table.
        let device = call("losetup", &["--find", "--show", "--partscan", "--direct-io=on", &path]).context(
            "making a loop device with direct I/O (root, and a kernel whose tmpfs does direct I/O)",
        )?;
        let device = device.trim().to_owned();
        let open = File::options().read(true).write(true).open(&device);
        // Where it is open, this only means: later.
        call("losetup", &["--detach", &device])?;
        Ok(Self { open: open.with_context(|| format!("opening {device}"))?, device })
    }

    fn direct(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlag::O_DIRECT.bits());
        options.open(&self.device).with_context(|| format!("opening {}", self.device))
    }
}

/// What a held disk stands on.
#[derive(Debug)]
struct Floor {
    mount: PathBuf,
    rate: u64,
    throttle: Throttle,
    /// Closed after the mount is gone.
    _under: Loop,
}

impl Floor {
    fn new(folder: &Path, size: u64, rate: u64) -> Result<Self> {
        let file = folder.join("floor");
        // Room for the file system's own tables.
        File::create(&file)?.set_len(size + size / 20 + 256 * MIB)?;
        let under = Loop::attach(&file)?;
        call("mkfs.ext4", &["-q", "-m", "0", "-T", "largefile", "-E", "lazy_itable_init=0", &under.device])?;
        let mount = folder.join("mount");
        fs::create_dir_all(&mount)?;
        call("mount", &["-o", "nodiscard", &under.device, &mount.display().to_string()])?;
        let throttle = match Throttle::new(&under.device, rate) {
            Ok(throttle) => throttle,
            Err(error) => {
                call("umount", &["--lazy", &mount.display().to_string()]).ok();
                return Err(error);
            }
        };
        Ok(Self { mount, rate, throttle, _under: under })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        call("umount", &["--lazy", &self.mount.display().to_string()]).ok();
    }
}

/// A control group whose members write to one device at a rate.
#[derive(Debug)]
struct Throttle {
    group: PathBuf,
    /// Where this process belongs.
    home: PathBuf,
}

impl Throttle {
    fn new(device: &str, rate: u64) -> Result<Self> {
        let name = device.trim_start_matches("/dev/");
        let number = fs::read_to_string(format!("/sys/block/{name}/dev"))?;
        let number = number.trim();
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let first = Path::new("/sys/fs/cgroup/blkio");
        let (root, home, file, line) = if first.exists() {
            let home = membership(&own, "blkio").context("this process is in no blkio group")?;
            (first, home, "blkio.throttle.write_bps_device", format!("{number} {rate}"))
        } else {
            let root = Path::new("/sys/fs/cgroup");
            // It may be on already.
            fs::write(root.join("cgroup.subtree_control"), "+io").ok();
            let home = membership(&own, "").context("this process is in no control group")?;
            (root, home, "io.max", format!("{number} wbps={rate}"))
        };
        let home = root.join(home.trim_start_matches('/'));
        let group = root.join(format!("ferric-bench-{}", std::process::id()));
        fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        let throttle = Self { group, home };
        let path = throttle.group.join(file);
        let mut limit = OpenOptions::new()
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        limit
            .write_all(line.as_bytes())
            .with_context(|| format!("writing '{line}' to {}", path.display()))?;
        Ok(throttle)
    }

    /// Puts this process into the group while `act` lasts; what it starts stays there.
    fn held<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let join = |group: &Path| {
            fs::write(group.join("cgroup.procs"), std::process::id().to_string())
                .with_context(|| format!("entering {}", group.display()))
        };
        join(&self.group)?;
        let result = act();
        join(&self.home)?;
        result
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        fs::remove_dir(&self.group).ok();
    }
}

/// The group of a hierarchy by `/proc/self/cgroup`; the name is empty for the second version's only one.
fn membership(text: &str, controller: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
    })
}

/// How much memory a run on such a disk takes, without what contenders take.
pub fn memory_for(size: u64, pace: Pace) -> Result<u64> {
    let filled: u64 = parts(size).iter().map(|(_, length)| length).sum();
    match pace {
        Pace::Free => Ok(filled),
        Pace::Held(_) if size < TOO_BIG => Ok(filled + filled / 20),
        Pace::Held(_) => bail!("a held disk of {size} bytes would not fit in memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fits_is_filled_and_one_that_does_not_is_dotted() {
        assert_eq!(parts(8 * GIB), [(0, 8 * GIB)]);
        for size in [100 * GIB, 10 << 40] {
            let parts = parts(size);
            assert!(parts.iter().all(|(at, length)| at + length <= size && at % MIB == 0), "{size}");
            assert!(parts.contains(&(0, GIB)) && parts.contains(&(size - MIB, MIB)), "{size}");
            assert!(memory_for(size, Pace::Free).unwrap() < 4 * GIB, "{size}");
        }
    }

    #[test]
    fn the_group_is_found_in_both_versions() {
        let text = "4:blkio:/a/b\n3:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(membership(text, "blkio").as_deref(), Some("/a/b"));
        assert_eq!(membership(text, "cpuacct").as_deref(), Some("/c"));
        assert_eq!(membership(text, "").as_deref(), Some("/d"));
        assert_eq!(membership(text, "io"), None);
    }
}
