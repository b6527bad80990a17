//! `ferric node create|list|show|delete|validate`.

use super::args::{BootModeWord, CreateArgs};
use super::client::{Api, node_path};
use super::error::CliError;
use super::{port, render};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

/// A file with a password is short; a longer one is the wrong file.
const PASSWORD_FILE: u64 = 1024;

/// Creates the node and its ports; a node whose ports are refused is taken away again.
pub fn create(api: &Api, args: &CreateArgs) -> Result<(), CliError> {
    let password = args.bmc_password_file.as_deref().map(read_password).transpose()?;
    let node = api.post("/v1/nodes", &body(args, password.as_ref().map(|p| p.as_str()))?)?;
    let uuid = render::cell(&node, "uuid");
    for mac in &args.macs {
        if let Err(error) = port::add(api, &uuid, *mac) {
            let undone = match api.delete(&node_path(&uuid, "")) {
                Ok(_) => "the node was taken away again".to_string(),
                Err(left) => {
                    format!("the node {uuid} is left behind, since taking it away failed too: {left}")
                }
            };
            return Err(CliError::Failed(format!("adding the port {mac} failed: {error}; {undone}")));
        }
    }
    println!("node {} was created with UUID {uuid}; next: ferric node manage {}", args.name, args.name);
    Ok(())
}

/// The request body. Pure.
fn body(args: &CreateArgs, password: Option<&str>) -> Result<Value, CliError> {
    if args.driver == "ipmi" {
        let missing: Vec<&str> = [
            ("--bmc-address", args.bmc_address.is_none()),
            ("--bmc-user", args.bmc_user.is_none()),
            ("--bmc-password-file", password.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            return Err(CliError::Usage(format!("the driver ipmi also needs {}", missing.join(", "))));
        }
    }
    let mut info: Map<String, Value> = args.driver_info.iter().cloned().collect();
    let given = [
        ("ipmi_address", args.bmc_address.clone().map(Value::from)),
        ("ipmi_port", args.bmc_port.map(Value::from)),
        ("ipmi_username", args.bmc_user.clone().map(Value::from)),
        ("ipmi_password", password.map(Value::from)),
    ];
    info.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))));
    let mut properties: Map<String, Value> = args.properties.iter().cloned().collect();
    if let Some(hints) = &args.root_device {
        properties.insert("root_device".into(), Value::Object(hints.0.clone()));
    }
    if let Some(mode) = args.boot_mode {
        let mode = match mode {
            BootModeWord::Bios => "boot_mode:bios",
            BootModeWord::Uefi => "boot_mode:uefi",
        };
        let others = properties.get("capabilities").and_then(Value::as_str).filter(|c| !c.is_empty());
        let all = others.map_or_else(|| mode.to_string(), |others| format!("{others},{mode}"));
        properties.insert("capabilities".into(), all.into());
    }
    Ok(json!({"name": args.name, "driver": args.driver, "driver_info": info, "properties": properties}))
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let shown = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let fail = |source| CliError::Read { what: "the BMC's password", path: shown.clone(), source };
    let mut text = Zeroizing::new(String::new());
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(PASSWORD_FILE).read_to_string(&mut text),
        false => std::fs::File::open(path).and_then(|f| f.take(PASSWORD_FILE).read_to_string(&mut text)),
    };
    read.map_err(fail)?;
    // Editors and `echo` end a file with a line break that is not part of the password.
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_string());
    match password.is_empty() || password.contains('\n') {
        true => Err(CliError::Usage(format!("{shown} must hold the BMC's password, one line"))),
        false => Ok(password),
    }
}

pub fn list(api: &Api) -> Result<(), CliError> {
    print!("{}", render::nodes(&api.list("/v1/nodes", "nodes")?));
    Ok(())
}

pub fn show(api: &Api, node: &str, as_json: bool) -> Result<(), CliError> {
    let found = api.get(&node_path(node, ""))?;
    match as_json {
        true => println!("{found:#}"),
        false => print!("{}", render::node(&found)),
    }
    Ok(())
}

pub fn delete(api: &Api, node: &str) -> Result<(), CliError> {
    api.delete(&node_path(node, ""))?;
    println!("node {node} was deleted");
    Ok(())
}

pub fn validate(api: &Api, node: &str) -> Result<(), CliError> {
    let (text, good) = render::validation(&api.get(&node_path(node, "/validate"))?);
    print!("{text}");
    match good {
        true => Ok(()),
        false => {
            Err(CliError::Failed(format!("node {node} lacks something that a deployment needs (NO above)")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, NodeCommand};
    use crate::testing::{Server, answer};
    use clap::Parser;

    fn args(line: &str) -> CreateArgs {
        let words = line.split_whitespace();
        match Cli::try_parse_from(["ferric", "node", "create"].into_iter().chain(words)).unwrap().command {
            Command::Node(NodeCommand::Create(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    const IPMI: &str = "n1 --driver ipmi --bmc-address 10.0.0.9 --bmc-port 6230 --bmc-user admin --mac 52:54:00:00:00:01 \
        --mac 52:54:00:00:00:02 --root-device {\"serial\":\"BIG\"} --boot-mode uefi --property cpu_arch=x86_64 \
        --driver-info ipmi_priv_level=OPERATOR";

    #[test]
    fn a_machine_is_enrolled_with_its_ports() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret\n").unwrap();
        let mut args = args(IPMI);
        args.bmc_password_file = Some(file);
        let server = Server::start(vec![answer(201, json!({"uuid": "u-1"}))]);
        create(&server.api(), &args).unwrap();
        let seen = server.seen();
        assert_eq!(server.lines(), ["POST /v1/nodes", "POST /v1/ports", "POST /v1/ports"]);
        assert_eq!(
            seen[0].body,
            json!({"name": "n1", "driver": "ipmi",
                "driver_info": {"ipmi_address": "10.0.0.9", "ipmi_port": 6230, "ipmi_username": "admin",
                    "ipmi_password": "s3cret", "ipmi_priv_level": "OPERATOR"},
                "properties": {"root_device": {"serial": "BIG"}, "capabilities": "boot_mode:uefi", "cpu_arch": "x86_64"}})
        );
        assert_eq!(seen[2].body, json!({"node_uuid": "u-1", "address": "52:54:00:00:00:02"}));
    }

    #[test]
    fn a_node_whose_port_is_refused_is_taken_away_again() {
        let server = Server::start(vec![
            answer(201, json!({"uuid": "u-1"})),
            answer(
                409,
                json!({"error_message": "A port with MAC address 52:54:00:00:00:01 already exists."}),
            ),
            answer(204, Value::Null),
        ]);
        let said =
            create(&server.api(), &args("n --driver fake-hardware --mac 52:54:00:00:00:01")).unwrap_err();
        assert_eq!(server.lines(), ["POST /v1/nodes", "POST /v1/ports", "DELETE /v1/nodes/u-1"]);
        let text = said.to_string();
        assert!(text.contains("already exists") && text.contains("taken away again"), "{text}");
    }

    #[test]
    fn what_ipmi_needs_is_named() {
        let said = body(&args("n --driver ipmi --bmc-user u"), None).unwrap_err().to_string();
        assert_eq!(said, "the driver ipmi also needs --bmc-address, --bmc-password-file");
        let plain = body(&args("n --driver fake-hardware"), None).unwrap();
        assert_eq!(
            plain,
            json!({"name": "n", "driver": "fake-hardware", "driver_info": {}, "properties": {}})
        );
        let more = body(&args("n --driver fake-hardware --boot-mode bios --property capabilities=a:b"), None)
            .unwrap();
        assert_eq!(more["properties"]["capabilities"], "a:b,boot_mode:bios");
    }

    #[test]
    fn a_password_file_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let file = folder.path().join("p");
            std::fs::write(&file, text).unwrap();
            read_password(&file).map(|p| p.to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(read(" with blanks \r\n"), Ok(" with blanks ".into()));
        assert!(read("\n").unwrap_err().contains("one line"));
        assert!(read("a\nb\n").unwrap_err().contains("one line"));
        assert!(
            read_password(Path::new("/nonexistent/p")).unwrap_err().to_string().contains("/nonexistent/p")
        );
    }

    #[test]
    fn validation_that_lacks_something_fails() {
        let bad = json!({"deploy": {"result": false, "reason": "no image_source"}});
        let server = Server::start(vec![answer(200, bad)]);
        assert_eq!(validate(&server.api(), "n").unwrap_err().exit_code(), 1);
        assert_eq!(server.lines(), ["GET /v1/nodes/n/validate"]);
    }
}
