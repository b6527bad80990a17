//! Files put into, or taken out of, the system on the root disk: which file system each belongs to, and the change itself.
//!
//! Contents are fetched before a file system is mounted. What an image's links do is [`crate::platform::files`]'s matter.

mod named;
pub mod plan;
pub mod template;

use crate::platform::files::Files;
use crate::platform::machine::{Machine, MachineError};
use plan::{Action, Content, Order, Place};
use std::io;

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    #[error("listing the partitions of {disk}")]
    List {
        disk: String,
        #[source]
        source: MachineError,
    },
    #[error("No partition found with path {folder}, scanned: {scanned}")]
    Nowhere { folder: String, scanned: String },
    #[error("{disk} has no partition {number}, it has: {has}")]
    NoPartition { disk: String, number: u32, has: String },
    #[error("No partition of {disk} is {name}, it has: {has}")]
    NotNamed { disk: String, name: String, has: String },
    #[error("{name} is no one partition of {disk}: {which} are")]
    SeveralNamed { disk: String, name: String, which: String },
    #[error("Failed to process file /{path}: {why}")]
    Content { path: String, why: String },
    #[error("Failed to process file /{path} on {device}")]
    Change {
        path: String,
        device: String,
        #[source]
        source: MachineError,
    },
}

/// Gets what stands at an address; an error is one line for a person.
pub type Fetch<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>;

/// Carries the orders out, one after the other. Each change is on stable storage and its file system unmounted before the
/// next.
///
/// # Errors
/// [`InjectError`]: of the first order that failed; those before it stand.
pub fn run(machine: &dyn Machine, disk: &str, orders: &[Order], fetch: Fetch<'_>) -> Result<(), InjectError> {
    let listed = machine.partitions(disk);
    let partitions = listed.map_err(|source| InjectError::List { disk: disk.to_owned(), source })?;
    for order in orders {
        let bytes = match &order.action {
            Action::Remove => Vec::new(),
            Action::Put(Content::Bytes(bytes), _) => bytes.clone(),
            Action::Put(Content::Address(address), _) => {
                fetch(address).map_err(|why| InjectError::Content { path: order.path.clone(), why })?
            }
        };
        let device = place(machine, disk, &partitions, order, &bytes)?;
        let how = if order.action == Action::Remove { "removed" } else { "written" };
        tracing::info!("file /{} on {device} was {how}", order.path);
    }
    Ok(())
}

/// Changes the file where it belongs; the device.
fn place(
    machine: &dyn Machine,
    disk: &str,
    partitions: &[String],
    order: &Order,
    bytes: &[u8],
) -> Result<String, InjectError> {
    let device = match &order.place {
        Place::Device(device) => device.clone(),
        Place::Number(number) => numbered(disk, partitions, *number)?,
        Place::Named(name) => named::find(machine, disk, partitions, name)?,
        Place::WhereIs(folder) => return search(machine, partitions, folder, order, bytes),
    };
    let changed = machine.change(&device, &mut |tree| act(tree, order, bytes));
    changed.map_err(|source| failed(order, &device, source))?;
    Ok(device)
}

fn numbered(disk: &str, partitions: &[String], number: u32) -> Result<String, InjectError> {
    let is_it = |name: &&String| {
        let rest = name.strip_prefix(disk).map(|rest| rest.strip_prefix('p').unwrap_or(rest));
        rest.and_then(|digits| digits.parse().ok()) == Some(number)
    };
    partitions.iter().find(is_it).cloned().ok_or_else(|| InjectError::NoPartition {
        disk: disk.to_owned(),
        number,
        has: if partitions.is_empty() { "none".to_owned() } else { partitions.join(", ") },
    })
}

fn search(
    machine: &dyn Machine,
    partitions: &[String],
    folder: &str,
    order: &Order,
    bytes: &[u8],
) -> Result<String, InjectError> {
    let mut scanned = Vec::new();
    for device in partitions {
        let mut is_here = false;
        let changed = machine.change(device, &mut |tree| {
            is_here = tree.is_folder(folder);
            if is_here { act(tree, order, bytes) } else { Ok(()) }
        });
        match changed {
            Err(source) if is_here => return Err(failed(order, device, source)),
            Ok(()) if is_here => return Ok(device.clone()),
            Ok(()) => scanned.push(format!("{device} (no such folder)")),
            Err(error) => scanned.push(format!("{device} ({})", why(&error))),
        }
    }
    let scanned = if scanned.is_empty() { "no partition".to_owned() } else { scanned.join(", ") };
    Err(InjectError::Nowhere { folder: folder.to_owned(), scanned })
}

/// Why a partition could not be looked at, beside whose name it is said.
fn why(error: &MachineError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn failed(order: &Order, device: &str, source: MachineError) -> InjectError {
    InjectError::Change { path: order.path.clone(), device: device.to_owned(), source }
}

fn act(tree: &dyn Files, order: &Order, bytes: &[u8]) -> io::Result<()> {
    match &order.action {
        Action::Remove => tree.remove(&order.path),
        Action::Put(_, access) => tree.put(&order.path, bytes, access),
    }
}

#[cfg(test)]
mod tests;
