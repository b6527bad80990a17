//! The provision state machine as one table that can be read aloud. A pair that is absent is refused.
//!
//! Source: Ironic 39 `common/states.py`. What each state does is in `conductor`; what moves it, in [`super::decide`].

use super::state::{Event, Event as E, ProvisionState, ProvisionState as S};
use core::time::Duration;

/// From, event, to.
pub const TRANSITIONS: &[(ProvisionState, Event, ProvisionState)] = &[
    (S::Enroll, E::Manage, S::Verifying),
    (S::Verifying, E::Done, S::Manageable),
    (S::Verifying, E::Fail, S::Enroll),
    (S::Manageable, E::Provide, S::Cleaning),
    (S::Manageable, E::Clean, S::Cleaning),
    (S::Manageable, E::Inspect, S::Inspecting),
    (S::Manageable, E::Adopt, S::Adopting),
    (S::Available, E::Deploy, S::Deploying),
    (S::Available, E::Manage, S::Manageable),
    (S::Cleaning, E::Done, S::Available),
    (S::Cleaning, E::Manage, S::Manageable),
    (S::Cleaning, E::Wait, S::CleanWait),
    (S::Cleaning, E::Hold, S::CleanHold),
    (S::Cleaning, E::Fail, S::CleanFailed),
    (S::CleanWait, E::Resume, S::Cleaning),
    (S::CleanWait, E::Fail, S::CleanFailed),
    (S::CleanWait, E::Abort, S::CleanFailed),
    (S::CleanWait, E::Hold, S::CleanHold),
    (S::CleanHold, E::Unhold, S::CleanWait),
    (S::CleanHold, E::Abort, S::CleanFailed),
    (S::CleanFailed, E::Manage, S::Manageable),
    (S::Inspecting, E::Done, S::Manageable),
    (S::Inspecting, E::Wait, S::InspectWait),
    (S::Inspecting, E::Fail, S::InspectFailed),
    (S::InspectWait, E::Resume, S::Inspecting),
    (S::InspectWait, E::Done, S::Manageable),
    (S::InspectWait, E::Fail, S::InspectFailed),
    (S::InspectWait, E::Abort, S::InspectFailed),
    (S::InspectFailed, E::Manage, S::Manageable),
    (S::InspectFailed, E::Inspect, S::Inspecting),
    (S::Adopting, E::Done, S::Active),
    (S::Adopting, E::Fail, S::AdoptFailed),
    (S::AdoptFailed, E::Adopt, S::Adopting),
    (S::AdoptFailed, E::Manage, S::Manageable),
    (S::Deploying, E::Done, S::Active),
    (S::Deploying, E::Wait, S::DeployWait), // the ramdisk boots or works, and will call back
    (S::Deploying, E::Hold, S::DeployHold),
    (S::Deploying, E::Fail, S::DeployFailed),
    (S::DeployWait, E::Resume, S::Deploying), // its heartbeat arrived, or its command ended
    (S::DeployWait, E::Fail, S::DeployFailed), // it never called back in time
    (S::DeployWait, E::Abort, S::DeployFailed),
    (S::DeployWait, E::Hold, S::DeployHold),
    (S::DeployWait, E::Delete, S::Deleting),
    (S::DeployHold, E::Unhold, S::DeployWait),
    (S::DeployHold, E::Abort, S::DeployFailed),
    (S::DeployFailed, E::Rebuild, S::Deploying),
    (S::DeployFailed, E::Deploy, S::Deploying),
    (S::DeployFailed, E::Delete, S::Deleting),
    (S::Active, E::Rebuild, S::Deploying),
    (S::Active, E::Delete, S::Deleting),
    (S::Active, E::Rescue, S::Rescuing),
    (S::Active, E::Service, S::Servicing),
    (S::Deleting, E::Clean, S::Cleaning),
    (S::Deleting, E::Fail, S::Error),
    (S::Error, E::Rebuild, S::Deploying),
    (S::Error, E::Delete, S::Deleting),
    (S::Rescuing, E::Wait, S::RescueWait),
    (S::Rescuing, E::Done, S::Rescue),
    (S::Rescuing, E::Fail, S::RescueFailed),
    (S::RescueWait, E::Resume, S::Rescuing),
    (S::RescueWait, E::Fail, S::RescueFailed),
    (S::RescueWait, E::Abort, S::RescueFailed),
    (S::RescueWait, E::Delete, S::Deleting),
    (S::Rescue, E::Rescue, S::Rescuing),
    (S::Rescue, E::Unrescue, S::Unrescuing),
    (S::Rescue, E::Delete, S::Deleting),
    (S::RescueFailed, E::Rescue, S::Rescuing),
    (S::RescueFailed, E::Unrescue, S::Unrescuing),
    (S::RescueFailed, E::Delete, S::Deleting),
    (S::Unrescuing, E::Done, S::Active),
    (S::Unrescuing, E::Fail, S::UnrescueFailed),
    (S::UnrescueFailed, E::Rescue, S::Rescuing),
    (S::UnrescueFailed, E::Unrescue, S::Unrescuing),
    (S::UnrescueFailed, E::Delete, S::Deleting),
    (S::Servicing, E::Done, S::Active),
    (S::Servicing, E::Wait, S::ServiceWait),
    (S::Servicing, E::Hold, S::ServiceHold),
    (S::Servicing, E::Fail, S::ServiceFailed),
    (S::ServiceWait, E::Resume, S::Servicing),
    (S::ServiceWait, E::Fail, S::ServiceFailed),
    (S::ServiceWait, E::Abort, S::ServiceFailed),
    (S::ServiceWait, E::Hold, S::ServiceHold),
    (S::ServiceWait, E::Delete, S::Deleting),
    (S::ServiceHold, E::Service, S::Servicing),
    (S::ServiceHold, E::Unhold, S::ServiceWait),
    (S::ServiceHold, E::Fail, S::ServiceFailed),
    (S::ServiceHold, E::Abort, S::ServiceFailed),
    (S::ServiceFailed, E::Service, S::Servicing),
    (S::ServiceFailed, E::Rescue, S::Rescuing),
    (S::ServiceFailed, E::Wait, S::ServiceWait),
    (S::ServiceFailed, E::Hold, S::ServiceHold),
    (S::ServiceFailed, E::Delete, S::Deleting),
    (S::ServiceFailed, E::Abort, S::Active),
];

/// The state that `event` leads to, or `None` if the node may not do that now.
pub fn next(from: ProvisionState, event: Event) -> Option<ProvisionState> {
    TRANSITIONS.iter().find(|(f, e, _)| *f == from && *e == event).map(|(_, _, to)| *to)
}

/// What the node works towards once `event` was accepted in `from`; `None` where the event settles it at once.
pub fn target(from: ProvisionState, event: Event) -> Option<ProvisionState> {
    match (from, event) {
        (S::Enroll, E::Manage) | (_, E::Inspect) => Some(S::Manageable),
        (S::Manageable, E::Clean) => Some(S::Manageable),
        (_, E::Provide | E::Delete | E::Clean) => Some(S::Available),
        (_, E::Deploy | E::Rebuild | E::Adopt | E::Unrescue | E::Service) => Some(S::Active),
        (_, E::Rescue) => Some(S::Rescue),
        _ => None,
    }
}

impl ProvisionState {
    /// Nothing is going on and nothing is awaited: the target is cleared on arrival.
    pub fn is_stable(self) -> bool {
        matches!(self, S::Enroll | S::Manageable | S::Available | S::Active | S::Error | S::Rescue)
            || self.is_failed()
    }
    /// Ended badly: the target is kept, so that clients see what was wanted.
    pub fn is_failed(self) -> bool {
        matches!(
            self,
            S::CleanFailed
                | S::InspectFailed
                | S::AdoptFailed
                | S::DeployFailed
                | S::RescueFailed
                | S::UnrescueFailed
                | S::ServiceFailed
        )
    }
    /// The controller waits for the machine (or, in a hold, for the operator).
    pub fn is_waiting(self) -> bool {
        matches!(self, S::CleanWait | S::InspectWait | S::DeployWait | S::RescueWait | S::ServiceWait)
    }
    /// The machine may fetch and boot the ramdisk now.
    pub fn boots_ramdisk(self) -> bool {
        matches!(
            self,
            S::Deploying
                | S::DeployWait
                | S::Cleaning
                | S::CleanWait
                | S::Inspecting
                | S::InspectWait
                | S::Rescuing
                | S::RescueWait
        )
    }
    /// A lookup is answered in these states only; anywhere else it is as if the node did not exist.
    pub fn allows_lookup(self) -> bool {
        self.boots_ramdisk() || self == S::ServiceWait
    }
    /// Ports, interfaces and resource class may change here (or in maintenance).
    pub fn is_configurable(self) -> bool {
        matches!(self, S::Enroll | S::Inspecting | S::InspectWait | S::Manageable | S::Available)
    }
}

/// Longest silence in each waiting state. A heartbeat starts the time anew, so this is not the length of the work.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    pub deploy: Duration,
    pub clean: Duration,
    pub inspect: Duration,
    pub rescue: Duration,
    pub service: Duration,
}

impl Deadlines {
    /// The deadline of a waiting state; `None` for states that do not wait for a machine.
    pub fn of(&self, state: ProvisionState) -> Option<Duration> {
        match state {
            S::DeployWait => Some(self.deploy),
            S::CleanWait => Some(self.clean),
            S::InspectWait => Some(self.inspect),
            S::RescueWait => Some(self.rescue),
            S::ServiceWait => Some(self.service),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_pair_absent_from_the_table_is_refused() {
        let mut present = 0;
        for from in S::ALL {
            for event in E::ALL {
                let rows: Vec<_> = TRANSITIONS.iter().filter(|(f, e, _)| f == from && e == event).collect();
                assert!(rows.len() <= 1, "{from} --{event}--> twice");
                assert_eq!(next(*from, *event), rows.first().map(|r| r.2), "{from} --{event}-->");
                present += rows.len();
            }
        }
        assert_eq!(present, TRANSITIONS.len());
    }

    #[test]
    fn refusals_that_operators_rely_on() {
        for (from, event) in [
            (S::Active, E::Deploy), // rebuild is the verb
            (S::Deploying, E::Abort),
            (S::Deploying, E::Delete),
            (S::Enroll, E::Deploy),
            (S::Available, E::Provide),
            (S::Cleaning, E::Abort),
        ] {
            assert_eq!(next(from, event), None, "{from} --{event}-->");
        }
    }

    #[test]
    fn every_state_is_reachable_and_every_unstable_one_can_be_left_by_failing() {
        let reached: BTreeSet<_> = TRANSITIONS.iter().map(|t| t.2).collect();
        for state in S::ALL {
            assert!(*state == S::Enroll || reached.contains(state), "{state} is never reached");
            let hold = matches!(state, S::CleanHold | S::DeployHold);
            if !state.is_stable() && !hold {
                assert!(next(*state, E::Fail).is_some(), "{state} cannot fail");
            }
        }
    }

    #[test]
    fn every_waiting_state_has_a_deadline_and_no_other_has() {
        let second = Duration::from_secs(1);
        let all =
            Deadlines { deploy: second, clean: second, inspect: second, rescue: second, service: second };
        for state in S::ALL {
            assert_eq!(all.of(*state).is_some(), state.is_waiting(), "{state}");
        }
    }

    #[test]
    fn targets_are_those_that_clients_poll_for() {
        for (from, event, target_state) in [
            (S::Enroll, E::Manage, Some(S::Manageable)),
            (S::Manageable, E::Provide, Some(S::Available)),
            (S::Manageable, E::Clean, Some(S::Manageable)),
            (S::Available, E::Deploy, Some(S::Active)),
            (S::Active, E::Delete, Some(S::Available)),
            (S::Available, E::Manage, None),
        ] {
            assert_eq!(target(from, event), target_state, "{from} --{event}-->");
        }
    }
}
