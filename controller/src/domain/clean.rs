//! Which steps an automated or manual cleaning runs.

use super::deploy::sort;
use super::node::Node;
use ferric_common::steps::Step;

/// Priorities that replace those which an agent publishes; 0 switches a step off.
#[derive(Clone, Copy, Debug)]
pub struct Priorities {
    pub erase_devices: u32,
    pub erase_devices_metadata: u32,
}

/// The steps of an automated cleaning: those with a priority above 0, highest first.
pub fn automated_steps(agent_steps: &[Step], priorities: Priorities) -> Vec<Step> {
    let mut chosen: Vec<Step> = agent_steps
        .iter()
        .cloned()
        .map(|mut step| {
            match (step.interface.as_str(), step.step.as_str()) {
                ("deploy", "erase_devices") => step.priority = priorities.erase_devices,
                ("deploy", "erase_devices_metadata") => step.priority = priorities.erase_devices_metadata,
                _ => {}
            }
            step
        })
        .filter(|step| step.priority > 0)
        .collect();
    sort(&mut chosen);
    chosen
}

/// Checks the operator's steps against what the agent offers.
///
/// # Errors
/// Names each step that nobody offers.
pub fn manual_steps(wanted: &[Step], agent_steps: &[Step]) -> Result<Vec<Step>, String> {
    wanted
        .iter()
        .map(|step| {
            let offered = agent_steps.iter().find(|s| s.interface == step.interface && s.step == step.step);
            match offered {
                Some(offered) => Ok(Step { args: step.args.clone(), ..offered.clone() }),
                None => Err(format!("the agent does not offer the clean step {}", step.full_name())),
            }
        })
        .collect()
}

/// Whether this node is cleaned automatically: its own setting first, then the configured one.
pub fn is_automated(node: &Node, configured: bool) -> bool {
    node.automated_clean.unwrap_or(configured)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered() -> Vec<Step> {
        [("erase_devices", 10), ("erase_devices_metadata", 99), ("burnin_cpu", 0), ("vendor_thing", 5)]
            .map(|(step, priority)| Step {
                step: step.into(),
                interface: "deploy".into(),
                priority,
                ..Step::default()
            })
            .to_vec()
    }

    #[test]
    fn settings_replace_the_agents_priorities() {
        let names = |p| automated_steps(&offered(), p).into_iter().map(|s| s.step).collect::<Vec<_>>();
        assert_eq!(
            names(Priorities { erase_devices: 0, erase_devices_metadata: 10 }),
            ["erase_devices_metadata", "vendor_thing"]
        );
        assert_eq!(
            names(Priorities { erase_devices: 20, erase_devices_metadata: 10 }),
            ["erase_devices", "erase_devices_metadata", "vendor_thing"]
        );
    }

    #[test]
    fn a_step_that_nobody_offers_is_named() {
        let wanted = [Step { step: "nosuch".into(), interface: "raid".into(), ..Step::default() }];
        assert!(manual_steps(&wanted, &offered()).unwrap_err().contains("raid.nosuch"));
    }
}
