//! What follows a failed try: another URL, a pause, or the end.

use super::{Failure, HttpSource, answer};
use crate::image::ImageError;
use std::time::Duration;

impl HttpSource {
    /// Decides after a failed try: another URL, a pause, or the end.
    pub(super) fn after(&mut self, failure: Failure, at: u64) -> Result<(), ImageError> {
        self.idle = None;
        if self.cancel.is_set() {
            return Err(ImageError::Cancelled);
        }
        let ended = match failure {
            Failure::Ended(more) => Some(at + more),
            _ => None,
        };
        let cause = match failure {
            Failure::Transient(cause) => cause,
            Failure::Ended(more) => format!("the connection ended after {} bytes", at + more),
            // Another server may have what this one refuses.
            Failure::Fatal(error @ ImageError::Refused { .. }) if self.current + 1 < self.places.len() => {
                error.to_string()
            }
            Failure::Fatal(error) => return Err(error),
        };
        self.tries += 1;
        let others = self.places.len() as u32;
        if self.tries >= self.timeouts.tries.saturating_mul(others.max(1)) {
            return Err(match (ended, self.length) {
                (Some(got), Some(expected)) => ImageError::Truncated {
                    url: self.name.clone(),
                    got: got.into(),
                    expected: expected.into(),
                },
                _ => ImageError::Fetch { url: self.name.clone(), at, tries: self.tries, cause },
            });
        }
        if others > 1 {
            self.current = (self.current + 1) % self.places.len();
            if let Some(place) = self.places.get(self.current) {
                self.name = answer::display(&place.url);
            }
        }
        let pause = if std::mem::take(&mut self.moved) {
            Duration::ZERO
        } else {
            self.timeouts.pause.saturating_mul(1 << ((self.tries - 1) / others.max(1)).min(6))
        };
        tracing::warn!("{} at byte {at}: {cause}; try {} in {pause:?}", self.name, self.tries + 1);
        self.cancel.pause(pause.min(Duration::from_secs(60)));
        Ok(())
    }
}
