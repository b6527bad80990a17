//! Which children process 1 keeps alive, and how long it waits before it starts one again. Pure: time comes in.

use std::time::Duration;

/// First pause after a child ended, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A child that lived this long has its earlier failures forgotten.
const HEALTHY: Duration = Duration::from_secs(60);

/// A child to keep alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: &'static str,
    pub program: &'static str,
    pub arguments: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Running { pid: u32, since: Duration },
    Due { at: Duration },
}

/// All children and what each is doing.
#[derive(Debug)]
pub struct Supervisor {
    children: Vec<(Service, State, Duration)>,
}

impl Supervisor {
    /// All are due at once.
    pub fn new(services: impl IntoIterator<Item = Service>) -> Supervisor {
        let due = State::Due { at: Duration::ZERO };
        Supervisor { children: services.into_iter().map(|service| (service, due, FIRST_PAUSE)).collect() }
    }

    /// Those to start now.
    pub fn due(&self, now: Duration) -> Vec<Service> {
        let is_due = |state: &State| matches!(state, State::Due { at } if *at <= now);
        self.children
            .iter()
            .filter(|(_, state, _)| is_due(state))
            .map(|(service, ..)| service.clone())
            .collect()
    }

    /// How long nothing is due, unless a child ends.
    pub fn idle(&self, now: Duration) -> Duration {
        let due = self.children.iter().filter_map(|(_, state, _)| match state {
            State::Due { at } => Some(at.saturating_sub(now)),
            State::Running { .. } => None,
        });
        due.min().unwrap_or(Duration::from_secs(3600))
    }

    pub fn started(&mut self, name: &str, pid: u32, now: Duration) {
        if let Some((_, state, _)) = self.children.iter_mut().find(|(service, ..)| service.name == name) {
            *state = State::Running { pid, since: now };
        }
    }

    /// It could not even be started. Answers the pause before the next try.
    pub fn not_started(&mut self, name: &str, now: Duration) -> Duration {
        let child = self.children.iter_mut().find(|(service, ..)| service.name == name);
        child.map_or(FIRST_PAUSE, |child| fail(child, now, Duration::ZERO))
    }

    /// One more, due at once.
    pub fn add(&mut self, service: Service) {
        self.children.push((service, State::Due { at: Duration::ZERO }, FIRST_PAUSE));
    }

    /// No longer kept alive. Its process, if it runs, is the caller's to stop.
    pub fn remove(&mut self, name: &str) -> Option<u32> {
        let at = self.children.iter().position(|(service, ..)| service.name == name)?;
        match self.children.remove(at).1 {
            State::Running { pid, .. } => Some(pid),
            State::Due { .. } => None,
        }
    }

    /// A process ended; if it was one of ours, its name and the pause before it starts again.
    pub fn ended(&mut self, pid: u32, now: Duration) -> Option<(&'static str, Duration)> {
        for child in &mut self.children {
            if let State::Running { pid: own, since } = child.1
                && own == pid
            {
                return Some((child.0.name, fail(child, now, now.saturating_sub(since))));
            }
        }
        None
    }
}

fn fail(child: &mut (Service, State, Duration), now: Duration, lived: Duration) -> Duration {
    let pause = if lived >= HEALTHY { FIRST_PAUSE } else { child.2 };
    child.1 = State::Due { at: now + pause };
    child.2 = (pause * 2).min(LONGEST_PAUSE);
    pause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(["a", "b"].map(|name| Service { name, program: "/x", arguments: &[] }))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_child_that_keeps_dying_is_started_at_growing_pauses() {
        let mut all = supervisor();
        assert_eq!(all.due(at(0)).len(), 2);
        all.started("b", 99, at(0));
        let mut now = at(0);
        let mut pauses = Vec::new();
        for pid in 1..8 {
            assert_eq!(all.due(now).iter().map(|s| s.name).collect::<Vec<_>>(), ["a"]);
            all.started("a", pid, now);
            assert!(all.due(now).is_empty());
            let (name, pause) = all.ended(pid, now).unwrap();
            assert_eq!((name, all.idle(now)), ("a", pause));
            assert!(all.due(now).is_empty());
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        all.started("a", 50, now);
        assert_eq!(all.ended(50, now + at(60)), Some(("a", at(1))));
    }

    #[test]
    fn what_is_removed_is_never_started_again_and_what_is_added_is_due() {
        let mut all = supervisor();
        all.started("a", 5, at(0));
        assert_eq!((all.remove("a"), all.remove("b"), all.remove("b")), (Some(5), None, None));
        assert_eq!(all.ended(5, at(1)), None, "its end is nobody's");
        assert!(all.due(at(99)).is_empty());
        all.add(Service { name: "c", program: "/x", arguments: &[] });
        assert_eq!(all.due(at(1)).iter().map(|s| s.name).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn strangers_and_failed_starts_are_told_apart() {
        let mut all = supervisor();
        assert_eq!(all.ended(7, at(1)), None);
        assert_eq!((all.not_started("a", at(1)), all.not_started("a", at(2))), (at(1), at(2)));
        all.started("b", 3, at(2));
        assert_eq!(all.idle(at(2)), at(2));
    }
}
