//! Valid images of every kind: the disk must be what qemu-img reads and what a second reader reads, from a path, over HTTP
//! with ranges, and over HTTP without.

use anyhow::{Context, Result, ensure};
use ferric_tests::corpus::readers::{self, Second};
use ferric_tests::corpus::{self, Valid};
use ferric_tests::httpd::{Fault, Httpd};
use ferric_tests::write::{Disk, MIB, Order, Writer, same, scratch, sha256};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Rig {
    writer: Writer,
    server: Httpd,
    python: std::path::PathBuf,
    next: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

#[test]
fn the_disk_is_what_two_other_readers_read() -> Result<()> {
    let rig = Rig {
        writer: Writer::obtain()?,
        server: Httpd::start("127.0.0.1")?,
        python: readers::install()?,
        next: AtomicUsize::new(0),
        failures: Mutex::new(Vec::new()),
    };
    let images = corpus::valid();
    ensure!(images.len() >= 60, "only {} images", images.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| work(&rig, &images))).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    let failures = rig.failures.into_inner().unwrap();
    println!("{} images, {} failures", images.len(), failures.len());
    ensure!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), images.len(), failures.join("\n"));
    Ok(())
}

/// Takes images until none is left.
fn work(rig: &Rig, images: &[Valid]) -> Result<()> {
    let mut second = Second::start(&rig.python)?;
    loop {
        let nth = rig.next.fetch_add(1, Ordering::SeqCst);
        let Some(image) = images.get(nth) else { return Ok(()) };
        let folder = scratch("corpus")?;
        if let Err(error) = judge(rig, image, nth as u64, &mut second, folder.path()) {
            rig.failures.lock().unwrap().push(format!("{} ({}): {error:#}", image.name, image.kind.ending()));
        }
    }
}

fn judge(rig: &Rig, image: &Valid, nth: u64, second: &mut Second, folder: &Path) -> Result<()> {
    let known = image.make(folder).context("making it")?;
    let content = content(image, known, second, folder)?;
    let file = folder.join(format!("image.{}", image.kind.ending()));
    fs::rename(folder.join("image"), &file)?;
    let bytes = fs::read(&file)?;
    let digest = sha256(&bytes);
    let (plain, named) = (image.kind.plain_format(), image.kind.format());
    let with_ending = rig.server.offer(&format!("{nth}.{}", image.kind.ending()), &file, Fault::None);
    let without = rig.server.offer(&format!("{nth}/without-an-ending"), &file, Fault::NoRanges);
    let path = file.display().to_string();
    let ways = [
        ("from a path", path.as_str(), plain, 0),
        ("over HTTP with ranges", with_ending.as_str(), plain, 3 * MIB),
        ("over HTTP without ranges", without.as_str(), named, 0),
    ];
    for (way, place, format, more) in ways {
        // A table must fit the disk exactly: on a larger one its second copy would move.
        let more = if image.has_table { 0 } else { more };
        let disk = Disk::new(
            folder.join("disk"),
            (content.len() as u64).next_multiple_of(4096).max(2 * MIB) + more,
        )?;
        let options: &[&str] = if image.has_table { &[] } else { &["--no-table"] };
        let order = Order { image: place, format, sha256: &digest, disk: &disk.path, more: options };
        rig.writer.write(&order)?.expect_complete().context(way)?;
        disk.expect(&content).context(way)?;
    }
    Ok(())
}

/// What the disk must hold: the first reader, the second reader and, where it knows, the maker say the same.
fn content(image: &Valid, known: Option<Vec<u8>>, second: &mut Second, folder: &Path) -> Result<Vec<u8>> {
    let mut content = readers::first(image.kind, folder).context("the first reader")?;
    if let Some(known) = known {
        // qemu counts in whole sectors: it leaves out the rest of a qcow2, and fills up a raw file with zeros.
        let odd = known.len() % 512;
        if odd != 0 {
            ensure!(
                content.len().abs_diff(known.len()) < 512,
                "the first reader reads {} bytes",
                content.len()
            );
            content.truncate(known.len());
            let whole = known.len() - odd;
            if content.len() == whole {
                content.extend_from_slice(&known[whole..]);
            }
        }
        same("what the first reader reads", &content, &known)?;
    }
    let (length, digest) = second.read(image.kind, &folder.join("image")).context("the second reader")?;
    ensure!(length == content.len() as u64, "the second reader reads {length} bytes, not {}", content.len());
    ensure!(digest == sha256(&content), "the two readers read other bytes");
    Ok(content)
}
