//! A machine handed over for rescue is moved to its tenant's network, often without losing carrier: the controller moves it some time
//! after the agent answered. So addresses are asked for anew again and again for a while. Pure: time comes in.

use std::time::Duration;

/// Between two times that the address is asked for: long enough for a whole exchange with a slow server.
const EVERY: Duration = Duration::from_secs(20);
/// For so long after the agent's order; networks that are slower to be switched need a lost carrier or the lease's end.
const FOR: Duration = Duration::from_secs(900);

/// When to ask, once the order is there.
#[derive(Debug, Default)]
pub struct Renewals {
    ordered: Option<Duration>,
    last: Option<Duration>,
}

impl Renewals {
    /// Whether it is time to ask anew. `ordered` is looked at until the order was seen once.
    pub fn due(&mut self, now: Duration, ordered: impl FnOnce() -> bool) -> bool {
        if self.ordered.is_none() && ordered() {
            self.ordered = Some(now);
        }
        let Some(since) = self.ordered else { return false };
        let waited = self.last.is_none_or(|last| now.saturating_sub(last) >= EVERY);
        if !waited || now.saturating_sub(since) > FOR {
            return false;
        }
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_anew_for_a_while_after_the_order_and_never_before() {
        let mut renewals = Renewals::default();
        assert!(!renewals.due(Duration::from_secs(5), || false));
        let times = |renewals: &mut Renewals| -> Vec<u64> {
            (10..2000).filter(|second| renewals.due(Duration::from_secs(*second), || true)).collect()
        };
        let asked = times(&mut renewals);
        assert_eq!(asked.get(..4), Some(&[10, 30, 50, 70][..]));
        assert_eq!(asked.last(), Some(&910));
        assert!(!renewals.due(Duration::from_secs(9000), || true));
    }
}
