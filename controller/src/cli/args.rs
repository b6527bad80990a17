//! What may be typed. Nothing is done here; the words of `--help` are the documentation.

use clap::{Args, Parser, Subcommand, ValueEnum};
use ferric_common::ids::MacAddress;
use ferric_common::images::ImageFormat;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Provision bare metal: enrol machines, put an operating system on them, switch their power.
#[derive(Debug, Parser)]
#[command(name = "ferric", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Where ferric-controller serves its API.
    #[arg(long, global = true, env = "FERRIC_URL", default_value = "http://127.0.0.1:6385")]
    pub url: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Machines: enrol, deploy, power.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Network cards of machines, by MAC address.
    #[command(subcommand)]
    Port(PortCommand),
    /// Kinds of hardware that the controller can drive.
    #[command(subcommand)]
    Driver(DriverCommand),
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Enrol a machine.
    Create(Box<CreateArgs>),
    /// List all machines.
    List,
    /// Show one machine.
    Show {
        /// Name or UUID.
        node: String,
        /// Everything, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget a machine; nothing on it is changed.
    Delete { node: String },
    /// Check whether a machine has all that it needs.
    Validate { node: String },
    /// Check the BMC and take the machine under management.
    Manage(At),
    /// Make the machine available for deployment (cleans its disks).
    Provide(At),
    /// Put an operating system on the machine.
    Deploy(Box<DeployArgs>),
    /// Stop what the machine is doing, where that is safe.
    Abort(At),
    /// Take the operating system off the machine (cleans its disks).
    Undeploy(At),
    /// Deploy the same image again.
    Rebuild(At),
    /// Switch the power, or show it.
    Power {
        action: PowerWord,
        /// Name or UUID.
        node: String,
        /// Seconds that the machine may take for each change, instead of the controller's own.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        timeout: Option<u64>,
    },
    /// Print what the machine does until interrupted.
    Watch { node: String },
}

/// A node, and how long to wait for the end.
#[derive(Debug, Args)]
pub struct At {
    /// Name or UUID.
    pub node: String,
    /// Wait until it is done, at most this many seconds; exits with 1 on failure and 2 if it takes longer.
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PowerWord {
    On,
    /// By the BMC, whatever the operating system does.
    Off,
    /// The operating system is asked to power the machine off.
    SoftOff,
    /// Off and on again by the BMC, whatever the operating system does. `reset` is the same.
    #[value(alias = "reset")]
    Reboot,
    /// The operating system is asked to power the machine off; then on.
    SoftReboot,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BootModeWord {
    Bios,
    Uefi,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the machine.
    pub name: String,
    /// Kind of hardware (`ferric driver list`).
    #[arg(long)]
    pub driver: String,
    /// Host name or IP address of the BMC.
    #[arg(long, value_name = "HOST")]
    pub bmc_address: Option<String>,
    /// UDP port of the BMC, if not 623.
    #[arg(long, value_name = "PORT")]
    pub bmc_port: Option<u16>,
    #[arg(long, value_name = "USER")]
    pub bmc_user: Option<String>,
    /// File with the BMC's password; `-` reads it from standard input. Never an argument: others can see those.
    #[arg(long, value_name = "FILE")]
    pub bmc_password_file: Option<PathBuf>,
    /// MAC address of a network card that boots over the network; may be given several times.
    #[arg(long = "mac", value_name = "MAC")]
    pub macs: Vec<MacAddress>,
    /// Which disk gets the operating system, as JSON: {"serial": "…"}, {"size": ">= 100"}, …
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub root_device: Option<JsonObject>,
    #[arg(long, value_name = "MODE")]
    pub boot_mode: Option<BootModeWord>,
    /// A further property; a value in JSON brackets is taken as JSON.
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = pair)]
    pub properties: Vec<(String, Value)>,
    /// A further driver setting; a value in JSON brackets is taken as JSON.
    #[arg(long = "driver-info", value_name = "KEY=VALUE", value_parser = driver_pair)]
    pub driver_info: Vec<(String, Value)>,
}

#[derive(Debug, Args)]
pub struct DeployArgs {
    #[command(flatten)]
    pub at: At,
    /// Where the machine fetches the image (http or https).
    #[arg(long, value_name = "URL")]
    pub image: String,
    /// Checksum of the image file: `sha256:HEX`, HEX alone, or the URL of a checksum file.
    #[arg(long, value_name = "SUM")]
    pub checksum: String,
    /// Format of the image: qcow2, raw, raw.gz, raw.xz, raw.zst or raw.bz2; found out by the controller if left out.
    #[arg(long)]
    pub format: Option<ImageFormat>,
    #[command(flatten)]
    pub drive: DriveArgs,
}

/// What the installed system finds on its config drive.
#[derive(Debug, Default, Args)]
pub struct DriveArgs {
    /// Host name of the installed system.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Make this user, with sudo, who logs in with --ssh-key.
    #[arg(long, value_name = "NAME", requires = "ssh_key", conflicts_with = "user_data")]
    pub user: Option<String>,
    /// File with public SSH keys (`.pub`).
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// File given to cloud-init as user data.
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// JSON file whose fields go into meta_data.json.
    #[arg(long, value_name = "FILE")]
    pub meta_data: Option<PathBuf>,
    /// JSON file for network_data.json.
    #[arg(long, value_name = "FILE")]
    pub network_data: Option<PathBuf>,
    /// A finished config drive instead: an ISO image, gzip, base64, a JSON object of its parts, or a URL.
    #[arg(long, value_name = "FILE", conflicts_with_all =
        ["hostname", "user", "ssh_key", "user_data", "meta_data", "network_data"])]
    pub config_drive: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// List network cards.
    List {
        /// Only those of this machine (name or UUID).
        #[arg(long)]
        node: Option<String>,
    },
    /// Add a network card to a machine.
    Create {
        mac: MacAddress,
        /// Name or UUID of the machine.
        #[arg(long)]
        node: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum DriverCommand {
    /// List the drivers of the controller.
    List,
}

/// A JSON object from the command line (a type of its own, since clap reads a bare map as a list).
#[derive(Debug, Clone, PartialEq)]
pub struct JsonObject(pub Map<String, Value>);

fn json_object(text: &str) -> Result<JsonObject, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(JsonObject(map)),
        Ok(_) => Err("must be a JSON object such as {\"serial\": \"S3Z1\"}".into()),
        Err(e) => Err(format!("is not JSON: {e}")),
    }
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        return Err(format!("'{key}' is no key: use letters, digits, '_' and '-'"));
    }
    let value = match value.trim_start().starts_with(['{', '[']) {
        true => serde_json::from_str(value).map_err(|e| format!("the value of {key} is not JSON: {e}"))?,
        false => Value::from(value),
    };
    Ok((key.into(), value))
}

/// As [`pair`], but no secret: whoever lists the processes would read it.
fn driver_pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = pair(text)?;
    match ["password", "secret", "token", "kg_key"].iter().any(|word| key.to_ascii_lowercase().contains(word))
    {
        true => Err(format!(
            "{key} does not belong on a command line, where others can see it; use --bmc-password-file"
        )),
        false => Ok((key, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn refusal(line: &str) -> String {
        Cli::try_parse_from(line.split_whitespace()).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        for (line, words) in [
            (
                "ferric node create a --driver ipmi --driver-info ipmi_password=x",
                "does not belong on a command line",
            ),
            ("ferric node create a --driver ipmi --root-device 7", "must be a JSON object"),
            ("ferric node create a --driver ipmi --mac 52:54", "--mac"),
            ("ferric node create a --driver ipmi --property size", "must be KEY=VALUE"),
            ("ferric node deploy a --image u --checksum c --user me", "--ssh-key"),
            (
                "ferric node deploy a --image u --checksum c --config-drive f --hostname h",
                "cannot be used with",
            ),
            ("ferric node deploy a --image u", "--checksum"),
            ("ferric node power off a --timeout 0", "--timeout"),
            ("ferric node power up a", "possible values: on, off, soft-off, reboot, soft-reboot, status"),
        ] {
            let said = refusal(line);
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn values_in_brackets_are_json() {
        assert_eq!(pair("a={\"b\":1}"), Ok(("a".into(), serde_json::json!({"b": 1}))));
        assert_eq!(pair("port=6230"), Ok(("port".into(), Value::from("6230"))));
        assert_eq!(pair("c=x=y"), Ok(("c".into(), Value::from("x=y"))));
    }
}
