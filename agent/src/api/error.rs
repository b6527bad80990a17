//! Errors of the command API as they go over the wire: a status and a flat JSON body with a `faultstring`, always.

use crate::executor::Refusal;
use ferric_common::wire::error::Fault;

/// What a request is answered with instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("401 Unauthorized: Token invalid.")]
    Token,
    #[error("400 Bad Request: Failed to decode JSON object: {0}")]
    Json(String),
    #[error("400 Bad Request: Missing or invalid name or params")]
    Shape,
    #[error("400 Bad Request: {0}")]
    Request(String),
    #[error(
        "404 Not Found: The requested URL was not found on the server. If you entered the URL manually please check \
         your spelling and try again."
    )]
    Path,
    #[error("405 Method Not Allowed: The method is not allowed for the requested URL.")]
    Method { allow: &'static str },
    #[error("408 Request Timeout: no byte of the body came for {0} s")]
    Slow(u64),
    #[error("413 Request Entity Too Large: a body may have at most {0} bytes")]
    TooLarge(usize),
    #[error("414 Request-URI Too Long: an address may have at most {0} bytes")]
    LongAddress(usize),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("500 Internal Server Error: {0}")]
    Crash(String),
}

impl ApiError {
    pub fn status(&self) -> u16 {
        match self {
            Self::Token => 401,
            Self::Json(_) | Self::Shape | Self::Request(_) => 400,
            Self::Path => 404,
            Self::Method { .. } => 405,
            Self::Slow(_) => 408,
            Self::TooLarge(_) => 413,
            Self::LongAddress(_) => 414,
            Self::Crash(_) => 500,
            Self::Refused(refusal) => match refusal {
                Refusal::Form | Refusal::Command(_) | Refusal::Params(_) => 400,
                Refusal::Extension(_) | Refusal::Result(_) => 404,
                Refusal::Busy(_) => 409,
                Refusal::Crash(_) => 500,
            },
        }
    }
    pub fn fault(&self) -> Fault {
        Fault::new(self.status(), self.to_string())
    }
}
