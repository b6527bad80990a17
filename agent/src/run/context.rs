//! What all commands of a life work with: put together from the settings, the lookup and the ramdisk.

use super::{Parts, disks};
use crate::commands::context::SetClock;
use crate::commands::{Context, NodeView, Rules, failure, steps};
use crate::conductor::ntp;
use crate::config::{Config, Trust};
use crate::outside::{self, Shelf};
use crate::platform::linux::child::LinuxPrograms;
use crate::platform::machine::Machine;
use crate::state::Identity;
use ferric_common::wire::lookup::LookupResponse;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Asks the configured time servers once more: clocks drift while a machine is cleaned for days.
fn set_clock(config: &Config, machine: &Arc<dyn Machine>, time: ntp::Patience) -> SetClock {
    let (config, machine, runtime) = (config.clone(), Arc::clone(machine), tokio::runtime::Handle::current());
    Box::new(move || {
        if config.ntp_servers.is_empty() {
            return Ok(());
        }
        let asked = runtime.block_on(ntp::synchronise(&machine, &config, &time));
        asked.map(drop).map_err(|error| error.to_string())
    })
}

pub(super) fn context(
    parts: Parts,
    lookup: &LookupResponse,
    identity: Identity,
    tls: Arc<rustls::ClientConfig>,
) -> Context {
    let Parts { config, machine, writer, state, time, reply_grace, began } = parts;
    let set_clock = set_clock(&config, &machine, time);
    let theirs = &lookup.config;
    let rules = Rules {
        md5: theirs.agent_md5_checksum_enable.unwrap_or(config.md5_enabled),
        permitted_formats: theirs.permitted_image_formats.clone().map_or_else(
            || config.permitted_image_formats.clone(),
            |formats| formats.iter().map(|format| format.to_ascii_lowercase()).collect(),
        ),
        image_user: config.image_user.clone(),
        image_password: config.image_password.clone(),
        ignore_bootloader_failure: config.ignore_bootloader_failure,
        wipe_special_filesystems: !config.guard_special_filesystems,
        discard_erase: config.enable_discard_erase,
        clock_required: config.clock_required,
        inject_priority: config.inject_files_priority,
        rebuild_drive: config.config_drive_rebuild,
        verify: config.verify,
        patience: config.patience.clone(),
        disk_wait: disks::patience(&config),
    };
    let shelf = Shelf::read(Path::new(outside::FOLDER), &steps::own_names());
    shelf.tell();
    let written = identity.written.clone();
    let identity = Mutex::new(identity);
    Context {
        machine,
        writer,
        shelf,
        programs: Box::new(LinuxPrograms),
        tls,
        unchecked_tls: || {
            crate::conductor::tls::client_config(&Trust::Insecure).map_err(|error| failure::chain(&error))
        },
        runtime: tokio::runtime::Handle::current(),
        rules,
        node: Mutex::new(NodeView {
            uuid: lookup.node.uuid.clone(),
            properties: lookup.node.properties.clone(),
            instance_info: lookup.node.instance_info.clone(),
            driver_internal_info: lookup.node.driver_internal_info.clone(),
            ..NodeView::default()
        }),
        written: Mutex::new(written),
        remember: Box::new(move |written| {
            let mut identity = crate::commands::context::lock(&identity);
            identity.written = written.cloned();
            if let Err(error) = state.save_identity(&identity) {
                tracing::warn!("{}", failure::chain(&error));
            }
        }),
        set_clock,
        reply_grace,
        started: began,
        leave: Notify::new(),
    }
}
