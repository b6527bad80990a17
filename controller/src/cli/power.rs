//! `ferric node power`.

use super::args::PowerWord;
use super::client::{Api, node_path};
use super::error::CliError;
use super::render::cell;
use serde_json::{Value, json};

/// The target of Ironic's API that a word stands for; `None` where only a look is wanted.
fn target(word: PowerWord) -> Option<&'static str> {
    Some(match word {
        PowerWord::On => "power on",
        PowerWord::Off => "power off",
        PowerWord::SoftOff => "soft power off",
        PowerWord::Reboot => "rebooting",
        PowerWord::SoftReboot => "soft rebooting",
        PowerWord::Status => return None,
    })
}

/// Asks for a power action, or shows the power. `timeout` is in seconds.
pub fn power(api: &Api, action: PowerWord, node: &str, timeout: Option<u64>) -> Result<(), CliError> {
    let Some(target) = target(action) else { return show(api, node) };
    let mut body = json!({"target": target});
    if let (Some(seconds), Some(body)) = (timeout, body.as_object_mut()) {
        body.insert("timeout".into(), Value::from(seconds));
    }
    api.put(&node_path(node, "/states/power"), &body)?;
    println!("'{target}' was accepted for node {node}; see: ferric node power status {node}");
    Ok(())
}

fn show(api: &Api, node: &str) -> Result<(), CliError> {
    let states = api.get(&node_path(node, "/states"))?;
    let target = match cell(&states, "target_power_state").as_str() {
        "-" => String::new(),
        target => format!(" (going to '{target}')"),
    };
    println!("{}{target}", cell(&states, "power_state"));
    match cell(&states, "last_error").as_str() {
        "-" => {}
        error => println!("last error: {error}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, NodeCommand};
    use crate::testing::{Server, answer};
    use clap::Parser as _;

    /// Types the words after `ferric node power`, and returns what the API was asked for.
    fn asked(words: &str) -> (String, Value) {
        let line = format!("ferric node power {words}");
        let Command::Node(NodeCommand::Power { action, node, timeout }) =
            Cli::try_parse_from(line.split_whitespace()).unwrap().command
        else {
            panic!("{line} is another command")
        };
        let server = Server::start(vec![answer(202, Value::Null)]);
        power(&server.api(), action, &node, timeout).unwrap();
        let seen = server.seen();
        (seen[0].line.clone(), seen[0].body.clone())
    }

    #[test]
    fn each_word_is_ironics_target() {
        for (words, body) in [
            ("on n1", json!({"target": "power on"})),
            ("off n1", json!({"target": "power off"})),
            ("reboot n1", json!({"target": "rebooting"})),
            ("reset n1", json!({"target": "rebooting"})),
            ("soft-off n1", json!({"target": "soft power off"})),
            ("soft-reboot n1 --timeout 90", json!({"target": "soft rebooting", "timeout": 90})),
        ] {
            assert_eq!(asked(words), ("PUT /v1/nodes/n1/states/power".to_string(), body), "{words}");
        }
    }

    #[test]
    fn status_only_looks() {
        let server = Server::start(vec![answer(200, json!({"power_state": "power on"}))]);
        power(&server.api(), PowerWord::Status, "n", None).unwrap();
        assert_eq!(server.lines(), ["GET /v1/nodes/n/states"]);
    }
}
