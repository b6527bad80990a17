//! Decompression of 64 KiB clusters and of whole streams, on blocks of a real image. Rates count what comes out.

use crate::meter::{MIB, Whose, part, plain};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::hint::black_box;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// The cluster size that qemu-img makes unless told otherwise.
const CLUSTER: usize = 64 << 10;
/// Clusters that are measured: 64 MiB, more than any cache.
const CLUSTERS: usize = 1024;
/// What qemu-img compresses with: zlib's and zstd's default levels.
const ZLIB_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// Runs over a whole stream: xz takes half a minute.
const RUNS: usize = 3;
const XZ_RUNS: usize = 1;

/// Clusters, one after the other and by all cores.
pub fn clusters(raw: &Path) -> Result<()> {
    let clusters = sample(raw)?;
    let zlib = clusters.iter().map(|c| deflate(c)).collect::<Result<Vec<_>>>()?;
    let zstd =
        clusters.iter().map(|c| Ok(zstd::bulk::compress(c, ZSTD_LEVEL)?)).collect::<Result<Vec<_>>>()?;
    drop(clusters);
    let cores = thread::available_parallelism()?.get();
    let total = CLUSTERS * CLUSTER;
    for (name, threads) in [("one core", 1), ("all cores", cores)] {
        plain(&format!("inflate 64 KiB, {name}"), total, || shared(&zlib, threads, inflate_all))?;
        plain(&format!("zstd 64 KiB, {name}"), total, || shared(&zstd, threads, unzstd_all))?;
    }
    Ok(())
}

/// A whole stream that gives `length` bytes.
pub fn stream(kind: &str, path: &Path, length: usize) -> Result<()> {
    let runs = |name: &str, runs, work: &mut dyn FnMut() -> Result<()>| {
        part(name, length, runs, Whose::Ours, || Ok(()), work)
    };
    match kind {
        "gzip" => runs("gzip stream", RUNS, &mut || {
            drain(flate2::bufread::MultiGzDecoder::new(open(path)?), length)
        }),
        "zstd" => runs("zstd stream", RUNS, &mut || {
            drain(zstd::stream::read::Decoder::with_buffer(open(path)?)?, length)
        }),
        "xz" => {
            runs("xz stream (program xz), one core", XZ_RUNS, &mut || unxz(path, "-T1", length))?;
            runs("xz stream (program xz), all cores", XZ_RUNS, &mut || unxz(path, "-T0", length))
        }
        other => bail!("no stream is called {other}"),
    }
}

/// Clusters with data, from all over the image.
fn sample(raw: &Path) -> Result<Vec<Vec<u8>>> {
    let file = File::open(raw).with_context(|| format!("opening {}", raw.display()))?;
    let count = file.metadata()?.len() / CLUSTER as u64;
    let mut found = Vec::new();
    // Every seventh, then those beside them, until there are enough.
    for first in 0..7 {
        for nth in (first..count).step_by(7) {
            let mut cluster = vec![0; CLUSTER];
            file.read_exact_at(&mut cluster, nth * CLUSTER as u64)?;
            if cluster.iter().any(|byte| *byte != 0) {
                found.push(cluster);
            }
            if found.len() == CLUSTERS {
                return Ok(found);
            }
        }
    }
    bail!("{} has {} clusters with data, {CLUSTERS} are needed", raw.display(), found.len())
}

fn deflate(cluster: &[u8]) -> Result<Vec<u8>> {
    let level = libdeflater::CompressionLvl::new(ZLIB_LEVEL).map_err(|_| anyhow::anyhow!("no such level"))?;
    let mut compressor = libdeflater::Compressor::new(level);
    let mut out = vec![0; compressor.deflate_compress_bound(cluster.len())];
    let length = compressor.deflate_compress(cluster, &mut out)?;
    out.truncate(length);
    Ok(out)
}

/// Gives each thread its share of the clusters.
fn shared(clusters: &[Vec<u8>], threads: usize, work: fn(&[Vec<u8>]) -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let shares = clusters.chunks(clusters.len().div_ceil(threads));
        let running: Vec<_> = shares.map(|share| scope.spawn(move || work(share))).collect();
        running.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

fn inflate_all(clusters: &[Vec<u8>]) -> Result<()> {
    let mut decoder = libdeflater::Decompressor::new();
    let mut out = vec![0; CLUSTER];
    for cluster in clusters {
        ensure!(decoder.deflate_decompress(cluster, &mut out)? == CLUSTER, "a short cluster");
        black_box(&out);
    }
    Ok(())
}

fn unzstd_all(clusters: &[Vec<u8>]) -> Result<()> {
    let mut decoder = zstd::bulk::Decompressor::new()?;
    let mut out = vec![0; CLUSTER];
    for cluster in clusters {
        ensure!(decoder.decompress_to_buffer(cluster, &mut out)? == CLUSTER, "a short cluster");
        black_box(&out);
    }
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    Ok(BufReader::with_capacity(MIB, file))
}

/// An xz file through xz-utils' own program.
fn unxz(path: &Path, threads: &str, length: usize) -> Result<()> {
    let mut xz = Command::new("xz")
        .args(["-dc", threads])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting xz")?;
    let drained = drain(xz.stdout.take().context("xz has no output")?, length);
    // Still there only if something went wrong.
    xz.kill()?;
    xz.wait()?;
    drained
}

fn drain(mut stream: impl Read, length: usize) -> Result<()> {
    let mut out = vec![0; MIB];
    for _ in 0..length / MIB {
        stream.read_exact(&mut out).context("the stream is shorter than was said")?;
        black_box(&out);
    }
    Ok(())
}
