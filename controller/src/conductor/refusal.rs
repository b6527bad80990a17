//! Why a request about a node is refused, in the words that clients of Ironic know.

use crate::domain::patch::PatchError;
use crate::store::StoreError;
use ferric_common::ids::NodeUuid;

/// A refused request. The API turns each kind into its status.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// 404
    #[error("{0}")]
    NotFound(String),
    /// 400
    #[error("{0}")]
    Invalid(String),
    /// 403
    #[error("{0}")]
    Forbidden(String),
    /// 406
    #[error("Request not acceptable.")]
    NotAcceptable,
    /// 409
    #[error("{0}")]
    Conflict(String),
    /// 409
    #[error("Node {node} is locked by host {holder}, please retry after the current operation is completed.")]
    Locked { node: NodeUuid, holder: String },
    /// 503: nothing was changed.
    #[error("The database is not available: {0}. Nothing was changed, please retry.")]
    Unavailable(String),
    /// 500: a machine or its BMC did not do what was asked within the request.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// Nobody of this name or UUID.
    pub fn no_node(ident: &str) -> Refusal {
        let shown: String = ident.chars().take(255).collect();
        Refusal::NotFound(format!("Node {shown} could not be found."))
    }
    /// The bare 404 of the ramdisk endpoints, which says nothing about why.
    pub fn no_resource() -> Refusal {
        Refusal::NotFound("Resource could not be found.".to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        match error {
            StoreError::Duplicate { what: "name", value } => {
                Refusal::Conflict(format!("A node with name {value} already exists."))
            }
            StoreError::Duplicate { what: "MAC address", value } => {
                Refusal::Conflict(format!("A port with MAC address {value} already exists."))
            }
            StoreError::Duplicate { what: "instance_uuid", value } => {
                Refusal::Conflict(format!("Instance {value} is already associated with another node."))
            }
            StoreError::Duplicate { what, value } => {
                Refusal::Conflict(format!("An object with {what} {value} already exists."))
            }
            StoreError::Lost => {
                Refusal::Conflict("The node was changed by another operation, please retry.".to_string())
            }
            StoreError::Missing => Refusal::no_resource(),
            other => Refusal::Unavailable(other.to_string()),
        }
    }
}

impl From<PatchError> for Refusal {
    fn from(error: PatchError) -> Refusal {
        match error {
            PatchError::Invalid(text) => Refusal::Invalid(text),
            PatchError::Conflict(text) => Refusal::Conflict(text),
            PatchError::NotAcceptable => Refusal::NotAcceptable,
        }
    }
}
