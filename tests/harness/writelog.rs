//! Reads the log of a disk that QEMU's `blklogwrites` wrote.
//!
//! The format is that of Linux's `dm-log-writes` (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock in the
//! first sector, then for each entry a sector with its header, and the data where there is any. All numbers are little-endian.

use crate::powercut::Entry;
use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Sectors of the disk are counted in these, whatever the log's own sectors are.
const UNIT: usize = 512;

/// The entries of a log, in order.
///
/// Entries are read up to the end of the file: the number in the superblock lags behind when QEMU is killed. A last entry that
/// was cut short is left out.
///
/// # Errors
/// It is no log, or of another kind than QEMU writes.
pub fn parse(log: &[u8]) -> Result<Vec<Entry<'_>>> {
    if log.is_empty() {
        // QEMU makes the superblock when something happens for the first time.
        return Ok(Vec::new());
    }
    ensure!(number(log, 0)? == MAGIC, "the log does not begin with the magic of dm-log-writes");
    ensure!(number(log, 8)? == VERSION, "version {} of the log's format is not known", number(log, 8)?);
    let sector = usize::try_from(number(log, 24)? & 0xffff_ffff)?;
    ensure!(sector == UNIT, "the log has sectors of {sector} bytes; it should be made with {UNIT}");
    let (mut entries, mut at) = (Vec::new(), sector);
    while log.len() >= at + sector {
        let field = |n: usize| number(log, at + n * 8);
        let (place, count, flags) = (usize::try_from(field(0)?)?, usize::try_from(field(1)?)?, field(2)?);
        ensure!(
            flags & !(FLUSH | DISCARD) == 0,
            "the entry at byte {at} of the log has the flags {flags:#x}"
        );
        ensure!(field(3)? == 0, "the entry at byte {at} of the log is a mark");
        let (place, length) = (place * UNIT, count * UNIT);
        at += sector;
        if flags & DISCARD != 0 {
            entries.push(Entry::Zero { at: place, length });
        } else if length > 0 {
            let Some(bytes) = log.get(at..at + length) else { break };
            entries.push(Entry::Write { at: place, bytes });
            at += length;
        }
        if flags & FLUSH != 0 {
            entries.push(Entry::Flush);
        }
    }
    Ok(entries)
}

fn number(log: &[u8], at: usize) -> Result<u64> {
    let bytes = log.get(at..).and_then(|rest| rest.first_chunk::<8>());
    Ok(u64::from_le_bytes(*bytes.context("the log is cut short")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::call;
    use std::fs::{self, File};

    #[test]
    fn what_qemu_wrote_is_read() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (disk, log) = (folder.path().join("disk"), folder.path().join("log"));
        File::create(&disk)?.set_len(1 << 20)?;
        File::create(&log)?;
        let options = format!(
            "driver=blklogwrites,discard=unmap,log-sector-size=512,file.driver=file,file.filename={},\
             file.discard=unmap,log.driver=file,log.filename={}",
            disk.display(),
            log.display()
        );
        let commands =
            ["write -P 1 4k 1k", "flush", "write -z 8k 1k", "discard 64k 64k", "write -P 2 512 512"];
        let mut arguments = vec!["--image-opts"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        arguments.push(&options);
        call("qemu-io", &arguments)?;
        let log = fs::read(&log)?;
        let mut entries = parse(&log)?;
        // qemu-io flushes when it ends.
        while entries.len() > 5 && entries.last() == Some(&Entry::Flush) {
            entries.pop();
        }
        let expected = [
            Entry::Write { at: 4096, bytes: &[1; 1024] },
            Entry::Flush,
            Entry::Write { at: 8192, bytes: &[0; 1024] },
            Entry::Zero { at: 65536, length: 65536 },
            Entry::Write { at: 512, bytes: &[2; 512] },
        ];
        assert_eq!(entries, expected);
        let cut = log.len() - log.len() % 512 - 512;
        assert!(parse(&log[..cut])?.len() >= 4);
        assert!(parse(&log[512..]).is_err());
        assert!(parse(&[0; 24]).is_err());
        assert_eq!(parse(&[])?, []);
        Ok(())
    }
}
