//! Every state in which a machine could wake up after a power cut, as far as the log of a disk tells, and whether any of
//! them would boot something that was not proven. Pure; for logs of disks in memory and of machines alike.
//!
//! What was written before a flush is on the disk; of what came after it any part may be: each write whole, torn at
//! sectors, or not at all. Where two overlap, the later one wins.

use ferric_common::formats::gpt::{Gpt, crc32};
use ferric_common::units::SectorSize;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes at each end in which tables stand.
const TABLE: usize = 64 << 10;
/// Bytes at the disk's start that the agent holds back; all behind them must be there before anything boots.
const HELD: usize = 1 << 20;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// So many open writes are tried in every combination.
const FEW: usize = 10;

/// One thing that happened to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Write {
        at: usize,
        bytes: &'a [u8],
    },
    /// Zeroed or discarded.
    Zero {
        at: usize,
        length: usize,
    },
    Flush,
}

impl<'a> Entry<'a> {
    fn range(&self) -> std::ops::Range<usize> {
        match self {
            Entry::Write { at, bytes } => *at..at + bytes.len(),
            Entry::Zero { at, length } => *at..at + length,
            Entry::Flush => 0..0,
        }
    }
    /// The bytes from `from` to `to` of the disk; `None`: zeros.
    fn bytes(&self, from: usize, to: usize) -> Option<&'a [u8]> {
        match self {
            Entry::Write { at, bytes } => bytes.get(from - at..to - at),
            _ => None,
        }
    }
    fn is_zeros(&self) -> bool {
        match self {
            Entry::Write { bytes, .. } => bytes.iter().all(|b| *b == 0),
            _ => true,
        }
    }
    /// Puts what lies in `window`, which begins at `from`, into it; `lands` says which sectors of the write are there.
    fn apply(&self, window: &mut [u8], from: usize, lands: &dyn Fn(usize) -> bool) {
        let range = self.range();
        let (mut at, end) = (range.start.max(from), range.end.min(from + window.len()));
        while at < end {
            let next = (at / SECTOR * SECTOR + SECTOR).min(end);
            if lands((at - range.start) / SECTOR)
                && let Some(place) = window.get_mut(at - from..next - from)
            {
                match self.bytes(at, next) {
                    Some(bytes) => place.copy_from_slice(bytes),
                    None => place.fill(0),
                }
            }
            at = next;
        }
    }
    fn touches(&self, from: usize, to: usize) -> bool {
        let range = self.range();
        range.start < to && from < range.end
    }
}

/// How much of each open write is on the disk.
#[derive(Clone, Copy, Debug)]
enum Subset {
    /// The writes whose bit is set, whole.
    Whole(u64),
    /// Any sectors of any writes, by this seed.
    Torn(u64),
}

impl Subset {
    fn lands(self, nth: usize, sector: usize) -> bool {
        match self {
            // More than 64 open writes are told apart by a seed.
            Subset::Whole(bits) if nth < 64 => bits >> nth & 1 == 1,
            Subset::Whole(seed) => mixed(seed ^ nth as u64) & 1 == 1,
            Subset::Torn(seed) => mixed(seed ^ ((nth as u64) << 32 | sector as u64)) & 1 == 1,
        }
    }
}

/// SplitMix64.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What a log must show.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// The disk when all went well; `None`: it must never boot.
    pub right: Option<&'a [u8]>,
    /// Bytes of a sector, as the partition table counts them.
    pub sector: usize,
    /// Random subsets judged after each entry, in each of both kinds.
    pub samples: u64,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub states: usize,
    /// States that boot; each was the right disk.
    pub bootable: usize,
    pub entries: usize,
    pub flushes: usize,
}

/// Judges all states of a log over what the disk held before.
///
/// Until the first writes were flushed the old system may boot, as nothing but zeros at its ends is under way.
///
/// # Errors
/// The first state that boots and must not: where in the log, and what is wrong with it.
pub fn judge(old: &[u8], log: &[Entry<'_>], rule: Rule<'_>) -> Result<Judged, String> {
    let mut disk = Disk::new(old.to_vec(), rule);
    let mut open: Vec<Entry<'_>> = Vec::new();
    let (mut judged, mut begun) = (Judged { entries: log.len(), ..Judged::default() }, false);
    for (position, entry) in log.iter().enumerate() {
        if *entry == Entry::Flush {
            begun |= !open.is_empty();
            judged.flushes += 1;
            open.drain(..).for_each(|write| disk.settle(&write));
        } else {
            let range = entry.range();
            if range.end > old.len() || range.start % SECTOR + range.end % SECTOR != 0 {
                return Err(format!(
                    "entry {position} of the log is not whole sectors of the disk: {range:?}"
                ));
            }
            open.push(*entry);
        }
        if !begun {
            judged.states += 1;
            match open.iter().all(Entry::is_zeros) {
                true => continue,
                false => return Err(format!("entry {position} is written before both ends are blank")),
            }
        }
        for subset in subsets(&open, position, rule.samples) {
            judged.states += 1;
            let boots = disk.judge(&open, subset);
            let boots = boots
                .map_err(|what| format!("after entry {position} of {}, {subset:?}: {what}", log.len()))?;
            judged.bootable += usize::from(boots);
        }
    }
    Ok(judged)
}

/// The subsets of the open writes that are judged: all of few, some of many; and torn ones. None twice.
fn subsets(open: &[Entry<'_>], position: usize, samples: u64) -> Vec<Subset> {
    let seed = |n: u64| mixed(n << 32 | position as u64);
    let mut whole = match open.len() {
        0 => return vec![Subset::Whole(0)],
        count @ 1..=FEW => (0..1 << count).collect::<Vec<u64>>(),
        // None, all, and any.
        count => {
            [0, u64::MAX].into_iter().chain((0..samples).map(seed)).map(|bits| bits & mask(count)).collect()
        }
    };
    whole.sort_unstable();
    whole.dedup();
    let sectors = open.iter().map(|write| write.range().len().div_ceil(SECTOR)).sum::<usize>();
    let torn = (samples..2 * samples).map(|n| Subset::Torn(seed(n)));
    let all = whole.into_iter().map(Subset::Whole).chain(torn);
    // Of more sectors than these no two samples are alike.
    if sectors > 64 {
        return all.collect();
    }
    let mut seen = BTreeSet::new();
    all.filter(|subset| seen.insert(landed(open, *subset))).collect()
}

/// The lowest bits, so many as there are writes; all, where writes are told apart by a seed.
fn mask(writes: usize) -> u64 {
    1_u64.checked_shl(u32::try_from(writes).unwrap_or(u32::MAX)).map_or(u64::MAX, |bit| bit - 1)
}

/// A bit for each sector of at most 64: whether it is there.
fn landed(open: &[Entry<'_>], subset: Subset) -> u64 {
    let sectors = open.iter().enumerate().flat_map(|(nth, write)| {
        (0..write.range().len().div_ceil(SECTOR)).map(move |sector| subset.lands(nth, sector))
    });
    sectors.fold(0, |bits, lands| bits << 1 | u64::from(lands))
}

/// What is surely on the disk, and how it differs from what it should become.
struct Disk<'a> {
    rule: Rule<'a>,
    base: Vec<u8>,
    /// By sector: whether it is not yet what it should become; and how many are not, in the held start and behind it.
    differs: Vec<bool>,
    wrong: [usize; 2],
    /// Whether `base` alone boots.
    boots: bool,
}

impl<'a> Disk<'a> {
    fn new(base: Vec<u8>, rule: Rule<'a>) -> Disk<'a> {
        let sectors = base.len().div_ceil(SECTOR);
        let mut disk = Disk { rule, base, differs: vec![false; sectors], wrong: [0, 0], boots: false };
        disk.look(0..sectors);
        disk
    }

    /// Compares sectors of `base` with the right disk anew.
    fn look(&mut self, sectors: std::ops::Range<usize>) {
        for sector in sectors {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.base.len()));
            let right = self.rule.right.and_then(|right| right.get(from..to));
            let differs = right.is_some_and(|right| self.base.get(from..to) != Some(right));
            let (Some(before), Some(count)) =
                (self.differs.get_mut(sector), self.wrong.get_mut(usize::from(from >= HELD)))
            else {
                continue;
            };
            *count = *count + usize::from(differs) - usize::from(*before);
            *before = differs;
        }
        let (head, end) = (self.window(0, &[]), self.window(self.base.len().saturating_sub(TABLE), &[]));
        self.boots = boots(&head, &end, self.rule.sector);
    }

    /// A write is on the disk for good.
    fn settle(&mut self, write: &Entry<'_>) {
        write.apply(&mut self.base, 0, &|_| true);
        let range = write.range();
        self.look(range.start / SECTOR..range.end.div_ceil(SECTOR));
    }

    /// A table's worth of bytes from `from`, with what landed of the writes.
    fn window(&self, from: usize, landed: &[(usize, &Entry<'_>, Subset)]) -> Vec<u8> {
        let to = (from + TABLE).min(self.base.len());
        let mut bytes = self.base.get(from..to).unwrap_or_default().to_vec();
        for (nth, write, subset) in landed.iter().filter(|(_, write, _)| write.touches(from, to)) {
            write.apply(&mut bytes, from, &|sector| subset.lands(*nth, sector));
        }
        bytes
    }

    /// Whether this state boots.
    ///
    /// # Errors
    /// It boots, but is not the right disk.
    fn judge(&self, open: &[Entry<'_>], subset: Subset) -> Result<bool, String> {
        let size = self.base.len();
        let late = size.saturating_sub(TABLE);
        let landed = open.iter().enumerate().map(|(nth, write)| (nth, write, subset)).collect::<Vec<_>>();
        let at_ends = open.iter().any(|write| write.touches(0, TABLE) || write.touches(late, size));
        let head = self.window(0, &landed);
        let boots_now =
            if at_ends { boots(&head, &self.window(late, &landed), self.rule.sector) } else { self.boots };
        if !boots_now {
            return Ok(false);
        }
        let Some(right) = self.rule.right else { return Err("it boots what was refused".into()) };
        let [held, body] = self.wrong_with(open, subset, right);
        if body > 0 {
            return Err(format!("it boots, but {body} sectors behind the first MiB are not right"));
        }
        if has_boot_sector(&head) && held > 0 {
            return Err(format!("it has a boot sector, but {held} sectors of the first MiB are not right"));
        }
        Ok(true)
    }

    /// Wrong sectors in the held start and behind it, with what landed of the writes.
    fn wrong_with(&self, open: &[Entry<'_>], subset: Subset, right: &[u8]) -> [usize; 2] {
        let mut landed: BTreeMap<usize, Option<&[u8]>> = BTreeMap::new();
        for (nth, write) in open.iter().enumerate() {
            let range = write.range();
            for (inside, at) in range.clone().step_by(SECTOR).enumerate() {
                if subset.lands(nth, inside) {
                    landed.insert(at, write.bytes(at, (at + SECTOR).min(range.end)));
                }
            }
        }
        let mut wrong = self.wrong;
        for (at, bytes) in landed {
            let Some(count) = wrong.get_mut(usize::from(at >= HELD)) else { continue };
            let should = right.get(at..(at + SECTOR).min(right.len())).unwrap_or_default();
            let is_right = match bytes {
                Some(bytes) => bytes == should,
                None => should.iter().all(|b| *b == 0),
            };
            let was_wrong = self.differs.get(at / SECTOR).copied().unwrap_or(false);
            *count = *count + usize::from(!is_right) - usize::from(was_wrong);
        }
        wrong
    }
}

fn has_boot_sector(head: &[u8]) -> bool {
    head.get(510..512) == Some(&[0x55, 0xaa])
}

/// Whether some firmware would find something to boot on a disk with these ends: a boot sector, or either GPT.
pub fn boots(head: &[u8], end: &[u8], sector: usize) -> bool {
    let size = SectorSize(u32::try_from(sector).unwrap_or(512));
    has_boot_sector(head) || Gpt::parse(head, size).is_ok() || backup_is_valid(end, sector)
}

fn backup_is_valid(end: &[u8], sector: usize) -> bool {
    let Some((before, header)) = end.split_last_chunk_of(sector) else { return false };
    let Some((_, array)) = before.split_last_chunk_of(16384) else { return false };
    let Some(mut copy) = header.get(..92).map(<[u8]>::to_vec) else { return false };
    copy.get_mut(16..20).unwrap_or_default().fill(0);
    header.starts_with(b"EFI PART")
        && header.get(16..20) == Some(&crc32(&copy).to_le_bytes())
        && header.get(88..92) == Some(&crc32(array).to_le_bytes())
}

trait SplitLast {
    fn split_last_chunk_of(&self, count: usize) -> Option<(&[u8], &[u8])>;
}

impl SplitLast for [u8] {
    fn split_last_chunk_of(&self, count: usize) -> Option<(&[u8], &[u8])> {
        self.split_at_checked(self.len().checked_sub(count)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4 << 20;
    const ONES: [u8; 4096] = [1; 4096];
    const ZEROS: [u8; 4096] = [0; 4096];

    /// A first block with a boot sector.
    fn block() -> [u8; 4096] {
        let mut block = [7; 4096];
        block[510..512].copy_from_slice(&[0x55, 0xaa]);
        block
    }

    fn put(at: usize, bytes: &[u8]) -> Entry<'_> {
        Entry::Write { at, bytes }
    }

    /// A disk that held an old system and becomes a boot sector and a body.
    fn run(log: &[Entry<'_>], right: bool) -> Result<Judged, String> {
        let old = [&block()[..], &[9; SIZE - 4096]].concat();
        let mut now = old.clone();
        now[..4096].copy_from_slice(&block());
        now[2 << 20..(2 << 20) + 4096].copy_from_slice(&ONES);
        judge(&old, log, Rule { right: right.then_some(&now), sector: 512, samples: 8 })
    }

    #[test]
    fn the_right_order_boots_whole_or_not_at_all() {
        let block = block();
        let log = [
            put(0, &ZEROS),
            Entry::Flush,
            put(2 << 20, &ONES),
            Entry::Flush,
            put(512, &block[512..]),
            Entry::Flush,
            put(0, &block[..512]),
            Entry::Flush,
        ];
        let judged = run(&log, true).unwrap();
        assert_eq!((judged.entries, judged.flushes), (8, 4));
        // The last write alone makes it boot, as it is one sector; and for good when it is flushed.
        assert!(judged.bootable == 2 && judged.states > 20, "{judged:?}");
        assert_eq!(run(&log[..6], false).unwrap().bootable, 0);
        assert!(run(&log, false).unwrap_err().contains("boots what was refused"));
    }

    #[test]
    fn no_state_is_counted_twice() {
        // One sector is there or not, two of them make four states, whatever the samples.
        for (log, states) in [(&[put(0, &ONES[..512])][..], 2), (&[put(0, &ONES[..1024])], 4)] {
            assert_eq!(subsets(log, 7, 100).len(), states);
        }
        assert_eq!(subsets(&[put(0, &ONES), put(4096, &ONES)], 7, 100).len(), 104);
        assert_eq!(mask(3), 7);
        assert_eq!((mask(64), mask(65)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_missing_flush_is_found() {
        let block = block();
        let all =
            [put(2 << 20, &ONES), Entry::Flush, put(512, &block[512..]), Entry::Flush, put(0, &block[..512])];
        let without = |gone: &[usize]| {
            let rest = all.iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, entry)| *entry);
            run(&[put(0, &ZEROS), Entry::Flush].into_iter().chain(rest).collect::<Vec<_>>(), true)
        };
        without(&[]).unwrap();
        // One flush of two is enough for the body, the second one is for the head.
        without(&[1]).unwrap();
        assert!(without(&[3]).unwrap_err().contains("of the first MiB"));
        assert!(without(&[1, 3]).unwrap_err().contains("behind the first MiB"));
        assert!(without(&[0]).unwrap_err().contains("behind the first MiB"));
    }

    #[test]
    fn a_write_before_the_ends_are_blank_is_found() {
        let log = [put(2 << 20, &ONES), put(0, &ZEROS), Entry::Flush];
        assert!(run(&log, true).unwrap_err().contains("before both ends are blank"));
        // A flush of nothing begins nothing.
        assert!(run(&[Entry::Flush, log[0]], true).unwrap_err().contains("before both ends are blank"));
    }

    #[test]
    fn a_torn_head_is_found() {
        let block = block();
        let log =
            [put(0, &ZEROS), Entry::Flush, put(2 << 20, &ONES), Entry::Flush, put(0, &block), Entry::Flush];
        let error = run(&log, true).unwrap_err();
        assert!(error.contains("Torn") && error.contains("of the first MiB"), "{error}");
    }

    #[test]
    fn zeroing_counts_as_writing() {
        let log = [Entry::Zero { at: 0, length: 4096 }, Entry::Flush];
        let judged = run(&log, true).unwrap();
        assert_eq!((judged.states, judged.bootable), (2, 0));
        assert!(run(&[Entry::Zero { at: SIZE, length: 1 }], true).unwrap_err().contains("not whole sectors"));
    }
}
