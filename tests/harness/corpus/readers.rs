//! Who reads an image beside us: qemu-img or the packer's own unpacker first, and Python as the second witness:
//! `dissect.hypervisor` for qcow2, the modules gzip, lzma, bz2 and backports.zstd for the others.

use super::{Kind, qemu};
use crate::artifacts::cache_folder;
use crate::process::{call, die_with_us};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Releases the tests were written with.
const PACKAGES: [&str; 2] = ["dissect.hypervisor==3.21", "backports.zstd==1.8.0"];
const SCRIPT: &str = include_str!("second_reader.py");

/// What qemu-img reads from `image`, or what the packer's own program unpacks.
pub fn first(kind: Kind, folder: &Path) -> Result<Vec<u8>> {
    let program = match kind {
        Kind::Qcow2 | Kind::Raw => {
            let format = kind.ending();
            qemu("qemu-img", &["convert", "-f", format, "-O", "raw", "image", "out"], folder)?;
            return fs::read(folder.join("out")).context("reading what qemu-img wrote");
        }
        Kind::Gz => "gzip",
        Kind::Xz => "xz",
        Kind::Zst => "zstd",
        Kind::Bz2 => "bzip2",
    };
    let file = fs::File::open(folder.join("image"))?;
    let output = Command::new(program).arg("-dc").stdin(file).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Python with the second readers in a virtual environment of its own, made once.
pub fn install() -> Result<PathBuf> {
    let folder = cache_folder()?.join(format!("readers-{}", PACKAGES.join("-").replace("==", "-")));
    let (python, mark) = (folder.join("bin/python"), folder.join("complete"));
    if !mark.exists() {
        eprintln!("installing {} (once)", PACKAGES.join(" and "));
        // A virtual environment cannot be moved; one without its mark is made anew.
        fs::remove_dir_all(&folder).ok();
        call("/usr/bin/python3", &["-m", "venv", &folder.display().to_string()])?;
        let pip = folder.join("bin/pip").display().to_string();
        call(&pip, &[&["install", "--quiet"], &PACKAGES[..]].concat())?;
        fs::write(mark, "")?;
    }
    Ok(python)
}

/// The second reader, running; it ends with its handle.
#[derive(Debug)]
pub struct Second {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Second {
    pub fn start(python: &Path) -> Result<Self> {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = die_with_us(&mut command).spawn().context("starting the second reader")?;
        let ask = child.stdin.take().context("its standard input")?;
        let answers = BufReader::new(child.stdout.take().context("its standard output")?);
        Ok(Self { child, ask, answers })
    }

    /// Length and SHA-256 of what it reads.
    pub fn read(&mut self, kind: Kind, image: &Path) -> Result<(u64, String)> {
        writeln!(self.ask, "{}\t{}", kind.ending(), image.display())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let (length, digest) = line.trim().split_once(' ').with_context(|| format!("it said '{line}'"))?;
        ensure!(length != "error", "{digest}");
        Ok((length.parse().with_context(|| line.clone())?, digest.to_owned()))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
