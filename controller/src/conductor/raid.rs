//! The RAID configuration that a client wants for a node. It is made by clean steps.

use super::{Conductor, Refusal};
use crate::domain::node::{Node, Object};
use crate::domain::raid;
use ferric_common::ids::NodeUuid;

/// Whether the node's RAID interface can make something of the configuration.
fn permit(node: &Node, wanted: &Object) -> Result<(), Refusal> {
    // Taking it back is always possible.
    if node.interface("raid") == "no-raid" && !wanted.is_empty() {
        return Err(Refusal::NotFound(format!(
            "Driver {} does not support raid (disabled or not implemented).",
            node.driver
        )));
    }
    raid::check(wanted).map_err(Refusal::Invalid)
}

impl Conductor {
    /// Sets, or with an empty object takes back, what the clean step `raid.create_configuration` makes.
    ///
    /// # Errors
    /// 404 where the node has no RAID interface; 400 for a configuration that breaks a rule; 409 for a node that is busy.
    pub async fn set_target_raid_config(&self, uuid: NodeUuid, wanted: Object) -> Result<(), Refusal> {
        let mut lease = self.lease(uuid).await?;
        permit(&lease.node, &wanted)?;
        lease.node.target_raid_config = wanted;
        lease.save().await?;
        Ok(())
    }
}
