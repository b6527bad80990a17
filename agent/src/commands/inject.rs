//! The step `inject_files`: its arguments and the node in, the wire's classes out.

use super::{Context, Failure, Params, failure, rooms};
use crate::fetch::{self, Ask, Means};
use crate::inject::{self, InjectError, plan, template};
use ferric_common::limits;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Bytes of one file behind an address, and the time for one try.
const BYTES: usize = 64 << 20;
const WITHIN: Duration = Duration::from_secs(300);

/// The step as it is published.
pub(super) fn published(priority: u32) -> Value {
    json!({
        "step": "inject_files", "priority": priority, "interface": "deploy", "reboot_requested": false,
        "argsinfo": {
            "files": {
                "description": "List of files: 'path', 'partition' (a number, a device, or LABEL=, UUID=, PARTLABEL=, PARTUUID= of \
                                the root disk; without it the partition that has \
                                the first folder of the path), 'content' (base64 or an address) or 'deleted', 'mode', \
                                'dirmode' (of a folder that is made), 'owner' and 'group' (numbers). Those of the node's \
                                property inject_files come first.",
                "required": false,
            },
            "verify_ca": {
                "description": "Whether certificates of servers are checked. Default: as for images.",
                "required": false,
            },
        },
    })
}

/// Puts files into the deployed system.
///
/// # Errors
/// [`failure::INVALID_PARAMS`] before anything is touched, [`failure::DEVICE_NOT_FOUND`], [`failure::COMMAND_EXECUTION`] with the
/// file that failed.
pub(super) fn inject_files(
    context: &Context,
    params: &Params,
    args: &Map<String, Value>,
) -> Result<Value, Failure> {
    let properties = context.node().properties;
    let orders = plan::orders(properties.get("inject_files"), args.get("files"))
        .map_err(|why| failure::INVALID_PARAMS.with(why))?;
    if orders.is_empty() {
        tracing::info!("no files to inject");
        return Ok(Value::Null);
    }
    let tls = tls(context, args.get("verify_ca"))?;
    let (node, ports) =
        (params.get("node").unwrap_or(&Value::Null), params.get("ports").unwrap_or(&Value::Null));
    let mut fetch = |address: &str| {
        let address = template::fill(address, node, ports)?;
        fetched(context, &tls, &address)
    };
    let disk = rooms::instance_disk(context)?;
    context.note_change();
    inject::run(context.machine.as_ref(), &disk, &orders, &mut fetch).map_err(|error| {
        let class = match error {
            InjectError::Nowhere { .. } | InjectError::NotNamed { .. } => failure::DEVICE_NOT_FOUND,
            _ => failure::COMMAND_EXECUTION,
        };
        class.with(failure::chain(&error))
    })?;
    Ok(Value::Null)
}

fn tls(context: &Context, verify: Option<&Value>) -> Result<Arc<rustls::ClientConfig>, Failure> {
    match verify {
        None | Some(Value::Null | Value::Bool(true)) => Ok(Arc::clone(&context.tls)),
        Some(Value::Bool(false)) => {
            tracing::warn!("inject_files with verify_ca=false: no server's certificate is checked");
            (context.unchecked_tls)().map_err(|why| failure::COMMAND_EXECUTION.with(why))
        }
        Some(_) => Err(failure::INVALID_PARAMS.with("verify_ca must be true or false")),
    }
}

fn fetched(context: &Context, tls: &Arc<rustls::ClientConfig>, address: &str) -> Result<Vec<u8>, String> {
    let url = Url::parse(address).ok().filter(|_| address.len() <= limits::URL);
    let url = url.ok_or_else(|| format!("its address is none, or longer than {} bytes", limits::URL))?;
    let shown = fetch::printable(&url);
    let mut last = String::new();
    for attempt in 1..=limits::DOWNLOAD_TRIES {
        let ask = Ask::get(url.clone(), BYTES, WITHIN);
        match context.runtime.block_on(fetch::follow(&Means::direct(tls), ask)) {
            Ok(answer) if answer.status == 200 => return Ok(answer.body.to_vec()),
            Ok(answer) => {
                return Err(format!("Unable to read data from {shown}: it answered {}", answer.status));
            }
            Err(error) if error.is_transient() => last = failure::chain(&error),
            Err(error) => {
                return Err(format!("Unable to read data from {shown}: {}", failure::chain(&error)));
            }
        }
        if attempt < limits::DOWNLOAD_TRIES {
            context.runtime.block_on(tokio::time::sleep(super::checksum::pause(attempt)));
        }
    }
    Err(format!("Unable to read data from {shown}: {last} ({} tries)", limits::DOWNLOAD_TRIES))
}
