//! Broken and malicious images: refused in words, by an ordinary exit status, within a bound of memory, and the disk is as
//! it was or blank at both ends.

use anyhow::{Context, Result, ensure};
use ferric_tests::corpus::by_hand;
use ferric_tests::corpus::hostile::{self, DISK, Hostile};
use ferric_tests::write::{Disk, Left, Order, Writer, scratch, sha256};
use std::fs::{self, File};
use std::path::Path;

/// Memory that an image may cost beyond what a plain one costs, in KiB.
const MEMORY: u64 = 64 << 10;

#[test]
fn broken_images_are_refused_in_words_and_leave_nothing_that_boots() -> Result<()> {
    let writer = Writer::obtain()?;
    let folder = scratch("hostile")?;
    let disk = Disk::new(folder.path().join("disk"), DISK)?;
    let baseline = baseline(&writer, folder.path(), &disk)?;
    let images = hostile::all();
    ensure!(images.len() >= 100, "only {} images", images.len());
    let (mut failures, mut peak) = (Vec::new(), 0);
    for image in &images {
        match judge(&writer, image, folder.path(), &disk, baseline) {
            Ok(kib) => peak = peak.max(kib),
            Err(error) => failures.push(format!("{} ({}): {error:#}", image.name, image.kind.ending())),
        }
    }
    println!(
        "{} images, {} failures, peak {peak} KiB, baseline {baseline} KiB",
        images.len(),
        failures.len()
    );
    ensure!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), images.len(), failures.join("\n"));
    Ok(())
}

/// 900,000 clusters of 512 bytes, each a piece of its own, and all of them one cluster of the file. However it ends, memory
/// stays within its bound.
#[test]
fn memory_has_a_bound_whatever_the_map() -> Result<()> {
    let writer = Writer::obtain()?;
    let folder = scratch("map")?;
    let small = Disk::new(folder.path().join("small"), DISK)?;
    let baseline = baseline(&writer, folder.path(), &small)?;
    let bytes = hostile::scattered(900_000);
    let (file, disk) = (folder.path().join("image"), folder.path().join("disk"));
    fs::write(&file, &bytes)?;
    File::create(&disk)?.set_len(900_000 * 512)?;
    let (place, digest) = (file.display().to_string(), sha256(&bytes));
    let order = Order { image: &place, format: "qcow2", sha256: &digest, disk: &disk, more: &["--no-table"] };
    let ended = writer.write(&order)?;
    println!(
        "status {}, peak {} KiB, baseline {baseline} KiB: {}",
        ended.code,
        ended.peak_kib,
        ended.words.trim()
    );
    ensure!(ended.peak_kib <= baseline + MEMORY, "{} KiB, a plain image {baseline} KiB", ended.peak_kib);
    if ended.code != 0 {
        ended.expect_refused()?;
    }
    Ok(())
}

/// Many clusters of the disk that are one and the same compressed stream, which does not lie in one buffer: valid, and memory stays
/// within its bound.
#[test]
fn memory_has_a_bound_however_many_clusters_share_a_stream() -> Result<()> {
    let writer = Writer::obtain()?;
    let folder = scratch("alike")?;
    let small = Disk::new(folder.path().join("small"), DISK)?;
    let baseline = baseline(&writer, folder.path(), &small)?;
    for (bits, count) in [(21, 100), (16, 2000)] {
        let built = by_hand::alike(bits, count).build();
        let file = folder.path().join("image");
        fs::write(&file, &built.bytes)?;
        let disk = Disk::new(folder.path().join("disk"), built.content.len() as u64)?;
        let (place, digest) = (file.display().to_string(), sha256(&built.bytes));
        let order = Order {
            image: &place,
            format: "qcow2",
            sha256: &digest,
            disk: &disk.path,
            more: &["--no-table"],
        };
        let ended = writer.write(&order)?;
        println!("clusters of 2^{bits}: peak {} KiB, baseline {baseline} KiB", ended.peak_kib);
        ended.expect_complete()?;
        disk.expect(&built.content)?;
        ensure!(ended.peak_kib <= baseline + MEMORY, "{} KiB, a plain image {baseline} KiB", ended.peak_kib);
    }
    Ok(())
}

/// Peak memory of a plain image, in KiB.
fn baseline(writer: &Writer, folder: &Path, disk: &Disk) -> Result<u64> {
    let file = folder.join("plain");
    fs::write(&file, [7; 4096])?;
    let place = file.display().to_string();
    let digest = sha256(&[7; 4096]);
    let order =
        Order { image: &place, format: "raw", sha256: &digest, disk: &disk.path, more: &["--no-table"] };
    let ended = writer.write(&order)?;
    ended.expect_complete().context("a plain image")?;
    Ok(ended.peak_kib)
}

/// The peak memory of the refusal, in KiB.
fn judge(writer: &Writer, image: &Hostile, folder: &Path, disk: &Disk, baseline: u64) -> Result<u64> {
    let file = folder.join(format!("image.{}", image.kind.ending()));
    let bytes = (image.bytes)().context("making it")?;
    fs::write(&file, &bytes)?;
    disk.fill()?;
    let digest = if image.is_digest_wrong { sha256(b"another") } else { sha256(&bytes) };
    let options: &[&str] = if image.wants_table { &[] } else { &["--no-table"] };
    let place = file.display().to_string();
    let format = image.kind.format();
    let order = Order { image: &place, format, sha256: &digest, disk: &disk.path, more: options };
    let ended = writer.write(&order)?;
    let words = ended.words.trim();
    ended.expect_refused()?;
    let has_words = words.to_lowercase().contains(&image.words.to_lowercase());
    ensure!(has_words, "'{}' is not in: {words}", image.words);
    let left = disk.left()?;
    let is_left_well = image.left.map_or(left != Left::Other, |expected| left == expected);
    ensure!(is_left_well, "the disk is {left:?}, expected {:?}: {words}", image.left);
    // The words must be true.
    let says_blank = words.contains("blanked at both ends");
    ensure!(says_blank == (left == Left::Blank), "the disk is {left:?}, it says: {words}");
    ensure!(ended.peak_kib <= baseline + MEMORY, "{} KiB, a plain image {baseline} KiB", ended.peak_kib);
    fs::remove_file(file)?;
    Ok(ended.peak_kib)
}
