//! Bounded queues between the pipeline's threads, and the one place where the first error is kept.

use super::{CancelFlag, ImageError};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Tells every thread to end, and remembers why: an error of one of them, or the wish of whoever started the work. The first
/// error wins: later ones are its consequences. Every wait of the pipeline looks at it.
#[derive(Clone)]
pub struct Stop(Arc<StopState>);

struct StopState {
    /// The wish to end the whole work.
    asked: CancelFlag,
    /// Set by that wish, or by the first error: for those who wait on something else than a queue.
    flag: CancelFlag,
    error: Mutex<Option<ImageError>>,
}

impl Stop {
    /// Is set by the flag, too.
    pub fn on(cancel: &CancelFlag) -> Stop {
        let (asked, flag) = (cancel.clone(), cancel.child());
        Stop(Arc::new(StopState { asked, flag, error: Mutex::default() }))
    }
    /// Is set when this is.
    pub fn flag(&self) -> &CancelFlag {
        &self.0.flag
    }
    pub fn is_set(&self) -> bool {
        self.0.flag.is_set()
    }
    pub fn fail(&self, error: ImageError) {
        // What fails after the wish is its consequence.
        let first = if self.0.asked.is_set() { ImageError::Cancelled } else { error };
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(first);
        self.0.flag.cancel();
    }
    /// Why the work ended, if it did before its time.
    pub fn take_error(&self) -> Option<ImageError> {
        let error = self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.or_else(|| self.0.asked.is_set().then_some(ImageError::Cancelled))
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::on(&CancelFlag::default())
    }
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// What came of waiting a moment.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    Item(T),
    NotYet,
    /// It is closed and empty.
    Ended,
}

/// A bounded queue with several readers.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    /// An item came, or none will come any more.
    filled: Condvar,
    /// There is room again.
    taken: Condvar,
    limit: usize,
}

impl<T> Queue<T> {
    pub fn new(limit: usize) -> Queue<T> {
        Queue {
            state: Mutex::new(State { items: VecDeque::new(), closed: false }),
            filled: Condvar::new(),
            taken: Condvar::new(),
            limit,
        }
    }
    /// Waits for room. The item is dropped when the work was stopped.
    pub fn push(&self, item: T, stop: &Stop) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.items.len() >= self.limit {
            if stop.is_set() {
                return;
            }
            state = wait(&self.taken, state);
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
    }
    /// Waits for an item; `None` when the queue is closed and empty, or the work was stopped.
    pub fn pop(&self, stop: &Stop) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop.is_set() {
                return None;
            }
            if let Some(item) = state.items.pop_front() {
                drop(state);
                self.taken.notify_one();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = wait(&self.filled, state);
        }
    }
    /// Waits for an item, a moment only.
    pub fn pop_soon(&self, moment: Duration) -> Popped<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.items.is_empty() && !state.closed {
            state = self.filled.wait_timeout(state, moment).unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.items.pop_front() {
            Some(item) => {
                drop(state);
                self.taken.notify_one();
                Popped::Item(item)
            }
            None if state.closed => Popped::Ended,
            None => Popped::NotYet,
        }
    }
    /// An item that is there already.
    pub fn try_pop(&self) -> Option<T> {
        let item = self.state.lock().unwrap_or_else(PoisonError::into_inner).items.pop_front();
        if item.is_some() {
            self.taken.notify_one();
        }
        item
    }
    /// No more items will come.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.filled.notify_all();
    }
}

fn wait<'a, T>(changed: &Condvar, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
    // Bounded, since a stop is not signalled through these conditions.
    changed.wait_timeout(state, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moments_wait_tells_nothing_yet_from_never() {
        let (queue, stop, moment) = (Queue::new(2), Stop::default(), Duration::from_millis(1));
        assert_eq!(queue.pop_soon(moment), Popped::NotYet);
        queue.push(7, &stop);
        queue.close();
        assert_eq!(queue.pop_soon(moment), Popped::Item(7));
        assert_eq!(queue.pop_soon(moment), Popped::Ended);
    }
}
