//! Where commands meet the steps that an operator brought along: what they are told, and the wire's classes out.

use super::{Context, Failure, Job, Params, failure, rooms};
use crate::outside::protocol::Order;
use crate::outside::{self, Manifest, Stop};
use ferric_common::events::Progress;
use serde_json::{Map, Value};
use std::path::Path;

impl Stop for Job {
    fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }
    fn report(&self, progress: Progress) {
        self.progress.set(progress);
    }
}

/// Runs a step from outside.
///
/// # Errors
/// [`failure::INVALID_PARAMS`] for arguments that are not in its manifest, else the class of its kind.
pub fn run(
    kind: &str,
    manifest: &Manifest,
    program: &Path,
    context: &Context,
    params: &Params,
    args: &Map<String, Value>,
    job: &Job,
) -> Result<Value, Failure> {
    manifest.check_args(args).map_err(|why| failure::INVALID_PARAMS.with(why))?;
    // Whatever it does to the disk: the same image is written again if it is asked for.
    context.note_change();
    if kind == "clean" {
        // It may erase what was written.
        context.forget_written();
    }
    let class = failure::of_step(kind).unwrap_or(failure::DEPLOYMENT);
    let machine = context.machine.as_ref();
    let disks = machine.disks().map_err(|error| class.with(failure::chain(&error)))?;
    let disks = disks.into_iter().map(|facts| serde_json::to_value(facts.disk).unwrap_or_default()).collect();
    let root_disk = rooms::instance_disk(context).ok();
    let partitions = root_disk.as_deref().and_then(|disk| machine.partitions(disk).ok()).unwrap_or_default();
    let order = Order {
        kind,
        step: &manifest.name,
        interface: &manifest.interface,
        args,
        node: params.get("node").unwrap_or(&Value::Null),
        ports: params.get("ports").unwrap_or(&Value::Null),
        disks,
        root_disk: root_disk.as_deref(),
        partitions: &partitions,
    };
    tracing::info!("step {} is {}", manifest.name, program.display());
    outside::run(manifest, program, &order, context.programs.as_ref(), job)
        .map_err(|error| class.with(failure::chain(&error)))
}
