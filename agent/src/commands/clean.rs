//! Namespace `clean`: what makes a machine ready for the next tenant.

use super::steps::{self, Family};
use super::{Context, Failure, Job, Params, rooms};
use serde_json::Value;

pub fn get_clean_steps(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    steps::list(Family::Clean, context, params)
}

pub fn execute_clean_step(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    steps::execute(Family::Clean, context, params, |name, _args| match name {
        "erase_devices_metadata" => rooms::erase_devices_metadata(context),
        _ => Err(steps::unknown(name)),
    })
}
