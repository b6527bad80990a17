//! What machines fetch while they boot: DHCP answers, boot files, boot scripts, kernels, ramdisks, images.
//!
//! This room knows no node and no store; it asks the [`BootDirectory`] what a MAC address may boot now.

pub mod config;
pub mod dhcp_reply;
pub mod ipxe;
pub mod leases;
pub mod serve;

use async_trait::async_trait;
use ferric_common::ids::{MacAddress, NodeUuid};
use std::path::PathBuf;

/// What one machine boots from the network at this moment.
#[derive(Clone, Debug)]
pub struct BootPlan {
    pub node: NodeUuid,
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    /// Further archives loaded after the ramdisk (firmware, operator's additions).
    pub extra_ramdisks: Vec<PathBuf>,
    /// Kernel parameters, checked printable ASCII; `BOOTIF=` is added by the boot script.
    pub kernel_parameters: String,
}

/// Why a machine gets no plan, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// It has nothing to boot. The boot script shows the reason on its console; then it goes on to its disk.
    Nothing(String),
    /// Nobody can say now whether it has: it must ask again, and must not be sent to its disk.
    Unknown(String),
}

/// What the boot services need to know; the conductor answers.
#[async_trait]
pub trait BootDirectory: Send + Sync + 'static {
    /// Whether a MAC belongs to an enrolled node (only those get a lease unless discovery is on); `Err` holds the reason
    /// why nobody can say now.
    async fn knows(&self, mac: MacAddress) -> Result<bool, String>;
    /// What this MAC boots now.
    async fn plan_for_mac(&self, mac: MacAddress) -> Result<BootPlan, NoPlan>;
    /// The same by node, for the kernel and ramdisk requests that the script makes.
    async fn plan_for_node(&self, node: NodeUuid) -> Result<BootPlan, NoPlan>;
    /// Called when a machine has fetched something, so that a wait can say how far it came:
    /// `DHCP answered 10.0.0.5`, `fetched snponly.efi`, `fetched the kernel`.
    async fn seen(&self, mac: Option<MacAddress>, node: Option<NodeUuid>, what: String);
}
