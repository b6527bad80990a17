//! Which steps an automated or manual cleaning runs.

use super::deploy::sort;
use super::node::{Node, Object};
use ferric_common::steps::Step;
use serde_json::json;

/// Priorities that replace those which an agent publishes; 0 switches a step off.
#[derive(Clone, Copy, Debug)]
pub struct Priorities {
    pub erase_devices: u32,
    pub erase_devices_metadata: u32,
}

/// How an agent erases disks: what it reads from a node's `driver_internal_info`.
#[derive(Clone, Copy, Debug)]
pub struct Erasure {
    pub random_passes: u32,
    pub zeros_last: bool,
    /// Overwrites a disk whose own erase command failed.
    pub continue_if_failed: bool,
    pub nvme: bool,
    pub ata: bool,
    /// Disks at once.
    pub at_once: u32,
    pub skip_read_only: bool,
}

impl Erasure {
    /// By the names of Ironic's `direct` deploy interface.
    pub fn internal_info(&self) -> Object {
        [
            ("agent_erase_devices_iterations", json!(self.random_passes)),
            ("agent_erase_devices_zeroize", json!(self.zeros_last)),
            ("agent_continue_if_secure_erase_failed", json!(self.continue_if_failed)),
            ("agent_continue_if_ata_erase_failed", json!(self.continue_if_failed)),
            ("agent_enable_nvme_secure_erase", json!(self.nvme)),
            ("agent_enable_ata_secure_erase", json!(self.ata)),
            ("disk_erasure_concurrency", json!(self.at_once)),
            ("agent_erase_skip_read_only", json!(self.skip_read_only)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect()
    }
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
/// Names the first step that nobody offers, the argument that it does not take, or the one that it lacks.
pub fn manual_steps(wanted: &[Step], agent_steps: &[Step]) -> Result<Vec<Step>, String> {
    wanted
        .iter()
        .map(|step| {
            let offered = agent_steps.iter().find(|s| s.interface == step.interface && s.step == step.step);
            match offered {
                Some(offered) => {
                    check_arguments(step, offered)?;
                    Ok(Step { args: step.args.clone(), ..offered.clone() })
                }
                None => Err(format!("the agent does not offer the clean step {}", step.full_name())),
            }
        })
        .collect()
}

fn check_arguments(step: &Step, offered: &Step) -> Result<(), String> {
    let known = offered.argsinfo.clone().unwrap_or_default();
    if let Some(odd) = step.args.keys().find(|name| !known.contains_key(*name)) {
        let takes = known.keys().cloned().collect::<Vec<_>>().join(", ");
        let takes = if takes.is_empty() { "none".to_string() } else { takes };
        return Err(format!(
            "the clean step {} has no argument '{odd}'; it takes: {takes}",
            step.full_name()
        ));
    }
    let required = |info: &serde_json::Value| info.get("required") == Some(&serde_json::Value::Bool(true));
    match known.iter().find(|(name, info)| required(info) && !step.args.contains_key(*name)) {
        Some((name, _)) => Err(format!("the clean step {} needs the argument '{name}'", step.full_name())),
        None => Ok(()),
    }
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
    fn arguments_are_checked_before_the_agent_hears_of_them() {
        let mut offered = offered();
        offered[0].argsinfo = serde_json::from_value(json!({"file": {"required": true}, "how": {}})).unwrap();
        let check = |name: &str, args: serde_json::Value| {
            let args = serde_json::from_value(args).unwrap();
            let step = Step { step: name.into(), interface: "deploy".into(), args, ..Step::default() };
            manual_steps(&[step], &offered).map(|steps| steps[0].args.len())
        };
        assert_eq!(check("erase_devices", json!({"file": 1, "how": 2})), Ok(2));
        assert_eq!(
            check("erase_devices", json!({"how": 2})).unwrap_err(),
            "the clean step deploy.erase_devices needs the argument 'file'"
        );
        assert_eq!(
            check("burnin_cpu", json!({"x": 1})).unwrap_err(),
            "the clean step deploy.burnin_cpu has no argument 'x'; it takes: none"
        );
    }

    #[test]
    fn a_step_that_nobody_offers_is_named() {
        let wanted = [Step { step: "nosuch".into(), interface: "raid".into(), ..Step::default() }];
        assert!(manual_steps(&wanted, &offered()).unwrap_err().contains("raid.nosuch"));
    }
}
