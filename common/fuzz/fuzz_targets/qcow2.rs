//! Headers and tables of qcow2: a walk through them in both ways shows the same disk, inside the file, or the same fault.
#![no_main]

use ferric_common::formats::qcow2::{Extent, ExtentKind, Header, Planner, Snapshots, Step};
use libfuzzer_sys::fuzz_target;

/// Extents after which a walk is stopped.
const MOST: usize = 20_000;

fuzz_target!(|data: &[u8]| {
    let length = data.len() as u64;
    let Ok(header) = Header::parse(&data[..data.len().min(1 << 16)], length) else { return };
    snapshots(data, &header);
    let one = walk(data, &header, Planner::new(&header, length));
    let other = walk(data, &header, Planner::following(&header, length));
    match (one, other) {
        (Some(one), Some(other)) => assert_eq!(joined(&one), joined(&other)),
        (one, other) => assert_eq!(one.is_some(), other.is_some()),
    }
});

/// The snapshot table: by what is asked for, and by all that passes.
fn snapshots(data: &[u8], header: &Header) {
    let length = data.len() as u64;
    let mut asked = Snapshots::new(header, length);
    let mut ended = Ok(());
    while let (Some(range), Ok(())) = (asked.need(), &ended) {
        assert!(range.start < range.end && range.end - range.start <= 1 << 20);
        ended = asked.pass(range.start, &data[range.start as usize..range.end as usize]);
    }
    for size in [7, 4096] {
        let mut passed = Snapshots::new(header, length);
        let mut pieces = (0..).zip(data.chunks(size));
        let seen = pieces.try_for_each(|(nth, piece)| passed.pass((nth * size) as u64, piece));
        assert_eq!(seen, ended);
        assert!(ended.is_err() || passed.need().is_none());
    }
}

/// The extents of the disk; `None` where the image is refused.
fn walk(file: &[u8], header: &Header, mut planner: Planner) -> Option<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    while let Step::Need(range) = planner.step() {
        assert!(range.start < range.end && range.end - range.start <= 4 << 20);
        let bytes = &file[range.start as usize..range.end as usize];
        let taken = planner.supply(bytes, &mut |extent| {
            extents.push(extent);
            extents.len() < MOST
        });
        taken.ok()?;
        if extents.len() >= MOST {
            break;
        }
    }
    let mut end = 0;
    for extent in &extents {
        assert!(extent.guest >= end && extent.length > 0, "out of order: {extent:?}");
        end = extent.guest.checked_add(extent.length).unwrap();
        let stored = match extent.kind {
            ExtentKind::Plain => extent.length,
            ExtentKind::Compressed { stored } => {
                assert!(extent.length <= header.cluster_size());
                u64::from(stored)
            }
        };
        assert!(
            extent.host.checked_add(stored).is_some_and(|end| end <= file.len() as u64),
            "outside: {extent:?}"
        );
    }
    assert!(end <= header.virtual_size().0);
    Some(extents)
}

/// The same extents with neighbours joined, up to where a stopped walk may have been cut.
fn joined(extents: &[Extent]) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last)
                if (last.kind, extent.kind) == (ExtentKind::Plain, ExtentKind::Plain)
                    && last.guest + last.length == extent.guest
                    && last.host + last.length == extent.host =>
            {
                last.length += extent.length;
            }
            _ => joined.push(*extent),
        }
    }
    if extents.len() >= MOST {
        joined.clear();
    }
    joined
}
