//! The programs that write an image to a disk, ours and others', as their users would start them.

use super::cases::Who;
use super::images::{Made, Picture};
use super::measure::Program;
use anyhow::{Context, Result, bail};
use ferric_tests::artifacts::cache_folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Debian's own, for which python3-requests is installed.
const PYTHON: &str = "/usr/bin/python3";

/// ironic-python-agent's way with a qcow2 (`extensions/standby.py`, `qemu_img.py`): the whole file into memory while it
/// is hashed, then qemu-img with its flags and limits.
const PYTHON_QCOW2: &str = "
import hashlib, os, requests, resource, subprocess, sys
url, digest, place, disk = sys.argv[1:]
seen = hashlib.sha256()
with requests.get(url, stream=True, timeout=60) as answer, open(place, 'wb') as file:
    answer.raise_for_status()
    for chunk in answer.iter_content(1 << 20):
        file.write(chunk)
        seen.update(chunk)
if seen.hexdigest() != digest:
    sys.exit('wrong digest')
subprocess.run(['qemu-img', 'convert', '-O', 'host_device', '-t', 'directsync', '-S', '0', '-W', '-f', 'qcow2', place, disk],
    check=True, env=dict(os.environ, MALLOC_ARENA_MAX='3', LC_ALL='C'),
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)))
os.remove(place)";

/// Its way with a raw image where `stream_raw_images` is set: onto the disk while it is hashed, the digest compared at
/// the end.
const PYTHON_RAW: &str = "
import hashlib, requests, sys
url, digest, disk = sys.argv[1:]
seen = hashlib.sha256()
with requests.get(url, stream=True, timeout=60) as answer, open(disk, 'wb+') as out:
    answer.raise_for_status()
    for chunk in answer.iter_content(1 << 20):
        out.write(chunk)
        seen.update(chunk)
if seen.hexdigest() != digest:
    sys.exit('wrong digest')";

/// Everything a contender is told.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    pub image: &'a Made,
    pub url: String,
    pub disk: &'a str,
    /// Folder in memory.
    pub staging: &'a Path,
    /// Words that start a program at the right end of the line.
    pub door: &'a [String],
    pub agent: &'a Path,
    pub coreos: &'a Path,
}

/// How the table calls it.
pub fn name(who: Who, picture: Picture) -> String {
    let tool = decompressor(picture).map(|words| words.join(" "));
    match who {
        Who::Ours => "ferric-agent write".to_owned(),
        Who::OursSha512 => "ferric-agent write, sha512".to_owned(),
        Who::OursWhole => "ferric-agent write, server without ranges".to_owned(),
        Who::OursCut => "ferric-agent write, ten cut connections".to_owned(),
        Who::Python if picture.format() == "raw" => "python agent's way (stream)".to_owned(),
        Who::Python => "python agent's way (tmpfs, qemu-img)".to_owned(),
        Who::Pipe => match tool {
            Some(tool) => format!("curl → {tool} → dd oflag=direct, no hash"),
            None => "curl → dd oflag=direct, no hash".to_owned(),
        },
        Who::Qemu => "qemu-img convert from http, no hash".to_owned(),
        Who::Coreos => "coreos-installer, no hash".to_owned(),
    }
}

/// How long it may take before it is called hung.
pub fn patience(who: Who) -> Duration {
    // qemu-img's http driver is known to sleep for ever; runs that end take a fifth of this at most.
    Duration::from_secs(if who == Who::Qemu { 30 } else { 300 })
}

/// The programs, each to be piped into the next.
pub fn programs(who: Who, task: &Task<'_>) -> Vec<Program> {
    let mut programs = match who {
        Who::Ours | Who::OursWhole | Who::OursCut => vec![ours(task, "--sha256", &task.image.sha256)],
        Who::OursSha512 => vec![ours(task, "--sha512", &task.image.sha512)],
        Who::Python => vec![python(task)],
        Who::Pipe => pipe(task),
        Who::Qemu => vec![qemu(task)],
        Who::Coreos => {
            let coreos = task.coreos.display().to_string();
            vec![Program::new(&[&coreos, "install", task.disk, "--image-url", &task.url, "--insecure"])]
        }
    };
    // Only who talks to the server has to stand at its end of the line.
    if let Some(first) = programs.first_mut() {
        first.words.splice(0..0, task.door.iter().cloned());
    }
    programs
}

fn ours(task: &Task<'_>, algorithm: &str, digest: &str) -> Program {
    let agent = task.agent.display().to_string();
    let format = task.image.picture.format();
    // Whether something boots is not the question here.
    let words = [&agent, "write", "--no-table", "--image", &task.url, "--format", format];
    Program::new(&[&words[..], &[algorithm, digest, "--disk", task.disk]].concat())
}

fn python(task: &Task<'_>) -> Program {
    let (url, digest) = (task.url.as_str(), task.image.sha256.as_str());
    if task.image.picture.format() == "raw" {
        return Program::new(&[PYTHON, "-c", PYTHON_RAW, url, digest, task.disk]);
    }
    let place = task.staging.join("image").display().to_string();
    Program::new(&[PYTHON, "-c", PYTHON_QCOW2, url, digest, &place, task.disk])
}

fn pipe(task: &Task<'_>) -> Vec<Program> {
    let curl = Program::new(&["curl", "-sSf", &task.url]);
    let to = format!("of={}", task.disk);
    let dd = Program::new(&["dd", &to, "bs=1M", "iflag=fullblock", "oflag=direct", "status=none"]);
    let tool = decompressor(task.image.picture).map(Program::new);
    [Some(curl), tool, Some(dd)].into_iter().flatten().collect()
}

fn decompressor(picture: Picture) -> Option<&'static [&'static str]> {
    match picture {
        Picture::RawGz => Some(&["gzip", "-dc"]),
        Picture::RawXz => Some(&["xz", "-T0", "-dc"]),
        Picture::RawZst => Some(&["zstd", "-dcq"]),
        _ => None,
    }
}

fn qemu(task: &Task<'_>) -> Program {
    let format = task.image.picture.format();
    Program::new(&[
        "qemu-img",
        "convert",
        "-f",
        format,
        "-O",
        "host_device",
        "-t",
        "none",
        "-W",
        &task.url,
        task.disk,
    ])
}

/// The version that is compared with; a newer one is another comparison.
pub const COREOS_VERSION: &str = "0.27.0";

/// coreos-installer from the Rust registry, built if it is not there yet.
///
/// # Errors
/// It cannot be built here.
pub fn coreos() -> Result<PathBuf> {
    let root = cache_folder()?.join(format!("coreos-installer-{COREOS_VERSION}"));
    let program = root.join("bin/coreos-installer");
    if program.exists() {
        return Ok(program);
    }
    eprintln!("building coreos-installer {COREOS_VERSION} (a few minutes, once)");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["install", "--quiet", "--locked", "coreos-installer", "--version", COREOS_VERSION, "--root"])
        .arg(&root)
        .current_dir(cache_folder()?)
        .stdin(Stdio::null());
    // What the surrounding cargo says of this project is not meant for that one.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" {
            cargo.env_remove(&name);
        }
    }
    let out = cargo.output().context("starting cargo")?;
    if !out.status.success() {
        let words = String::from_utf8_lossy(&out.stderr);
        bail!(
            "cargo install coreos-installer failed: {}",
            words.lines().find(|l| l.contains("error")).unwrap_or("no reason")
        );
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(picture: Picture) -> Made {
        let (sha256, sha512) = ("a256".to_owned(), "a512".to_owned());
        let path = PathBuf::from("/images").join(picture.name());
        Made { picture, path, bytes: 1, virtual_bytes: 2, data_bytes: 1, sha256, sha512 }
    }

    /// The programs as one line each.
    fn lines(who: Who, picture: Picture, door: &[&str]) -> Vec<String> {
        let door: Vec<String> = door.iter().map(|w| (*w).to_owned()).collect();
        let task = Task {
            image: &made(picture),
            url: format!("http://h/{}", picture.name()),
            disk: "/dev/loop9",
            staging: Path::new("/m"),
            door: &door,
            agent: Path::new("agent"),
            coreos: Path::new("coreos-installer"),
        };
        programs(who, &task).into_iter().map(|program| program.words.join(" ")).collect()
    }

    #[test]
    fn ours_gets_the_digest_of_the_file_as_served() {
        assert_eq!(
            lines(Who::Ours, Picture::RawGz, &[]),
            [
                "agent write --no-table --image http://h/deb2g.raw.gz --format raw --sha256 a256 --disk /dev/loop9"
            ]
        );
        let [line] = &lines(Who::OursSha512, Picture::Plain, &[])[..] else { panic!("one program") };
        assert!(line.contains("--format qcow2 --sha512 a512"), "{line}");
    }

    #[test]
    fn a_pipe_has_a_decompressor_where_one_is_needed() {
        assert_eq!(
            lines(Who::Pipe, Picture::RawZst, &["enter", "there"]),
            [
                "enter there curl -sSf http://h/deb2g.raw.zst",
                "zstd -dcq",
                "dd of=/dev/loop9 bs=1M iflag=fullblock oflag=direct status=none"
            ]
        );
        assert_eq!(lines(Who::Pipe, Picture::Raw, &[]).len(), 2);
    }

    #[test]
    fn the_python_way_stages_a_qcow2_and_streams_a_raw_image() {
        let [staged] = &lines(Who::Python, Picture::Zlib, &[])[..] else { panic!("one program") };
        assert!(staged.ends_with("http://h/debian-zlib.qcow2 a256 /m/image /dev/loop9"), "{staged}");
        let [streamed] = &lines(Who::Python, Picture::Raw, &[])[..] else { panic!("one program") };
        assert!(streamed.ends_with("http://h/deb2g.raw a256 /dev/loop9"), "{streamed}");
    }
}
