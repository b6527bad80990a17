//! How each image of the benchmark is made. The text of this file is part of the images' key: another text, other images.

use super::images::{MIB, file, folder};
use super::scatter::{self, Cut, Scattered};
use anyhow::{Context, Result, bail};
use ferric_tests::debian::{self, Papers, Recipe};
use ferric_tests::process::{call, die_with_us};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const GIB: u64 = 1024 * MIB;

/// A full-grown installation: about 1.2 GiB of files.
pub const DEBIAN: Recipe = Recipe {
    virtual_bytes: 8 * GIB,
    more: &[
        "linux-image-amd64",
        "systemd-resolved",
        "locales",
        "curl",
        "rsync",
        "git",
        "vim",
        "htop",
        "tcpdump",
        "gcc",
        "libc6-dev",
        "perl",
        "man-db",
    ],
    papers: Papers::Kept,
};

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// The Debian as raw image of 8 GiB, source of most others.
    Debian,
    Plain,
    Zlib,
    Zstd,
    /// 3 GiB of random data, neighbours in the file far apart on the disk.
    Scatter,
    /// Compressed clusters of 4 KiB in random order: the most to remember for the bytes.
    Shuffled,
    /// The first 2 GiB of the Debian.
    Raw,
    RawGz,
    RawXz,
    RawZst,
    /// 100 GiB virtual, 64 MiB of data in 256 places.
    Empty100g,
    Empty100gZlib,
    /// The same in 10 TiB.
    Empty10t,
}

impl Picture {
    /// Its file.
    pub fn name(self) -> &'static str {
        match self {
            Picture::Debian => "debian.raw",
            Picture::Plain => "debian.qcow2",
            Picture::Zlib => "debian-zlib.qcow2",
            Picture::Zstd => "debian-zstd.qcow2",
            Picture::Scatter => "scatter.qcow2",
            Picture::Shuffled => "shuffled-4k-zlib.qcow2",
            Picture::Raw => "deb2g.raw",
            Picture::RawGz => "deb2g.raw.gz",
            Picture::RawXz => "deb2g.raw.xz",
            Picture::RawZst => "deb2g.raw.zst",
            Picture::Empty100g => "empty100g.qcow2",
            Picture::Empty100gZlib => "empty100g-zlib.qcow2",
            Picture::Empty10t => "empty10t.qcow2",
        }
    }

    /// What `--format` calls it.
    pub fn format(self) -> &'static str {
        if self.name().ends_with(".qcow2") { "qcow2" } else { "raw" }
    }

    /// The image whose content a raw image must give; a qcow2 is its own.
    pub fn content(self) -> Picture {
        match self {
            Picture::RawGz | Picture::RawXz | Picture::RawZst => Picture::Raw,
            other => other,
        }
    }
}

/// Makes the image's file.
pub fn make(picture: Picture, out: &Path) -> Result<()> {
    match picture {
        Picture::Debian => {
            let work = tempfile::Builder::new().prefix("debian-").tempdir_in(folder()?)?;
            fs::rename(debian::make_raw(&DEBIAN, work.path())?, out).context("moving the disk")
        }
        Picture::Plain => convert(Picture::Debian, &[], out),
        Picture::Zlib => convert(Picture::Debian, &["-c"], out),
        Picture::Zstd => convert(Picture::Debian, &["-c", "-o", "compression_type=zstd"], out),
        Picture::Empty100gZlib => convert(Picture::Empty100g, &["-c"], out),
        Picture::Raw => cut(&file(Picture::Debian)?, 2 * GIB, out),
        Picture::RawGz => compress(&["gzip", "-6", "-c"], out),
        Picture::RawXz => compress(&["xz", "-T0", "-6", "-c"], out),
        Picture::RawZst => compress(&["zstd", "-q", "-T0", "-3", "-c"], out),
        Picture::Empty100g => empty(100 * GIB, out),
        Picture::Empty10t => empty(10 << 40, out),
        Picture::Scatter => scatter::write(
            out,
            Scattered { virtual_bytes: 8 * GIB, cluster_bits: 16, clusters: 48 << 10, cut: Cut::Plain },
        ),
        Picture::Shuffled => scatter::write(
            out,
            Scattered { virtual_bytes: 2 * GIB, cluster_bits: 12, clusters: 512 << 10, cut: Cut::Deflated },
        ),
    }
}

fn convert(from: Picture, options: &[&str], out: &Path) -> Result<()> {
    let (source, format, out) = (words(&file(from)?), from.format(), words(out));
    let start = ["convert", "-f", format, "-O", "qcow2"];
    call("qemu-img", &[&start, options, &[&source, &out]].concat()).map(drop)
}

/// The first bytes of a file, its holes filled: servers seldom keep images sparse.
fn cut(from: &Path, length: u64, out: &Path) -> Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(out)?);
    let mut piece = vec![0; MIB as usize];
    for _ in 0..length / MIB {
        from.read_exact(&mut piece)?;
        to.write_all(&piece)?;
    }
    Ok(())
}

/// The raw image through a compressor that writes to its standard output.
fn compress(words: &[&str], out: &Path) -> Result<()> {
    let [program, arguments @ ..] = words else { bail!("no compressor") };
    let mut command = Command::new(program);
    command.args(arguments).arg(file(Picture::Raw)?).stdin(Stdio::null()).stdout(File::create(out)?);
    let status = die_with_us(&mut command).status().with_context(|| format!("starting {program}"))?;
    anyhow::ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}

/// A qcow2 with 256 pieces of 256 KiB, evenly spread.
fn empty(virtual_bytes: u64, out: &Path) -> Result<()> {
    let (out, piece) = (words(out), 256 << 10);
    call("qemu-img", &["create", "-q", "-f", "qcow2", &out, &virtual_bytes.to_string()])?;
    let mut io = Command::new("qemu-io");
    io.args(["-f", "qcow2", "-t", "unsafe"]);
    for nth in 0..256 {
        let place = virtual_bytes / 256 * nth / piece * piece;
        io.arg("-c").arg(format!("write -q -P {} {place} {piece}", 1 + nth % 255));
    }
    ferric_tests::process::run(io.arg(&out)).map(drop)
}

fn words(path: &Path) -> String {
    path.display().to_string()
}
