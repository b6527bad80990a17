//! What follows a failed try: another URL, a pause, or the end.

use super::{Failure, HttpSource, answer};
use crate::image::ImageError;
use std::time::Duration;

/// To this a pause doubles.
const LONGEST: Duration = Duration::from_secs(60);

impl HttpSource {
    /// Decides after a failed try: another URL, a pause, or the end.
    pub(super) fn after(&mut self, failure: Failure, at: u64) -> Result<(), ImageError> {
        self.idle = None;
        if self.cancel.is_set() {
            return Err(ImageError::Cancelled);
        }
        self.check_whole()?;
        let words = match &failure {
            Failure::Transient(cause) => cause.clone(),
            Failure::Ended(more) => format!("the connection ended after {} bytes", at + more),
            Failure::Fatal(error) => format!("{error}; it is not asked again"),
        };
        if matches!(&failure, Failure::Fatal(error) if !self.is_of_the_place(error)) {
            return Err(self.last_word(failure, at, words));
        }
        self.tries += 1;
        if let Some(place) = self.places.get_mut(self.current) {
            place.tries += 1;
            place.dropped = matches!(failure, Failure::Fatal(_));
        }
        let Some(next) = self.next() else { return Err(self.last_word(failure, at, words)) };
        let pause = self.pause(next);
        let broken = self.name.clone();
        if self.current != next {
            // What is still open is of the other place: what it does must not be told of this one.
            self.stream = None;
        }
        self.current = next;
        if let Some(place) = self.places.get(next) {
            self.name = answer::display(&place.url);
        }
        self.tell(&format!("the transfer from {broken} broke at byte {at} ({words})"), &broken, pause);
        self.cancel.pause(pause);
        Ok(())
    }

    /// Whether another place may do better: one that refuses, or has something else than the others.
    fn is_of_the_place(&self, error: &ImageError) -> bool {
        match error {
            ImageError::Refused { .. } | ImageError::Url { .. } | ImageError::Empty => true,
            ImageError::Changed { .. } | ImageError::Truncated { .. } | ImageError::TooLong { .. } => {
                // Where bytes came from here before, what came before is in doubt too.
                self.places.get(self.current).is_some_and(|place| !place.gave)
            }
            _ => false,
        }
    }

    /// The place to be asked after the current one: those that are left, in turn.
    fn next(&self) -> Option<usize> {
        let count = self.places.len();
        let mut turn = (1..=count).map(|n| (self.current + n) % count.max(1));
        turn.find(|n| {
            self.places.get(*n).is_some_and(|place| !place.dropped && place.tries < self.timeouts.tries)
        })
    }

    /// Doubles with the failed tries of the place that comes next.
    fn pause(&mut self, next: usize) -> Duration {
        if std::mem::take(&mut self.moved) {
            return Duration::ZERO;
        }
        let tries = self.places.get(next).map_or(0, |place| place.tries);
        let first = self.timeouts.pause;
        first.saturating_mul(1 << tries.saturating_sub(1).min(6)).min(LONGEST.max(first))
    }

    /// The error when nothing is left to be tried; `words` say what happened.
    fn last_word(&self, failure: Failure, at: u64, words: String) -> ImageError {
        let url = self.name.clone();
        match (failure, self.length) {
            (Failure::Fatal(error), _) => error,
            (Failure::Ended(more), Some(expected)) => {
                ImageError::Truncated { url, got: (at + more).into(), expected: expected.into() }
            }
            _ => ImageError::Fetch { url, at, tries: self.tries, cause: words },
        }
    }

    /// There was progress: every place has all its tries again.
    pub(super) fn count_anew(&mut self) {
        self.tries = 0;
        self.places.iter_mut().for_each(|place| place.tries = 0);
    }

    /// Bytes came from the current place, so nothing is amiss.
    pub(super) fn mark_giver(&mut self) {
        if let Some(place) = self.places.get_mut(self.current) {
            place.gave = true;
        }
        if std::mem::take(&mut self.troubled) {
            self.progress.mended();
        }
    }

    /// Tells log and operator what broke and what is tried next; the latter until bytes come again.
    fn tell(&mut self, what: &str, broken: &str, pause: Duration) {
        let next = if self.name == broken { "again" } else { self.name.as_str() };
        let when = match pause.as_secs() {
            0 => "at once".to_string(),
            seconds => format!("in {seconds} s"),
        };
        // Of the places that are still asked.
        let left = || self.places.iter().filter(|place| !place.dropped);
        let tried = left().map(|place| place.tries).sum::<u32>();
        let most = self.timeouts.tries.saturating_mul(left().count() as u32);
        let words = format!("{what}, trying {next} {when} ({} of {most})", tried + 1);
        tracing::warn!("{words}");
        self.progress.trouble(&words);
        self.troubled = true;
    }
}
