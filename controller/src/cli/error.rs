//! What went wrong, in words for the operator: what was tried, where, what came back, what to do next.

use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("--url '{url}' is not usable: {reason}")]
    Url { url: String, reason: String },
    #[error(
        "{method} {url}: nothing listens there (connection refused). Is ferric-controller running? Another place is given with --url or FERRIC_URL"
    )]
    NotRunning { method: String, url: String },
    #[error("{method} {url}: {reason}. The place of the controller is given with --url or FERRIC_URL")]
    Unreachable { method: String, url: String, reason: String },
    #[error("{method} {url} was answered with {status}: {message}")]
    Answer { method: String, url: String, status: u16, message: String },
    #[error(
        "{method} {url} was answered with something that is not Ironic's API ({reason}): is the URL right?"
    )]
    NotIronic { method: String, url: String, reason: String },
    #[error("reading {what} from {path}: {source}")]
    Read { what: &'static str, path: String, source: io::Error },
    #[error("{0}")]
    Usage(String),
    /// The node ended in a state that is not the wanted one.
    #[error("{0}")]
    Failed(String),
    #[error(
        "node {node} has not reached '{wanted}' within {waited:?}: it is in '{state}'{reason}. It goes on by itself; look again with: ferric node watch {node}"
    )]
    TooLong { node: String, wanted: String, waited: Duration, state: String, reason: String },
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::TooLong { .. } => 2,
            CliError::Usage(_) | CliError::Url { .. } => super::USAGE,
            _ => 1,
        }
    }
}
