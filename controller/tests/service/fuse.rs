//! Kills of the service at a chosen moment: a fuse that burns while the service works, and stops all of it where it stands.
//!
//! A moment is where a kill could make a difference: before and after each commit that writes, each effect on a machine,
//! each command to an agent. Who finds the fuse burnt goes no further until the service is dead.

use ferric_controller::store::Watch;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// How long the store's thread may take to end.
const LONGEST: Duration = Duration::from_secs(60);

/// Where the present life of the service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Ended,
    Alive,
    /// Killed, but its threads and tasks may still be there.
    Frozen,
}

#[derive(Default)]
struct Inner {
    /// Moments left until it burns; none: never.
    left: Option<usize>,
    seen: Vec<String>,
    /// Says by its end that the database of this life is closed.
    closed: Option<Receiver<()>>,
}

/// One per machine; used in each life of the service anew.
#[derive(Default)]
pub struct Fuse {
    inner: Mutex<Inner>,
    phase: watch::Sender<Phase>,
    thawed: Condvar,
}

impl Fuse {
    /// Burns at the `at`th moment from now, counted from 1.
    pub fn arm(&self, at: usize) {
        self.inner.lock().unwrap().left = Some(at);
    }
    /// The moments so far, in order; forgets them.
    pub fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().unwrap().seen)
    }
    /// Whether the service is killed at, or was killed before, this moment: then go no further.
    pub fn moment(&self, what: &str) -> bool {
        let mut inner = self.inner.lock().unwrap();
        if *self.phase.borrow() != Phase::Alive {
            return true;
        }
        inner.seen.push(what.to_string());
        let Some(left) = inner.left.as_mut() else { return false };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        inner.left = None;
        self.phase.send_replace(Phase::Frozen);
        true
    }
    /// Waits until it has burnt.
    pub async fn burnt(&self) {
        self.phase.subscribe().wait_for(|now| *now == Phase::Frozen).await.unwrap();
    }
    /// Waits until the service that was killed is gone.
    pub async fn ended(&self) {
        self.phase.subscribe().wait_for(|now| *now != Phase::Frozen).await.unwrap();
    }

    /// A new life; the onlooker is for its store.
    pub fn begin_life(self: &Arc<Fuse>) -> Watch {
        let (open, closed) = channel();
        self.inner.lock().unwrap().closed = Some(closed);
        self.phase.send_replace(Phase::Alive);
        let fuse = self.clone();
        Box::new(move |moment| fuse.look(&format!("{moment:?} a commit"), &open))
    }
    fn look(&self, what: &str, _open: &Sender<()>) -> ControlFlow<()> {
        if !self.moment(what) {
            return ControlFlow::Continue(());
        }
        let mut inner = self.inner.lock().unwrap();
        while *self.phase.borrow() == Phase::Frozen {
            inner = self.thawed.wait(inner).unwrap();
        }
        ControlFlow::Break(())
    }
    /// Kills, if it has not burnt by itself.
    pub fn blow(&self) {
        let _inner = self.inner.lock().unwrap();
        self.phase.send_replace(Phase::Frozen);
    }
    /// All tasks are gone: lets the store's thread go too, and waits for its end.
    pub fn end_life(&self) {
        let closed = {
            let mut inner = self.inner.lock().unwrap();
            inner.left = None;
            self.phase.send_replace(Phase::Ended);
            self.thawed.notify_all();
            inner.closed.take()
        };
        if let Some(closed) = closed {
            let end = closed.recv_timeout(LONGEST);
            assert_eq!(end, Err(RecvTimeoutError::Disconnected), "the store's thread did not end");
        }
    }
}
