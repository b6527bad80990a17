//! Slow disks: waited for before anybody hears of this machine's inventory, or of the machine.

use crate::config::Config;
use crate::disk::patience::Patience;
use crate::disk::wait::{self, Wanted};
use crate::platform::machine::Machine;
use std::sync::Arc;
use std::time::Instant;

/// As the settings have it.
pub(super) fn patience(config: &Config) -> Patience {
    Patience { attempts: config.disk_wait_attempts, delay: config.disk_wait_delay }
}

/// Until the disk is there, or the patience is over.
pub(super) async fn wait_for(config: &Config, machine: &Arc<dyn Machine>, wanted: Wanted, began: Instant) {
    let (machine, patience) = (Arc::clone(machine), patience(config));
    let age = began.elapsed();
    let work = move || wait::root_disk(machine.as_ref(), &wanted, patience, age, &std::thread::sleep);
    // What went wrong with it was said; without the disk the agent goes on.
    drop(tokio::task::spawn_blocking(work).await);
}
