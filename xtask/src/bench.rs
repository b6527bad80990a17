//! `cargo xtask bench image`: our image writer against the way of ironic-python-agent and bare qemu-img, in one run.
//!
//! The disk is a loop device with direct I/O over a file in memory, full of old data before every run, so that what is
//! compared is the work and not somebody's SSD. Needs root (loop devices), python3 and qemu-utils.

use anyhow::{Context, Result, bail, ensure};
use ferric_tests::{
    artifacts,
    debian::{self, Image},
    httpd::{Fault, Httpd},
};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const USAGE: &str = "usage: cargo xtask bench image [--image FILE.qcow2] [--runs N]";
const MIB: u64 = 1 << 20;

/// Runs a command and prints, as the last line: wall seconds, CPU seconds, peak resident KiB of the largest process.
const MEASURE: &str = "
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
wall = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)";

/// What ironic-python-agent does with a qcow2: the whole file into memory while it is hashed, then qemu-img.
const PYTHON_WAY: &str = "
import hashlib, os, subprocess, sys, urllib.request
url, digest, place, disk = sys.argv[1:]
seen = hashlib.sha256()
with urllib.request.urlopen(url) as answer, open(place, 'wb') as file:
    while chunk := answer.read(1 << 20):
        file.write(chunk)
        seen.update(chunk)
assert seen.hexdigest() == digest
subprocess.run(['qemu-img', 'convert', '-O', 'host_device', '-t', 'directsync', '-S', '0', '-W', '-f', 'qcow2', place, disk], check=True)
os.remove(place)";

/// Runs the command named by `arguments`.
pub fn run(arguments: &[&str]) -> Result<()> {
    let ["image", options @ ..] = arguments else { bail!("{USAGE}") };
    let (mut image, mut runs) = (None, 5);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = options.next().with_context(|| format!("{option} needs a value\n{USAGE}"))?;
        match *option {
            "--image" => image = Some(PathBuf::from(value)),
            "--runs" => runs = value.parse().with_context(|| format!("--runs {value}"))?,
            other => bail!("'{other}' is not known\n{USAGE}"),
        }
    }
    ensure!(runs > 0, "--runs needs at least 1");
    let image = match image {
        Some(path) => Image::of(&path)?,
        None => debian::image()?,
    };
    artifacts::agent()?;
    let bench = Bench::prepare(image)?;
    let mut contenders = [bench.ours()?, bench.python(), bench.qemu()]
        .map(|(name, command, tmpfs)| Contender { name, command, tmpfs, results: Vec::new() });
    for round in 1..=runs {
        for contender in &mut contenders {
            eprintln!("run {round} of {runs}: {}", contender.name);
            bench.disk.fill()?;
            let result = bench.measure(&contender.command)?;
            contender.results.push(result);
        }
    }
    print!("{}", bench.describe()?);
    print!("{}", table(&contenders));
    Ok(())
}

struct Contender {
    name: &'static str,
    command: Vec<String>,
    /// Bytes of the image kept in memory.
    tmpfs: u64,
    results: Vec<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    wall: f64,
    cpu: f64,
    resident_kib: f64,
    written_mib: f64,
}

struct Bench {
    image: Image,
    virtual_size: u64,
    url: String,
    _server: Httpd,
    disk: LoopDisk,
}

impl Bench {
    fn prepare(image: Image) -> Result<Self> {
        let virtual_size = virtual_size(&image.path)?;
        let server = Httpd::start("127.0.0.1")?;
        let url = server.offer("disk.qcow2", &image.path, Fault::None);
        let disk = LoopDisk::new(virtual_size.next_multiple_of(MIB))?;
        Ok(Self { image, virtual_size, url, _server: server, disk })
    }

    fn ours(&self) -> Result<(&'static str, Vec<String>, u64)> {
        let agent = artifacts::target()?.join("x86_64-unknown-linux-musl/release/ferric-agent");
        let agent = agent.display().to_string();
        // Whether something boots is not the question here.
        let words = [&agent, "write", "--no-table", "--format", "qcow2", "--image", &self.url];
        let more = ["--sha256", &self.image.sha256, "--disk", &self.disk.device];
        Ok(("ferric-agent write", owned(&[&words[..], &more[..]].concat()), 0))
    }

    fn python(&self) -> (&'static str, Vec<String>, u64) {
        let place = self.disk.folder.path().join("download").display().to_string();
        let words = ["python3", "-c", PYTHON_WAY, &self.url, &self.image.sha256, &place, &self.disk.device];
        ("python download + qemu-img", owned(&words), self.image.bytes)
    }

    fn qemu(&self) -> (&'static str, Vec<String>, u64) {
        let file = self.image.path.display().to_string();
        let words = ["qemu-img", "convert", "-O", "host_device", "-t", "directsync", "-S", "0", "-W"];
        let more = ["-f", "qcow2", &file, &self.disk.device];
        ("qemu-img, local file", owned(&[&words[..], &more[..]].concat()), 0)
    }

    fn measure(&self, command: &[String]) -> Result<Measured> {
        let before = self.disk.sectors_written()?;
        let out = Command::new("python3")
            .args(["-c", MEASURE])
            .args(command)
            .stderr(Stdio::piped())
            .output()
            .context("running python3")?;
        if !out.status.success() {
            bail!("{}: {}", command.join(" "), String::from_utf8_lossy(&out.stderr));
        }
        let text = String::from_utf8_lossy(&out.stdout);
        let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [wall, cpu, resident_kib] = numbers[..] else { bail!("measuring gave '{text}'") };
        // The device counts zeroing by offload as writing; who tells how much was data is believed.
        let own = written(&String::from_utf8_lossy(&out.stderr));
        let sectors = self.disk.sectors_written()? - before;
        let written_mib = own.unwrap_or(sectors as f64 / 2048.0);
        Ok(Measured { wall, cpu, resident_kib, written_mib })
    }

    /// What was measured, on what.
    fn describe(&self) -> Result<String> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let qemu = Command::new("qemu-img").arg("--version").output().context("running qemu-img")?;
        let qemu = String::from_utf8_lossy(&qemu.stdout).lines().next().unwrap_or_default().to_string();
        Ok(format!(
            "machine: {} cores of {}, Linux {}, {qemu}\nimage:   {}, {} MiB file, {} MiB virtual\n\n",
            std::thread::available_parallelism()?,
            model.map_or("an unknown processor", |(_, name)| name),
            kernel.trim(),
            self.image.path.display(),
            self.image.bytes / MIB,
            self.virtual_size / MIB,
        ))
    }
}

/// The MiB that our writer says it wrote, zeros included.
fn written(text: &str) -> Option<f64> {
    let before = |mark: &str| text.split_once(mark)?.0.split_whitespace().last()?.parse::<f64>().ok();
    Some(before(" MiB written,")? + before(" MiB of zeros written,")?)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_string()).collect()
}

fn virtual_size(image: &Path) -> Result<u64> {
    let mut start = [0; 32];
    File::open(image)?.read_exact(&mut start).with_context(|| format!("reading {}", image.display()))?;
    ensure!(start.starts_with(b"QFI\xfb"), "{} is not qcow2", image.display());
    let size = start.last_chunk::<8>().context("a header of 32 bytes")?;
    Ok(u64::from_be_bytes(*size))
}

/// A loop device over a file in memory.
struct LoopDisk {
    device: String,
    file: PathBuf,
    size: u64,
    folder: tempfile::TempDir,
}

impl LoopDisk {
    fn new(size: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ferric-bench-").tempdir_in("/dev/shm")?;
        let file = folder.path().join("disk");
        File::create(&file)?.set_len(size)?;
        let out = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&file)
            .output()
            .context("running losetup")?;
        let device = String::from_utf8_lossy(&out.stdout).trim().to_string();
        if !out.status.success() || device.is_empty() {
            bail!(
                "making a loop device with direct I/O on {} (root, and a kernel whose tmpfs does direct I/O): {}",
                file.display(),
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(Self { device, file, size, folder })
    }

    /// Fills the disk with old data.
    fn fill(&self) -> Result<()> {
        let mut file = File::options().write(true).open(&self.file)?;
        let old = vec![0xa5; MIB as usize];
        for _ in 0..self.size / MIB {
            file.write_all(&old).context("filling the disk with old data")?;
        }
        Ok(())
    }

    fn sectors_written(&self) -> Result<u64> {
        let name = self.device.trim_start_matches("/dev/");
        let text = fs::read_to_string(format!("/sys/block/{name}/stat"))?;
        // The seventh number of Documentation/block/stat.rst.
        let count = text.split_whitespace().nth(6).context("the device's statistics are short")?;
        Ok(count.parse()?)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        Command::new("losetup").args(["--detach", &self.device]).status().ok();
    }
}

/// The median of one column.
fn median(results: &[Measured], column: impl Fn(&Measured) -> f64) -> f64 {
    let mut values = results.iter().map(column).collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(contenders: &[Contender]) -> String {
    let ours = contenders.first().map_or(f64::NAN, |c| median(&c.results, |r| r.wall));
    let mut text = format!(
        "{:28} {:>8} {:>8} {:>10} {:>10} {:>12} {:>9}\n",
        "median", "wall s", "CPU s", "peak MiB", "tmpfs MiB", "written MiB", "to ours"
    );
    for c in contenders {
        let of = |column: fn(&Measured) -> f64| median(&c.results, column);
        text += &format!(
            "{:28} {:8.2} {:8.2} {:10.1} {:10} {:12.0} {:8.2}x\n",
            c.name,
            of(|r| r.wall),
            of(|r| r.cpu),
            of(|r| r.resident_kib) / 1024.0,
            c.tmpfs / MIB,
            of(|r| r.written_mib),
            of(|r| r.wall) / ours
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_writer_says_what_it_wrote() {
        let text =
            "9 MiB received at 3 MiB/s, 103 MiB written, 4 MiB zeroed by the disk, 2 MiB of zeros written, 5";
        assert_eq!(written(text), Some(105.0));
        assert_eq!(written("nothing"), None);
    }

    #[test]
    fn the_table_shows_medians_and_the_ratio_to_the_first() {
        let results = |walls: [f64; 3]| {
            walls.map(|wall| Measured { wall, cpu: 1.0, resident_kib: 2048.0, written_mib: 7.0 }).to_vec()
        };
        let contender =
            |name, walls| Contender { name, command: Vec::new(), tmpfs: 0, results: results(walls) };
        let text = table(&[contender("a", [2.0, 9.0, 1.0]), contender("b", [5.0, 5.0, 5.0])]);
        let lines = text.lines().collect::<Vec<_>>();
        assert_eq!(
            lines.get(1).copied(),
            Some(
                "a                                2.00     1.00        2.0          0            7     1.00x"
            )
        );
        assert!(lines.get(2).is_some_and(|l| l.ends_with("2.50x")), "{text}");
    }
}
