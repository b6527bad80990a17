//! The operator's command line `ferric`: it speaks the REST API and nothing else.
//!
//! `args` says what may be typed, `client` talks HTTP, the other files carry out one group of commands each. What is
//! printed is made by pure functions in `render` and `progress`. Exit codes: 0 done, 1 failed, 2 waited too long,
//! 64 the command line itself is wrong.

mod args;
mod client;
mod deploy;
mod drive;
mod error;
mod node;
mod port;
mod power;
mod progress;
mod render;
#[cfg(test)]
mod testing;
mod wait;

use args::{Cli, Command, NodeCommand};
use clap::Parser;
use client::Api;
use error::CliError;
use std::process::ExitCode;

/// Exit code for a command line that cannot be understood (`EX_USAGE` of sysexits.h; 2 is taken by "too long").
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // Where nobody reads, nothing is lost.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferric: {}", render::printable(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let api = Api::new(&cli.url)?;
    match cli.command {
        Command::Node(NodeCommand::Create(args)) => node::create(&api, &args),
        Command::Node(NodeCommand::List) => node::list(&api),
        Command::Node(NodeCommand::Show { node, json }) => node::show(&api, &node, json),
        Command::Node(NodeCommand::Delete { node }) => node::delete(&api, &node),
        Command::Node(NodeCommand::Validate { node }) => node::validate(&api, &node),
        Command::Node(NodeCommand::Deploy(args)) => deploy::deploy(&api, &args),
        Command::Node(NodeCommand::Power { action, node, timeout }) => {
            power::power(&api, action, &node, timeout)
        }
        Command::Node(NodeCommand::Watch { node }) => wait::watch(&api, &node),
        Command::Node(NodeCommand::Manage(at)) => wait::provision(&api, &at, wait::Verb::Manage),
        Command::Node(NodeCommand::Provide(at)) => wait::provision(&api, &at, wait::Verb::Provide),
        Command::Node(NodeCommand::Abort(at)) => wait::provision(&api, &at, wait::Verb::Abort),
        Command::Node(NodeCommand::Undeploy(at)) => wait::provision(&api, &at, wait::Verb::Undeploy),
        Command::Node(NodeCommand::Rebuild(at)) => wait::provision(&api, &at, wait::Verb::Rebuild),
        Command::Port(args::PortCommand::List { node }) => port::list(&api, node.as_deref()),
        Command::Port(args::PortCommand::Create { mac, node }) => port::create(&api, &node, mac),
        Command::Driver(args::DriverCommand::List) => port::drivers(&api),
    }
}
