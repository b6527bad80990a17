//! Namespace `service`: steps on a machine whose instance stays, asked for by an operator one by one.

use super::steps::{self, Family};
use super::{Context, Failure, Job, Params, deploy, inject, raid};
use serde_json::Value;

pub fn get_service_steps(context: &Context, params: &Params, _job: &Job) -> Result<Value, Failure> {
    steps::list(Family::Service, context, params)
}

pub fn execute_service_step(context: &Context, params: &Params, job: &Job) -> Result<Value, Failure> {
    steps::execute(Family::Service, context, params, job, |name, args| match name {
        "write_image" => deploy::write_image(context, args, job),
        "delete_configuration" => raid::delete_configuration(context),
        "apply_configuration" => raid::apply_configuration(context, args),
        "create_configuration" => raid::create_configuration(context),
        "inject_files" => inject::inject_files(context, params, args),
        _ => Err(steps::unknown(name)),
    })
}
