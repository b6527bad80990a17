//! Progress out, cancellation in: the two cells that the pipeline shares with whoever started it.

use ferric_common::events::Progress;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The rate is taken over so long; what stands still for as long has none.
const WINDOW: Duration = Duration::from_secs(3);
/// Two points by which it is taken are so far apart at least.
const GRAIN: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    latest: Progress,
    started: Option<Instant>,
    /// When how many bytes had been received. The first is the last one before the window, if there is one.
    points: VecDeque<(Instant, u64)>,
    /// When the last byte came.
    moved: Option<Instant>,
    /// The note that is shown again when the trouble is over.
    calm: Option<String>,
}

impl State {
    fn received(&mut self, bytes: u64, now: Instant) {
        self.latest.bytes_done = bytes;
        self.moved = Some(now);
        if self.points.back().is_some_and(|(then, _)| now.duration_since(*then) < GRAIN) {
            return;
        }
        self.points.push_back((now, bytes));
        while self.points.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= WINDOW) {
            self.points.pop_front();
        }
    }
    /// Bytes a second over the window that ends now.
    fn rate(&self, now: Instant) -> u64 {
        let is_before = |then: &Instant| now.duration_since(*then) >= WINDOW;
        if self.moved.is_none_or(|then| is_before(&then)) {
            return 0;
        }
        let begun = self.points.iter().rev().find(|(then, _)| is_before(then)).or(self.points.front());
        let Some((then, before)) = begun else { return 0 };
        let millis = u64::try_from(now.duration_since(*then).as_millis()).unwrap_or(u64::MAX).max(1);
        self.latest.bytes_done.saturating_sub(*before).saturating_mul(1000) / millis
    }
    fn forget_rate(&mut self) {
        self.points.clear();
        self.moved = None;
    }
}

/// The latest progress; older ones are forgotten.
#[derive(Clone, Default)]
pub struct ProgressCell(Arc<Mutex<State>>);

impl ProgressCell {
    /// As it is now: a transfer that stands still loses its rate without a word of the pipeline.
    pub fn latest(&self) -> Progress {
        let (state, now) = (self.state(), Instant::now());
        let mut latest = state.latest.clone();
        if let Some(started) = state.started {
            latest.seconds = now.duration_since(started).as_secs();
        }
        if !state.points.is_empty() {
            latest.rate = state.rate(now);
        }
        latest
    }
    /// What other work than the pipeline's says of itself.
    pub fn set(&self, progress: Progress) {
        let mut state = self.state();
        state.forget_rate();
        state.latest = progress;
    }
    pub(super) fn begin(&self, stage: &str) {
        let mut state = self.state();
        state.started.get_or_insert_with(Instant::now);
        state.forget_rate();
        state.calm = None;
        state.latest =
            Progress { stage: stage.into(), note: state.latest.note.clone(), ..Progress::default() };
    }
    pub(super) fn stage(&self, stage: &str) {
        let mut state = self.state();
        state.latest.stage = stage.into();
        state.latest.note.clear();
        state.calm = None;
    }
    pub(super) fn note(&self, note: &str) {
        let mut state = self.state();
        state.latest.note = note.into();
        state.calm = None;
    }
    /// Notes what went wrong, until [`ProgressCell::mended`].
    pub(super) fn trouble(&self, note: &str) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.latest.note, note.into());
        state.calm.get_or_insert(before);
    }
    /// The trouble is over: what was noted before stands there again.
    pub(super) fn mended(&self) {
        let mut state = self.state();
        if let Some(note) = state.calm.take() {
            state.latest.note = note;
        }
    }
    pub(super) fn total(&self, total: Option<u64>) {
        self.state().latest.bytes_total = total;
    }
    /// Bytes written so far; said by several threads, so the most counts.
    pub(super) fn written(&self, bytes: u64) {
        let mut state = self.state();
        state.latest.bytes_written = state.latest.bytes_written.max(bytes);
    }
    pub(super) fn received(&self, bytes: u64) {
        self.state().received(bytes, Instant::now());
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Set by whoever wants the work to end.
#[derive(Clone, Default)]
pub struct CancelFlag {
    set: Arc<AtomicBool>,
    parent: Option<Arc<CancelFlag>>,
}

impl CancelFlag {
    pub fn cancel(&self) {
        self.set.store(true, Ordering::SeqCst);
    }
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst) || self.parent.as_ref().is_some_and(|parent| parent.is_set())
    }
    /// A flag for a part of the work: this one sets it too, but it does not set this one.
    pub fn child(&self) -> CancelFlag {
        CancelFlag { set: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }
    /// Waits, but not longer than until the flag is set.
    pub(super) fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_set() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20).min(time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const MIB: u64 = 1 << 20;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_none_once_nothing_comes() {
        let (mut state, start) = (State::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(state.rate(start), 0);
        // 10 MiB a second for ten seconds, then 2.
        for tick in 0..=1000 {
            state.received(tick * MIB / 10, at(tick * 10));
        }
        assert_eq!(state.rate(at(10_000)), 10 * MIB);
        for tick in 1..=500 {
            state.received(100 * MIB + tick * MIB / 50, at(10_000 + tick * 10));
        }
        assert_eq!(state.rate(at(15_000)), 2 * MIB);
        // Nothing comes any more, and nobody says so.
        assert_eq!(state.rate(at(16_500)), MIB);
        assert_eq!(state.rate(at(18_000)), 0);
        assert_eq!(state.rate(at(90_000)), 0);
        assert!(state.points.len() <= 32, "{}", state.points.len());
        // It goes on, slowly.
        state.received(111 * MIB, at(90_500));
        assert!((1..2 * MIB).contains(&state.rate(at(90_600))), "{}", state.rate(at(90_600)));
    }

    #[test]
    fn trouble_is_noted_until_it_is_over_and_what_was_noted_before_comes_back() {
        let cell = ProgressCell::default();
        cell.note("reading the tables");
        cell.trouble("broke once");
        cell.trouble("broke twice");
        assert_eq!(cell.latest().note, "broke twice");
        cell.mended();
        cell.mended();
        assert_eq!(cell.latest().note, "reading the tables");
        cell.trouble("broke again");
        cell.stage("writing");
        cell.mended();
        assert_eq!(cell.latest().note, "");
    }

    #[test]
    fn what_other_work_says_of_itself_is_left_as_it_is() {
        let cell = ProgressCell::default();
        let said = Progress { stage: "erasing".into(), rate: 7, seconds: 5, ..Progress::default() };
        cell.set(said.clone());
        assert_eq!(cell.latest(), said);
    }
}
