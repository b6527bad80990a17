//! `ferric node power`.

use super::args::PowerWord;
use super::client::{Api, node_path};
use super::error::CliError;
use super::render::cell;
use serde_json::json;

pub fn power(api: &Api, action: PowerWord, node: &str) -> Result<(), CliError> {
    let target = match action {
        PowerWord::Status => {
            let states = api.get(&node_path(node, "/states"))?;
            let target = match cell(&states, "target_power_state").as_str() {
                "-" => String::new(),
                target => format!(" (going to '{target}')"),
            };
            println!("{}{target}", cell(&states, "power_state"));
            return Ok(());
        }
        PowerWord::On => "power on",
        PowerWord::Off => "power off",
        PowerWord::Reboot => "rebooting",
    };
    api.put(&node_path(node, "/states/power"), &json!({"target": target}))?;
    println!("'{target}' was accepted for node {node}; see: ferric node power status {node}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, answer};
    use serde_json::Value;

    #[test]
    fn each_word_is_ironics_target() {
        for (word, target) in
            [(PowerWord::On, "power on"), (PowerWord::Off, "power off"), (PowerWord::Reboot, "rebooting")]
        {
            let server = Server::start(vec![answer(202, Value::Null)]);
            power(&server.api(), word, "n 1").unwrap();
            let seen = server.seen();
            assert_eq!(
                (seen[0].line.as_str(), &seen[0].body),
                ("PUT /v1/nodes/n%201/states/power", &json!({"target": target}))
            );
        }
        let server = Server::start(vec![answer(200, json!({"power_state": "power on"}))]);
        power(&server.api(), PowerWord::Status, "n").unwrap();
        assert_eq!(server.lines(), ["GET /v1/nodes/n/states"]);
    }
}
