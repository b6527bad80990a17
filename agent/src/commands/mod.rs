//! What a conductor may ask of the agent: one file per namespace, one table of all commands.
//!
//! A command is a plain blocking function; the executor gives it a thread, keeps its result and turns its [`Failure`]
//! into the wire's error. Joins [`crate::disk`] and [`crate::image`]; knows nothing of HTTP or of lists of results.
//! Names, parameters, kinds and error classes are ironic-python-agent's.

mod brought;
pub mod checksum;
pub mod checksum_file;
pub mod clean;
pub mod configdrive;
pub mod context;
pub mod deploy;
pub mod failure;
pub mod image;
pub mod image_info;
mod inject;
pub mod log;
pub mod raid;
pub mod rescue;
pub mod rooms;
mod rules;
pub mod service;
pub mod standby;
pub mod steps;
pub mod system;

pub use context::{Context, Job, NodeView};
pub use failure::{Class, Failure};
pub use rules::Rules;

use serde_json::{Map, Value};

/// The parameters of a command, as they came.
pub type Params = Map<String, Value>;

/// Whether the answer to the POST holds the result, or the command goes on in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sync,
    Async,
}

/// Whether parameters that are not in the table are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Refused,
    Ignored,
}

type Validate = fn(&Context, &Params) -> Result<(), Failure>;
type Run = fn(&Context, &Params, &Job) -> Result<Value, Failure>;

/// One row of the table.
pub struct Command {
    pub extension: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub required: &'static [&'static str],
    pub optional: &'static [&'static str],
    pub extra: Extra,
    /// Checked before an asynchronous command starts; its failure is the answer to the POST (400) and is not stored.
    pub validate: Option<Validate>,
    pub run: Run,
}

const STEP: &[&str] = &["step", "node", "ports"];
const STEPS: &[&str] = &["node", "ports"];

/// Every command.
pub static COMMANDS: &[Command] = &[
    Command {
        extension: "clean",
        name: "get_clean_steps",
        kind: Kind::Sync,
        required: STEPS,
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: clean::get_clean_steps,
    },
    Command {
        extension: "clean",
        name: "execute_clean_step",
        kind: Kind::Async,
        required: STEP,
        optional: &["clean_version"],
        extra: Extra::Ignored,
        validate: None,
        run: clean::execute_clean_step,
    },
    Command {
        extension: "deploy",
        name: "get_deploy_steps",
        kind: Kind::Sync,
        required: STEPS,
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: deploy::get_deploy_steps,
    },
    Command {
        extension: "deploy",
        name: "execute_deploy_step",
        kind: Kind::Async,
        required: STEP,
        optional: &["deploy_version"],
        extra: Extra::Ignored,
        validate: None,
        run: deploy::execute_deploy_step,
    },
    Command {
        extension: "rescue",
        name: "finalize_rescue",
        kind: Kind::Sync,
        required: &[],
        optional: &["rescue_password", "hashed"],
        extra: Extra::Refused,
        validate: None,
        run: rescue::finalize_rescue,
    },
    Command {
        extension: "system",
        name: "lockdown",
        kind: Kind::Sync,
        required: &[],
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: system::lockdown,
    },
    Command {
        extension: "service",
        name: "get_service_steps",
        kind: Kind::Sync,
        required: STEPS,
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: service::get_service_steps,
    },
    Command {
        extension: "service",
        name: "execute_service_step",
        kind: Kind::Async,
        required: STEP,
        optional: &["service_version"],
        extra: Extra::Ignored,
        validate: None,
        run: service::execute_service_step,
    },
    Command {
        extension: "standby",
        name: "prepare_image",
        kind: Kind::Async,
        required: &["image_info"],
        optional: &["configdrive"],
        extra: Extra::Refused,
        validate: Some(standby::validate_image),
        run: standby::prepare_image,
    },
    Command {
        extension: "standby",
        name: "run_image",
        kind: Kind::Async,
        required: &[],
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: standby::run_image,
    },
    Command {
        extension: "standby",
        name: "power_off",
        kind: Kind::Async,
        required: &[],
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: standby::power_off,
    },
    Command {
        extension: "standby",
        name: "sync",
        kind: Kind::Sync,
        required: &[],
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: standby::sync,
    },
    Command {
        extension: "standby",
        name: "get_partition_uuids",
        kind: Kind::Sync,
        required: &[],
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: standby::get_partition_uuids,
    },
    Command {
        extension: "image",
        name: "install_bootloader",
        kind: Kind::Async,
        required: &["root_uuid"],
        optional: &[
            "efi_system_part_uuid",
            "prep_boot_part_uuid",
            "target_boot_mode",
            "ignore_bootloader_failure",
        ],
        extra: Extra::Refused,
        validate: None,
        run: image::install_bootloader,
    },
    Command {
        extension: "log",
        name: "collect_system_logs",
        kind: Kind::Sync,
        required: &[],
        optional: &[],
        extra: Extra::Refused,
        validate: None,
        run: log::collect_system_logs,
    },
];

/// Why there is no such command.
#[derive(Debug, PartialEq, Eq)]
pub enum Unknown {
    Extension,
    Command,
}

/// Finds a command by the two halves of its name.
///
/// # Errors
/// [`Unknown`]: the wire tells a missing namespace (404) from a missing command (400).
pub fn find(extension: &str, name: &str) -> Result<&'static Command, Unknown> {
    COMMANDS.iter().find(|command| command.extension == extension && command.name == name).ok_or_else(|| {
        match COMMANDS.iter().any(|command| command.extension == extension) {
            true => Unknown::Command,
            false => Unknown::Extension,
        }
    })
}

impl Command {
    /// Names what is missing or not expected.
    ///
    /// # Errors
    /// [`failure::COMMAND_EXECUTION`]: the reference agent fails at the call, after the command was accepted.
    pub fn check_names(&self, params: &Params) -> Result<(), Failure> {
        let full = format!("{}.{}", self.extension, self.name);
        if let Some(missing) = self.required.iter().find(|name| !params.contains_key(**name)) {
            return Err(failure::COMMAND_EXECUTION.with(format!("{full} needs the parameter '{missing}'")));
        }
        let known =
            |name: &String| self.required.contains(&name.as_str()) || self.optional.contains(&name.as_str());
        match params.keys().find(|name| !known(name)) {
            Some(odd) if self.extra == Extra::Refused => {
                Err(failure::COMMAND_EXECUTION.with(format!("{full} has no parameter '{odd}'")))
            }
            _ => Ok(()),
        }
    }
}

/// A parameter that is a text; null and absent are the same.
pub(crate) fn text<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
