//! The step `prepare_instance_boot`: the image is on the disk, and from now on the machine boots from it.

use super::worker::{Stop, stop_for};
use super::{Conductor, Lease};
use crate::domain::validate;
use crate::drivers::{BootDevice, Persistence};
use crate::ramdisk::AgentClient;
use ferric_common::wire::command::{CommandResult, CommandStatus};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the agent may take to write a boot entry (Ironic polls 100 times with 6 s between).
const BOOT_SETUP: Duration = Duration::from_secs(600);
/// The command, as it is sent and as the agent's list shows it.
const COMMAND: &str = "image.install_bootloader";
const LISTED: &str = "install_bootloader";

impl Conductor {
    pub(super) async fn prepare_instance_boot(&self, lease: &mut Lease<'_>) -> Result<(), Stop> {
        let agent = self.agent(&lease.node).map_err(Stop::Fail)?;
        let root = self.image_identity(lease, &agent).await?;
        let mode = validate::boot_mode(&lease.node, &self.settings.default_boot_mode).map_err(Stop::Fail)?;
        // A BIOS boots the disk; a UEFI firmware boots what one of its entries names.
        if mode == "uefi" {
            lease.save_intent("boot entry").await?;
            self.install_bootloader(lease, &agent, root).await?;
        }
        lease.save_intent("boot device disk").await?;
        self.set_boot_device(lease, BootDevice::Disk, Persistence::Always).await
    }

    /// What the agent calls the root of the image, for the record.
    async fn image_identity(&self, lease: &mut Lease<'_>, agent: &AgentClient) -> Result<Value, Stop> {
        match agent.execute("standby.get_partition_uuids", Map::new(), true).await {
            Ok(answer) => {
                let root = answer.command_result.as_ref().and_then(|r| r.get("root uuid")).cloned();
                let Some(root @ Value::String(_)) = root else { return Ok(Value::Null) };
                lease.node.internal.insert("root_uuid_or_disk_id".into(), root.clone());
                Ok(root)
            }
            Err(error) if error.is_transient() => Err(Stop::Later(error.to_string())),
            // A whole-disk image boots without it.
            Err(error) => {
                tracing::warn!(node = %lease.node.uuid, %error, "the image's identity was not read");
                Ok(Value::Null)
            }
        }
    }

    /// Has the agent give the firmware its boot entry, and waits until that is done. Looks first: it may have been told before
    /// a restart.
    async fn install_bootloader(
        &self,
        lease: &Lease<'_>,
        agent: &AgentClient,
        root: Value,
    ) -> Result<(), Stop> {
        let params = json!({"root_uuid": root, "efi_system_part_uuid": null, "prep_boot_part_uuid": null, "target_boot_mode": "uefi"});
        let params = params.as_object().cloned().unwrap_or_default();
        let end = Instant::now() + BOOT_SETUP;
        loop {
            let commands = agent.commands().await.map_err(|e| stop_for("reading the agent's commands", e))?;
            match commands.iter().rev().find(|command| command.command_name == LISTED) {
                None => {
                    let sent = agent.execute(COMMAND, params.clone(), false).await;
                    sent.map_err(|e| stop_for("having the agent write a boot entry", e))?;
                }
                Some(found) => match found.command_status {
                    CommandStatus::Succeeded => return Ok(()),
                    CommandStatus::Running => {}
                    CommandStatus::Failed | CommandStatus::VersionMismatch => {
                        return Err(Stop::Fail(format!(
                            "Failed to install a bootloader when deploying node {}: {}",
                            lease.node.uuid,
                            words(found)
                        )));
                    }
                },
            }
            if Instant::now() >= end {
                return Err(Stop::Fail(format!(
                    "Failed to install a bootloader when deploying node {}: the agent did not end '{COMMAND}' within {} s. Read the machine's console",
                    lease.node.uuid,
                    BOOT_SETUP.as_secs()
                )));
            }
            sleep(self.settings.patience.commands).await;
        }
    }
}

/// How a failed command says why.
fn words(command: &CommandResult) -> &str {
    let error = command.command_error.as_ref();
    let text = error.map(|e| if e.details.is_empty() { e.message.as_str() } else { e.details.as_str() });
    text.filter(|t| !t.is_empty()).unwrap_or("the agent gave no reason")
}
