//! The table of an image, fitted to a disk, with and without a config drive.
#![no_main]

use ferric_common::formats::gpt::Gpt;
use ferric_common::formats::mbr;
use ferric_common::units::{ByteCount, SectorSize};
use ferric_fuzz::disk::layout::{TableKind, check_table, foresee, plan};
use ferric_fuzz::{Input, right_gpt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (kind, size) = (input.byte(), input.number() >> 12);
    let sector = if kind & 3 == 0 { 4096 } else { 512 };
    let (disk, unit) = (ByteCount(size), SectorSize(sector));
    let drive = vec![0x55; usize::from(kind >> 3) * 70_000];
    let drive = (kind & 4 != 0).then_some(drive.as_slice());
    let mut head = input.0.to_vec();
    if kind & 8 != 0 {
        right_gpt(&mut head, sector as usize);
    }
    let ends = ends(&head, unit);
    let foreseen = foresee(&head, disk, unit, drive);
    // What was foreseen to fit does fit, if the whole table was at hand.
    let table = check_table(&head, disk, unit);
    let planned = plan(&mut head, disk, unit, drive);
    if foreseen.is_ok() && table.is_ok() {
        assert!(planned.is_ok(), "{planned:?}");
    }
    let (Ok(writes), Ok(kind)) = (planned, table) else { return };
    for (at, bytes) in &writes {
        assert!(at.0 + bytes.len() as u64 <= size, "a write behind the end of the disk");
        assert!(ends.iter().all(|end| at.0 >= *end), "a write into a partition of the image");
    }
    assert!(check_table(&head, disk, unit).is_ok_and(|found| found == kind));
    assert!(kind == TableKind::Gpt || writes.len() == usize::from(drive.is_some()));
});

/// Where the partitions of the image end, in bytes.
fn ends(head: &[u8], sector: SectorSize) -> Vec<u64> {
    let unit = u64::from(sector.0);
    match Gpt::parse(head, sector) {
        Ok(gpt) if mbr::is_protective(head) => {
            gpt.partitions().map(|p| p.last.saturating_add(1).saturating_mul(unit)).collect()
        }
        _ => mbr::parse(head).into_iter().flatten().map(|entry| entry.end().saturating_mul(unit)).collect(),
    }
}
