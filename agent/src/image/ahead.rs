//! Zeroing ahead of the stream, where the server has no ranges.
//!
//! There the tables come with the data, so most gaps of a disk image are known only near the file's end, and zeroing them
//! then would be waited for. So the disk is zeroed from its end downwards, piece by piece, as far as nothing was dealt out
//! there yet; and no sooner than it must be to have all zeroed when the stream ends, as what turns out to be data was
//! zeroed in vain. Where much does, as in an image whose clusters lie in random order, it stops.

use super::queue::Stop;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of data in zeroed places that are always borne; more only up to a quarter of what was zeroed.
const IN_VAIN: u64 = 64 << 20;

struct State {
    /// Everything that was dealt out lies below, or in what is zeroed already.
    dealt: u64,
    /// From here to the end of the range everything was zeroed, before any data was written there.
    floor: u64,
    at_work: Option<Range<u64>>,
    end: u64,
    in_vain: u64,
    given_up: bool,
}

/// So many times faster than it must be is what is aimed at: the stream and its data hinder it, and it them.
const MARGIN: u32 = 6;

/// What to do ahead of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// To be zeroed now, and followed by [`Ahead::end`].
    Zero(Range<u64>),
    /// The stream will last much longer than zeroing all that is left.
    Later,
    Never,
}

/// Which part of a disk is zeroed ahead. One thread zeroes, one deals out.
pub struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
}

impl Ahead {
    /// Of this range of the disk; whole pieces only.
    pub fn over(range: Range<u64>) -> Ahead {
        let (dealt, end) = (range.start.min(range.end), range.end);
        let state = State { dealt, floor: end, at_work: None, end, in_vain: 0, given_up: false };
        Ahead { state: Mutex::new(state), changed: Condvar::new() }
    }
    /// Where everything is known beforehand, or nothing ever.
    pub fn nothing() -> Ahead {
        Ahead::over(u64::MAX..u64::MAX)
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `step` bytes to zero, if nothing was dealt out there. `left` is the time until the stream ends, `needed`
    /// that of zeroing so many bytes; what is not known is `None`.
    pub fn begin(&self, step: u64, left: Option<Duration>, needed: impl Fn(u64) -> Option<Duration>) -> Next {
        let mut state = self.state();
        let Some(start) = state.floor.checked_sub(step).filter(|start| *start >= state.dealt) else {
            return Next::Never;
        };
        let borne = IN_VAIN.max((state.end - state.floor) / 4);
        if state.given_up || state.in_vain > borne {
            return Next::Never;
        }
        if let Some(needed) = needed(state.floor - state.dealt)
            && left.is_none_or(|left| needed * MARGIN < left)
        {
            return Next::Later;
        }
        let range = start..state.floor;
        state.at_work = Some(range.clone());
        Next::Zero(range)
    }
    /// What was begun is zero now, or could not be zeroed: then nothing is tried any more.
    pub fn end(&self, done: bool) {
        let mut state = self.state();
        match state.at_work.take() {
            Some(range) if done => state.floor = range.start,
            _ => state.given_up = true,
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Data is dealt out for these places: waits until none of them is just being zeroed.
    pub fn data(&self, ranges: impl Iterator<Item = Range<u64>>, stop: &Stop) {
        let mut state = self.state();
        let (mut first, mut last) = (u64::MAX, 0);
        for range in ranges {
            state.in_vain += range.end.saturating_sub(range.start.max(state.floor));
            (first, last) = (first.min(range.start), last.max(range.end));
        }
        state.deal(&(first..last));
        while state.at_work.as_ref().is_some_and(|work| work.start < last && first < work.end) {
            if stop.is_set() {
                return;
            }
            // Bounded, since a stop is not signalled through this condition.
            let waited = self.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
    /// A range that reads as zeros is dealt out.
    pub fn gap(&self, range: &Range<u64>) {
        self.state().deal(range);
    }
    /// The part of this range that is zero already. For the thread that zeroes.
    pub fn made(&self, range: &Range<u64>) -> Range<u64> {
        let state = self.state();
        let start = state.floor.clamp(range.start, range.end);
        start..state.end.clamp(start, range.end)
    }
}

impl State {
    fn deal(&mut self, range: &Range<u64>) {
        if range.start < self.floor {
            self.dealt = self.dealt.max(range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const MIB: u64 = 1 << 20;

    fn data(ahead: &Ahead, range: Range<u64>) {
        ahead.data(std::iter::once(range), &Stop::default());
    }
    /// What is begun when there is no time to lose.
    fn begin(ahead: &Ahead, step: u64) -> Option<Range<u64>> {
        match ahead.begin(step, Some(Duration::ZERO), |_| Some(Duration::from_secs(1))) {
            Next::Zero(range) => Some(range),
            Next::Never => None,
            Next::Later => panic!("not later"),
        }
    }

    #[test]
    fn it_goes_down_from_the_end_to_what_was_dealt_out() {
        let ahead = Ahead::over(MIB..100 * MIB);
        data(&ahead, 5 * MIB..30 * MIB);
        ahead.gap(&(30 * MIB..41 * MIB));
        let mut begun = Vec::new();
        while let Some(range) = begin(&ahead, 20 * MIB) {
            begun.push(range.start / MIB..range.end / MIB);
            ahead.end(true);
        }
        assert_eq!(begun, [80..100, 60..80]);
        assert_eq!(ahead.made(&(50 * MIB..70 * MIB)), 60 * MIB..70 * MIB);
        assert!(ahead.made(&(41 * MIB..50 * MIB)).is_empty());
        assert_eq!(ahead.made(&(90 * MIB..95 * MIB)), 90 * MIB..95 * MIB);
        // What lies behind its end is nobody's.
        assert_eq!(ahead.made(&(90 * MIB..105 * MIB)), 90 * MIB..100 * MIB);
        assert!(ahead.made(&(101 * MIB..105 * MIB)).is_empty());
    }

    #[test]
    fn what_is_zero_already_may_be_dealt_out_and_the_rest_goes_on() {
        let ahead = Ahead::over(0..100 * MIB);
        assert_eq!(begin(&ahead, 10 * MIB), Some(90 * MIB..100 * MIB));
        ahead.end(true);
        data(&ahead, 95 * MIB..96 * MIB);
        ahead.gap(&(96 * MIB..99 * MIB));
        assert_eq!(begin(&ahead, 10 * MIB), Some(80 * MIB..90 * MIB));
    }

    #[test]
    fn it_ends_where_much_was_in_vain_or_the_disk_cannot() {
        let ahead = Ahead::over(0..1000 * MIB);
        begin(&ahead, 100 * MIB).unwrap();
        ahead.end(true);
        data(&ahead, 900 * MIB..965 * MIB);
        assert_eq!(begin(&ahead, 100 * MIB), None);

        let ahead = Ahead::over(0..1000 * MIB);
        begin(&ahead, 100 * MIB).unwrap();
        ahead.end(false);
        assert_eq!(begin(&ahead, 100 * MIB), None);
        assert!(ahead.made(&(0..1000 * MIB)).is_empty());
        assert_eq!(begin(&Ahead::nothing(), 1), None);
    }

    #[test]
    fn it_begins_when_the_stream_leaves_no_more_than_six_times_the_time_it_needs() {
        let ahead = Ahead::over(0..100 * MIB);
        let speed = |bytes: u64| Some(Duration::from_millis(bytes / MIB));
        let next = |left| ahead.begin(10 * MIB, Some(Duration::from_millis(left)), speed);
        assert_eq!(next(601), Next::Later);
        assert_eq!(next(600), Next::Zero(90 * MIB..100 * MIB));
        ahead.end(true);
        // 90 are left, of which 20 are known.
        data(&ahead, 10 * MIB..20 * MIB);
        assert_eq!(next(421), Next::Later);
        assert_eq!(next(420), Next::Zero(80 * MIB..90 * MIB));
        ahead.end(true);
        // Nobody knows how long the stream lasts before its first bytes; how fast the disk is, only a first piece shows.
        assert_eq!(ahead.begin(10 * MIB, None, speed), Next::Later);
        assert_eq!(ahead.begin(10 * MIB, None, |_| None), Next::Zero(70 * MIB..80 * MIB));
    }

    #[test]
    fn data_waits_for_the_piece_that_is_being_zeroed_and_for_no_other() {
        let ahead = Ahead::over(0..100 * MIB);
        begin(&ahead, 10 * MIB).unwrap();
        data(&ahead, 10 * MIB..90 * MIB);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                data(&ahead, 99 * MIB..100 * MIB);
                ahead.made(&(0..100 * MIB)).start
            });
            std::thread::yield_now();
            ahead.end(true);
            // It saw the end, so it had waited for it.
            assert_eq!(waiter.join().unwrap(), 90 * MIB);
        });
    }
}
