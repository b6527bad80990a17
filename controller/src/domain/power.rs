//! What follows from reading a machine's power in the periodic sync. Values in, a verdict out.
//!
//! Follows Ironic's `do_sync_power_state` and its recovery: a node whose power cannot be read ends in maintenance with the fault
//! `power failure`, and leaves both by itself once a read works. Unlike there, the BMC's state is recorded, never the
//! other way round, and a login that was refused is not tried again: that locks accounts.

use super::node::Node;
use super::state::{Power, ProvisionState as S};

/// `node.fault` while the power state cannot be read.
pub const FAULT: &str = "power failure";
/// Reads in a row that may fail before the node says so (Ironic's `power_state_sync_max_retries`).
const MISSES: u32 = 3;
/// A node with the fault is read in every fifth round only: each silent BMC costs its whole patience.
const RECOVERY_ROUNDS: u64 = 5;

/// Why a power state was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The BMC refused the login, now or before. It is not asked again.
    Refused(String),
    Failed(String),
}

/// What to do with the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    Record(Power),
    /// The fault is over.
    Recovered(Power),
    /// Not yet worth more than a line in the log.
    Missed,
    /// The node has a fault from now on, for this reason.
    Fault(String),
}

/// Whether the node is read in this round.
pub fn is_due(node: &Node, round: u64) -> bool {
    let settled =
        node.provision_state.is_stable() && !matches!(node.provision_state, S::Enroll | S::AdoptFailed);
    if !settled || node.power_request.is_some() {
        return false;
    }
    match node.fault.as_deref() {
        Some(FAULT) => node.login_refused.is_none() && round.is_multiple_of(RECOVERY_ROUNDS),
        _ => !node.maintenance,
    }
}

/// What the read means. `misses` counts the reads in a row that failed, this one included.
pub fn judge(node: &Node, misses: u32, read: Result<Power, Unread>) -> Verdict {
    let faulty = node.fault.as_deref() == Some(FAULT);
    match read {
        Ok(power) if faulty => Verdict::Recovered(power),
        Ok(power) if node.power_state == Some(power) => Verdict::Nothing,
        Ok(power) => Verdict::Record(power),
        Err(_) if faulty => Verdict::Nothing,
        Err(Unread::Refused(why)) => Verdict::Fault(format!(
            "During sync_power_state, the BMC of node {} refused the login. Switching node to maintenance mode. Error: {why}",
            node.uuid
        )),
        Err(Unread::Failed(_)) if misses <= MISSES => Verdict::Missed,
        Err(Unread::Failed(why)) => Verdict::Fault(format!(
            "During sync_power_state, max retries exceeded for node {}: its power state could not be read {misses} times in a row. Switching node to maintenance mode. Error: {why}",
            node.uuid
        )),
    }
}

impl Node {
    /// The power state cannot be read: says so in every place that clients look at.
    pub fn enter_power_fault(&mut self, why: String) {
        self.power_state = None;
        self.maintenance = true;
        self.fault = Some(FAULT.to_string());
        self.maintenance_reason = Some(why.clone());
        self.last_error = Some(why);
    }
    /// It can be read again.
    pub fn leave_power_fault(&mut self) {
        if self.last_error == self.maintenance_reason {
            self.last_error = None;
        }
        self.maintenance = false;
        self.maintenance_reason = None;
        self.fault = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::PowerTarget;

    fn node() -> Node {
        Node { provision_state: S::Active, power_state: Some(Power::On), ..Node::default() }
    }

    fn faulty() -> Node {
        let mut node = node();
        node.enter_power_fault("the BMC is silent".into());
        node
    }

    #[test]
    fn only_settled_nodes_are_read_and_faulty_ones_seldom() {
        let change = |act: fn(&mut Node)| {
            let mut node = node();
            act(&mut node);
            node
        };
        for (name, node, rounds) in [
            ("settled", node(), vec![1, 2, 3, 4, 5]),
            ("enrolled", change(|n| n.provision_state = S::Enroll), vec![]),
            ("deploying", change(|n| n.provision_state = S::DeployWait), vec![]),
            ("with a power action", change(|n| n.power_request = Some(PowerTarget::On)), vec![]),
            ("in an operator's maintenance", change(|n| n.maintenance = true), vec![]),
            ("refused while a flow ran", change(|n| n.login_refused = Some("x".into())), vec![1, 2, 3, 4, 5]),
            ("with the fault", faulty(), vec![5]),
            ("with the fault for its login", Node { login_refused: Some("x".into()), ..faulty() }, vec![]),
        ] {
            let due: Vec<u64> = (1..=5).filter(|round| is_due(&node, *round)).collect();
            assert_eq!(due, rounds, "{name}");
        }
    }

    #[test]
    fn silence_is_a_fault_at_the_fourth_time_and_a_refused_login_at_once() {
        let failed = |misses| judge(&node(), misses, Err(Unread::Failed("no answer".into())));
        assert_eq!((1..=3).map(failed).collect::<Vec<_>>(), vec![Verdict::Missed; 3]);
        let Verdict::Fault(text) = failed(4) else { panic!("no fault after four reads") };
        assert!(text.contains("4 times in a row") && text.ends_with("Error: no answer"), "{text}");
        let Verdict::Fault(text) = judge(&node(), 1, Err(Unread::Refused("wrong password".into()))) else {
            panic!("no fault after a refused login")
        };
        assert!(text.contains("refused the login") && text.ends_with("wrong password"), "{text}");
    }

    #[test]
    fn what_is_read_is_recorded_and_ends_the_fault() {
        for (node, read, verdict) in [
            (node(), Ok(Power::On), Verdict::Nothing),
            (node(), Ok(Power::Off), Verdict::Record(Power::Off)),
            (faulty(), Ok(Power::Off), Verdict::Recovered(Power::Off)),
            (faulty(), Err(Unread::Failed("x".into())), Verdict::Nothing),
        ] {
            assert_eq!(judge(&node, 9, read.clone()), verdict, "{read:?}");
        }
    }

    #[test]
    fn the_fault_takes_its_own_words_away_and_nobody_elses() {
        let mut node = faulty();
        assert_eq!((node.power_state, node.maintenance, node.fault.as_deref()), (None, true, Some(FAULT)));
        node.leave_power_fault();
        assert_eq!((node.maintenance, &node.fault, &node.last_error), (false, &None, &None));
        let mut other = faulty();
        other.last_error = Some("the deployment failed".into());
        other.leave_power_fault();
        assert_eq!(other.last_error.as_deref(), Some("the deployment failed"));
    }
}
