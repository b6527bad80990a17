//! Namespace `system`: the end of an agent whose machine cannot be switched off.

use super::{Context, Failure, Job, Params, failure};
use serde_json::Value;

/// Answers first; then the agent ends, and the machine is cut off from every network until somebody resets it.
pub fn lockdown(context: &Context, _params: &Params, _job: &Job) -> Result<Value, Failure> {
    context.machine.lock_down().map_err(|error| {
        failure::COMMAND_EXECUTION.with(format!("preparing the lockdown: {}", failure::chain(&error)))
    })?;
    tracing::info!("the controller locks this machine down: the agent ends, then the network");
    context.leave.notify_one();
    Ok(Value::Null)
}
