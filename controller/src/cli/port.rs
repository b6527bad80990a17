//! `ferric port` and `ferric driver`.

use super::client::{Api, node_path, segment};
use super::error::CliError;
use super::render;
use ferric_common::ids::MacAddress;
use serde_json::{Value, json};

pub fn list(api: &Api, node: Option<&str>) -> Result<(), CliError> {
    let filter = node.map(|n| format!("&node={}", segment(n))).unwrap_or_default();
    let ports = api.list(&format!("/v1/ports?fields=uuid,address,node_uuid{filter}"), "ports")?;
    print!("{}", render::ports(&ports));
    Ok(())
}

pub fn create(api: &Api, node: &str, mac: MacAddress) -> Result<(), CliError> {
    // The API wants the UUID; people know the name.
    let found = api.get(&node_path(node, "?fields=uuid"))?;
    let port = add(api, &render::cell(&found, "uuid"), mac)?;
    println!("port {} ({mac}) was added to node {node}", render::cell(&port, "uuid"));
    Ok(())
}

/// Adds a network card that the machine boots from.
pub fn add(api: &Api, node_uuid: &str, mac: MacAddress) -> Result<Value, CliError> {
    api.post("/v1/ports", &json!({"node_uuid": node_uuid, "address": mac.to_string()}))
}

pub fn drivers(api: &Api) -> Result<(), CliError> {
    print!("{}", render::drivers(&api.list("/v1/drivers", "drivers")?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, answer};

    #[test]
    fn a_port_is_added_by_the_nodes_uuid() {
        let server =
            Server::start(vec![answer(200, json!({"uuid": "u-1"})), answer(201, json!({"uuid": "p-1"}))]);
        create(&server.api(), "rack", "52:54:00:AA:00:01".parse().unwrap()).unwrap();
        let seen = server.seen();
        assert_eq!(server.lines(), ["GET /v1/nodes/rack?fields=uuid", "POST /v1/ports"]);
        assert_eq!(seen[1].body, json!({"node_uuid": "u-1", "address": "52:54:00:aa:00:01"}));
    }

    #[test]
    fn lists_ask_for_what_they_print() {
        let server = Server::start(vec![answer(200, json!({"ports": [], "drivers": []}))]);
        list(&server.api(), Some("rack")).unwrap();
        drivers(&server.api()).unwrap();
        assert_eq!(
            server.lines(),
            ["GET /v1/ports?fields=uuid,address,node_uuid&node=rack", "GET /v1/drivers"]
        );
    }
}
