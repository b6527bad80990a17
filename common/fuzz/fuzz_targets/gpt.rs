//! GUID partition tables, with checksums as they come and made right.
#![no_main]

use ferric_common::formats::gpt::{Gpt, LINUX_DATA, Partition};
use ferric_common::units::SectorSize;
use ferric_fuzz::{Input, right_gpt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (kind, sectors) = (input.byte(), input.number());
    let sector = [512, 512, 512, 4096][usize::from(kind % 4)];
    let size = SectorSize(sector);
    let _ = Gpt::parse(input.0, size);
    let mut head = input.0.to_vec();
    right_gpt(&mut head, sector as usize);
    let Ok(mut gpt) = Gpt::parse(&head, size) else { return };
    // A disk of at most 2^48 sectors; no larger one is built.
    let sectors = sectors >> 16;
    if gpt.fit(sectors).is_err() {
        return;
    }
    assert_eq!(gpt.backup_lba(), sectors - 1);
    let before = gpt.partitions().collect::<Vec<_>>();
    assert!(before.iter().all(|p| p.first <= p.last && p.last <= gpt.last_usable()));
    let one =
        Partition { number: 0, type_guid: LINUX_DATA, guid: [7; 16], first: 5, last: 6, name: "x".into() };
    let number = gpt.add(&one);
    let (at, backup) = gpt.render_backup();
    assert_eq!(at + backup.len() as u64 / u64::from(sector), sectors);
    gpt.render_primary(&mut head);
    let again = Gpt::parse(&head, size).unwrap();
    let after = again.partitions().collect::<Vec<_>>();
    assert_eq!(after.len(), before.len() + usize::from(number.is_ok()));
    assert!(before.iter().all(|partition| after.contains(partition)));
});
