//! Progress out, cancellation in: the two cells that the pipeline shares with whoever started it.

use ferric_common::events::Progress;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The rate is taken over this many seconds.
const WINDOW: Duration = Duration::from_secs(3);

#[derive(Default)]
struct State {
    latest: Progress,
    started: Option<Instant>,
    points: VecDeque<(Instant, u64)>,
}

/// The latest progress; older ones are forgotten.
#[derive(Clone, Default)]
pub struct ProgressCell(Arc<Mutex<State>>);

impl ProgressCell {
    pub fn latest(&self) -> Progress {
        let state = self.state();
        let mut latest = state.latest.clone();
        latest.seconds = state.started.map_or(0, |s| s.elapsed().as_secs());
        latest
    }
    pub fn set(&self, progress: Progress) {
        self.state().latest = progress;
    }
    pub(super) fn begin(&self, stage: &str) {
        let mut state = self.state();
        state.started.get_or_insert_with(Instant::now);
        state.points.clear();
        state.latest =
            Progress { stage: stage.into(), note: state.latest.note.clone(), ..Progress::default() };
    }
    pub(super) fn stage(&self, stage: &str) {
        let mut state = self.state();
        state.latest.stage = stage.into();
        state.latest.note.clear();
    }
    pub(super) fn note(&self, note: &str) {
        self.state().latest.note = note.into();
    }
    pub(super) fn total(&self, total: Option<u64>) {
        self.state().latest.bytes_total = total;
    }
    pub(super) fn written(&self, bytes: u64) {
        self.state().latest.bytes_written = bytes;
    }
    pub(super) fn received(&self, bytes: u64) {
        let now = Instant::now();
        let mut state = self.state();
        state.latest.bytes_done = bytes;
        state.points.push_back((now, bytes));
        while state.points.len() > 2 && state.points.front().is_some_and(|(t, _)| now - *t > WINDOW) {
            state.points.pop_front();
        }
        if let Some((then, before)) = state.points.front().copied() {
            let millis = (now - then).as_millis().max(1) as u64;
            state.latest.rate = bytes.saturating_sub(before).saturating_mul(1000) / millis;
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Set by whoever wants the work to end.
#[derive(Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
    /// Waits, but not longer than until the flag is set.
    pub(super) fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_set() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20).min(time));
        }
    }
}
