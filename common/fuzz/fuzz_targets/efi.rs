//! Firmware's boot variables and the partition table that a boot entry is made of.
#![no_main]

use ferric_common::units::SectorSize;
use ferric_fuzz::bootloader::entry::{Entry, description};
use ferric_fuzz::bootloader::plan::{self, Change};
use ferric_fuzz::bootloader::table;
use ferric_fuzz::{Input, right_gpt};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut existing = BTreeMap::new();
    for _ in 0..input.byte() % 5 {
        let number = input.byte();
        existing.insert(u16::from(number), input.part().to_vec());
    }
    let _ = plan::number(&input.text());
    let (order, title) = (input.part(), input.text());
    let sector = if input.byte() % 4 == 0 { 4096 } else { 512 };
    let mut head = input.0.to_vec();
    right_gpt(&mut head, sector as usize);
    let Ok(Some(place)) = table::system_partition(&head, SectorSize(sector)) else { return };
    let entry = Entry { description: title, place, loader: "\\EFI\\BOOT\\BOOTX64.EFI".into() };
    let encoded = entry.encode();
    assert!(description(&encoded).is_some());
    let changes = plan::plan(&existing, order, &[entry]).unwrap();
    // After the changes there is nothing left to change.
    let mut order = order.to_vec();
    for change in changes {
        match change {
            Change::Write(name, bytes) if name == plan::ORDER => order = bytes,
            Change::Write(name, bytes) => drop(existing.insert(plan::number(&name).unwrap(), bytes)),
            Change::Remove(name) => drop(existing.remove(&plan::number(&name).unwrap())),
        }
    }
    assert!(existing.values().any(|bytes| *bytes == encoded));
    assert!(order.len() >= 2);
});
